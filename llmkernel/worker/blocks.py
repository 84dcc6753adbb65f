"""KV blocks: who owns them, and which hold a prefix that somebody may want again.

Blocks are numbers 1..num_blocks-1; block 0 is never given out (padding writes
there). A block has as many references as sequences that use it. With none it is
free, but keeps its contents and its hash until it is reused, least recently freed
first. Hashes chain: sha256 over a tag, the parent's hash (or the salt of a
principal) and the token ids; the ids are compared on a hit as well, so that a
collision costs speed and never an answer.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import OrderedDict
from collections.abc import Iterable
from collections.abc import Sequence as AbstractSequence
from dataclasses import dataclass, field
from typing import NamedTuple

_ROOT_TAG = b"llmkernel-root\0"
_BLOCK_TAG = b"llmkernel-block\0"
_ITEM = array("q").itemsize
_AT_ONCE = 64
"""Blocks whose hashes are made before the first of them is looked up: one by one takes longer."""


class BlockStats(NamedTuple):
    """`used + cached + empty == total`, at any time."""

    total: int
    used: int
    """With an owner."""
    cached: int
    """Without one, but with a prefix that can be found."""
    empty: int


class _Cached(NamedTuple):
    """What a block that is in the prefix cache holds."""

    digest: bytes
    tokens: bytes


@dataclass(slots=True)
class BlockPool:
    """Allocator and prefix cache over `num_blocks` blocks of `block_size` tokens.

    `prefix_cache` off: no block is ever found again. Not thread-safe.
    """

    num_blocks: int
    block_size: int
    prefix_cache: bool = True
    _references: list[int] = field(init=False)
    _free: OrderedDict[int, None] = field(init=False)
    """In the order of reuse: blocks that nobody can find, then the least recently freed."""
    _cached: dict[int, _Cached] = field(init=False, default_factory=dict)
    _by_digest: dict[bytes, int] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        assert self.num_blocks > 1, "block 0 is reserved, so at least two are needed"
        self._references = [0] * self.num_blocks
        self._free = OrderedDict.fromkeys(range(1, self.num_blocks))

    @property
    def capacity(self) -> int:
        """Blocks that can be given out at all."""
        return self.num_blocks - 1

    @property
    def free(self) -> int:
        """Blocks without an owner, those that still hold a prefix included."""
        return len(self._free)

    @property
    def cached(self) -> int:
        """Blocks whose contents can be found again, with and without an owner."""
        return len(self._cached)

    def stats(self) -> BlockStats:
        """Where the blocks are; takes time in proportion to the cached ones."""
        found = sum(map(self._free.__contains__, self._cached))
        used = self.capacity - len(self._free)
        return BlockStats(self.capacity, used, found, len(self._free) - found)

    def blocks_for(self, tokens: int) -> int:
        """Blocks that hold `tokens` tokens."""
        return -(-tokens // self.block_size)

    def is_free(self, block: int) -> bool:
        """Whether nobody uses the block."""
        return self._references[block] == 0

    def allocate(self, count: int) -> list[int] | None:
        """Take `count` blocks, or none at all where fewer are free."""
        if count > len(self._free):
            return None
        taken = []
        for _ in range(count):
            block, _none = self._free.popitem(last=False)
            self._forget(block)
            self._references[block] = 1
            taken.append(block)
        return taken

    def share(self, blocks: Iterable[int]) -> None:
        """Add a reference to each block; free ones that hold a prefix come back to life."""
        for block in blocks:
            if self._references[block] == 0:
                del self._free[block]
            self._references[block] += 1

    def release(self, blocks: AbstractSequence[int]) -> None:
        """Give references back. The tail of a chain is reused before its head."""
        for block in reversed(blocks):
            assert self._references[block] > 0, "a block was given back twice"
            self._references[block] -= 1
            if self._references[block] == 0:
                self._free[block] = None
                if block not in self._cached:
                    self._free.move_to_end(block, last=False)

    def chain(
        self, digests: list[bytes], salt: bytes, tokens: AbstractSequence[int], count: int
    ) -> None:
        """Lengthen `digests`, the hashes of the first blocks of `tokens`, to `count` of them."""
        parent = digests[-1] if digests else hashlib.sha256(_ROOT_TAG + salt).digest()
        for held in self._parts(tokens, len(digests), count):
            parent = hashlib.sha256(_BLOCK_TAG + parent + held).digest()
            digests.append(parent)

    def lookup(
        self, digests: list[bytes], salt: bytes, tokens: AbstractSequence[int], limit: int
    ) -> list[int]:
        """Blocks that hold the longest cached prefix of `tokens`, at most `limit` blocks.

        `digests` is lengthened as far as was needed, or a little further. The blocks are not owned
        yet: `share` them before anything else is allocated.
        """
        found: list[int] = []
        while self.prefix_cache and (first := len(found)) < limit:
            end = min(limit, first + _AT_ONCE)
            self.chain(digests, salt, tokens, end)
            parts = self._parts(tokens, first, end)
            for digest, held in zip(digests[first:end], parts, strict=True):
                block = self._by_digest.get(digest)
                if block is None or self._cached[block].tokens != held:
                    return found
                found.append(block)
        return found

    def register(self, block: int, digest: bytes, tokens: AbstractSequence[int]) -> None:
        """Let a full block be found. Where another block holds the same, that one stays."""
        assert self._references[block] > 0, "only an owned block can be registered"
        if self.prefix_cache and digest not in self._by_digest and block not in self._cached:
            self._by_digest[digest] = block
            self._cached[block] = _Cached(digest, array("q", tokens).tobytes())

    def forget(self, blocks: Iterable[int]) -> None:
        """Take blocks out of the cache: their contents are not to be trusted."""
        for block in blocks:
            self._forget(block)

    def is_cached(self, block: int) -> bool:
        """Whether the block can be found, so that nobody may write to it."""
        return block in self._cached

    def references(self, block: int) -> int:
        """How many sequences use the block."""
        return self._references[block]

    def check(self, owners: Iterable[AbstractSequence[int]]) -> None:
        """Raise AssertionError unless the books agree with the blocks of all owners."""
        counted = [0] * self.num_blocks
        for blocks in owners:
            assert len(set(blocks)) == len(blocks), "an owner has a block twice"
            for block in blocks:
                counted[block] += 1
        assert counted == self._references, "references differ from owners"
        assert set(self._free) == {b for b in range(1, self.num_blocks) if not counted[b]}
        assert {entry.digest: b for b, entry in self._cached.items()} == self._by_digest
        size = self.block_size * _ITEM
        assert all(len(entry.tokens) == size for entry in self._cached.values())
        stats = self.stats()
        assert stats.used + stats.cached + stats.empty == stats.total

    def _parts(self, tokens: AbstractSequence[int], first: int, end: int) -> list[bytes]:
        """The tokens of blocks `first` to `end`, as they are compared."""
        held = array("q", tokens[first * self.block_size : end * self.block_size]).tobytes()
        size = self.block_size * _ITEM
        return [held[at : at + size] for at in range(0, len(held), size)]

    def _forget(self, block: int) -> None:
        entry = self._cached.pop(block, None)
        if entry is not None:
            del self._by_digest[entry.digest]
