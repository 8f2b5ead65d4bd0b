"""The server: its listening socket, its limits on slow clients, and its end by Ctrl-C."""

import asyncio
import errno
import ipaddress
import logging
import signal
import socket
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from civae_core.errors import InterruptedRunError, UsageError
from civae_core.serve.limits import Limits

SEND_BUFFER = 2**17
"""Bytes of an answer that the system buffers for a client. By default it would buffer megabytes, and an answer that
is fetched slowly would seem to stall until a good part of them is sent."""

_ADDRESSES = "use 127.0.0.1 for this machine alone, or 0.0.0.0 for all its addresses"
_LISTENING = {
    errno.EADDRINUSE: "use --port 0 for a free port",
    errno.EACCES: "ports below 1024 need administrator rights; use --port 0 for a free port",
}


def listen(host: str, port: int) -> socket.socket:
    """Open a listening socket; port 0 chooses a free port.

    Raises:
        UsageError: the address is not this machine's, or the port is taken or needs administrator rights.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.create_server(address[:2], family=family, backlog=64)
    except (socket.gaierror, UnicodeError) as error:  # the latter for names that no machine can have
        reason = error.strerror if isinstance(error, socket.gaierror) else "Name or service not known"
        raise UsageError(f"--host {host}: {reason}", hint=_ADDRESSES) from error
    except OSError as error:
        hint = _LISTENING.get(error.errno or 0, _ADDRESSES)
        raise UsageError(f"--host {host} --port {port}: {error.strerror or error}", hint=hint) from error
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)  # inherited by every connection
    return listening


def url_of(host: str, listening: socket.socket) -> str:
    """The URL at which a browser on this machine finds the page."""
    port = listening.getsockname()[1]
    if is_everywhere(listening):
        host = "::1" if listening.family == socket.AF_INET6 else "127.0.0.1"
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def is_local(listening: socket.socket) -> bool:
    """Whether only this machine can connect to the socket."""
    return ipaddress.ip_address(listening.getsockname()[0]).is_loopback


def is_everywhere(listening: socket.socket) -> bool:
    """Whether the socket listens on all addresses of this machine, as for `0.0.0.0`, also written `0`."""
    return ipaddress.ip_address(listening.getsockname()[0]).is_unspecified


def server_of(app: ASGIApp, limits: Limits) -> uvicorn.Server:
    """The server of an application, with its timeouts and number of connections as limited."""
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # malformed requests are not worth reporting
    config = uvicorn.Config(
        app,
        http=_protocol(limits.silence_seconds),
        ws="none",
        lifespan="off",
        loop="asyncio",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # else a client could claim any address, and use up another's share of requests
        limit_concurrency=limits.connections,
        timeout_keep_alive=round(limits.silence_seconds),
        timeout_graceful_shutdown=2,
    )
    return uvicorn.Server(config)


def run(app: ASGIApp, listening: socket.socket, limits: Limits) -> None:
    """Serve until the process is told to stop; SIGTERM is a regular end.

    Raises:
        InterruptedRunError: the process was stopped by Ctrl-C.
    """
    before = signal.signal(signal.SIGTERM, lambda *_: None)  # uvicorn stops, then raises it once more
    try:
        server_of(app, limits).run(sockets=[listening])
    except KeyboardInterrupt as error:
        raise InterruptedRunError("stopped; no photographs are kept") from error
    finally:
        signal.signal(signal.SIGTERM, before)
        listening.close()


def _protocol(seconds: float) -> type[H11Protocol]:
    class ImpatientProtocol(H11Protocol):
        """Ends connections that uvicorn would wait for forever: those whose request head is not complete in time, and
        those whose client fetches nothing of its answer."""

        _hurry: asyncio.TimerHandle | None = None
        _look: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            transport.set_write_buffer_limits(high=0)  # pause writing, and watch it, while any byte waits
            self._expect_head()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.cycle is not None and not self.cycle.response_complete:
                self._stop_waiting()
            else:
                self._expect_head()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_waiting()
            self._stop_watching()
            super().connection_lost(exc)

        def pause_writing(self) -> None:
            super().pause_writing()
            self._watch(self.transport.get_write_buffer_size())

        def resume_writing(self) -> None:
            self._stop_watching()
            super().resume_writing()

        def _expect_head(self) -> None:
            if self._hurry is None:
                self._hurry = self.loop.call_later(seconds, self.transport.close)

        def _stop_waiting(self) -> None:
            if self._hurry is not None:
                self._hurry.cancel()
                self._hurry = None

        def _watch(self, waiting: int) -> None:
            """Check again later how many bytes still wait to be fetched."""
            self._look = self.loop.call_later(seconds, self._end_unless_fewer_than, waiting)

        def _end_unless_fewer_than(self, before: int) -> None:
            waiting = self.transport.get_write_buffer_size()
            if waiting < before:
                self._watch(waiting)
            else:
                self.transport.abort()  # closing it would wait until everything is fetched

        def _stop_watching(self) -> None:
            if self._look is not None:
                self._look.cancel()
                self._look = None

    return ImpatientProtocol
