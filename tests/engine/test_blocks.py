"""The allocator and the prefix cache against a plain model, and against chance."""

from __future__ import annotations

import random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from llmkernel.worker.blocks import BlockPool

SIZE = 2
CAPACITY = 12


class PoolMachine(RuleBasedStateMachine):
    """Every operation of the pool beside a dict of what each live block must hold."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = BlockPool(CAPACITY + 1, SIZE)
        self.owners: list[tuple[list[int], list[int], bytes]] = []
        self.contents: dict[int, tuple[bytes, tuple[int, ...]]] = {}

    def _register(self, blocks: list[int], tokens: list[int], salt: bytes) -> None:
        digest = self.pool.root(salt)
        for index, block in enumerate(blocks):
            part = tokens[index * SIZE : (index + 1) * SIZE]
            if len(part) < SIZE:
                break
            digest = self.pool.extend(digest, part)
            self.pool.register(block, digest, part)
            self.contents[block] = (salt, tuple(tokens[: (index + 1) * SIZE]))

    @rule(
        tokens=st.lists(st.integers(0, 1), min_size=1, max_size=10),
        salt=st.sampled_from([b"a", b"b"]),
    )
    def admit(self, tokens: list[int], salt: bytes) -> None:
        """Take a prompt in as the scheduler does: share what is cached, allocate the rest."""
        found = self.pool.lookup(salt, tokens, (len(tokens) - 1) // SIZE)
        for index, block in enumerate(found):
            assert self.contents[block] == (salt, tuple(tokens[: (index + 1) * SIZE]))
        revived = sum(self.pool.is_free(block) for block in found)
        needed = self.pool.blocks_for(len(tokens)) - len(found)
        if needed + revived > self.pool.free:
            return
        self.pool.share(found)
        fresh = self.pool.allocate(needed)
        assert fresh is not None
        assert 0 not in fresh
        assert len(set(fresh)) == len(fresh)
        for block in fresh:
            assert all(block not in blocks for blocks, _, _ in self.owners)
            self.contents.pop(block, None)
        blocks = [*found, *fresh]
        self._register(blocks, tokens, salt)
        self.owners.append((blocks, tokens, salt))

    @precondition(lambda self: self.owners)
    @rule(which=st.integers(0, 100))
    def end(self, which: int) -> None:
        """A sequence ends."""
        blocks, _, _ = self.owners.pop(which % len(self.owners))
        self.pool.release(blocks)

    @precondition(lambda self: self.owners)
    @rule(which=st.integers(0, 100))
    def distrust(self, which: int) -> None:
        """A sequence failed: nothing of it may be found again."""
        blocks, tokens, salt = self.owners[which % len(self.owners)]
        self.pool.forget(blocks)
        found = self.pool.lookup(salt, tokens, len(tokens) // SIZE)
        assert not set(found) & set(blocks)

    @rule(count=st.integers(CAPACITY, 2 * CAPACITY))
    def ask_for_too_much(self, count: int) -> None:
        """All or nothing."""
        if count > self.pool.free:
            assert self.pool.allocate(count) is None

    @invariant()
    def books_agree(self) -> None:
        """References, free list and hashes agree with the owners."""
        self.pool.check([blocks for blocks, _, _ in self.owners])
        owned = {block for blocks, _, _ in self.owners for block in blocks}
        assert len(owned) + self.pool.free == CAPACITY


TestPoolMachine = PoolMachine.TestCase
TestPoolMachine.settings = settings(max_examples=500, stateful_step_count=50, deadline=None)


@pytest.mark.timeout(60)
def test_a_hundred_thousand_rounds_with_two_words_never_mix_contents() -> None:
    """With a vocabulary of 2 nearly everything collides; what is found must still be right."""
    chance = random.Random(0)
    pool = BlockPool(64, SIZE)
    written: dict[int, tuple[int, ...]] = {}
    live: list[list[int]] = []
    for _ in range(100_000):
        if live and (len(live) > 12 or chance.random() < 0.5):
            pool.release(live.pop(chance.randrange(len(live))))
            continue
        tokens = [chance.randrange(2) for _ in range(chance.randrange(1, 12))]
        found = pool.lookup(b"", tokens, (len(tokens) - 1) // SIZE)
        pool.share(found)
        fresh = pool.allocate(pool.blocks_for(len(tokens)) - len(found))
        if fresh is None:
            pool.release(found)
            continue
        blocks = [*found, *fresh]
        digest = pool.root(b"")
        for index, block in enumerate(blocks):
            part = tokens[index * SIZE : (index + 1) * SIZE]
            prefix = tuple(tokens[: index * SIZE + len(part)])
            if block in found:
                assert written[block] == prefix
            written[block] = prefix
            if len(part) == SIZE:
                digest = pool.extend(digest, part)
                pool.register(block, digest, part)
        live.append(blocks)
    pool.check(live)


def test_another_principal_finds_nothing() -> None:
    pool = BlockPool(8, SIZE)
    blocks = pool.allocate(1)
    assert blocks is not None
    pool.register(blocks[0], pool.extend(pool.root(b"one"), [1, 2]), [1, 2])
    assert pool.lookup(b"one", [1, 2, 3], 1) == blocks
    assert pool.lookup(b"two", [1, 2, 3], 1) == []


def test_equal_hashes_with_other_tokens_are_no_hit() -> None:
    pool = BlockPool(8, SIZE)
    blocks = pool.allocate(1)
    assert blocks is not None
    pool.register(blocks[0], pool.extend(pool.root(b""), [1, 2]), [9, 9])
    assert pool.lookup(b"", [1, 2, 3], 1) == []


def test_the_least_recently_freed_prefix_is_reused_first() -> None:
    pool = BlockPool(4, SIZE)
    digests = []
    for first in range(3):
        blocks = pool.allocate(1)
        assert blocks is not None
        digests.append(pool.extend(pool.root(b""), [first, 7]))
        pool.register(blocks[0], digests[-1], [first, 7])
        pool.release(blocks)
    pool.allocate(1)
    assert [bool(pool.lookup(b"", [first, 7, 0], 1)) for first in range(3)] == [False, True, True]


def test_giving_a_block_back_twice_is_noticed() -> None:
    pool = BlockPool(4, SIZE)
    blocks = pool.allocate(1)
    assert blocks is not None
    pool.release(blocks)
    with pytest.raises(AssertionError, match="twice"):
        pool.release(blocks)
