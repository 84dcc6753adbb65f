"""What a kept model was made of: if any of it changes, so does the name that it is kept under.

Nothing here needs torch, so that a second start can look before it imports anything.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
from pathlib import Path

from llmkernel._version import __version__
from llmkernel.worker.checkpoint import Checkpoint, Tensor

LAYOUT = 4
"""Version of how weights are packed and kept. tests/loader/test_weight_cache.py says when to raise it."""
_SAMPLE = 256
"""Bytes of each tensor that are looked at."""
_LIBRARIES = ("torch", "transformers")


def facts(
    found: Checkpoint, revision: str | None, *, quantization: str, dtype: str, kernels: bool
) -> dict[str, str]:
    """Everything that decides how the weights of `found` look once they are ready, by name.

    `revision` is the commit on the hub, None for a folder. Raises OSError where the files
    cannot be read.
    """
    libraries = {name: importlib.metadata.version(name) for name in _LIBRARIES}
    return {
        "layout": str(LAYOUT),
        "llmkernel": __version__,
        **libraries,
        "source": source(found, revision),
        "quantization": quantization,
        "dtype": dtype,
        "kernels": str(kernels),
    }


def key(known: dict[str, str]) -> str:
    """A name for a folder, the same for the same facts."""
    return hashlib.blake2b(json.dumps(known, sort_keys=True).encode(), digest_size=16).hexdigest()


def source(found: Checkpoint, revision: str | None) -> str:
    """Which weights these are, in a digest.

    A commit of the hub never changes, so it says it all with the sizes. Of a folder count the
    names, sizes and times of its files, their headers, and some bytes of each tensor: another
    fine-tune that an archive gave the same times differs in those.
    """
    digest = hashlib.blake2b(digest_size=16)
    digest.update(json.dumps(found.config, sort_keys=True).encode())
    digest.update((revision or "").encode())
    shards: dict[str, list[Tensor]] = {}
    for name, shard in sorted(found.files.items()):
        shards.setdefault(shard, []).append(found.tensors[name])
    for shard, tensors in sorted(shards.items()):
        path = found.folder / shard
        facts = path.stat()
        digest.update(f"\n{shard} {facts.st_size}".encode())
        if revision is None:
            digest.update(f" {facts.st_mtime_ns}".encode())
            _add_samples(digest, path, tensors)
    return digest.hexdigest()


def _add_samples(digest: hashlib.blake2b, path: Path, tensors: list[Tensor]) -> None:
    with path.open("rb", buffering=0) as file:
        length = int.from_bytes(file.read(8), "little")
        digest.update(file.read(length))
        for tensor in sorted(tensors, key=lambda tensor: tensor.start):
            middle = 8 + length + (tensor.start + tensor.end) // 2
            digest.update(os.pread(file.fileno(), min(_SAMPLE, tensor.size), middle))
