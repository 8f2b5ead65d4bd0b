"""The page over HTTP: its files, and a small JSON API.

    GET    /api/page                    models with their sliders, number of examples, limits
    GET    /api/examples/N.png          an example
    POST   /api/photos?align=&face=     a picture's bytes                → {"photo", "faces", "aligned", "native"}
    POST   /api/examples/N              chooses an example               → the same
    POST   /api/photos/PHOTO/answer     a question (`question.py`)       → {"limit", "answers"}
    POST   /api/photos/PHOTO/download   a question                       → a PNG
    DELETE /api/photos/PHOTO            forgets it

An error is {"error": sentence, "hint": sentence or null}. No file path is ever taken from a request: the page's three
files are read when the server starts, and photographs stay in memory.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection
from importlib import resources
from typing import TypeVar

import anyio
import anyio.to_thread
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from civae_core.align.choice import Align
from civae_core.errors import CivaeError
from civae_core.figures.pictures import png_bytes, to_picture
from civae_core.serve.bodies import read_body
from civae_core.serve.guard import LOCAL, Guard, refusal
from civae_core.serve.limits import RefusedError
from civae_core.serve.question import Question, parse_question
from civae_core.serve.sittings import Sitting, Sittings
from civae_core.serve.studio import Studio

Result = TypeVar("Result")

FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
}


def make_app(studio: Studio, hosts: Collection[str] = LOCAL, *, any_address: bool = False) -> ASGIApp:
    """The application that serves the whole page. Its limits are the studio's.

    Args:
        studio: the models.
        hosts, any_address: the names under which visitors may address the page, see `Guard`.
    """
    page = _Page(studio)
    routes = [Route(path, _file(*entry)) for path, entry in FILES.items()]
    routes += [
        Route("/api/page", page.described),
        Route("/api/examples/{number:int}.png", page.example),
        Route("/api/examples/{number:int}", page.choose, methods=["POST"]),
        Route("/api/photos", page.upload, methods=["POST"]),
        Route("/api/photos/{photo}", page.forget, methods=["DELETE"]),
        Route("/api/photos/{photo}/answer", page.answer, methods=["POST"]),
        Route("/api/photos/{photo}/download", page.download, methods=["POST"]),
    ]
    handlers = {HTTPException: _not_there, CivaeError: _refused, Exception: _refused}
    app = Starlette(routes=routes, exception_handlers=handlers)
    return Guard(app, hosts, any_address, studio.limits)


class _Page:
    """Request handlers. Models are asked one question at a time, since two at once would take turns anyway."""

    def __init__(self, studio: Studio) -> None:
        self.studio, self.limits = studio, studio.limits
        self.sittings = Sittings(studio.limits)
        self._thread = anyio.CapacityLimiter(1)
        self._waiting = 0
        self._uploads = 0
        self._timer: asyncio.TimerHandle | None = None

    async def described(self, request: Request) -> Response:
        return JSONResponse(self.studio.described())

    async def example(self, request: Request) -> Response:
        picture = self.studio.examples[self._example_number(request)]
        return Response(png_bytes(to_picture(picture.pixels_CHW)), media_type="image/png")

    async def choose(self, request: Request) -> Response:
        return await self._sit(Sitting(example=self.studio.examples[self._example_number(request)]))

    async def upload(self, request: Request) -> Response:
        align = request.query_params.get("align", Align.AUTO)
        face = request.query_params.get("face", "largest")
        if align not in tuple(Align):
            raise RefusedError(
                400, f"align {align!r}: expected auto, always or never", hint="the default is auto"
            )
        if face != "largest" and not (face.isdecimal() and len(face) <= 4):
            raise RefusedError(
                400, f"face {face!r}: expected largest or a number", hint="the default is largest"
            )
        if self._uploads >= self.limits.uploads_at_once:
            raise RefusedError(503, "too many uploads at once", hint="try again in a moment", retry_after=1)
        self._uploads += 1
        try:
            data = await read_body(request, self.limits.upload_bytes, self.limits)
        finally:
            self._uploads -= 1
        return await self._sit(Sitting(data, align=Align(align), face=face))

    async def forget(self, request: Request) -> Response:
        self.sittings.forget(request.path_params["photo"])
        return JSONResponse({})

    async def answer(self, request: Request) -> Response:
        return JSONResponse(await self._ask(request, self.studio.answer))

    async def download(self, request: Request) -> Response:
        return Response(await self._ask(request, self.studio.download), media_type="image/png")

    async def _sit(self, sitting: Sitting) -> Response:
        found = await self._work(lambda: self.studio.sit(sitting))
        name = self.sittings.add(sitting)
        if self._timer is None:
            self._forget_in_time()
        return JSONResponse({"photo": name} | found)

    def _forget_in_time(self) -> None:
        """Forget what has expired even if no request comes, while anything is kept; ends with the event loop."""
        seconds = self.sittings.forget_expired()
        again = asyncio.get_running_loop().call_later
        self._timer = again(seconds, self._forget_in_time) if len(self.sittings) else None

    async def _ask(self, request: Request, ask: Callable[[Sitting, Question], Result]) -> Result:
        sitting = self.sittings.get(request.path_params["photo"])
        if sitting is None:
            raise RefusedError(404, "this photograph is no longer kept", hint="choose it again")
        question = parse_question(await read_body(request, self.limits.question_bytes, self.limits))
        try:
            return await self._work(lambda: ask(sitting, question))
        finally:
            self.sittings.make_room(sitting)

    async def _work(self, ask: Callable[[], Result]) -> Result:
        """Run `ask` in the one thread that asks models.

        Raises:
            RefusedError: too many requests are waiting for that thread.
        """
        if self._waiting >= self.limits.waiting:
            raise RefusedError(
                503, "too many requests are waiting", hint="try again in a moment", retry_after=1
            )
        self._waiting += 1
        try:
            return await anyio.to_thread.run_sync(ask, limiter=self._thread)
        finally:
            self._waiting -= 1

    def _example_number(self, request: Request) -> int:
        number: int = request.path_params["number"]
        if number >= len(self.studio.examples):
            raise RefusedError(404, f"there is no example {number}", hint="reload the page")
        return number


def _file(name: str, media_type: str) -> Callable[[Request], Awaitable[Response]]:
    content = (resources.files("civae_core.serve") / "page" / name).read_bytes()

    async def send(request: Request) -> Response:
        return Response(content, media_type=media_type)

    return send


def _refused(request: Request, error: Exception) -> Response:
    return refusal(error)


def _not_there(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    said = f"{request.method} {request.url.path}: {error.detail}"
    return refusal(RefusedError(error.status_code, said, hint="the page itself is at /"))
