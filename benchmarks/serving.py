"""What the commands that measure a worker share: their options, a checkpoint, a worker of it."""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import llmkernel
from benchmarks import apart, command, random_model, results
from benchmarks.shapes import SHAPES, Shape
from llmkernel import launcher, paths
from llmkernel.client import Client

ABANDONED_SECONDS = 900.0
"""Without work for so long a worker leaves: the benchmark that started it was killed."""


def parser(description: str | None) -> argparse.ArgumentParser:
    """A parser with the options that say what is served and what becomes of the figures."""
    made = command.parser(description)
    made.add_argument("--shape", choices=SHAPES, default="tiny", help="default: %(default)s")
    made.add_argument("--layers", type=command.positive, help="fewer layers than the shape has")
    made.add_argument(
        "--folder", type=results.folder, help="build the checkpoint here, keep and reuse it"
    )
    made.add_argument("--kv-cache", help="default: 8GiB on a GPU, 256MiB on the CPU")
    return made


def shape(arguments: argparse.Namespace) -> Shape:
    """The shape that was asked for."""
    return SHAPES[arguments.shape].with_layers(arguments.layers)


@contextmanager
def checkpoint(of: Shape, folder: Path | None) -> Iterator[Path]:
    """A random checkpoint of a shape: in `folder`, which stays, or in a temporary one.

    What its workers keep for their next start, Triton included, goes with the temporary one.
    """
    with tempfile.TemporaryDirectory(prefix="lk-bench-") as temporary:
        path = folder or Path(temporary) / of.name
        apart.call(random_model.build, path, of)
        kept = {"LLMKERNEL_CACHE": "cache", "TRITON_CACHE_DIR": "triton"}
        folders = {name: str(Path(temporary) / part) for name, part in kept.items()}
        with mock.patch.dict(os.environ, folders):
            yield path


def settings(arguments: argparse.Namespace, **more: Any) -> dict[str, Any]:
    """The settings of a worker that is measured: NF4 over bfloat16."""
    default = "8GiB" if on_gpu() else "256MiB"
    return {
        "quantization": "nf4",
        "dtype": "bfloat16",
        "kv_cache": arguments.kv_cache or default,
        "weight_cache": False,  # one start each: gigabytes would be written for nobody
        **more,
    }


@contextmanager
def worker(folder: Path, asked: dict[str, Any]) -> Iterator[Client]:
    """A worker with these settings, and a client of it."""
    name = f"bench-{os.getpid()}"
    asked = {"idle_timeout": ABANDONED_SECONDS, **asked}
    client = llmkernel.start(folder, name=name, progress=False, **asked)
    failed = False
    try:
        with client:
            yield client
    except Exception:
        failed = True
        raise
    finally:
        launcher.stop(client.connection, drain=False)
        if not failed:
            paths.log_path(name).unlink(missing_ok=True)


def on_gpu() -> bool:
    """Whether there is a GPU, without a context on it."""
    import torch

    return torch.cuda.is_available()
