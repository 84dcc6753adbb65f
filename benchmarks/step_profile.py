"""Where the time of a decode step goes: the engine in this process, kernel by kernel.

    python -m benchmarks.step_profile FOLDER [--batch 1,8,32] [--context 128] [--save FILE]

Needs a CUDA device. FOLDER is a checkpoint, or does not exist and is built as the Llama-3.1-8B
shape with `--layers` layers. Steps are timed first without the profiler, by wall clock, then
profiled: microseconds of a step by kernel, the gaps between them, and how often each ran.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu_checks import build_checkpoint, prompt
from llmkernel.config import WorkerConfig
from llmkernel.params import SamplingParams
from llmkernel.worker.assembly import assemble
from llmkernel.worker.engine import Engine
from llmkernel.worker.sequence import Request

WARM_STEPS, TIMED_STEPS, PROFILED_STEPS = 12, 64, 16


def profile_width(
    engine: Engine, width: int, context: int, sampling: dict[str, Any]
) -> dict[str, Any]:
    """The figures of steps with `width` rows of about `context` tokens."""
    new = WARM_STEPS + TIMED_STEPS + PROFILED_STEPS + 40
    params = SamplingParams.build(max_tokens=new, ignore_eos=True, **sampling)
    keys = list(range(1000 * width, 1000 * width + width))
    for key in keys:
        engine.submit(Request(key, "profile", tuple(prompt(key, context)), params, new))
    for _ in range(WARM_STEPS + -(-width * context // 512)):
        engine.step()
    torch.cuda.synchronize()
    walls = []
    for _ in range(TIMED_STEPS):
        began = time.perf_counter()
        engine.step()
        walls.append(time.perf_counter() - began)
    torch.cuda.synchronize()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
        for _ in range(PROFILED_STEPS):
            engine.step()
        torch.cuda.synchronize()
    while engine.step():
        pass
    events = [event for event in profiler.events() if event.device_type.name == "CUDA"]
    by_name: dict[str, list[float]] = defaultdict(list)
    for event in events:
        by_name[event.name].append(event.device_time)
    busy = sum(map(sum, by_name.values())) / PROFILED_STEPS
    rows = [
        {
            "kernel": name[:90],
            "us": round(sum(times) / PROFILED_STEPS, 2),
            "runs": len(times) / PROFILED_STEPS,
        }
        for name, times in by_name.items()
    ]
    rows.sort(key=lambda row: -float(str(row["us"])))
    wall = 1e6 * statistics.median(walls)
    return {"width": width, "step_us": round(wall, 1), "busy_us": round(busy, 1), "kernels": rows}


def main() -> None:
    """Time and profile each width."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--batch", default="1,8,32")
    parser.add_argument("--context", type=int, default=128)
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--save", type=Path)
    arguments = parser.parse_args()
    if not arguments.folder.exists():
        arguments.folder.mkdir()
        build_checkpoint(arguments.folder, arguments.layers)
        torch.cuda.empty_cache()
    config = WorkerConfig.build(
        name="step-profile", model=str(arguments.folder), quantization="nf4",
        context_length=4096, kv_cache="4GiB", max_concurrent=128,
    )  # fmt: skip
    began = time.perf_counter()
    parts = assemble(config, lambda _progress: None)
    print(f"ready in {time.perf_counter() - began:.1f} s", flush=True)
    engine = parts.engine(lambda _events: None, lambda error: print("died:", error))
    report = []
    for width in map(int, arguments.batch.split(",")):
        found = profile_width(
            engine, width, arguments.context, {"temperature": arguments.temperature}
        )
        report.append(found)
        tokens = 1e6 * width / found["step_us"]
        print(
            f"\nbatch {width}: {found['step_us']} us a step ({tokens:.0f} tokens/s), kernels {found['busy_us']} us"
        )
        for row in found["kernels"][:24]:
            print(f"  {row['us']:9.1f} us {row['runs']:7.1f} x  {row['kernel']}", flush=True)
    if arguments.save:
        arguments.save.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
