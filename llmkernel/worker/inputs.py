"""The tensors of a step: filled on the host, sent in one copy, read at fixed addresses.

All numbers of a step lie in one flat int64 buffer: sections of fixed size, then the
block tables, which are as wide as the step needs. A step fills a pinned host buffer
and copies it over the device buffer; host buffers take turns, because the copy of the
step before may still be on its way.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from llmkernel.worker.kernels.paged_attention import DecodeRows, PagedStep, PrefillRow
from llmkernel.worker.sequence import Row, Sequence, StepBatch

_IN_FLIGHT = -1
"""Stands for an id that is on the device only."""


class StepTensors(NamedTuple):
    """One step on the device, as views of the static buffer; all int64.

    `ids`, `positions` [tokens]. `sources` [tokens]: the slot whose newest token is the input,
    or -1 where `ids` holds it. `sampled` [samples]: packed index of each row that is sampled,
    `slots` [samples]: its slot.
    """

    ids: Tensor
    positions: Tensor
    sources: Tensor
    sampled: Tensor
    slots: Tensor
    paged: PagedStep


class BlockTables:
    """Block ids by slot on the host. A sequence's blocks only grow while it holds its slot."""

    def __init__(self, max_rows: int, max_blocks: int) -> None:
        self.ids = np.zeros((max_rows, max_blocks), dtype=np.int64)
        self._filled = [0] * max_rows

    def forget(self, slot: int) -> None:
        """The slot has a new owner, or none."""
        self._filled[slot] = 0

    def follow(self, sequence: Sequence) -> None:
        """Take in the blocks that the sequence has gained."""
        slot, blocks = sequence.slot, sequence.blocks
        filled = self._filled[slot]
        if len(blocks) > filled:
            self.ids[slot, filled : len(blocks)] = blocks[filled:]
            self._filled[slot] = len(blocks)


class _Layout:
    """Offsets of the sections in the flat buffer."""

    def __init__(self, max_tokens: int, max_rows: int, max_blocks: int) -> None:
        sizes = {
            "ids": max_tokens,
            "positions": max_tokens,
            "sources": max_tokens,
            "mapping": max_tokens,
            "lengths": max_rows,
            "sampled": max_rows,
            "slots": max_rows,
            "tables": max_rows * max_blocks,
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
    host buffers, one more than steps that may be in flight.
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
    ) -> None:
        self.tables = BlockTables(max_rows, max_blocks)
        self._block_size = block_size
        self._max_tokens = max_tokens
        self._layout = _Layout(max_tokens, max_rows, max_blocks)
        self._hosts = [_HostBuffer(self._layout, device) for _ in range(copies)]
        self._device = torch.zeros(self._layout.size, dtype=torch.int64, device=device)
        self._turn = 0

    def fill(self, batch: StepBatch) -> StepTensors:
        """Send a batch to the device without waiting for it; the tables follow its sequences.

        Raises ValueError for a step with more tokens than there is room for.
        """
        if batch.tokens > self._max_tokens:
            raise ValueError(f"A step of {batch.tokens} tokens is larger than {self._max_tokens}.")
        host = self._hosts[self._turn]
        self._turn = (self._turn + 1) % len(self._hosts)
        if host.sent is not None:
            host.sent.synchronize()  # this buffer's last copy, `copies` steps ago
        for row in batch.rows:
            self.tables.follow(row.sequence)
        decoding = leading_decode_rows(batch)
        self._fill_decode(host.views, batch.rows[:decoding])
        first = decoding
        for row in batch.rows[decoding:]:
            self._fill_chunk(host.views, row, first)
            first += row.count
        _fill_samples(host.views, batch.rows)
        widths = self._fill_tables(host.views["tables"], batch.rows, decoding)
        used = self._layout.sections["tables"].start + sum(widths)
        self._device[:used].copy_(host.flat[:used], non_blocking=True)
        if host.sent is not None:
            host.sent.record()
        return self._tensors(batch, decoding, widths)

    def _fill_decode(self, views: dict[str, np.ndarray], rows: list[Row]) -> None:
        """Fill the tokens of the rows with one token each, all at once."""
        size, count = self._block_size, len(rows)
        ids, sources, positions, mapping = [], [], [], []
        for row in rows:  # numbers and lists: arrays of this length cost more than they save
            sequence, position = row.sequence, row.start
            known = sequence.token_ids
            token = known[position] if position < len(known) else _IN_FLIGHT
            ids.append(token)
            # a broken row's NO_TOKEN is no id either
            sources.append(sequence.slot if token < 0 else -1)
            positions.append(position)
            mapping.append(sequence.blocks[position // size] * size + position % size)
        views["ids"][:count] = ids
        views["sources"][:count] = sources
        views["positions"][:count] = positions
        views["mapping"][:count] = mapping
        np.add(views["positions"][:count], 1, out=views["lengths"][:count])

    def _fill_chunk(self, views: dict[str, np.ndarray], row: Row, first: int) -> None:
        """Fill the tokens of a row with several, packed from `first` on."""
        sequence, packed = row.sequence, slice(first, first + row.count)
        positions = np.arange(row.start, row.start + row.count)
        ids = sequence.token_ids[row.start : row.start + row.count]
        views["sources"][packed] = -1
        if len(ids) < row.count:
            assert len(ids) == row.count - 1, "only the newest token can be in flight"
            ids.append(_IN_FLIGHT)
            views["sources"][packed.stop - 1] = sequence.slot
        views["ids"][packed] = ids
        views["positions"][packed] = positions
        views["mapping"][packed] = self._pool_slots(sequence.slot, positions)

    def _pool_slots(self, slot: int, positions: np.ndarray) -> np.ndarray:
        """Where in the pool the tokens at `positions` of the sequence in `slot` go."""
        blocks = self.tables.ids[slot, positions // self._block_size]
        result: np.ndarray = blocks * self._block_size + positions % self._block_size
        return result

    def _fill_tables(self, tables: np.ndarray, rows: list[Row], decoding: int) -> list[int]:
        """Fill the block tables; the size of the decode rows' table, then of each other row's."""
        widths = [-(-(row.start + row.count) // self._block_size) for row in rows]
        slots = [row.sequence.slot for row in rows]
        widest = max(widths[:decoding], default=0)
        sizes = [decoding * widest, *widths[decoding:]]
        used = sizes[0]
        tables[:used].reshape(decoding, widest)[:] = self.tables.ids[slots[:decoding], :widest]
        for slot, width in zip(slots[decoding:], widths[decoding:], strict=True):
            tables[used : used + width] = self.tables.ids[slot, :width]
            used += width
        return sizes

    def _tensors(self, batch: StepBatch, decoding: int, widths: list[int]) -> StepTensors:
        tokens = batch.tokens
        samples = sum(row.samples for row in batch.rows)
        decode = None
        if decoding:
            table = self._section("tables", widths[0]).view(decoding, -1)
            decode = DecodeRows(table, self._section("lengths", decoding))
        return StepTensors(
            ids=self._section("ids", tokens),
            positions=self._section("positions", tokens),
            sources=self._section("sources", tokens),
            sampled=self._section("sampled", samples),
            slots=self._section("slots", samples),
            paged=PagedStep(
                self._section("mapping", tokens),
                decode,
                self._prefill_rows(batch.rows[decoding:], decoding, widths),
            ),
        )

    def _prefill_rows(self, rows: list[Row], first: int, widths: list[int]) -> list[PrefillRow]:
        used = widths[0]
        result = []
        for row, width in zip(rows, widths[1:], strict=True):
            table = self._section("tables", width, used)
            result.append(PrefillRow(first, row.count, row.start, table))
            first += row.count
            used += width
        return result

    def _section(self, name: str, size: int, offset: int = 0) -> Tensor:
        start = self._layout.sections[name].start + offset
        return self._device[start : start + size]


def leading_decode_rows(batch: StepBatch) -> int:
    """How many rows at the front of the batch have one token."""
    for index, row in enumerate(batch.rows):
        if row.count != 1:
            return index
    return len(batch.rows)


def _fill_samples(views: dict[str, np.ndarray], rows: list[Row]) -> None:
    ends = itertools.accumulate(row.count for row in rows)
    sampled = [
        (end - 1, row.sequence.slot) for end, row in zip(ends, rows, strict=True) if row.samples
    ]
    for name, values in zip(("sampled", "slots"), zip(*sampled, strict=True), strict=False):
        views[name][: len(values)] = values
