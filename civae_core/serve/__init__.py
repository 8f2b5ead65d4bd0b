"""A local web page for trained models: `studio` answers, `app` speaks HTTP, `server` listens.

It uses Starlette and uvicorn rather than the standard library: `http.server` does not decode chunked bodies, limits
neither connections nor the duration of a request, has no test client, and its manual advises against using it where
others can connect.
"""
