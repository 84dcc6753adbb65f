"""Whole answers that nobody reads: they are kept for a while, and not for good."""

from __future__ import annotations

import asyncio

from tornado.iostream import IOStream

_LOOK_SECONDS = 0.25


def taken(stream: IOStream | None) -> int:
    """Bytes that the system has taken of what was written, which it does as they are read."""
    return (
        int(stream._total_write_done_index) if stream is not None else 0
    )  # nothing public says it


async def read_or_cut(stream: IOStream | None, seconds: float) -> None:
    """Wait until the system has taken what was written; cut who reads nothing for `seconds`.

    tornado has no end to its patience: each such answer, which may have megabytes, would stay
    in memory for as long as its connection.
    """
    loop = asyncio.get_running_loop()
    before, since = -1, loop.time()
    while stream is not None and stream.writing():
        if taken(stream) != before:
            before, since = taken(stream), loop.time()
        elif loop.time() - since >= seconds:
            stream.close()
        await asyncio.sleep(min(_LOOK_SECONDS, seconds / 4))
