"""Text work in threads: clients take turns, and none has all the threads."""

from __future__ import annotations

import asyncio
import gc
import threading

import pytest

from llmkernel.worker.text_threads import TextThreads

pytestmark = pytest.mark.timeout(20)


@pytest.fixture
def held():
    """Set it to let the held work go on."""
    event = threading.Event()
    yield event
    event.set()


def test_a_client_with_many_long_texts_leaves_a_thread_to_the_others(held):
    async def main() -> str:
        threads = TextThreads(2)
        long = [threads.run("greedy", held.wait) for _ in range(20)]
        short = await asyncio.wait_for(threads.run("other", lambda: "at once"), 5)
        assert not any(work.done() for work in long)
        held.set()
        assert all(await asyncio.gather(*long))
        threads.close()
        return short

    assert asyncio.run(main()) == "at once"


def test_clients_take_turns_and_each_one_keeps_its_order():
    begun = []

    async def main() -> None:
        threads = TextThreads(2)
        gate = threading.Event()
        first = [threads.run(owner, gate.wait) for owner in "xy"]  # every thread is taken
        rest = [
            threads.run(owner, lambda owner=owner, number=number: begun.append((owner, number)))
            for owner in "abc"
            for number in range(3)
        ]
        gate.set()
        await asyncio.gather(*first, *rest)
        threads.close()

    asyncio.run(main())
    for owner in "abc":
        assert [number for one, number in begun if one == owner] == [0, 1, 2]
    assert {owner for owner, _ in begun[:4]} >= {"a", "b"}, "c waits for no whole row of a's"
    assert begun[-1][1] == 2


def test_work_that_was_cancelled_before_it_began_is_not_done(held):
    done = []

    async def main() -> None:
        threads = TextThreads(2)
        running = threads.run("one", held.wait)
        waiting = threads.run("one", lambda: done.append("cancelled"))
        last = threads.run("one", lambda: done.append("last"))
        waiting.cancel()
        held.set()
        await asyncio.gather(running, last)
        threads.close()

    asyncio.run(main())
    assert done == ["last"]


def test_an_error_reaches_the_one_who_waits_and_the_thread_goes_on():
    async def main() -> None:
        threads = TextThreads(2)
        with pytest.raises(ZeroDivisionError):
            await threads.run("one", lambda: 1 / 0)
        assert await threads.run("one", lambda: 7) == 7
        threads.close()

    asyncio.run(main())


def test_closing_leaves_nobody_waiting(held):
    async def main() -> None:
        threads = TextThreads(2)
        running = threads.run("one", held.wait)
        waiting = threads.run("one", lambda: None)
        threads.close()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        held.set()
        assert await running

    asyncio.run(main())


def test_an_error_that_nobody_waits_for_is_not_logged(held, caplog):
    async def main() -> None:
        threads = TextThreads(2)

        def break_with_the_text() -> None:
            held.wait()
            raise ValueError("the prompt of somebody")

        work = threads.run("a", break_with_the_text)
        await asyncio.sleep(0.05)
        work.cancel()
        held.set()
        await threads.run("a", lambda: None)
        threads.close()

    asyncio.run(main())
    gc.collect()
    assert "prompt of somebody" not in caplog.text
