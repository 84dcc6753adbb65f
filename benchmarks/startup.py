"""From a new process to the first token: first start, second start, attaching; and the memory taken.

    python -m benchmarks.startup [--shape NAME] [--save]

A random checkpoint of the shape is served in NF4, as in benchmarks.decode. Each start and each
attachment is a Python process of its own; its clock runs from its first line, so importing
llmkernel is in it, and starting the interpreter is not ("process" has that too). Before
the first start the files of the checkpoint are dropped from the page cache (`--warm` leaves them);
the second start finds them there, and what the first one has kept: packed weights and compiled
kernels (stage "keep"; before the first start nothing is kept). Imports are a good part of a start:
Python's bytecode should be there, as pip leaves it (`python -m compileall`).

On a GPU the memory is what the driver says, less what was in use before: after the first token,
and after streams at several widths.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

import llmkernel
from benchmarks import command, gpu, results, serving, streams
from benchmarks.prompts import Prompts
from llmkernel import connection, launcher
from llmkernel.client import Client

_GIB = 2**30


def open_in_new_process(settings: dict[str, Any], prompt: list[int]) -> dict[str, Any]:
    """What benchmarks.opening says, and the seconds of the whole process until it says so."""
    asked = json.dumps({"settings": settings, "prompt": prompt})
    began = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.opening", asked], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        taken = time.perf_counter() - began
    if not line:
        raise command.Refused("The process has ended without an answer; it says why above.")
    return {**json.loads(line), "process": taken}


def stages(found: dict[str, Any]) -> dict[str, float]:
    """Seconds of each part of an opening, one after the other."""
    moments = {"import": 0.0, "start": found["imported"], **found["stages"]}
    moments |= {"first token": found["ready"], "": found["first_token"]}
    return {name: end - begin for (name, begin), (_, end) in itertools.pairwise(moments.items())}


def say_of_bytecode() -> None:
    """Say on stderr that imports may take longer here than elsewhere."""
    if sys.dont_write_bytecode:
        note = "Python is told to keep no bytecode: what pip has not compiled is at each start."
        print(note, file=sys.stderr)


def drop_from_page_cache(folder: Path) -> None:
    """Have the system read the files of a folder from disk the next time."""
    os.sync()
    for path in folder.iterdir():
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def attached(settings: dict[str, Any], prompts: Prompts, repeats: int) -> dict[str, float]:
    """Medians of new processes that attach to a worker that runs."""
    found = [open_in_new_process(settings, prompts.take(128)) for _ in range(repeats)]
    medians = {
        name: statistics.median(one[name] for one in found)
        for name in ("imported", "ready", "first_token", "process")
    }
    print(
        f"\nattached after {medians['ready']:.3f} s (import {medians['imported']:.3f} s), first "
        f"token after {medians['first_token']:.3f} s; the whole process {medians['process']:.3f} s",
        flush=True,
    )
    return medians


@contextmanager
def started(
    name: str, settings: dict[str, Any], prompts: Prompts
) -> Iterator[tuple[dict[str, Any], Client]]:
    """A worker started from a new process: how long each stage took, and a client of it."""
    try:
        found = open_in_new_process(settings, prompts.take(128))
        found["seconds"] = stages(found)
        parts = ", ".join(f"{stage} {seconds:.2f}" for stage, seconds in found["seconds"].items())
        print(f"{name}: first token after {found['first_token']:.2f} s ({parts})", flush=True)
        with llmkernel.connect(settings["name"]) as client:
            yield found, client
    finally:
        running = connection.running(settings["name"])
        if running is not None:
            launcher.stop(running, drain=False)


def memory(client: Client, used: int) -> dict[str, float]:
    """Bytes on the device: those asked for, and those beyond."""
    status = client.status()
    assert status.model is not None, "it has answered already"
    asked = status.model.weights_bytes + status.model.kv_cache_bytes
    return {
        "used_bytes": used,
        "worker_bytes": status.device_bytes,
        "weights_bytes": status.model.weights_bytes,
        "kv_cache_bytes": status.model.kv_cache_bytes,
        "beyond_bytes": used - asked,
        "share_beyond": used / asked - 1,
    }


def measure(
    folder: Path, settings: dict[str, Any], prompts: Prompts, arguments: argparse.Namespace
) -> dict[str, Any]:
    """Two starts; attachments and the memory of the second."""
    before = gpu.used_bytes() if serving.on_gpu() else None
    if not arguments.warm:
        drop_from_page_cache(folder)
    with started("first start", settings, prompts) as (first, _):
        pass
    with started("second start", settings, prompts) as (second, client):
        figures: dict[str, Any] = {
            "first_start": first,
            "second_start": second,
            "model": msgspec.to_builtins(client.status().model),
            "attach": attached(settings, prompts, arguments.repeats),
        }
        after_start = None if before is None else memory(client, gpu.used_bytes() - before)
        for width in arguments.batch:
            streams.together(client, prompts.several(width, 128), 32)
        after_streams = None if before is None else memory(client, gpu.used_bytes() - before)
    if "keep" not in first["seconds"]:
        print("no weights are kept here: own kernels need a GPU", flush=True)
    if before is not None:
        figures["memory"] = {
            "after_start": after_start,
            "after_streams": after_streams,
            "after_stop_bytes": gpu.used_bytes_once_near(before) - before,
        }
        report(figures["memory"])
    return figures


def report(found: dict[str, Any]) -> None:
    """Print what was taken on the device."""
    for name in ("after_start", "after_streams"):
        one = found[name]
        print(
            f"{name.replace('_', ' ')}: {one['used_bytes'] / _GIB:.2f} GiB, of them "
            f"{one['weights_bytes'] / _GIB:.2f} weights, {one['kv_cache_bytes'] / _GIB:.2f} keys and "
            f"values, {one['beyond_bytes'] / _GIB:.2f} beyond ({one['share_beyond']:.1%})"
        )
    print(f"after stop: {found['after_stop_bytes'] / _GIB:.2f} GiB")


def main(given: list[str] | None = None) -> None:
    """Measure, print and, where asked, keep the figures."""
    parser = serving.parser(__doc__)
    parser.add_argument("--warm", action="store_true", help="leave the files in the page cache")
    parser.add_argument(
        "--repeats", type=command.positive, default=5, help="attachments (default: 5)"
    )
    parser.add_argument("--batch", type=command.numbers, default=[1, 8, 32])
    arguments = parser.parse_args(given)
    say_of_bytecode()
    shape = serving.shape(arguments)
    prompts = Prompts(shape.vocabulary)
    asked = serving.settings(arguments, context_length=8192, weight_cache=True)
    with serving.checkpoint(shape, arguments.folder) as folder:
        settings = {**asked, "model": str(folder), "name": f"bench-{os.getpid()}"}
        figures = measure(folder, settings, prompts, arguments)
    figures |= {"shape": shape.name, "settings": {**asked, "warm": arguments.warm}}
    figures["model"]["model"] = shape.name
    if arguments.save:
        print(results.save("startup", figures, shape.name, arguments.save))


if __name__ == "__main__":
    command.run(main)
