"""Events between the engine's thread and the loop: in order, none lost, and never far ahead."""

from __future__ import annotations

import asyncio
import threading
import time
from itertools import pairwise

import pytest

from llmkernel import protocol
from llmkernel.worker import handover
from llmkernel.worker.handover import Handover
from tests.wire.raw import RawClient
from tests.wire.serving import serving

pytestmark = pytest.mark.timeout(60)


def handed_over(steps, *, seconds=0.0, during=None):
    """What is delivered of `steps`, put by a thread, where each delivery takes `seconds`.

    `during(handover)` is awaited beside it.
    """
    delivered = []

    def deliver(events):
        time.sleep(seconds)
        delivered.append(events)

    async def main():
        made = Handover(asyncio.get_running_loop(), deliver)
        engine = threading.Thread(target=lambda: [made.put(list(step)) for step in steps])
        engine.start()
        beside = asyncio.ensure_future(during(made)) if during is not None else None
        while engine.is_alive() or sum(map(len, delivered)) < sum(map(len, steps)):  # noqa: ASYNC110 - deliveries have no event
            await asyncio.sleep(0.001)
        if beside is not None:
            await beside

    asyncio.run(asyncio.wait_for(main(), 30))
    return delivered


def test_every_step_comes_once_and_in_order():
    steps = [[(step, row) for row in range(1 + step % 7)] for step in range(3000)]
    assert handed_over(steps) == steps


def test_the_loop_has_turns_for_others_while_the_engine_is_faster():
    turns = []

    async def others(_):
        while len(turns) < 60:
            turns.append(time.monotonic())
            await asyncio.sleep(0)

    handed_over([[0] * 600] * 400, seconds=0.004, during=others)
    gaps = [later - earlier for earlier, later in pairwise(turns)]
    assert max(gaps) < 0.5, "two deliveries of 4 ms and what a busy machine adds; all take 1.6 s"


def test_the_engine_waits_while_too_many_steps_do():
    ahead = []

    async def look(made):
        for _ in range(100):
            ahead.append(len(made._waiting))
            await asyncio.sleep(0)

    handed_over([[0] * 600] * 300, seconds=0.001, during=look)
    assert handover.MOST_STEPS - 2 <= max(ahead) <= handover.MOST_STEPS


def test_a_loop_that_does_not_turn_holds_the_engine_for_a_bounded_time(monkeypatch):
    monkeypatch.setattr(handover, "MOST_SECONDS", 0.05)
    loop = asyncio.new_event_loop()
    made = Handover(loop, lambda events: None)
    began = time.monotonic()
    for _ in range(handover.MOST_STEPS + 3):
        made.put([0])
    assert 0.15 <= time.monotonic() - began < 5
    loop.close()


def test_closing_lets_the_engine_go_on_and_delivers_nothing_more():
    delivered = []
    loop = asyncio.new_event_loop()
    made = Handover(loop, delivered.append)

    def engine():
        for _ in range(2 * handover.MOST_STEPS):
            made.put([0])

    thread = threading.Thread(target=engine)
    thread.start()
    thread.join(0.2)
    assert thread.is_alive(), "it waits for room"
    made.close()
    thread.join(10)
    assert not thread.is_alive()
    loop.call_soon(loop.stop)
    loop.run_forever()
    loop.close()
    made.put([0])
    assert delivered == []


def test_the_loop_itself_does_not_wait_for_itself():
    delivered = []

    async def main():
        made = Handover(asyncio.get_running_loop(), delivered.extend)
        began = time.monotonic()
        for number in range(3 * handover.MOST_STEPS):
            made.put([number])
        assert time.monotonic() - began < handover.MOST_SECONDS
        await asyncio.sleep(0.05)

    asyncio.run(main())
    assert delivered == list(range(3 * handover.MOST_STEPS))


def test_what_breaks_a_delivery_does_not_keep_the_next_ones_back():
    delivered, raised = [], []

    def deliver(events):
        if not raised:
            raised.append(events)
            raise ZeroDivisionError
        delivered.extend(events)

    async def main():
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: raised.append(context["exception"]))
        made = Handover(loop, deliver)
        for number in range(3):
            made.put([number] * 600)
        await asyncio.sleep(0.05)

    asyncio.run(main())
    assert delivered == [1] * 600 + [2] * 600
    assert isinstance(raised[1], ZeroDivisionError)


def test_an_engine_that_is_faster_than_the_loop_is_not_far_ahead_of_it(runtime_dir):
    """Streams without credit pause before they have made many more tokens than they may send."""
    model = "scripted:eos_after=100000,context_length=20000,blocks=40000"
    with serving(model) as served, RawClient(served.connection) as raw:
        for key in range(64):
            raw.submit(key=key, prompt=f"{key}", max_tokens=15_000)
        sent = 0
        while sent < 64 * protocol.CREDIT_WINDOW:
            message = raw.listen(5.0)
            if isinstance(message, protocol.Deltas):
                sent += sum(len(delta.token_ids) for delta in message.deltas)
        most = 64 * (protocol.CREDIT_WINDOW + 2 * handover.MOST_STEPS)
        assert served.engine.load().tokens_generated <= most
