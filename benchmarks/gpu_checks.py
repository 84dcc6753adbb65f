"""What only a GPU can show: the 8B shape in NF4 through the real path, and equality with the CPU.

    python -m benchmarks.gpu_checks [--save FILE] [--layers N] [--skip-large] [--skip-demo]

Needs a CUDA device and about 40 GB of disk for the large part: a Llama-3.1-8B
shaped checkpoint with random bfloat16 weights is built in a temporary folder, a
worker loads it with nf4, and the client measures it. Random weights answer
nonsense at the speed of real ones. Prints one JSON object at the end.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec

import llmkernel
from benchmarks import apart, gpu, random_model, streams
from benchmarks.prompts import Prompts
from benchmarks.shapes import SHAPES
from llmkernel.client import Client

SHAPE = SHAPES["llama-3.1-8b"]
PROMPT_TOKENS = 128
NEW_TOKENS = 256
WIDTHS = (1, 2, 4, 8, 16, 32, 64)


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
        began = time.monotonic()
        llm = llmkernel.start(
            str(folder), name="gpu-checks", quantization="nf4", context_length=16384,
            kv_cache="8GiB", on_progress=lambda p: stages.setdefault(p.stage, time.monotonic() - began),
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
    return {"demo_cpu_equals_gpu": f"{same} of {len(answers[0])}", "answers": answers[1]}


def main() -> None:
    """Run the checks and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--save", type=Path)
    parser.add_argument("--layers", type=int)
    parser.add_argument("--skip-large", action="store_true")
    parser.add_argument("--skip-demo", action="store_true")
    arguments = parser.parse_args()
    import bitsandbytes
    import torch
    import transformers

    report: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d"),
        "device": torch.cuda.get_device_name(),
        "versions": {
            m.__name__: m.__version__ for m in (torch, transformers, bitsandbytes, llmkernel)
        },
    }
    if not arguments.skip_demo:
        report |= check_demo()
    if not arguments.skip_large:
        report |= check_large(arguments.layers)
    text = json.dumps(report, indent=2)
    print(text)
    if arguments.save:
        arguments.save.write_text(text + "\n")


if __name__ == "__main__":
    main()
