"""Several answers at once, without a worker: order, failures, and nothing left behind."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from llmkernel.client.generation import Delta
from llmkernel.errors import StepFailed
from llmkernel.gateway.translation.merging import merged, together


class Script:
    """A stream of some texts, that may fail at its end or never end."""

    def __init__(self, *texts, failure=None, stuck=False):
        self.texts, self.failure, self.stuck = list(texts), failure, stuck
        self.closed = False

    async def __anext__(self):
        await asyncio.sleep(0)
        if self.texts:
            return Delta(self.texts.pop(0), [1])
        if self.failure:
            raise self.failure
        if self.stuck:
            await asyncio.Event().wait()
        raise StopAsyncIteration

    def close(self):
        self.closed = True


async def read(streams):
    async with aclosing(merged(streams)) as parts:
        return [(number, delta.text) async for number, delta in parts]


def test_every_delta_comes_with_the_number_of_its_stream():
    parts = asyncio.run(read([Script("a", "b", "c"), Script(), Script("x")]))
    assert [text for number, text in parts if number == 0] == ["a", "b", "c"]
    assert sorted(set(parts) - {(0, "a"), (0, "b"), (0, "c")}) == [(2, "x")]


def test_the_first_failure_ends_all():
    streams = [Script("a", failure=StepFailed("broke")), Script("x", stuck=True)]
    with pytest.raises(StepFailed):
        asyncio.run(read(streams))
    assert all(stream.closed for stream in streams)


def test_leaving_early_closes_all():
    streams = [Script("a", stuck=True), Script(stuck=True)]

    async def first():
        async with aclosing(merged(streams)) as parts:
            return await anext(parts)

    assert asyncio.run(first())[1].text == "a"
    assert all(stream.closed for stream in streams)


def test_together_keeps_the_order():
    async def late(value, turns):
        for _ in range(turns):
            await asyncio.sleep(0)
        return value

    async def main():
        return await together([late("a", 5), late("b", 0), late("c", 2)])

    assert asyncio.run(main()) == ["a", "b", "c"]


def test_together_raises_the_failure_itself_and_cancels_the_others():
    ended = []

    async def stuck():
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("cancelled")

    async def fails():
        await asyncio.sleep(0)
        raise StepFailed("broke")

    async def main():
        await together([stuck(), fails()])

    with pytest.raises(StepFailed):
        asyncio.run(main())
    assert ended == ["cancelled"]
