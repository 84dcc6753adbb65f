"""The GPU itself: what it is, how fast it reads, how much of it is taken."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

_QUERY = ("nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader,nounits")  # fmt: skip


def described() -> list[dict[str, Any]]:
    """Name, driver and memory of each GPU; none where there is no driver. Takes nothing of it."""
    if shutil.which(_QUERY[0]) is None:
        return []
    done = subprocess.run(_QUERY, capture_output=True, text=True, timeout=30, check=False)
    if done.returncode != 0:
        return []
    return [_row(line) for line in done.stdout.splitlines()]


def _row(line: str) -> dict[str, Any]:
    name, driver, mebibytes = line.rsplit(", ", 2)
    return {"name": name, "driver": driver, "memory_bytes": int(mebibytes) * 2**20}


def needed() -> None:
    """End the command where there is no GPU, with exit code 2."""
    import torch

    if not torch.cuda.is_available():
        sys.stderr.write("This needs a CUDA device. `llmkernel doctor` says what torch finds.\n")
        sys.exit(2)


def timed(call: Callable[[], object]) -> float:
    """Median microseconds of a replay of everything that `call` launches."""
    import torch
    from triton.testing import do_bench

    call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return 1e3 * float(do_bench(graph.replay, warmup=4, rep=16, return_mode="median"))


def read_bandwidth() -> float:
    """Bytes a second that a plain read of 2 GiB reaches."""
    import torch

    block = torch.empty(2**29, dtype=torch.float32, device="cuda")
    return 1e6 * block.nbytes / timed(block.sum)


def used_bytes() -> int:
    """Bytes of device 0 in use, by everybody, as the driver says. Makes a context, which counts."""
    import torch

    free, total = torch.cuda.mem_get_info()
    return int(total - free)


def used_bytes_once_near(target: int, seconds: float = 10) -> int:
    """The same once it is near `target`, or after some seconds."""
    deadline = time.monotonic() + seconds
    while used_bytes() > target + 2**28 and time.monotonic() < deadline:
        time.sleep(0.2)
    return used_bytes()
