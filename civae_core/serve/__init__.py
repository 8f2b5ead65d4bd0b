"""A local web page on trained models: `studio` answers, `app` speaks HTTP, `server` listens.

Starlette and uvicorn rather than the standard library: `http.server` does not decode chunked bodies, bounds neither
connections nor the time that a request takes, has no test client, and its manual advises against it where others can
connect.
"""
