"""Checkpoints quantised by GPTQ, as AutoGPTQ and GPTQModel write them.

The layout is that of `pack` in AutoGPTQ's auto_gptq/nn_modules/qlinear/qlinear_cuda.py. For a
layer of `rows` outputs and `columns` inputs:

- qweight int32 [columns / 8, rows]: bits 4 i to 4 i + 3 of word w are column 8 w + i;
- qzeros int32 [groups, rows / 8]: bits 4 i to 4 i + 3 of word w are row 8 w + i. In the first
  version of the format ("gptq") each word has 0x11111111 less than the zero points, in the
  second ("gptq_v2") it has the zero points themselves (GPTQModel's gptqmodel/utils/model.py);
- scales [groups, rows], g_idx int32 [columns]: the group of each column. Without desc_act they
  follow one another, and g_idx may be left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from llmkernel.errors import BrokenCheckpoint, UnsupportedModel
from llmkernel.worker.formats.format import (
    FLOATS,
    INTEGERS,
    Entry,
    group_length,
    nonsense,
    read_bits,
    read_flag,
    read_group_size,
    read_layout,
)
from llmkernel.worker.formats.matrix import MIDDLE, Matrix
from llmkernel.worker.formats.words import nibbles

_ONES = 0x11111111
"""What the first version takes off a word of eight zero points."""


@dataclass(frozen=True, slots=True)
class Gptq:
    """The settings of one checkpoint. `one_less` says that zero points are those of version 1.

    `by_word` says that the writer took 0x11111111 off the word and so let a zero point of 0
    borrow from the next; of others nobody knows what they did.
    """

    group_size: int
    symmetric: bool
    reorders: bool
    one_less: bool
    by_word: bool
    kept: tuple[str, ...] = ()  # what is quantised is what the files hold
    name: str = "gptq"

    @classmethod
    def from_config(cls, stored: Mapping[str, Any]) -> Self:
        """From a checkpoint's quantization_config.

        Raises UnsupportedModel for what is not supported, BrokenCheckpoint for nonsense.
        """
        read_bits(stored, "gptq")
        layout = read_layout(stored, "checkpoint_format", "format", default="gptq")
        if layout not in ("gptq", "gptq_v2"):
            raise UnsupportedModel(
                f"The checkpoint is quantised by gptq and packed for {layout}, which is not "
                "supported. Use one whose checkpoint_format is gptq or gptq_v2."
            )
        _refuse_exceptions(stored)
        return cls(
            group_size=read_group_size(stored, "gptq"),
            symmetric=read_flag(stored, "sym", default=False),
            reorders=read_flag(stored, "desc_act", default=False),
            one_less=layout == "gptq",
            by_word="gptqmodel" in str(_table(stored, "meta").get("quantizer")),
        )

    def entries(self, rows: int, columns: int) -> dict[str, Entry]:
        """Shapes as above. Many write g_idx even where it says nothing."""
        groups = -(-columns // group_length(self.group_size, columns))
        return {
            "qweight": Entry(INTEGERS, (columns // 8, rows)),
            "qzeros": Entry(INTEGERS, (groups, rows // 8)),
            "scales": Entry(FLOATS, (groups, rows)),
            "g_idx": Entry(("I32", "I64"), (columns,), needed=self.reorders),
        }

    def matrix(self, tensors: Mapping[str, Tensor]) -> Matrix:
        """From qweight, qzeros, scales and g_idx of the shapes above.

        Raises BrokenCheckpoint for groups that are no groups, for zero points other than 8
        where the configuration says symmetric, and for those that cannot be told.
        """
        values = nibbles(tensors["qweight"])  # [columns / 8, rows, 8]
        values = values.permute(1, 0, 2).flatten(1)
        scales = tensors["scales"].T
        length = group_length(self.group_size, values.shape[1])
        groups = tensors.get("g_idx")
        if groups is not None:
            groups = groups.long()
            _check_groups(groups, length, scales.shape[1])
        return Matrix(values, scales, self._zeros(tensors["qzeros"]), length, groups)

    def _zeros(self, words: Tensor) -> Tensor:
        """Zero points uint8 [rows, groups] of `words` int32 [groups, rows / 8]."""
        stored = nibbles(words).flatten(1)
        if self.one_less:
            if not self.by_word and (stored == 15).any():
                raise BrokenCheckpoint(
                    "The files hold a zero point of 0 in the first version of the GPTQ format, "
                    "which its writers store in different ways. Use a checkpoint in gptq_v2."
                )
            stored = nibbles(words + _ONES).flatten(1)  # which wraps around, as it did there
        if self.symmetric and (stored != MIDDLE).any():
            raise BrokenCheckpoint(
                "config.json says that the weights are quantised symmetrically, and the files "
                f"hold zero points other than {MIDDLE}."
            )
        return stored.T


def _refuse_exceptions(stored: Mapping[str, Any]) -> None:
    """Raise UnsupportedModel for layers of other settings, or for parts beside them.

    Layers that are left out ("-:" before a pattern) are known by what the files hold.
    """
    for pattern, settings in _table(stored, "dynamic").items():
        if settings and not pattern.startswith("-:"):
            raise UnsupportedModel(
                f"The checkpoint gives some layers settings of their own (dynamic: {pattern!r}), "
                "which is not supported. Use one with the same settings for all."
            )
    for part in ("adapter", "rotation"):
        if stored.get(part):
            raise UnsupportedModel(f"The checkpoint has a GPTQ {part}, which is not supported.")


def _table(stored: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = stored.get(name) or {}
    if not isinstance(value, dict):
        raise nonsense(name, value)
    return value


def _check_groups(groups: Tensor, length: int, count: int) -> None:
    """Raise BrokenCheckpoint unless each of `count` groups has `length` columns, the last the rest."""
    low, high = (int(number) for number in groups.aminmax())
    if low < 0 or high >= count:
        raise BrokenCheckpoint(
            f"g_idx names group {high if high >= count else low}, and there are {count} groups. "
            "Download the model again."
        )
    columns = torch.arange(groups.numel(), device=groups.device)
    if not torch.equal(groups.sort().values, columns // length):
        raise BrokenCheckpoint(f"g_idx does not place {length} columns into each group.")
