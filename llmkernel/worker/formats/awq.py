"""Checkpoints quantised by AWQ, as AutoAWQ writes them in its version "gemm".

The layout is that of `WQLinear_GEMM.from_linear` in AutoAWQ's awq/modules/linear/gemm.py and of
its reverse in awq/utils/packing_utils.py. For a layer of `rows` outputs and `columns` inputs:

- qweight int32 [columns, rows / 8]: bits 4 i to 4 i + 3 of word w are row 8 w + ORDER[i];
- qzeros int32 [groups, rows / 8]: the same for zero points;
- scales [groups, rows]. Groups follow one another.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from torch import Tensor

from llmkernel.errors import UnsupportedModel
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
from llmkernel.worker.formats.matrix import Matrix
from llmkernel.worker.formats.words import nibbles

ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
"""Which of eight rows each part of a word holds."""
_PLACES = [ORDER.index(row) for row in range(8)]


@dataclass(frozen=True, slots=True)
class Awq:
    """The settings of one checkpoint. `kept` are names of modules that are not quantised."""

    group_size: int
    kept: tuple[str, ...]
    symmetric: bool = False
    reorders: bool = False
    name: str = "awq"

    @classmethod
    def from_config(cls, stored: Mapping[str, Any]) -> Self:
        """From a checkpoint's quantization_config.

        Raises UnsupportedModel for what is not supported, BrokenCheckpoint for nonsense.
        """
        read_bits(stored, "awq", default=4)
        layout = read_layout(stored, "version", "checkpoint_format", "format", default="gemm")
        if stored.get("backend") == "llm-awq":
            layout = "llm-awq"
        if layout != "gemm":
            raise UnsupportedModel(
                f"The checkpoint is quantised by awq and packed for {layout}, which is not "
                "supported. Use one of version gemm."
            )
        read_flag(stored, "zero_point", default=True)
        return cls(read_group_size(stored, "awq"), _names(stored))

    def entries(self, rows: int, columns: int) -> dict[str, Entry]:
        """Shapes as above."""
        groups = -(-columns // group_length(self.group_size, columns))
        return {
            "qweight": Entry(INTEGERS, (columns, rows // 8)),
            "qzeros": Entry(INTEGERS, (groups, rows // 8)),
            "scales": Entry(FLOATS, (groups, rows)),
        }

    def matrix(self, tensors: Mapping[str, Tensor]) -> Matrix:
        """From qweight, qzeros and scales of the shapes above.

        Weights that were quantised without zero points have stored ones of 8.
        """
        values = _rows(tensors["qweight"]).T.contiguous()
        length = group_length(self.group_size, values.shape[1])
        return Matrix(values, tensors["scales"].T, _rows(tensors["qzeros"]).T, length)


def _rows(words: Tensor) -> Tensor:
    """`words` int32 [n, rows / 8] as uint8 [n, rows]."""
    return nibbles(words)[..., _PLACES].flatten(1)


def _names(stored: Mapping[str, Any]) -> tuple[str, ...]:
    names = stored.get("modules_to_not_convert") or []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise nonsense("modules_to_not_convert", names)
    return tuple(names)
