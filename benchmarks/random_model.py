"""A model of any shape with random weights, as the hub would lay it out. Says nothing, at full speed."""

from __future__ import annotations

import json
import math
import re
import zlib
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import word_tokenizer
from benchmarks.command import Refused
from benchmarks.shapes import Shape

if TYPE_CHECKING:
    from torch import Tensor

_WRITERS = 4
_SCALE = 0.02
_RECORD = "built.json"
"""Written last, so that a folder is whole where it is there."""


def build(folder: Path, shape: Shape, dtype: str = "bfloat16") -> int:
    """Save config, a safetensors file for each layer, and tokenizer; returns the parameters.

    The weights are drawn on a GPU where there is one. A folder that holds the same already is left
    as it is. Raises Refused for one that holds something else.
    """
    record = {"shape": shape.name, "values": shape.values, "dtype": dtype}
    made = folder / _RECORD
    if (there := _built(made)) is not None and there["record"] == record:
        return int(there["parameters"])
    if folder.exists() and any(folder.iterdir()):
        raise Refused(f"{folder} holds something else. Choose another folder.")
    folder.mkdir(parents=True, exist_ok=True)
    config = shape.config(dtype)
    sizes = _sizes(config)
    config.save_pretrained(folder)
    _save_weights(folder, sizes, dtype)
    word_tokenizer.save(folder, shape.vocabulary)
    parameters = sum(map(math.prod, sizes.values()))
    made.write_text(json.dumps({"record": record, "parameters": parameters}) + "\n")
    return parameters


def _built(record: Path) -> dict[str, Any] | None:
    """What a folder holds; None where that cannot be known."""
    try:
        found = json.loads(record.read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and {"record", "parameters"} <= set(found) else None


def _sizes(config: Any) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor by its name, those that are tied once."""
    from llmkernel.worker.memory import empty_model

    model = empty_model(config)
    return {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}


def _save_weights(folder: Path, sizes: dict[str, tuple[int, ...]], dtype: str) -> None:
    shards: dict[str, dict[str, tuple[int, ...]]] = defaultdict(dict)
    for name, size in sizes.items():
        layer = re.search(r"\.(\d+)\.", name)
        shards[f"model-{int(layer[1]):05}" if layer else "model-ends"][name] = size
    with ThreadPoolExecutor(_WRITERS) as pool:
        jobs = [
            pool.submit(_save_shard, folder / f"{name}.safetensors", tensors, dtype)
            for name, tensors in shards.items()
        ]
        for job in jobs:
            job.result()
    index = {name: f"{shard}.safetensors" for shard, names in shards.items() for name in names}
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": index})
    )


def _save_shard(path: Path, sizes: dict[str, tuple[int, ...]], dtype: str) -> None:
    from safetensors.torch import save_file

    tensors = {name: _random(name, size, dtype) for name, size in sizes.items()}
    save_file(tensors, path, metadata={"format": "pt"})


def _random(name: str, size: tuple[int, ...], dtype: str) -> Tensor:
    """Norms do nothing; all else is noise that depends on the name only."""
    import torch

    kind = getattr(torch, dtype)
    if len(size) == 1:
        return torch.full(size, float(not name.endswith("bias")), dtype=kind)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    generator = torch.Generator(device).manual_seed(zlib.crc32(name.encode()))
    noise = torch.randn(size, generator=generator, device=device, dtype=kind)
    return noise.mul_(_SCALE).cpu()
