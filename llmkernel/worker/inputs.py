"""The tensors of a step: filled on the host, sent in one copy, read at fixed addresses.

All numbers of a step lie in one flat int64 buffer: sections of fixed size, then the
block tables, which are as wide as the step needs. A step fills a pinned host buffer
and copies it over the device buffer; host buffers take turns, because the copy of the
step before may still be on its way.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from llmkernel.worker.kernels.paged_attention import DecodeRows, PagedStep, PrefillRow
from llmkernel.worker.sequence import Row, Sequence, StepBatch


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
        """Send a batch to the device without waiting for it; the tables follow its sequences."""
        assert batch.tokens <= self._max_tokens, "a step is larger than the buffers"
        host = self._hosts[self._turn]
        self._turn = (self._turn + 1) % len(self._hosts)
        if host.sent is not None:
            host.sent.synchronize()  # this buffer's last copy, `copies` steps ago
        for row in batch.rows:
            self.tables.follow(row.sequence)
        decoding = leading_decode_rows(batch)
        widths = self._fill_rows(host.views, batch, decoding)
        used = self._layout.sections["tables"].start + sum(widths)
        self._device[:used].copy_(host.flat[:used], non_blocking=True)
        if host.sent is not None:
            host.sent.record()
        return self._tensors(batch, decoding, widths)

    def _fill_rows(
        self, views: dict[str, np.ndarray], batch: StepBatch, decoding: int
    ) -> list[int]:
        """Fill a host buffer; returns the size of each block table in the tables section."""
        first = 0
        samples = 0
        for row in batch.rows:
            end = first + row.count
            self._fill_tokens(views, row, slice(first, end))
            if row.samples:
                views["sampled"][samples] = end - 1
                views["slots"][samples] = row.sequence.slot
                samples += 1
            first = end
        return self._fill_tables(views, batch.rows, decoding)

    def _fill_tokens(self, views: dict[str, np.ndarray], row: Row, packed: slice) -> None:
        sequence, end = row.sequence, row.start + row.count
        known = sequence.token_ids[row.start : end]
        views["sources"][packed] = -1
        views["ids"][packed.start : packed.start + len(known)] = known
        if len(known) < row.count:
            assert len(known) == row.count - 1, "only the newest token can be in flight"
            views["ids"][packed.stop - 1] = 0
            views["sources"][packed.stop - 1] = sequence.slot
        positions = np.arange(row.start, end)
        views["positions"][packed] = positions
        blocks = self.tables.ids[sequence.slot, positions // self._block_size]
        views["mapping"][packed] = blocks * self._block_size + positions % self._block_size

    def _fill_tables(
        self, views: dict[str, np.ndarray], rows: list[Row], decoding: int
    ) -> list[int]:
        widths = [-(-(row.start + row.count) // self._block_size) for row in rows]
        tables = views["tables"]
        used = 0
        if decoding:
            width = max(widths[:decoding])
            slots = [row.sequence.slot for row in rows[:decoding]]
            used = decoding * width
            tables[:used].reshape(decoding, width)[:] = self.tables.ids[slots, :width]
            views["lengths"][:decoding] = [row.start + 1 for row in rows[:decoding]]
        sizes = [used]
        for row, width in zip(rows[decoding:], widths[decoding:], strict=True):
            tables[used : used + width] = self.tables.ids[row.sequence.slot, :width]
            used += width
            sizes.append(width)
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
