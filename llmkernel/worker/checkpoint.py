"""What lies in a model's folder, before anything of it is loaded.

Everything is checked that can be without torch: that weights are safetensors and
no pickles, that the index names shards that exist, and that each shard is as long
as its header says and its tensors do not overlap. The format is that of
safetensors: eight bytes of header length, a JSON header, the data.
"""

from __future__ import annotations

import json
import math
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from llmkernel.errors import BrokenCheckpoint, ModelNotFound, UnsafeCheckpoint, UnsupportedModel

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".msgpack", ".h5")
_MAX_HEADER = 100_000_000
_MAX_JSON = 64 * 2**20
_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "I16": 16, "U16": 16,
    "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32, "I64": 64, "U64": 64, "F64": 64,
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "C64": 64,
}  # fmt: skip


class Tensor(NamedTuple):
    """An entry of a shard's header."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int

    @property
    def size(self) -> int:
        """Bytes."""
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A folder whose files hold together. `config` is config.json as it is.

    `files` has the file of each tensor.
    """

    folder: Path
    config: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    files: Mapping[str, str]

    @property
    def quantization(self) -> Mapping[str, Any] | None:
        """The stored quantization_config, where the weights are quantised."""
        stored = self.config.get("quantization_config") or None
        if stored is not None and not isinstance(stored, dict):
            raise BrokenCheckpoint("quantization_config in config.json is no object.")
        return stored

    @property
    def brings_code(self) -> bool:
        """Whether config.json refers to code in the repository."""
        return bool(self.config.get("auto_map"))

    @property
    def stored_bytes(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.size for tensor in self.tensors.values())


def inspect(folder: Path, model: str) -> Checkpoint:
    """Look at a folder; `model` is what its reader asked for, for messages.

    Raises ModelNotFound, UnsafeCheckpoint, UnsupportedModel or BrokenCheckpoint.
    """
    names = {path.name for path in folder.iterdir()}
    for name in sorted(names):
        _check_plain(folder / name)
    refuse_other_formats(names, model)
    config = read_json(folder / "config.json")
    tensors: dict[str, Tensor] = {}
    files: dict[str, str] = {}
    for shard, expected in _shards(folder, names).items():
        found = read_header(folder / shard)
        if absent := sorted(expected - found.keys()):
            raise BrokenCheckpoint(
                f"{shard} lacks {len(absent)} tensors that the index places there, "
                f"{absent[0]!r} first. Download the model again."
            )
        tensors |= found
        files |= dict.fromkeys(found, shard)
    return Checkpoint(folder, config, tensors, files)


def refuse_other_formats(names: Iterable[str], model: str) -> None:
    """Raise for a file list that is no checkpoint of transformers with safetensors.

    `names` are the files of a folder or of a repository on the hub.
    """
    names = set(names)
    if SINGLE in names or INDEX in names:
        if "config.json" not in names:
            raise ModelNotFound(f"{model} has weights but no config.json.")
        return
    if pickles := sorted(name for name in names if name.endswith(PICKLES)):
        raise UnsafeCheckpoint(
            f"{model} has pickled weights only ({pickles[0]}), which can run any code when they "
            f"are read. Convert them once with: python -m llmkernel.worker.convert {model} FOLDER",
            file=pickles[0],
        )
    if "adapter_config.json" in names:
        raise UnsupportedModel(
            f"{model} is an adapter and no whole model. Merge it into its base model first "
            "(peft: merge_and_unload, then save_pretrained)."
        )
    if any(name.endswith(".gguf") for name in names):
        raise UnsupportedModel(
            f"{model} is in GGUF format. Use the original repository with safetensors."
        )
    if "config.json" not in names:
        raise ModelNotFound(f"{model} holds no config.json, so it is no model in the hub's layout.")
    raise BrokenCheckpoint(f"{model} has neither {SINGLE} nor {INDEX}.")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file of the checkpoint. Raises BrokenCheckpoint if it is none."""
    try:
        if path.stat().st_size > _MAX_JSON:
            raise BrokenCheckpoint(f"{path.name} is larger than {_MAX_JSON} bytes.")
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise BrokenCheckpoint(f"{path.name} is not JSON: {error}") from None
    except OSError as error:
        raise BrokenCheckpoint(f"{path.name} cannot be read: {error.strerror}.") from None
    if not isinstance(value, dict):
        raise BrokenCheckpoint(f"{path.name} holds no JSON object.")
    return value


def _check_plain(path: Path) -> None:
    """Refuse what is opened like a file and never ends: a pipe, a device, or a link to one."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return  # a link to nothing; where it is needed, its reader says so
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise BrokenCheckpoint(f"{path.name} is no regular file.")


def shard_names(index: Mapping[str, Any]) -> dict[str, set[str]]:
    """Shard file → names of its tensors, from an index.

    Raises BrokenCheckpoint, and UnsafeCheckpoint for shards that are no safetensors.
    """
    weights = index.get("weight_map")
    if not isinstance(weights, dict) or not weights:
        raise BrokenCheckpoint(f"{INDEX} has no weight_map.")
    shards: dict[str, set[str]] = {}
    for tensor, name in weights.items():
        # a name with a folder in it could reach any file
        if not isinstance(name, str) or Path(name).name != name:
            raise BrokenCheckpoint(f"{INDEX} places {tensor!r} outside of the folder.")
        if not name.endswith(".safetensors"):
            raise UnsafeCheckpoint(f"{INDEX} names {name}, which is no safetensors file.")
        shards.setdefault(name, set()).add(tensor)
    if not isinstance(index.get("metadata"), dict):  # transformers cannot load without it
        raise BrokenCheckpoint(
            f"{INDEX} has no 'metadata', which transformers needs. Download the file again, or add "
            '"metadata": {} to it.'
        )
    return shards


def read_header(path: Path) -> dict[str, Tensor]:
    """The tensors of one safetensors file. Raises BrokenCheckpoint where it is torn or lies."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length, header = _header(file, size, path.name)
    except OSError as error:
        raise BrokenCheckpoint(f"{path.name} cannot be read: {error.strerror}.") from None
    header.pop("__metadata__", None)
    tensors = {name: _tensor(path.name, name, entry) for name, entry in header.items()}
    _check_layout(path.name, tensors, size - 8 - length)
    return tensors


def _shards(folder: Path, names: set[str]) -> dict[str, set[str]]:
    if SINGLE in names:
        return {SINGLE: set()}
    shards = shard_names(read_json(folder / INDEX))
    if absent := sorted(shards.keys() - names):
        raise BrokenCheckpoint(
            f"{len(absent)} of {len(shards)} shards are missing, {absent[0]} first. "
            "Download the model again."
        )
    return shards


def _header(file: BinaryIO, size: int, name: str) -> tuple[int, dict[str, Any]]:
    length = int.from_bytes(file.read(8), "little")
    if size < 8 or not 2 <= length <= min(_MAX_HEADER, size - 8):
        raise BrokenCheckpoint(f"{name} is torn: {size} bytes cannot hold its header.")
    try:
        header = json.loads(file.read(length))
    except (ValueError, RecursionError):
        raise BrokenCheckpoint(f"{name} is broken: its header is not JSON.") from None
    if not isinstance(header, dict):
        raise BrokenCheckpoint(f"{name} is broken: its header is no table of tensors.")
    return length, header


def _tensor(file: str, name: str, entry: Any) -> Tensor:
    try:
        (start, end), shape = entry["data_offsets"], tuple(entry["shape"])
        tensor = Tensor(entry["dtype"], shape, start, end)
        whole = all(type(number) is int and number >= 0 for number in (*shape, start, end))
        fits = whole and tensor.size * 8 == math.prod(shape) * _BITS[tensor.dtype]
    except (KeyError, TypeError, ValueError):
        fits = False
    if not fits:
        raise BrokenCheckpoint(f"{file} is broken: its entry for {name!r} contradicts itself.")
    return tensor


def _check_layout(file: str, tensors: Mapping[str, Tensor], size: int) -> None:
    end = 0
    for name, tensor in sorted(tensors.items(), key=lambda item: item[1][2:]):
        if tensor.start != end:
            raise BrokenCheckpoint(f"{file} is broken: {name!r} overlaps another tensor.")
        end = tensor.end
    if end != size:
        raise BrokenCheckpoint(
            f"{file} is torn: it holds {size} bytes of tensors, and its header says {end}. "
            "Download it again.",
            needed=end,
            found=size,
        )
