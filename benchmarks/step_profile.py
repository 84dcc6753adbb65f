"""Where the time of a decode step goes: the engine in this process, kernel by kernel.

    python -m benchmarks.step_profile [--shape NAME] [--batch 1,8,32] [--context 128] [--save]

Needs a CUDA device. A random checkpoint of the shape is served in NF4, as in benchmarks.decode.
Steps are timed first without the profiler, by wall clock, then profiled: microseconds of a step
by kernel, and how often each ran. Many kernels are launched early and wait for others, so each has
two times: from its start to its end, and its own, from the end of all that began before it.
"""

from __future__ import annotations

import math
import statistics
import time
from collections import defaultdict
from typing import Any, NamedTuple

import torch

from benchmarks import command, gpu, results, serving
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
    spans = [
        Span(event.name, event.time_range.start, event.time_range.end)
        for event in profiler.events()
        if event.device_type.name == "CUDA"
    ]
    rows = by_kernel(spans, PROFILED_STEPS)
    return {
        "width": width,
        "step_us": round(1e6 * statistics.median(walls), 1),
        "busy_us": round(sum(row["us"] for row in rows), 1),
        "own_us": round(sum(row["own_us"] for row in rows), 1),
        "profiled_us": round(
            (max(one.end for one in spans) - min(one.start for one in spans)) / PROFILED_STEPS, 1
        ),
        "kernels": rows,
    }


class Span(NamedTuple):
    """A kernel or copy on the device, microseconds."""

    name: str
    start: float
    end: float


def by_kernel(spans: list[Span], steps: int) -> list[dict[str, Any]]:
    """What each kernel takes of a step, its own time first: the most of it first.

    Own times add up to the time in which anything ran.
    """
    whole: dict[str, list[float]] = defaultdict(list)
    own: dict[str, float] = defaultdict(float)
    ended = -math.inf
    for name, start, end in sorted(spans, key=lambda one: (one.start, one.end)):
        whole[name].append(end - start)
        own[name] += max(0.0, end - max(start, ended))
        ended = max(ended, end)
    rows = [
        {
            "kernel": name[:90],
            "own_us": round(own[name] / steps, 2),
            "us": round(sum(times) / steps, 2),
            "runs": len(times) / steps,
        }
        for name, times in whole.items()
    ]
    return sorted(rows, key=lambda row: -float(str(row["own_us"])))


def report(found: dict[str, Any]) -> None:
    """Print a step and the kernels that take most of it."""
    width, step, own = found["width"], found["step_us"], found["own_us"]
    speed = 1e6 * width / step
    print(
        f"\nbatch {width}: {step} us a step ({speed:.0f} tokens/s); profiled {found['profiled_us']} us,"
        f" in {own} of them anything ran"
    )
    print("     own us  from start to end     runs  kernel")
    for row in found["kernels"][:24]:
        print(
            f"  {row['own_us']:9.1f} {row['us']:18.1f} {row['runs']:8.1f}  {row['kernel']}",
            flush=True,
        )


def main() -> None:
    """Time and profile each width."""
    parser = serving.parser(__doc__)
    parser.set_defaults(shape="llama-3.1-8b")
    parser.add_argument("--batch", type=command.numbers, default=[1, 8, 32])
    parser.add_argument(
        "--context", type=command.positive, default=128, help="tokens of the prompts"
    )
    parser.add_argument("--temperature", type=float, default=0.0)
    arguments = parser.parse_args()
    gpu.needed()
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
    command.run(main)
