"""Pickled weights to safetensors: `python -m llmkernel.worker.convert SOURCE FOLDER`.

SOURCE is a local folder or a hub id. The pickles are read by torch's restricted
reader, which refuses anything but tensors and plain containers; nothing is run.
What was written is read again and compared before FOLDER appears.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
import torch

from llmkernel.errors import (
    BrokenCheckpoint,
    InvalidRequest,
    LLMKernelError,
    ModelNotFound,
    UnsafeCheckpoint,
)
from llmkernel.protocol import Progress
from llmkernel.worker import hub
from llmkernel.worker.checkpoint import INDEX, SINGLE, read_json

PICKLE = "pytorch_model.bin"
PICKLE_INDEX = "pytorch_model.bin.index.json"
_SMALL_FILES = ("*.json", "*.jinja", "*.txt", "*.tiktoken", "tokenizer.model")


@click.command()
@click.argument("source")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--revision", help="Branch, tag or commit on the hub.")
def main(source: str, folder: Path, revision: str | None) -> None:
    """Write the model SOURCE, which has pickled weights, into FOLDER as safetensors."""
    try:
        convert(source, folder, revision, lambda text: click.echo(text, err=True))
    except LLMKernelError as error:
        raise click.ClickException(error.message) from None
    click.echo(f"Converted. Start it with: llmkernel start {folder}")


def convert(
    source: str, folder: Path, revision: str | None = None, tell: Callable[[str], None] = print
) -> None:
    """Convert the model `source` into the new folder `folder`.

    Raises InvalidRequest where `folder` holds something, ModelNotFound without pickled
    weights, UnsafeCheckpoint for a pickle that holds more than tensors and
    BrokenCheckpoint for one that cannot be read.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InvalidRequest(f"{folder} is there already. Name a new folder.")
    origin = _origin(source, revision, tell)
    files = pickles(origin, source)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".convert-") as temporary:
        target = Path(temporary) / "model"
        target.mkdir()
        _write(origin, files, target, tell)
        for pattern in _SMALL_FILES:
            for path in origin.glob(pattern):
                if path.name not in (PICKLE_INDEX, INDEX):
                    shutil.copyfile(path, target / path.name)
        if folder.exists():
            folder.rmdir()
        target.rename(folder)


def pickles(origin: Path, source: str) -> list[str]:
    """The names of the pickled weights in a folder. Raises ModelNotFound where there are none."""
    if (origin / PICKLE).is_file():
        return [PICKLE]
    if not (origin / PICKLE_INDEX).is_file():
        raise ModelNotFound(f"{source} has neither {PICKLE} nor {PICKLE_INDEX}.")
    weights = read_json(origin / PICKLE_INDEX).get("weight_map", {})
    names = sorted(set(weights.values()))
    if not names or any(Path(name).name != name for name in names):
        raise BrokenCheckpoint(f"{PICKLE_INDEX} names no files in the folder.")
    if absent := [name for name in names if not (origin / name).is_file()]:
        raise BrokenCheckpoint(f"{absent[0]} is missing. Download the model again.")
    return names


def read_pickle(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a pickled file, read without running anything that is in it."""
    try:
        stored: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # each of torch's formats has its own way to fail
        if type(error).__name__ == "UnpicklingError":
            raise UnsafeCheckpoint(
                f"{path.name} holds more than tensors, so it is not opened. Get the model from "
                "somewhere else."
            ) from None
        raise BrokenCheckpoint(f"{path.name} cannot be read: {error}") from error
    if isinstance(stored, dict) and isinstance(stored.get("state_dict"), dict):
        stored = stored["state_dict"]
    if not isinstance(stored, dict) or not stored:
        raise BrokenCheckpoint(f"{path.name} holds no table of tensors.")
    if not all(isinstance(tensor, torch.Tensor) for tensor in stored.values()):
        raise BrokenCheckpoint(f"{path.name} holds something else than tensors.")
    return stored


def _origin(source: str, revision: str | None, tell: Callable[[str], None]) -> Path:
    path = Path(source).expanduser()
    if path.is_dir():
        return path

    def choose(names: Sequence[str]) -> tuple[list[str], bool]:
        small = [name for name in names if "/" not in name and Path(name).suffix != ".bin"]
        wanted = [name for name in small if any(Path(name).match(one) for one in _SMALL_FILES)]
        weights = [name for name in names if name.startswith("pytorch_model") and "/" not in name]
        return sorted({*wanted, *weights}), False

    def report(progress: Progress) -> None:
        if progress.stage == "download" and progress.done == progress.total:
            tell(f"{progress.total} bytes are in the cache")

    return hub.fetch(source, revision, choose, report).folder


def _write(origin: Path, files: list[str], target: Path, tell: Callable[[str], None]) -> None:
    from safetensors.torch import load_file, save_file

    places: dict[str, str] = {}
    size = 0
    for number, name in enumerate(files, 1):
        tell(f"{name} ({number} of {len(files)})")
        # a copy each: safetensors has no tensors that share memory
        tensors = {
            key: value.clone().contiguous() for key, value in read_pickle(origin / name).items()
        }
        shard = SINGLE if len(files) == 1 else f"model-{number:05}-of-{len(files):05}.safetensors"
        save_file(tensors, target / shard, metadata={"format": "pt"})
        again = load_file(target / shard)
        if any(not _same(tensor, again[key]) for key, tensor in tensors.items()):
            raise BrokenCheckpoint(f"What was written of {name} is not what was read.")
        places |= dict.fromkeys(tensors, shard)
        size += sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    if len(files) > 1:
        index = {"metadata": {"total_size": size}, "weight_map": places}
        (target / INDEX).write_text(json.dumps(index, indent=2, sort_keys=True))


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    # bytes, so that NaN equals itself
    return one.dtype == other.dtype and torch.equal(
        one.flatten().view(torch.uint8), other.flatten().view(torch.uint8)
    )


if __name__ == "__main__":
    sys.exit(main())
