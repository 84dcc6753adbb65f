"""Letters wait outside the socket, clients take turns, and there is an end to what waits."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import Callable

import zmq

from llmkernel.worker import inbox
from llmkernel.worker.inbox import Inbox, Letter


def letter(sender: bytes, size: int = 1) -> Letter:
    return Letter.of(sender, "somebody", zmq.Frame(bytes(size)))


async def emptied(box: Inbox) -> None:
    for _ in range(5000):
        if not box._waiting:
            return
        await asyncio.sleep(0.001)
    raise AssertionError("it still has letters")


def handled(
    fill: Callable[[Inbox], None], handle: Callable[[Letter], None] = lambda _: None
) -> tuple[list[Letter], list[bool]]:
    """The letters in the order in which they were handled, and what the socket was told."""
    read: list[Letter] = []
    held: list[bool] = []

    async def talk() -> None:
        box = Inbox(
            asyncio.get_running_loop(), lambda one: (read.append(one), handle(one))[1], held.append
        )
        fill(box)
        await emptied(box)

    asyncio.run(talk())
    return read, held


def test_clients_take_turns_and_each_ones_letters_stay_in_order() -> None:
    many = [letter(b"a", size) for size in range(1, 5)]
    few = [letter(b"b", size) for size in range(1, 3)]
    read, _ = handled(lambda box: [box.put(one) for one in (*many, *few)] and None)
    assert read == [many[0], few[0], many[1], few[1], many[2], many[3]]


def test_where_much_waits_the_socket_is_left_alone_until_half_of_it_is_done() -> None:
    size = inbox.MAX_BYTES // 8
    done: list[int] = []

    def fill(box: Inbox) -> None:
        for _ in range(9):
            box.put(letter(b"a", size))
        assert box._held

    read, held = handled(fill, lambda _: done.append(1))
    assert held == [True, False]
    assert len(read) == len(done) == 9


def test_short_letters_count_what_they_take() -> None:
    tracemalloc.start()
    try:
        letters = [letter(bytes([1, number % 256]), 30) for number in range(10_000)]
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 0.5 < taken / sum(one.size for one in letters) < 1
    assert all(one.data == bytes(30) for one in letters)


def test_what_a_client_that_is_gone_has_sent_is_not_looked_at() -> None:
    def fill(box: Inbox) -> None:
        box.put(letter(b"a", inbox.MAX_BYTES))
        box.put(letter(b"b"))
        box.forget(b"a")
        box.forget(b"nobody")

    read, held = handled(fill)
    assert [one.routing_id for one in read] == [b"b"]
    assert held == [True, False]


def test_a_letter_that_cannot_be_handled_does_not_hold_up_the_next() -> None:
    def broken(one: Letter) -> None:
        if one.routing_id == b"a":
            raise ZeroDivisionError

    async def talk() -> list[bytes]:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda *_: None)
        read: list[bytes] = []
        box = Inbox(loop, lambda one: (broken(one), read.append(one.routing_id))[1], print)
        for sender in (b"a", b"b", b"a", b"c"):
            box.put(letter(sender))
        await emptied(box)
        return read

    assert asyncio.run(talk()) == [b"b", b"c"]
