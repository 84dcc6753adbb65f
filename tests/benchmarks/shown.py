"""A record as docs/performance.md would show it, had it been measured on a GPU."""

from __future__ import annotations

from typing import Any

from benchmarks import plots
from benchmarks.sections import SECTIONS

GPU = {"name": "NVIDIA H200", "driver": "580.1", "memory_bytes": 150 * 10**9}
EMPTY = "\n".join(f"<!-- {name}: here -->\nold\n<!-- end -->" for name in SECTIONS)


def on_a_gpu(record: dict[str, Any]) -> dict[str, Any]:
    """The record with a GPU in its machine."""
    return record | {"machine": {**record["machine"], "gpus": [GPU]}}


def shown(*records: dict[str, Any]) -> plots.Page:
    """A page of nothing but markers, filled."""
    return plots.page(EMPTY, [on_a_gpu(record) for record in records])
