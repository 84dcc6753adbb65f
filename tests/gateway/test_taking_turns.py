"""A few at a time: order, no delay where there is time, timers that come between."""

from __future__ import annotations

import asyncio
import time

import pytest

from llmkernel.gateway import turns
from llmkernel.gateway.turns import Turns

pytestmark = pytest.mark.timeout(20)


def work(seconds):
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


def test_who_asks_alone_does_not_wait():
    async def alone():
        some, handles = Turns(), []
        asyncio.get_running_loop().call_soon(handles.append, "the loop went on")
        for _ in range(20):
            await some.take()
        return list(handles)

    assert asyncio.run(alone()) == []


def test_many_go_on_in_order_and_a_timer_comes_between():
    async def many():
        some, order, late = Turns(), [], []

        async def one(number):
            await some.take()
            order.append(number)
            work(0.001)

        async def beat():
            while len(order) < 100:
                began = time.perf_counter()
                await asyncio.sleep(0.001)
                late.append(time.perf_counter() - began - 0.001)

        await asyncio.gather(beat(), *(one(number) for number in range(100)))
        return order, late

    order, late = asyncio.run(many())
    assert sorted(order) == list(range(100))
    assert order == sorted(order)
    assert len(late) >= 5, "all of them ran in one turn of the loop"


def test_what_is_to_be_done_soon_is_done_a_few_in_a_turn():
    async def many():
        some, done, seen = Turns(), [], []
        for number in range(3 * turns._GROUP):
            some.soon(done.append, number)
        while len(done) < 3 * turns._GROUP:
            await asyncio.sleep(0)
            seen.append(len(done))
        return done, seen

    done, seen = asyncio.run(many())
    assert done == sorted(done)
    assert [count for count in seen if count] == [8, 16, 24]


def test_one_that_is_cancelled_holds_nobody_up():
    async def some_cancelled():
        some, went_on = Turns(), []

        async def one(number):
            await some.take()
            went_on.append(number)
            work(0.002)

        tasks = [asyncio.create_task(one(number)) for number in range(40)]
        await asyncio.sleep(0)
        for task in tasks[10::2]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return went_on

    went_on = asyncio.run(some_cancelled())
    assert {*range(10), *range(11, 40, 2)} <= set(went_on)


def test_it_ends_when_nobody_asks():
    async def ask_once():
        some, loop = Turns(), asyncio.get_running_loop()
        await some.take()
        for _ in range(3):
            await asyncio.sleep(0)
        return len(loop._ready)

    assert asyncio.run(ask_once()) == 0
