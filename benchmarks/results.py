"""Where figures go: a JSON file with the machine, the versions and the day beside them."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import subprocess
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

from benchmarks import gpu

FOLDER = Path(__file__).parent / "results"
PACKAGES = ("llmkernel", "torch", "transformers", "bitsandbytes", "pyzmq", "msgspec")
SWITCHES = ("LLMKERNEL_KERNELS", "LLMKERNEL_CUDA_GRAPHS")


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    return {
        "processor": _processor(),
        "cores": psutil.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "system": platform.platform(),
        "python": platform.python_version(),
        "gpus": gpu.described(),
    }


def versions() -> dict[str, str]:
    """The installed packages that decide the figures."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def commit() -> str | None:
    """What was measured, as git names it, with a mark where files differ; None without git."""
    ask = (
        "git",
        "-C",
        str(FOLDER),
        "describe",
        "--always",
        "--dirty",
        "--abbrev=12",
        "--exclude=*",
    )
    try:
        done = subprocess.run(ask, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


def switches() -> dict[str, str]:
    """The environment variables that decide the figures, where they are set."""
    return {name: os.environ[name] for name in SWITCHES if name in os.environ}


def folder(text: str) -> Path:
    """A folder that can be written to, made where it is not there; for argparse.

    Known before hours are measured. Raises ArgumentTypeError.
    """
    path = Path(text)
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{text} cannot be written to: {error}") from None
    return path


def save(name: str, figures: dict[str, Any], variant: str = "", folder: Path | None = None) -> Path:
    """Write `figures` to <name>[-<variant>][-<GPU>]-<day>.json in results/ or `folder`."""
    day = datetime.datetime.now(datetime.UTC).date().isoformat()
    folder = folder or FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    on = machine()
    parts = (name, variant, device_name(on) if on["gpus"] else "", day)
    path = folder / ("-".join(filter(None, parts)) + ".json")
    record = {
        "benchmark": name,
        "date": day,
        "machine": on,
        "versions": versions(),
        "commit": commit(),
        "switches": switches(),
    }
    path.write_text(json.dumps(record | figures, indent=2) + "\n")
    return path


OF_THE_PROCESSOR = ("batching", "gateway")
"""Benchmarks that no GPU takes part in."""


def newest(folder: Path = FOLDER) -> list[dict[str, Any]]:
    """Of each benchmark, shape and GPU the newest record that is kept, in the order of these.

    What was measured without a GPU counts only where it is about the processor.
    """
    found: dict[tuple[str, str, str], dict[str, Any]] = {}
    for path in sorted(folder.glob("*.json")):
        record = json.loads(path.read_text())
        # there are figures of another kind, and files that were put together by hand
        if not {"benchmark", "machine"} <= set(record):
            continue
        key = (record["benchmark"], record.get("shape", ""), device_name(record["machine"]))
        if (key[0] in OF_THE_PROCESSOR) != (key[2] == "cpu"):
            continue
        if key not in found or found[key]["date"] <= record["date"]:
            found[key] = record
    return [found[key] for key in sorted(found)]


def device_name(on: dict[str, Any]) -> str:
    """Of a `machine`: the word of its first GPU's name that has a number first, or "cpu"."""
    gpus = on.get("gpus")  # the first records have none
    words = gpus[0]["name"].lower().split() if gpus else ["cpu"]
    return next((word for word in words if any(map(str.isdigit, word))), words[-1])


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())
