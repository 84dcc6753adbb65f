"""The allocator and the prefix cache against a plain model, and against chance."""

from __future__ import annotations

import itertools
import random
from typing import NamedTuple

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from llmkernel.worker.blocks import BlockPool

SIZE = 2
CAPACITY = 12


class Owner(NamedTuple):
    """A sequence as the pool sees it."""

    blocks: list[int]
    tokens: list[int]
    salt: bytes
    digests: list[bytes]


def lookup(pool: BlockPool, salt: bytes, tokens: list[int], limit: int) -> list[int]:
    """Blocks found for tokens whose hashes nobody has computed yet."""
    return pool.lookup([], salt, tokens, limit)


def register(pool: BlockPool, block: int, tokens: list[int], salt: bytes = b"") -> None:
    """Let the first block of a prompt be found."""
    digests: list[bytes] = []
    pool.chain(digests, salt, tokens, 1)
    pool.register(block, digests[0], tokens)


class PoolMachine(RuleBasedStateMachine):
    """Every operation of the pool beside a plain model.

    `contents` is what each block was filled with since it was given out, `known` what
    must be found: prefix to block.
    """

    def __init__(self) -> None:
        super().__init__()
        self.pool = BlockPool(CAPACITY + 1, SIZE)
        self.owners: list[Owner] = []
        self.contents: dict[int, tuple[bytes, tuple[int, ...]]] = {}
        self.known: dict[tuple[bytes, tuple[int, ...]], int] = {}

    def _forget(self, blocks: list[int]) -> None:
        self.known = {name: block for name, block in self.known.items() if block not in blocks}

    def _register(self, owner: Owner) -> None:
        full = len(owner.tokens) // SIZE
        self.pool.chain(owner.digests, owner.salt, owner.tokens, full)
        for index in range(full):
            end = (index + 1) * SIZE
            name = (owner.salt, tuple(owner.tokens[:end]))
            block = owner.blocks[index]
            self.pool.register(block, owner.digests[index], owner.tokens[end - SIZE : end])
            self.contents[block] = name
            if block not in self.known.values():
                self.known.setdefault(name, block)

    @rule(
        tokens=st.lists(st.integers(0, 1), min_size=1, max_size=10),
        salt=st.sampled_from([b"a", b"b"]),
    )
    def admit(self, tokens: list[int], salt: bytes) -> None:
        """Take a prompt in as the scheduler does: share what is cached, allocate the rest."""
        digests: list[bytes] = []
        found = self.pool.lookup(digests, salt, tokens, (len(tokens) - 1) // SIZE)
        expected = itertools.takewhile(
            lambda block: block is not None,
            (self.known.get((salt, tuple(tokens[:end]))) for end in range(SIZE, len(tokens), SIZE)),
        )
        assert found == list(expected)
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
            assert all(block not in owner.blocks for owner in self.owners)
            self.contents.pop(block, None)
        self._forget(fresh)
        owner = Owner([*found, *fresh], tokens, salt, digests)
        self._register(owner)
        self.owners.append(owner)

    @precondition(lambda self: self.owners)
    @rule(which=st.integers(0, 100))
    def fork(self, which: int) -> None:
        """Another answer of the same prompt takes references to its full blocks."""
        owner = self.owners[which % len(self.owners)]
        full = owner.blocks[: len(owner.tokens) // SIZE]
        self.pool.share(full)
        self.owners.append(
            owner._replace(blocks=list(full), tokens=owner.tokens[: len(full) * SIZE])
        )

    @precondition(lambda self: self.owners)
    @rule(which=st.integers(0, 100))
    def end(self, which: int) -> None:
        """A sequence ends."""
        self.pool.release(self.owners.pop(which % len(self.owners)).blocks)

    @precondition(lambda self: self.owners)
    @rule(which=st.integers(0, 100))
    def distrust(self, which: int) -> None:
        """A sequence failed: nothing of it may be found again."""
        owner = self.owners[which % len(self.owners)]
        self.pool.forget(owner.blocks)
        self._forget(owner.blocks)
        found = lookup(self.pool, owner.salt, owner.tokens, len(owner.tokens) // SIZE)
        assert not set(found) & set(owner.blocks)

    @rule(count=st.integers(CAPACITY, 2 * CAPACITY))
    def ask_for_too_much(self, count: int) -> None:
        """All or nothing."""
        if count > self.pool.free:
            assert self.pool.allocate(count) is None

    @invariant()
    def books_agree(self) -> None:
        """References, free list and hashes agree with the owners."""
        self.pool.check([owner.blocks for owner in self.owners])
        owned = {block for owner in self.owners for block in owner.blocks}
        stats = self.pool.stats()
        assert stats.total == CAPACITY
        assert stats.used == len(owned)
        assert stats.cached == len(set(self.known.values()) - owned)
        assert {block for block in range(1, CAPACITY + 1) if self.pool.is_cached(block)} == set(
            self.known.values()
        )


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
        digests: list[bytes] = []
        found = pool.lookup(digests, b"", tokens, (len(tokens) - 1) // SIZE)
        pool.share(found)
        fresh = pool.allocate(pool.blocks_for(len(tokens)) - len(found))
        if fresh is None:
            pool.release(found)
            continue
        blocks = [*found, *fresh]
        pool.chain(digests, b"", tokens, len(tokens) // SIZE)
        for index, block in enumerate(blocks):
            part = tokens[index * SIZE : (index + 1) * SIZE]
            prefix = tuple(tokens[: index * SIZE + len(part)])
            if block in found:
                assert written[block] == prefix
            written[block] = prefix
            if len(part) == SIZE:
                pool.register(block, digests[index], part)
        live.append(blocks)
    pool.check(live)


def test_another_principal_finds_nothing() -> None:
    pool = BlockPool(8, SIZE)
    blocks = pool.allocate(1)
    assert blocks is not None
    register(pool, blocks[0], [1, 2], b"one")
    assert lookup(pool, b"one", [1, 2, 3], 1) == blocks
    assert lookup(pool, b"two", [1, 2, 3], 1) == []


def test_equal_hashes_with_other_tokens_are_no_hit() -> None:
    pool = BlockPool(8, SIZE)
    blocks = pool.allocate(1)
    assert blocks is not None
    digests: list[bytes] = []
    pool.chain(digests, b"", [1, 2], 1)
    pool.register(blocks[0], digests[0], [9, 9])
    assert lookup(pool, b"", [1, 2, 3], 1) == []


def test_a_token_that_moved_to_the_next_block_is_another_prefix() -> None:
    pool = BlockPool(8, SIZE)
    first: list[bytes] = []
    second: list[bytes] = []
    pool.chain(first, b"", [1, 2, 3, 4], 2)
    pool.chain(second, b"", [3, 4, 1, 2], 2)
    assert len({*first, *second}) == 4


def test_the_least_recently_freed_prefix_is_reused_first() -> None:
    pool = BlockPool(4, SIZE)
    for first in range(3):
        blocks = pool.allocate(1)
        assert blocks is not None
        register(pool, blocks[0], [first, 7])
        pool.release(blocks)
    again = lookup(pool, b"", [0, 7, 0], 1)
    pool.share(again)
    pool.release(again)
    pool.allocate(1)
    assert [bool(lookup(pool, b"", [first, 7, 0], 1)) for first in range(3)] == [True, False, True]


def test_blocks_that_nobody_can_find_are_reused_before_prefixes() -> None:
    pool = BlockPool(4, SIZE)
    kept = pool.allocate(1)
    plain = pool.allocate(2)
    assert kept is not None
    assert plain is not None
    register(pool, kept[0], [1, 2])
    pool.release(kept)
    pool.release(plain)
    assert sorted(pool.allocate(2) or []) == sorted(plain)
    assert lookup(pool, b"", [1, 2, 3], 1) == kept


def test_the_end_of_a_prefix_is_reused_before_its_beginning() -> None:
    pool = BlockPool(4, SIZE)
    tokens = [1, 2, 3, 4, 5, 6]
    blocks = pool.allocate(3)
    assert blocks is not None
    digests: list[bytes] = []
    pool.chain(digests, b"", tokens, 3)
    for index, block in enumerate(blocks):
        pool.register(block, digests[index], tokens[2 * index : 2 * index + 2])
    pool.release(blocks)
    pool.allocate(1)
    assert lookup(pool, b"", [*tokens, 7], 3) == blocks[:2]


def test_without_a_prefix_cache_nothing_is_found() -> None:
    pool = BlockPool(4, SIZE, prefix_cache=False)
    blocks = pool.allocate(1)
    assert blocks is not None
    register(pool, blocks[0], [1, 2])
    assert lookup(pool, b"", [1, 2, 3], 1) == []
    assert pool.cached == 0


def test_giving_a_block_back_twice_is_noticed() -> None:
    pool = BlockPool(4, SIZE)
    blocks = pool.allocate(1)
    assert blocks is not None
    pool.release(blocks)
    with pytest.raises(AssertionError, match="twice"):
        pool.release(blocks)
