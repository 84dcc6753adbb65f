"""Where figures go: a JSON file with the machine, the versions and the day beside them."""

from __future__ import annotations

import datetime
import json
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

FOLDER = Path(__file__).parent / "results"
PACKAGES = ("llmkernel", "torch", "transformers", "bitsandbytes", "pyzmq", "msgspec")


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    return {
        "processor": _processor(),
        "cores": psutil.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "system": platform.platform(),
        "python": platform.python_version(),
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


def save(name: str, figures: dict[str, Any]) -> Path:
    """Write `figures` to results/<name>-<day>.json; returns the path."""
    day = datetime.datetime.now(datetime.UTC).date().isoformat()
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / f"{name}-{day}.json"
    record = {"benchmark": name, "date": day, "machine": machine(), "versions": versions()}
    path.write_text(json.dumps(record | figures, indent=2) + "\n")
    return path


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())
