"""Several readers of one stream: each part goes to one of them, and each hears of the end."""

from __future__ import annotations

import asyncio
import threading

import pytest

from llmkernel.errors import RequestTimedOut

pytestmark = pytest.mark.timeout(30)
GREEDY = {"temperature": 0, "max_tokens": 30}


def test_threads_that_read_one_stream_all_come_to_its_end(llm):
    stream = llm.stream("hello", **GREEDY)
    parts = []

    def read():
        parts.extend(delta.text for delta in stream)

    threads = [threading.Thread(target=read, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert not any(thread.is_alive() for thread in threads)
    assert sorted("".join(parts)) == sorted(llm.generate("hello", **GREEDY).text)


def test_tasks_that_read_one_stream_all_come_to_its_end(llm):
    async def main():
        stream = llm.aio.stream("hello", **GREEDY)

        async def read():
            return [delta.text async for delta in stream]

        return await asyncio.wait_for(asyncio.gather(*(read() for _ in range(4))), 10)

    parts = [part for read in asyncio.run(main()) for part in read]
    assert sorted("".join(parts)) == sorted(llm.generate("hello", **GREEDY).text)


def test_an_answer_that_is_not_streamed_is_handed_out_once(llm):
    asked = {"n": 2, "best_of": 3, "temperature": 1.0, "seed": 7, "max_tokens": 8}
    stream = llm.stream("hello", **asked)
    found = []
    threads = [threading.Thread(target=lambda: found.extend(stream), daemon=True) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert not any(thread.is_alive() for thread in threads)
    assert sorted(delta.index for delta in found) == [0, 1]


def test_time_that_is_up_is_told_to_one_and_ends_all(endless):
    stream = endless.stream("hello", timeout=0.5)
    ends = []

    def read():
        try:
            for _ in stream:
                pass
        except RequestTimedOut:
            ends.append("time")
        else:
            ends.append("end")

    threads = [threading.Thread(target=read, daemon=True) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert not any(thread.is_alive() for thread in threads)
    assert "time" in ends


def test_a_reader_that_is_cancelled_leaves_no_other_waiting(endless):
    async def main():
        stream = endless.aio.stream("hello")

        async def read():
            async for _ in stream:
                pass

        readers = [asyncio.create_task(read()) for _ in range(3)]
        await asyncio.sleep(0.2)
        readers[0].cancel()
        await asyncio.wait_for(asyncio.gather(*readers, return_exceptions=True), 10)

    asyncio.run(main())
