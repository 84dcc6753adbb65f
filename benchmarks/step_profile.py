"""Where the time of a decode step goes: the engine in this process, kernel by kernel.

    python -m benchmarks.step_profile [--shape NAME] [--batch 1,8,32] [--context 128] [--save]

Needs a CUDA device. A random checkpoint of the shape is served in NF4, as in benchmarks.decode.
Steps are timed first without the profiler, by wall clock, then profiled: microseconds of a step
by kernel, and how often each ran.
"""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from typing import Any

import torch

from benchmarks import results, serving
from benchmarks.prompts import Prompts
from llmkernel.config import WorkerConfig
from llmkernel.params import SamplingParams
from llmkernel.worker.assembly import assemble
from llmkernel.worker.engine import Engine
from llmkernel.worker.sequence import Request

WARM_STEPS, TIMED_STEPS, PROFILED_STEPS = 12, 64, 16


def profile_width(
    engine: Engine, prompts: list[list[int]], sampling: dict[str, Any]
) -> dict[str, Any]:
    """The figures of steps with a row for each prompt."""
    width, context = len(prompts), len(prompts[0])
    new = WARM_STEPS + TIMED_STEPS + PROFILED_STEPS + 40
    params = SamplingParams.build(max_tokens=new, ignore_eos=True, **sampling)
    for key, prompt in enumerate(prompts, 1000 * width):
        engine.submit(Request(key, "profile", tuple(prompt), params, new))
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


def report(found: dict[str, Any]) -> None:
    """Print a step and the kernels that take most of it."""
    width, step, busy = found["width"], found["step_us"], found["busy_us"]
    speed = 1e6 * width / step
    print(f"\nbatch {width}: {step} us a step ({speed:.0f} tokens/s), kernels {busy} us")
    for row in found["kernels"][:24]:
        print(f"  {row['us']:9.1f} us {row['runs']:7.1f} x  {row['kernel']}", flush=True)


def main() -> None:
    """Time and profile each width."""
    parser = serving.parser(__doc__)
    parser.set_defaults(shape="llama-3.1-8b")
    parser.add_argument("--batch", type=serving.numbers, default=[1, 8, 32])
    parser.add_argument("--context", type=int, default=128, help="tokens of the prompts")
    parser.add_argument("--temperature", type=float, default=0.0)
    arguments = parser.parse_args()
    shape = serving.shape(arguments)
    asked = serving.settings(arguments, context_length=4096, max_concurrent=128)
    prompts = Prompts(shape.vocabulary)
    rows = []
    with serving.checkpoint(shape, arguments.folder) as folder:
        began = time.perf_counter()
        config = WorkerConfig.build(name="step-profile", model=str(folder), **asked)
        parts = assemble(config, lambda _progress: None)
        print(f"ready in {time.perf_counter() - began:.1f} s", flush=True)
        engine = parts.engine(lambda _events: None, lambda error: print("died:", error))
        for width in arguments.batch:
            asking = prompts.several(width, arguments.context)
            rows.append(profile_width(engine, asking, {"temperature": arguments.temperature}))
            report(rows[-1])
    figures = {"shape": shape.name, "settings": asked, "context": arguments.context, "rows": rows}
    if arguments.save:
        print(results.save("step_profile", figures, shape.name, arguments.save))


if __name__ == "__main__":
    main()
