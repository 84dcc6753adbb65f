"""What a quantised checkpoint must say of itself, and what is asked of a reader of one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from torch import Tensor

from llmkernel.errors import BrokenCheckpoint, UnsupportedModel
from llmkernel.worker.formats.matrix import Matrix
from llmkernel.worker.kernels.tiles import LEAST_GROUP

WHOLE_ROW = -1
"""The group size of a format in which all weights of a row share a scale."""
INTEGERS = ("I32",)
FLOATS = ("F16", "BF16", "F32")
"""What packed weights and their scales are stored in, as safetensors names it."""


class Entry(NamedTuple):
    """A tensor that a layer has in the files, or may have: its possible dtypes, and its shape."""

    dtypes: tuple[str, ...]
    shape: tuple[int, ...]
    needed: bool = True


class Format(Protocol):
    """How one method stores its layers, with the settings of one checkpoint."""

    @property
    def name(self) -> str:
        """The method, as config.json calls it."""

    @property
    def group_size(self) -> int:
        """Weights of a row that share a scale, or WHOLE_ROW."""

    @property
    def symmetric(self) -> bool:
        """Whether every zero point is 8, so that nothing but scales is kept."""

    @property
    def reorders(self) -> bool:
        """Whether columns may belong to groups in any order."""

    @property
    def kept(self) -> tuple[str, ...]:
        """Names of modules that config.json says are not quantised."""

    def entries(self, rows: int, columns: int) -> dict[str, Entry]:
        """The tensors of a layer by what follows its name."""

    def matrix(self, tensors: Mapping[str, Tensor]) -> Matrix:
        """A layer from its tensors, which have the shapes of `entries`.

        Raises BrokenCheckpoint where their numbers contradict the format.
        """


def label(found: Format) -> str:
    """The format in a word, for status: the method, its bits and its groups."""
    group = "" if found.group_size == WHOLE_ROW else f"-{found.group_size}g"
    return f"{found.name}-4bit{group}"


def group_length(group_size: int, columns: int) -> int:
    """Weights in a group of a row of `columns`."""
    return columns if group_size == WHOLE_ROW else group_size


def read_bits(stored: Mapping[str, Any], method: str, default: int | None = None) -> None:
    """Check that weights have 4 bits. Raises UnsupportedModel or BrokenCheckpoint."""
    bits = stored.get("bits", default)
    if type(bits) is not int:
        raise nonsense("bits", bits)
    if bits != 4:
        raise UnsupportedModel(
            f"The checkpoint is quantised by {method} to {bits} bits, and only 4 are supported. "
            "Use one of 4 bits, or the unquantised model."
        )


def read_group_size(stored: Mapping[str, Any], method: str) -> int:
    """The group size, 128 where nothing is said. Raises UnsupportedModel or BrokenCheckpoint."""
    size = stored.get("group_size", 128)
    if type(size) is not int or (size <= 0 and size != WHOLE_ROW):
        raise nonsense("group_size", size)
    if size != WHOLE_ROW and size % LEAST_GROUP:
        raise UnsupportedModel(
            f"The checkpoint is quantised by {method} in groups of {size} weights, and groups are "
            f"supported in multiples of {LEAST_GROUP}."
        )
    return size


def read_flag(stored: Mapping[str, Any], name: str, default: bool) -> bool:
    """A true or false of the configuration. Raises BrokenCheckpoint where it is neither."""
    value = stored.get(name, default)
    if not isinstance(value, bool):
        raise nonsense(name, value)
    return value


def read_layout(stored: Mapping[str, Any], *names: str, default: str) -> str:
    """How the numbers are packed, in lower case: the first of the settings `names` that is there.

    Raises BrokenCheckpoint where it is no text.
    """
    for name in names:
        value = stored.get(name)
        if value is not None:
            if not isinstance(value, str):
                raise nonsense(name, value)
            return value.lower()
    return default


def nonsense(name: str, value: Any) -> BrokenCheckpoint:
    """The error for a setting of quantization_config that no writer makes."""
    return BrokenCheckpoint(
        f"quantization_config in config.json has {name}={value!r}, which means nothing. "
        "Download the model again."
    )
