"""Control access to the page: whom it answers, how often, and with which headers. Errors become JSON responses."""

import ipaddress
import logging
import math
from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from civae_core.errors import CivaeError, DataError, UsageError
from civae_core.serve.limits import Limits, RefusedError, TokenBuckets

LOCAL = ("localhost", "127.0.0.1", "::1")
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "cache-control": "no-store",
}

log = logging.getLogger(__name__)


class Guard:
    """ASGI middleware that admits or refuses requests.

    In `Host`, a browser names the site that it believes it is talking to. If a foreign site's name is made to point
    at this machine (DNS rebinding), that name appears there and the request is refused. So is a request sent here by
    a foreign page, whose site appears in `Origin`. Refused requests have token buckets of their own: a foreign page
    runs in the visitor's own browser, and must not use up what that visitor may ask.

    Args:
        app: the application to guard.
        hosts: names under which the page may be addressed.
        any_address: whether every numerical address is accepted too, as for a page that other machines may open;
            rebinding needs a name.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str], any_address: bool, limits: Limits) -> None:
        self.app, self.any_address, self.limits = app, any_address, limits
        self.hosts = {host.casefold() for host in hosts}
        self.buckets = TokenBuckets(limits.requests_per_second, limits.burst)
        self.strays = TokenBuckets(limits.requests_per_second, limits.burst)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        begun = False

        async def send_guarded(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            self._admit(scope)
            await self.app(scope, receive, send_guarded)
        except Exception as error:
            # If a response has begun, the application has already answered as far as it could and logged the error.
            if not begun:
                await refusal(error)(scope, receive, send_guarded)

    def _admit(self, scope: Scope) -> None:
        stray = self._stray(scope)
        client = scope["client"][0] if scope.get("client") else ""
        seconds = self.strays.take(client) if stray else self.buckets.take(client, self._cost(scope))
        if seconds > 0:
            raise RefusedError(429, "too many requests at once", hint="wait a moment", retry_after=seconds)
        if stray:
            raise stray

    def _stray(self, scope: Scope) -> RefusedError | None:
        """The refusal of a request that is meant for another page or comes from one; None for any other request."""
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        name = _name_of(host)
        if name not in self.hosts and not (self.any_address and _is_address(name)):
            return RefusedError(
                421,
                f"this page is not served as {host!r}",
                hint="allow the name with civae serve --allow-host NAME",
            )
        origin = headers.get("origin")
        if origin is not None and scope["method"] not in ("GET", "HEAD") and _place_of(origin) != host:
            return RefusedError(
                403,
                f"requests from {origin} are not answered",
                hint="open the page at its own address",
            )
        return None

    def _cost(self, scope: Scope) -> float:
        if scope["method"] == "GET":
            return self.limits.look_cost
        return self.limits.upload_cost if scope["path"] == "/api/photos" else 1.0


def refusal(error: Exception) -> JSONResponse:
    """An error as the page shows it: one sentence, with a hint on what to do about it."""
    if isinstance(error, RefusedError):
        status = error.status
    elif isinstance(error, UsageError):
        status = 400
    elif isinstance(error, DataError):
        status = 422
    elif isinstance(error, CivaeError):
        status = 500
    else:
        log.error("internal error: %s: %s", type(error).__name__, error)
        log.debug("traceback", exc_info=error)
        return JSONResponse({"error": "internal error; see the terminal of civae serve"}, 500)
    headers = {}
    if isinstance(error, RefusedError):
        if error.retry_after is not None:
            headers["retry-after"] = str(math.ceil(error.retry_after))
        if status in (408, 413):
            headers["connection"] = "close"  # the rest of the request is not read
    hint = error.hint
    if hint and "--" in hint and not isinstance(error, RefusedError):
        hint = None  # written for the command line, whose flags are of no use on a page
    return JSONResponse({"error": error.message, "hint": hint}, status, headers)


def _name_of(host: str) -> str:
    """Host name without the port: `[::1]:8000` to `::1`, `localhost:8000` to `localhost`."""
    try:
        return (urlsplit(f"//{host}").hostname or "").casefold()
    except ValueError:
        return ""


def _place_of(origin: str) -> str | None:
    """Host and port of an origin: `http://localhost:8000` to `localhost:8000`; None if it is not valid."""
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return None


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
