"""Read request bodies within limits on size and time."""

import asyncio
from collections.abc import AsyncIterator

from starlette.requests import ClientDisconnect, Request

from civae_core.serve.limits import Limits, RefusedError


async def read_body(request: Request, most: int, limits: Limits) -> bytes:
    """Read a request's whole body.

    Raises:
        RefusedError: the body is longer than `most` bytes (refused before reading if its length is stated), is
            incomplete when its time is up or its sender leaves, or pauses for too long.
    """
    stated = request.headers.get("content-length", "")
    if stated.isdecimal() and int(stated) > most:
        raise _too_long(most)
    data = bytearray()
    chunks = request.stream()
    try:
        async with asyncio.timeout(limits.upload_seconds):
            while (chunk := await _next(chunks, limits.silence_seconds)) is not None:
                data += chunk
                if len(data) > most:
                    raise _too_long(most)
    except TimeoutError as error:
        raise RefusedError(
            408, "the upload took too long", hint="try again, or send a smaller photograph"
        ) from error
    except ClientDisconnect as error:  # nobody is left to be told
        raise RefusedError(400, "the upload broke off", hint="try again") from error
    return bytes(data)


async def _next(chunks: AsyncIterator[bytes], seconds: float) -> bytes | None:
    async with asyncio.timeout(seconds):
        return await anext(chunks, None)


def _too_long(most: int) -> RefusedError:
    shown = f"{most / 2**20:g} MB" if most >= 2**20 else f"{most:,} bytes"
    return RefusedError(
        413, f"more than {shown}, the most that this page takes", hint="save the photograph with fewer pixels"
    )
