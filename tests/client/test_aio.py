"""The awaiting face: the same answers, and a loop that goes on while it waits."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import time
from contextlib import aclosing
from types import ModuleType

import pytest

from llmkernel.errors import InvalidRequest, RequestTimedOut
from tests.conftest import wait_until

pytestmark = pytest.mark.timeout(30)

GREEDY = {"temperature": 0, "max_tokens": 20}


def idle(client):
    wait_until(lambda: client.status().load.running == 0, seconds=2, what="the worker to be idle")


def test_both_faces_give_the_same(llm):
    async def main():
        answer = await llm.aio.generate("hello", **GREEDY)
        deltas = [delta async for delta in llm.aio.stream("hello", **GREEDY)]
        chat = await llm.aio.chat("hi", **GREEDY)
        async with llm.aio.stream_chat("hi", **GREEDY) as stream:
            pieces = [piece async for piece in stream]
        mapped = await llm.aio.map(["hello", ""], progress=False, **GREEDY)
        ids = await llm.aio.tokenize("hello")
        return answer, deltas, chat, pieces, mapped, ids, await llm.aio.detokenize(ids[1:])

    answer, deltas, chat, pieces, mapped, ids, text = asyncio.run(main())
    assert answer.text == "".join(map(str, deltas)) == llm.generate("hello", **GREEDY).text
    assert chat.text == "".join(map(str, pieces)) == llm.chat("hi", **GREEDY).text
    assert mapped[0].text == answer.text
    assert isinstance(mapped[1], InvalidRequest)
    assert (ids, text) == (llm.tokenize("hello"), "hello")


def test_hundreds_of_tasks_share_one_client(llm):
    async def main():
        return await asyncio.gather(
            *(llm.aio.generate(f"task {number}", **GREEDY) for number in range(200))
        )

    answers = asyncio.run(main())
    assert answers[77].text == llm.generate("task 77", **GREEDY).text


def test_blocking_calls_work_inside_a_running_loop(llm):
    async def main():
        return llm.generate("hello", **GREEDY), list(llm.stream("hello", **GREEDY))

    answer, deltas = asyncio.run(main())
    assert answer.text == "".join(map(str, deltas))


def test_one_client_serves_several_loops(llm):
    answers = []

    def loop():
        answers.append(asyncio.run(llm.aio.generate("hello", **GREEDY)).text)

    threads = [threading.Thread(target=loop) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert answers == [llm.generate("hello", **GREEDY).text] * 4


def test_an_answer_that_was_closed_early_has_the_workers_own_count(endless):
    async def main():
        async with aclosing(endless.aio.stream("hello", max_tokens=10_000)) as stream:
            await anext(stream)
        return stream.generation

    answer = asyncio.run(main())
    assert answer.finish_reason == "cancelled"
    assert answer.usage.completion_tokens >= len(answer.token_ids) > 0
    assert answer.usage.prompt_tokens > 0
    assert answer.timings.decode > 0
    idle(endless)


def test_a_cancelled_task_cancels_its_request_and_keeps_what_there_is(endless):
    async def main():
        task = asyncio.create_task(endless.aio.generate("hello", max_tokens=10_000))
        await asyncio.sleep(0.4)
        task.cancel()
        began = time.monotonic()
        try:
            await task
        except asyncio.CancelledError as stop:
            return stop, time.monotonic() - began

    stop, took = asyncio.run(main())
    assert took < 0.5
    assert len(stop.partial.text) > 10
    idle(endless)


def test_an_asyncio_timeout_cancels_the_request(endless):
    async def main():
        async with asyncio.timeout(0.3):
            async for _ in endless.aio.stream("hello", max_tokens=10_000):
                pass

    with pytest.raises(TimeoutError):
        asyncio.run(main())
    idle(endless)


def test_a_timeout_of_ours_raises_ours(endless):
    with pytest.raises(RequestTimedOut):
        asyncio.run(endless.aio.generate("hello", max_tokens=10_000, timeout=0.3))
    idle(endless)


def test_leaving_a_stream_cancels_it(endless):
    async def main():
        async for _ in endless.aio.stream("hello", max_tokens=10_000):
            break
        gc.collect()

    asyncio.run(main())
    idle(endless)


def test_the_loop_of_a_kernel_wakes_twenty_times_a_second_while_it_waits(start_worker, monkeypatch):
    """ipykernel asks for the end of an async cell without waking the loop: it has to wake by itself."""
    from llmkernel import Client

    monkeypatch.setitem(sys.modules, "ipykernel.kernelapp", ModuleType("ipykernel.kernelapp"))

    with Client(start_worker("scripted:step_ms=2000", name="slow")) as slow:

        async def main():
            task = asyncio.ensure_future(slow.aio.generate("hello", max_tokens=5))
            await asyncio.sleep(0.3)
            loop = asyncio.get_running_loop()
            asked = []

            def ask():
                # what a signal handler on the loop's own thread does: no wake-up
                asked.append(time.monotonic())
                loop._ready.append(asyncio.Handle(task.cancel, (), loop))

            threading.Timer(0.2, ask).start()
            try:
                await task
            except asyncio.CancelledError:
                return time.monotonic() - asked[0]

        # up to a tick until it is heard, and the farewell, which waits for the step to end
        assert asyncio.run(main()) < 0.6


def test_an_inbox_whose_loop_is_gone_harms_nobody(endless):
    async def main():
        endless.aio.stream("hello", max_tokens=50)
        stream = endless.aio.stream("hello", max_tokens=10_000)
        await anext(stream)
        return stream

    stream = asyncio.run(main())
    time.sleep(0.1)
    stream.close()
    idle(endless)
