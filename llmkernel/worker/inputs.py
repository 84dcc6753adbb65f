"""The tensors of a step: filled on the host, sent in one copy, read at fixed addresses.

All numbers of a step lie in one flat int64 buffer: sections of fixed size, then what
has changed in the block tables, which stay on the device from step to step. A step
fills a pinned host buffer and copies it over the device buffer; host buffers take
turns, because the copy of the step before may still be on its way.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from llmkernel.worker.kernels.paged_attention import Chunks, DecodeRows, PagedStep, PrefillRow
from llmkernel.worker.sequence import Sequence
from llmkernel.worker.step import Row, StepBatch

_IN_FLIGHT = -1
"""Stands for an id that is on the device only."""


class StepTensors(NamedTuple):
    """One step on the device, as views of the static buffer; all int64.

    `ids`, `positions` [tokens]. `sources` [tokens]: the slot whose newest token is the input,
    or -1 where `ids` holds it; `known` says that it does for all of them. `sampled` [samples]:
    packed index of each row that is sampled, `slots` [samples]: its slot. Of a padded step
    `sampled` is all of them, and the slot of one that is not sampled nobody's.
    """

    ids: Tensor
    positions: Tensor
    sources: Tensor
    sampled: Tensor
    slots: Tensor
    paged: PagedStep
    known: bool = False


class BlockTables:
    """Block ids by slot, [slots + 1, max_blocks] int64 on the device.

    A sequence's blocks only grow while it holds its slot, so a step sends the new ones.
    The last row is nobody's and holds zeros: the block that padding writes to.
    """

    def __init__(self, max_rows: int, max_blocks: int, device: torch.device) -> None:
        self.ids = torch.zeros(max_rows + 1, max_blocks, dtype=torch.int64, device=device)
        self._filled = [0] * max_rows

    def forget(self, slot: int) -> None:
        """The slot has a new owner, or none."""
        self._filled[slot] = 0

    def follow(self, rows: list[Row]) -> _Changes:
        """The blocks that the sequences have gained."""
        changes = _Changes([], [])
        for row in rows:
            slot, blocks = row.sequence.slot, row.sequence.blocks
            filled = self._filled[slot]
            if len(blocks) > filled:
                start = slot * self.ids.shape[1]
                changes.places.extend(range(start + filled, start + len(blocks)))
                changes.blocks.extend(blocks[filled:])
                self._filled[slot] = len(blocks)
        return changes

    def apply(self, places: Tensor, blocks: Tensor) -> None:
        """Write `blocks` at `places` of the flattened tables."""
        self.ids.view(-1).index_copy_(0, places, blocks)


class _Changes(NamedTuple):
    """What a step changes in the tables: flat places, and the ids that go there."""

    places: list[int]
    blocks: list[int]


class _Layout:
    """Offsets of the sections in the flat buffer."""

    def __init__(self, max_tokens: int, max_rows: int, max_blocks: int, graph_rows: int) -> None:
        sizes = {
            "ids": max_tokens,
            "positions": max_tokens,
            "sources": max_tokens,
            "mapping": max_tokens,
            "lengths": graph_rows,
            "sampled": max_rows,
            "slots": max_rows,
            "rows": graph_rows,
            "newest": graph_rows,
            "begins": max_rows + 1,
            "changes": 2 * max_rows * max_blocks,
        }
        self.sections: dict[str, slice] = {}
        self.size = 0
        for name, size in sizes.items():
            self.sections[name] = slice(self.size, self.size + size)
            self.size += size

    def views(self, flat: np.ndarray) -> dict[str, np.ndarray]:
        """The sections of a host buffer by name."""
        return {name: flat[section] for name, section in self.sections.items()}


class _HostBuffer:
    """One of the host buffers that take turns."""

    def __init__(self, layout: _Layout, device: torch.device) -> None:
        pinned = device.type == "cuda"
        self.flat = torch.zeros(layout.size, dtype=torch.int64, pin_memory=pinned)
        self.views = layout.views(self.flat.numpy())
        self.sent = torch.Event(device) if pinned else None


class StepInputs:
    """Makes `StepTensors` of batches; not thread-safe.

    `max_tokens` in a step, `max_rows` sequences, `max_blocks` of one sequence; `copies`
    host buffers, one more than steps that may be in flight. Up to `graph_rows` tokens, of
    prompts too, can be padded to a bucket.
    """

    def __init__(
        self,
        *,
        max_tokens: int,
        max_rows: int,
        max_blocks: int,
        block_size: int,
        device: torch.device,
        copies: int,
        graph_rows: int = 0,
    ) -> None:
        self.tables = BlockTables(max_rows, max_blocks, device)
        self._nobody = max_rows
        graph_rows = max(max_rows, graph_rows)
        self._block_size = block_size
        self._max_tokens = max_tokens
        self._layout = _Layout(max(max_tokens, graph_rows), max_rows, max_blocks, graph_rows)
        self._hosts = [_HostBuffer(self._layout, device) for _ in range(copies)]
        self._order = np.arange(max_rows)
        self._everything = torch.arange(graph_rows, device=device)
        if copies == 1 and device.type == "cpu":
            self._device = self._hosts[0].flat  # a step is over before the next is filled
        else:
            self._device = torch.zeros(self._layout.size, dtype=torch.int64, device=device)
        self._views: dict[tuple[str, int, int], Tensor] = {}
        """Sections of the sizes that decode steps have, which come again and again."""
        self._turn = 0

    def fill(self, batch: StepBatch, bucket: int = 0) -> StepTensors:
        """Send a batch to the device without waiting for it; the tables follow its sequences.

        With `bucket` each token becomes a decode row, and `padded(bucket)` is filled too: rows
        beyond the batch are nobody's. Raises ValueError for a step with more tokens than there
        is room for.
        """
        rows, tokens = batch.rows, batch.tokens
        if tokens > self._max_tokens:
            raise ValueError(f"A step of {tokens} tokens is larger than {self._max_tokens}.")
        host = self._hosts[self._turn]
        self._turn = (self._turn + 1) % len(self._hosts)
        if host.sent is not None:
            host.sent.synchronize()  # this buffer's last copy, `copies` steps ago
        changes = self.tables.follow(rows)
        decoding = leading_decode_rows(batch)
        known = self._fill_decode(host.views, rows[:decoding])
        known &= self._fill_chunks(host.views, rows, decoding, as_rows=bucket > 0)
        samples = self._fill_samples(host.views, rows, decoding)
        if bucket:
            self._fill_newest(host.views, rows, tokens, samples)
            self._fill_padding(host.views, tokens, bucket)
            decoding = tokens
        self._send(host, changes)
        return self._tensors(rows, decoding, tokens, samples, known)

    def padded(self, bucket: int) -> StepTensors:
        """The tensors of a step of `bucket` rows, which lie at the same place in each step."""
        decode = DecodeRows(
            self.tables.ids,
            self._section("rows", bucket),
            self._section("lengths", bucket),
            self.tables.ids.shape[1],
        )
        return StepTensors(
            ids=self._section("ids", bucket),
            positions=self._section("positions", bucket),
            sources=self._section("sources", bucket),
            sampled=self._everything[:bucket],
            slots=self._section("newest", bucket),
            paged=PagedStep(self._section("mapping", bucket), decode, []),
        )

    def _send(self, host: _HostBuffer, changes: _Changes) -> None:
        start, count = self._layout.sections["changes"].start, len(changes.places)
        used = start + 2 * count
        if count:
            flat = host.views["changes"]
            flat[:count] = changes.places
            flat[count : 2 * count] = changes.blocks
        if host.flat is not self._device:
            self._device[:used].copy_(host.flat[:used], non_blocking=True)
        if host.sent is not None:
            host.sent.record()
        if count:
            self.tables.apply(
                self._section("changes", count), self._section("changes", count, count)
            )

    def _fill_newest(
        self, views: dict[str, np.ndarray], rows: list[Row], tokens: int, samples: int
    ) -> None:
        """Fill the slot whose newest token each row gives, nobody's where it gives none."""
        if samples == tokens == len(rows):
            views["newest"][:tokens] = views["rows"][:tokens]
            return
        views["newest"][:tokens] = self._nobody
        views["newest"][views["sampled"][:samples]] = views["slots"][:samples]

    def _fill_padding(self, views: dict[str, np.ndarray], rows: int, bucket: int) -> None:
        if bucket <= rows:
            return
        some = slice(rows, bucket)
        for name in ("ids", "positions", "mapping"):
            views[name][some] = 0
        views["sources"][some] = -1
        views["lengths"][some] = 1
        views["rows"][some] = views["newest"][some] = self._nobody

    def _fill_decode(self, views: dict[str, np.ndarray], rows: list[Row]) -> bool:
        """Fill the tokens of the rows with one token each; whether all ids are known."""
        size, count = self._block_size, len(rows)
        ids, positions, mapping, slots = [], [], [], []
        for row in rows:  # numbers and lists: arrays of this length cost more than they save
            sequence, position = row.sequence, row.start
            tokens = sequence.token_ids
            ids.append(tokens[position] if position < len(tokens) else _IN_FLIGHT)
            positions.append(position)
            slots.append(sequence.slot)
            mapping.append(sequence.blocks[position // size] * size + position % size)
        # a broken row's NO_TOKEN is no id either
        known = min(ids, default=0) >= 0
        views["ids"][:count] = ids
        views["sources"][:count] = -1 if known else _sources(ids, slots)
        views["positions"][:count] = positions
        views["mapping"][:count] = mapping
        views["rows"][:count] = slots
        np.add(views["positions"][:count], 1, out=views["lengths"][:count])
        return known

    def _fill_chunks(
        self, views: dict[str, np.ndarray], rows: list[Row], decoding: int, as_rows: bool
    ) -> bool:
        """Fill what comes after the rows with one token each: each row's tokens, and of the rows,
        or of the tokens `as_rows`, what attention takes them by. Whether all tokens are known."""
        chunks, first, known = rows[decoding:], decoding, True
        if not chunks:
            return known
        for row in chunks:
            known &= self._fill_chunk(views, row, first)
            first += row.count
            if as_rows:
                packed = slice(first - row.count, first)
                views["rows"][packed] = row.sequence.slot
                views["lengths"][packed] = views["positions"][packed] + 1
        if as_rows:
            return known
        views["rows"][decoding : len(rows)] = [row.sequence.slot for row in chunks]
        views["lengths"][decoding : len(rows)] = [row.start + row.count for row in chunks]
        begins = itertools.accumulate((row.count for row in chunks), initial=0)
        views["begins"][: len(chunks) + 1] = list(begins)
        return known

    def _fill_chunk(self, views: dict[str, np.ndarray], row: Row, first: int) -> bool:
        """Fill the tokens of a row with several, packed from `first` on; whether all are known."""
        sequence, packed = row.sequence, slice(first, first + row.count)
        positions = np.arange(row.start, row.start + row.count)
        ids = sequence.token_ids[row.start : row.start + row.count]
        views["sources"][packed] = -1
        known = len(ids) == row.count
        if not known:
            assert len(ids) == row.count - 1, "only the newest token can be in flight"
            ids.append(_IN_FLIGHT)
            views["sources"][packed.stop - 1] = sequence.slot
        views["ids"][packed] = ids
        views["positions"][packed] = positions
        views["mapping"][packed] = self._pool_slots(sequence, positions)
        return known

    def _fill_samples(self, views: dict[str, np.ndarray], rows: list[Row], decoding: int) -> int:
        """Fill where the sampled rows end and their slots; how many there are."""
        if decoding == len(rows) and all(row.samples for row in rows):
            views["sampled"][:decoding] = self._order[:decoding]
            views["slots"][:decoding] = views["rows"][:decoding]
            return decoding
        ends = itertools.accumulate(row.count for row in rows)
        sampled = [(end - 1, row) for end, row in zip(ends, rows, strict=True) if row.samples]
        views["sampled"][: len(sampled)] = [last for last, _ in sampled]
        views["slots"][: len(sampled)] = [row.sequence.slot for _, row in sampled]
        return len(sampled)

    def _pool_slots(self, sequence: Sequence, positions: np.ndarray) -> np.ndarray:
        """Where in the pool the tokens at `positions` go."""
        size = self._block_size
        first = positions[0] // size
        blocks = np.array(sequence.blocks[first : positions[-1] // size + 1], dtype=np.int64)
        result: np.ndarray = blocks[positions // size - first] * size + positions % size
        return result

    def _tensors(
        self, rows: list[Row], decoding: int, tokens: int, samples: int, known: bool
    ) -> StepTensors:
        decode = None
        if decoding:
            ends = [row.start + row.count for row in rows[:decoding]]
            decode = DecodeRows(
                self.tables.ids,
                self._section("rows", decoding),
                self._section("lengths", decoding),
                self._width(max(ends)),
                apart=tokens == len(rows),
            )
        return StepTensors(
            ids=self._section("ids", tokens),
            positions=self._section("positions", tokens),
            sources=self._section("sources", tokens),
            sampled=self._section("sampled", samples),
            slots=self._section("slots", samples),
            paged=PagedStep(
                self._section("mapping", tokens),
                decode,
                self._prefill_rows(rows[decoding:], decoding),
                self._chunks(rows, decoding),
            ),
            known=known,
        )

    def _chunks(self, rows: list[Row], decoding: int) -> Chunks | None:
        chunks = rows[decoding:]
        if not chunks:
            return None
        return Chunks(
            self.tables.ids,
            self._section("rows", len(chunks), decoding),
            self._section("lengths", len(chunks), decoding),
            self._section("begins", len(chunks) + 1),
            longest=max(row.count for row in chunks),
            furthest=max(row.start + row.count for row in chunks),
        )

    def _prefill_rows(self, rows: list[Row], first: int) -> list[PrefillRow]:
        result = []
        for row in rows:
            table = self.tables.ids[row.sequence.slot, : self._width(row.start + row.count)]
            result.append(PrefillRow(first, row.count, row.start, table))
            first += row.count
        return result

    def _width(self, tokens: int) -> int:
        """Blocks that so many tokens reach into."""
        return -(-tokens // self._block_size)

    def _section(self, name: str, size: int, offset: int = 0) -> Tensor:
        view = self._views.get((name, size, offset))
        if view is None:
            start = self._layout.sections[name].start + offset
            view = self._device[start : start + size]
            if size <= self._nobody:
                self._views[name, size, offset] = view
        return view


def leading_decode_rows(batch: StepBatch) -> int:
    """How many rows at the front of the batch have one token."""
    for index, row in enumerate(batch.rows):
        if row.count != 1:
            return index
    return len(batch.rows)


def _sources(ids: list[int], slots: list[int]) -> list[int]:
    """The slot that an id is to be taken from, or -1 where it is known."""
    return [slot if token < 0 else -1 for token, slot in zip(ids, slots, strict=True)]
