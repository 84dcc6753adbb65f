"""Several streams read as one, as their parts come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

from llmkernel.client.generation import Delta
from llmkernel.client.streams import AsyncStream


async def merged(streams: Sequence[AsyncStream]) -> AsyncIterator[tuple[int, Delta]]:
    """The deltas of all streams with the number of their stream. The first failure ends all.

    Leaving the iteration early cancels what is left, so close it (`aclosing`).
    """
    waiting = {asyncio.ensure_future(anext(stream, None)): i for i, stream in enumerate(streams)}
    try:
        while waiting:
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in sorted(done, key=waiting.__getitem__):
                number = waiting.pop(task)
                delta = task.result()
                if delta is not None:
                    again = asyncio.ensure_future(anext(streams[number], None))
                    waiting[again] = number
                    yield number, delta
    finally:
        for task in waiting:
            task.cancel()
        for stream in streams:
            stream.close()
        await asyncio.gather(*waiting, return_exceptions=True)
