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

import os
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import command, overhead, random_model, results, serving, streams
from benchmarks.prompts import Prompts
from benchmarks.shapes import SHAPES

WIDTHS = (1, 2, 4, 8, 16, 32)
ONE_BY_ONE = 2
"""Prompts answered one after the other at most: more of them go no faster."""
WORKER = {"device": "cpu", "dtype": "float32", "kv_cache": "512MiB"}


class Plan(NamedTuple):
    """What is asked for."""

    shape: str
    prompt_tokens: int
    new_tokens: int
    rounds: int
    threads: int


class Round(NamedTuple):
    """Tokens/s of one width in one round."""

    worker: float
    batched: float
    one_by_one: float


FULL = Plan("llama-100m", 32, 32, 3, os.cpu_count() or 1)
QUICK = Plan("tiny", 16, 16, 1, 1)
"""Shows that everything works; its figures say nothing."""


def measure(folder: Path, plan: Plan) -> dict[int, list[Round]]:
    """Every width in every round; the worker and generate take turns."""
    from benchmarks.transformers_baseline import Baseline

    baseline = Baseline(folder, plan.threads)
    prompts = Prompts(SHAPES[plan.shape].vocabulary)
    found: dict[int, list[Round]] = {width: [] for width in WIDTHS}
    with (
        overhead.environment(OMP_NUM_THREADS=str(plan.threads)),
        serving.worker(folder, WORKER) as client,
    ):
        for turn in range(-1, plan.rounds):  # the first one only warms up
            for width in WIDTHS if turn >= 0 else (2,):
                asked = prompts.several(width, plan.prompt_tokens)
                one = Round(
                    _whole(streams.together(client, asked, plan.new_tokens)),
                    _whole(baseline.batched(asked, plan.new_tokens)),
                    _whole(baseline.one_by_one(asked[:ONE_BY_ONE], plan.new_tokens)),
                )
                if turn >= 0:
                    found[width].append(one)
    return found


def _whole(rows: Sequence[streams.Row]) -> float:
    return streams.rates(rows).whole_per_second


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
    parser = command.parser(__doc__)
    parser.add_argument("--quick", action="store_true", help="a tiny model, one round")
    arguments = parser.parse_args()
    plan = QUICK if arguments.quick else FULL
    with tempfile.TemporaryDirectory(prefix="lk-batching-") as temporary:
        folder = Path(temporary) / plan.shape
        parameters = random_model.build(folder, SHAPES[plan.shape], "float32")
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
        print(results.save("batching", figures, "", arguments.save))


if __name__ == "__main__":
    command.run(main)
