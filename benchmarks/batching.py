"""Tokens/s of 1 to 32 streams through the real client, and of transformers' generate beside it.

    python -m benchmarks.batching [--save] [--quick]

A random Llama of about 100 million parameters is saved to a temporary folder; a worker serves it
on the CPU in float32. At each width so many clients' streams are read at once (client → worker →
client, text delivered); then, in this process with the same number of torch threads, transformers'
own `generate` answers the same prompts, as one batch and one after the other. All greedy, all of
the same length, so nothing is padded. The time is from sending the first request to having the
last token. Figures are medians over the rounds, which take turns.

Then what a token costs in the worker beside the forward pass: benchmarks/overhead.py.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import overhead, random_model, results
from llmkernel import launcher
from llmkernel.client import Client
from llmkernel.config import WorkerConfig

WIDTHS = (1, 2, 4, 8, 16, 32)
ONE_BY_ONE = 2
"""Prompts answered one after the other at most: more of them go no faster."""
NAME = "bench-batching"


class Plan(NamedTuple):
    """What is asked for."""

    size: str
    prompt_tokens: int
    new_tokens: int
    rounds: int
    threads: int


class Round(NamedTuple):
    """Tokens/s of one width in one round."""

    worker: float
    batched: float
    one_by_one: float


FULL = Plan("100M", 32, 32, 3, os.cpu_count() or 1)
QUICK = Plan("tiny", 16, 16, 1, 1)
"""Shows that everything works; its figures say nothing."""


@contextmanager
def worker(folder: Path, threads: int) -> Iterator[Client]:
    """A worker that serves the model in `folder`, and a client of it."""
    config = WorkerConfig.build(
        name=NAME, model=str(folder), device="cpu", dtype="float32", kv_cache="512MiB"
    )
    with overhead.environment(OMP_NUM_THREADS=str(threads)):
        connection = launcher.start(config)
    try:
        with Client(connection) as client:
            yield client
    finally:
        launcher.stop(connection, drain=False)


def streamed(client: Client, prompts: list[list[int]], new_tokens: int) -> float:
    """Tokens/s of all prompts streamed at once."""

    async def one(prompt: list[int]) -> int:
        stream = client.aio.stream(prompt, max_tokens=new_tokens, temperature=0, ignore_eos=True)
        return sum([len(delta.token_ids) async for delta in stream])

    async def together() -> int:
        return sum(await asyncio.gather(*map(one, prompts)))

    began = time.perf_counter()
    tokens = asyncio.run(together())
    taken = time.perf_counter() - began
    assert tokens == len(prompts) * new_tokens, "a stream lost tokens"
    return tokens / taken


def measure(folder: Path, plan: Plan) -> dict[int, list[Round]]:
    """Every width in every round; the worker and generate take turns."""
    from benchmarks.transformers_baseline import Baseline

    baseline = Baseline(folder, plan.threads)
    found: dict[int, list[Round]] = {width: [] for width in WIDTHS}
    with worker(folder, plan.threads) as client:
        for turn in range(-1, plan.rounds):  # the first one only warms up
            for width in WIDTHS if turn >= 0 else (2,):
                # nobody has seen these prompts: the prefix cache must not help
                first = 1000 * (turn + 1) + 40 * width
                prompts = random_model.prompts(width, plan.prompt_tokens, first)
                one = Round(
                    streamed(client, prompts, plan.new_tokens),
                    baseline.batched(prompts, plan.new_tokens),
                    baseline.one_by_one(prompts[:ONE_BY_ONE], plan.new_tokens),
                )
                if turn >= 0:
                    found[width].append(one)
    return found


def report(found: dict[int, list[Round]]) -> list[dict[str, float]]:
    """Print the medians and return them."""
    print("\nTokens per second, all streams together")
    print("streams   worker   generate, one batch   generate, one by one   worker / one batch")
    rows = []
    for width, rounds in found.items():
        median = Round(*(statistics.median(column) for column in zip(*rounds, strict=True)))
        ratio = median.worker / median.batched
        print(
            f"{width:7}  {median.worker:7.1f}  {median.batched:20.1f}"
            f"  {median.one_by_one:21.1f}  {ratio:19.2f}"
        )
        rows.append({"streams": width, **median._asdict(), "worker_over_batched": ratio})
    return [{name: round(value, 3) for name, value in row.items()} for row in rows]


def main() -> None:
    """Measure, print and, where asked, keep the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/")
    parser.add_argument("--quick", action="store_true", help="a tiny model, one round")
    arguments = parser.parse_args()
    plan = QUICK if arguments.quick else FULL
    with tempfile.TemporaryDirectory(prefix="lk-batching-") as temporary:
        folder = Path(temporary) / plan.size.lower()
        parameters = random_model.build(folder, plan.size)
        print(
            f"random Llama, {parameters / 1e6:.1f} M parameters, float32, {plan.threads} torch "
            f"threads; {plan.prompt_tokens} tokens of prompt, {plan.new_tokens} of answer; "
            f"medians of {plan.rounds} rounds"
        )
        rows = report(measure(folder, plan))
    print("\nWhat a token costs in the worker beside the forward pass\n")
    beside = overhead.run(1 if arguments.quick else 5)
    if arguments.save:
        figures: dict[str, Any] = {
            "plan": plan._asdict(),
            "parameters": parameters,
            "tokens_per_second": rows,
            "overhead": beside,
        }
        print(results.save("batching", figures))


if __name__ == "__main__":
    main()
