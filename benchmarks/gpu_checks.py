"""What only a GPU can show, by one command, on the project's own kernels.

    python -m benchmarks.gpu_checks [--save [FOLDER]] [--layers N] [--skip PART]...

Needs a CUDA device. In turn:

- tests: those marked `gpu`, and those that take a GPU where there is one: kernels, graphs, merged
  weights, fused layers, the engine over a real runner. Side by side where pytest-xdist is there.
- accuracy: 4-bit logits against float32, answers against transformers with bitsandbytes
  (benchmarks/gpu_accuracy.py).
- demo: the embedded model's answers in float32 are those of the CPU.
- large: the 8B shape in NF4 through the real path. Takes about 40 GB of disk: a checkpoint of
  random bfloat16 weights is built in a temporary folder, a worker loads it, and the client
  measures it. Random weights answer nonsense at the speed of real ones.

Prints one JSON object; the exit code is 1 where a test failed, an error was large or an answer
was another.
"""

from __future__ import annotations

import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import msgspec

import llmkernel
from benchmarks import apart, command, gpu, random_model, results, streams
from benchmarks.prompts import Prompts
from benchmarks.shapes import SHAPES
from llmkernel.client import Client
from llmkernel.protocol import Progress

SHAPE = SHAPES["llama-3.1-8b"]
PROMPT_TOKENS = 128
NEW_TOKENS = 256
WIDTHS = (1, 2, 4, 8, 16, 32, 64)
TESTS = (
    "tests/model/test_cluster_attention.py",
    "tests/model/test_cubins.py",
    "tests/model/test_cuda.py",
    "tests/model/test_four_bit.py",
    "tests/model/test_fused.py",
    "tests/model/test_rehearsal.py",
    "tests/model/test_startup_on_gpu.py",
    "tests/model/test_step_ends.py",
    "tests/model/test_split_attention.py",
    "tests/model/test_tiled_attention.py",
    "tests/sampler",
    "tests/engine/test_with_a_model.py",
    "tests/loader/test_loader.py",
)
"""What runs on a GPU, in whole or in part."""
PARTS = ("tests", "accuracy", "demo", "large")
_ROOM_OF_TESTS = 10 * 2**30
"""Bytes of a GPU for each process that runs tests."""
_ROOT = Path(__file__).parent.parent


def check_tests(paths: Sequence[str] = TESTS) -> dict[str, Any]:
    """Run tests in processes of their own; how many ran, and the names of those that failed.

    Those that count what the whole GPU has in use come last, with nothing beside them.
    """
    beside = _ran(["-m", "not alone", *_side_by_side(), *paths])
    alone = _ran(["-m", "alone", *paths])
    return {"tests": {name: beside[name] + alone[name] for name in beside}}


def _ran(options: Sequence[str]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as temporary:
        report = Path(temporary) / "tests.xml"
        plain = ["-q", "-p", "no:cacheprovider", "-p", "no:benchmark", f"--junitxml={report}"]
        subprocess.run([sys.executable, "-m", "pytest", *plain, *options], cwd=_ROOT, check=False)
        return counted(report.read_text())


def _side_by_side() -> list[str]:
    """pytest's options for as many processes as GPU and processors have room for: most time is compiling."""
    rooms = [row["memory_bytes"] // _ROOM_OF_TESTS for row in gpu.described()]
    processes = min(*rooms, os.cpu_count() or 1, 12) if rooms else 1
    spread = processes > 1 and importlib.util.find_spec("xdist") is not None
    return ["-n", str(processes)] if spread else []


def counted(report: str) -> dict[str, Any]:
    """The figures of a JUnit report: tests, those that were skipped, names of those that failed."""
    cases = list(ElementTree.fromstring(report).iter("testcase"))
    failed = [
        f"{case.get('classname')}::{case.get('name')}"
        for case in cases
        if case.find("failure") is not None or case.find("error") is not None
    ]
    skipped = sum(case.find("skipped") is not None for case in cases)
    return {"run": len(cases) - skipped, "skipped": skipped, "failed": failed}


def check_accuracy() -> dict[str, Any]:
    """Figures of benchmarks.gpu_accuracy, in a process whose memory is given back."""
    found: dict[str, Any] = apart.call(_accuracy)
    return {"accuracy": found}


def _accuracy() -> dict[str, Any]:
    import torch

    from benchmarks import gpu_accuracy, tiny_models

    found = [
        gpu_accuracy.measure(case, torch.device("cuda:0"), torch.bfloat16)
        for case in gpu_accuracy.cases(list(tiny_models.VARIANTS), gpu_accuracy.LARGE_LAYERS)
    ]
    print(*gpu_accuracy.table(found), sep="\n", flush=True)
    return gpu_accuracy.figures(found, torch.bfloat16)


def check_cancel(llm: Client, prompt: list[int]) -> dict[str, Any]:
    """Break out of a stream; seconds until the worker's blocks are free again."""
    before = llm.status().load.free_blocks
    stream = llm.stream(prompt, max_tokens=4096, temperature=0, ignore_eos=True)
    for count, _ in enumerate(stream):
        if count == 20:
            break
    stream.close()
    began = time.monotonic()
    while llm.status().load.running:
        assert time.monotonic() - began < 5, "the cancelled request still runs"
        time.sleep(0.005)
    load = llm.status().load
    return {
        "cancel_s": round(time.monotonic() - began, 3),
        "free_blocks": [before, load.free_blocks],
    }


def check_large(layers: int | None) -> dict[str, Any]:
    """Load, stream, cancel and stop the 8B shape; figures of each."""
    report: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "llama-8b-shape"
        began = time.monotonic()
        apart.call(random_model.build, folder, SHAPE.with_layers(layers))
        report["build_s"] = round(time.monotonic() - began, 1)
        before = gpu.used_bytes()
        stages: dict[str, float] = {}

        def stage_begins(progress: Progress) -> None:
            stages.setdefault(progress.stage, time.monotonic() - began)

        began = time.monotonic()
        llm = llmkernel.start(
            str(folder), name="gpu-checks", quantization="nf4", context_length=16384,
            kv_cache="8GiB", on_progress=stage_begins,
        )  # fmt: skip
        report["ready_s"] = round(time.monotonic() - began, 1)
        report["stages_begin_s"] = {stage: round(at, 1) for stage, at in stages.items()}
        try:
            report |= measure(llm)
            took = llm.status().model
            assert took is not None
            report["model"] = msgspec.to_builtins(took) | {"model": folder.name}
            report["device_bytes_used"] = gpu.used_bytes() - before
        finally:
            llm.stop()
        report["device_bytes_after_stop"] = gpu.used_bytes_once_near(before) - before
    return report


def measure(llm: Client) -> dict[str, Any]:
    """The figures of a running worker."""
    report: dict[str, Any] = {"decode": []}
    prompts = Prompts(SHAPE.vocabulary)
    for width in WIDTHS:
        for _ in range(2):  # in the first one the graph of this width is captured
            asked = prompts.several(width, PROMPT_TOKENS)
            rates = streams.rates(streams.together(llm, asked, NEW_TOKENS))
        report["decode"].append({"width": width, **rates._asdict()})
        print(report["decode"][-1], flush=True)
    for length in (128, 2048, 8192):
        times = [streams.first_token(llm, prompts.take(length)) for _ in range(3)]
        report[f"first_token_{length}_s"] = round(statistics.median(times), 4)
    return report | check_cancel(llm, prompts.take(PROMPT_TOKENS))


def check_demo() -> dict[str, Any]:
    """The embedded model's greedy answers on CPU and GPU in float32: compared and counted."""
    questions = [
        "What is 17 + 25?",
        "How do I stop a running cell?",
        "Write a tiny story about a robot.",
    ]
    answers = []
    for device in ("cpu", "cuda"):
        llm = llmkernel.start(
            name=f"demo-{device}", device=device, dtype="float32", quantization="none"
        )
        try:
            turns = [[{"role": "user", "content": question}] for question in questions]
            chats = [llm.chat(turn, temperature=0, max_tokens=120).text for turn in turns]
            drawn = llm.generate("Once upon a time", max_tokens=60, temperature=0.8, seed=7).text
            answers.append([*chats, drawn])
        finally:
            llm.stop()
    same = sum(a == b for a, b in zip(*answers, strict=True))
    return {"demo_equal": [same, len(answers[0])], "answers": answers[1]}


def problems(report: dict[str, Any]) -> list[str]:
    """What of the figures is not as it has to be."""
    found = [f"failed: {name}" for name in report.get("tests", {}).get("failed", [])]
    if report.get("tests", {}).get("run") == 0:
        found.append("no test ran")
    found += [f"inexact: {name}" for name in report.get("accuracy", {}).get("inexact", [])]
    same, count = report.get("demo_equal", (0, 0))
    if same != count:
        found.append(
            f"the embedded model answers otherwise on the GPU: {same} of {count} are equal"
        )
    return found


def main(given: list[str] | None = None) -> int:
    """Run the checks, print one JSON object and what is wrong; 0 where nothing is."""
    parser = command.parser(__doc__)
    parser.add_argument("--layers", type=command.positive, help="fewer layers of the 8B shape")
    parser.add_argument("--skip", action="append", choices=PARTS, default=[])
    arguments = parser.parse_args(given)
    gpu.needed()
    os.environ.setdefault("LLMKERNEL_KERNELS", "1")
    checks: dict[str, Callable[[], dict[str, Any]]] = {
        "tests": check_tests,
        "accuracy": check_accuracy,
        "demo": check_demo,
        "large": lambda: check_large(arguments.layers),
    }
    report: dict[str, Any] = {}
    for name, check in checks.items():
        if name not in arguments.skip:
            report |= check()
    report |= {"skipped_parts": arguments.skip, "problems": problems(report)}
    print(json.dumps(report, indent=2))
    if arguments.save:
        print(results.save("gpu_checks", report, "", arguments.save))
    return 1 if report["problems"] else 0


if __name__ == "__main__":
    command.run(main)
