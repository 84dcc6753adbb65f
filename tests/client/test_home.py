"""A link on the caller's own loop: no thread, the same answers, and nothing left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import threading

import pytest

from llmkernel import connection as files
from llmkernel.client import AsyncClient
from llmkernel.client.background import Here
from llmkernel.client.link import Link
from llmkernel.errors import ConnectionProblem, WorkerDied

pytestmark = pytest.mark.timeout(60)


def on_own_loop(connection, ask):
    """What `ask(client)` gives, with a client that lives on the loop which runs it."""

    async def run():
        home = Here()
        link = Link(connection, home=home)
        try:
            return await ask(AsyncClient(link))
        finally:
            link.close()
            await home.close()

    return asyncio.run(run())


async def running(client, count):
    """Wait until the worker has so many."""
    while (await client.status()).load.running != count:  # noqa: ASYNC110 - no event for it
        await asyncio.sleep(0.01)


async def rest(stream):
    async for _ in stream:
        pass


def test_it_answers_as_from_the_thread(llm):
    async def ask(client):
        deltas = [delta.text async for delta in client.stream("Tell me", temperature=0)]
        return "".join(deltas), await client.tokenize("Tell me"), await client.status()

    text, tokens, status = on_own_loop(llm.connection, ask)
    assert text == llm.generate("Tell me", temperature=0).text
    assert tokens == llm.tokenize("Tell me")
    assert status.instance == llm.connection.instance


def test_there_is_no_thread(start_worker):
    connection = start_worker("scripted")

    async def ask(client):
        await client.generate("Tell me", max_tokens=5)
        return [thread.name for thread in threading.enumerate()]

    before = [thread.name for thread in threading.enumerate()]
    assert on_own_loop(connection, ask) == before


def test_a_cancelled_task_cancels_its_request(endless):
    async def ask(client):
        reading = asyncio.create_task(client.generate("Tell me"))
        await running(client, 1)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        await running(client, 0)

    on_own_loop(endless.connection, ask)


def test_many_streams_side_by_side(llm):
    async def ask(client):
        answers = await asyncio.gather(
            *(client.generate(f"{number}", temperature=0) for number in range(40))
        )
        return [answer.text for answer in answers]

    expected = [answer.text for answer in llm.map([str(n) for n in range(40)], temperature=0)]
    assert on_own_loop(llm.connection, ask) == expected


def test_another_thread_may_ask(llm):
    async def ask(client):
        def from_there():
            return asyncio.run(client.generate("Tell me", temperature=0)).text

        return await asyncio.to_thread(from_there)

    assert on_own_loop(llm.connection, ask) == llm.generate("Tell me", temperature=0).text


def test_a_worker_that_dies_is_told(start_worker):
    connection = start_worker("scripted:step_ms=5,eos_after=100000")

    async def ask(client):
        stream = client.stream("Tell me")
        await anext(stream)
        os.kill(connection.pid, signal.SIGKILL)
        with pytest.raises(WorkerDied):
            await rest(stream)

    on_own_loop(connection, ask)


def test_closed_amid_a_stream_it_listens_no_more(endless):
    async def descriptors():
        listened = asyncio.get_running_loop()._selector.get_map()
        before, home = len(listened), Here()
        link = Link(endless.connection, home=home)
        stream = AsyncClient(link).stream("Tell me")
        await anext(stream)
        link.close()
        await home.close()
        return len(listened) - before

    assert asyncio.run(descriptors()) == 0


def test_once_it_is_closed_it_says_so(llm):
    async def ask(client):
        client._link.close()
        with pytest.raises(ConnectionProblem, match="closed"):
            await client.status()

    on_own_loop(files.find(llm.connection.name), ask)
