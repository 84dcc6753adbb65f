"""Several answers at once: streams read as one, whole answers waited for together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine, Iterable, Sequence
from typing import Any, TypeVar

from llmkernel.client.generation import Delta
from llmkernel.client.streams import AsyncStream

T = TypeVar("T")


async def together(work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """The results of all, in order. The first failure is raised, and cancels the others."""
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def merged(streams: Sequence[AsyncStream]) -> AsyncGenerator[tuple[int, Delta], None]:
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
