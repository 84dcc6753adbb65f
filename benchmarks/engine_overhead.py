"""What the engine itself costs: scheduling, blocks and delivery, without a model.

    python -m benchmarks.engine_overhead [--repeats N] [--save]

The real engine runs step by step over the scripted runner. Counted is CPU time of the
thread that steps, less what the runner took, divided by the tokens made.
"""

from __future__ import annotations

import gc
import statistics
import time
from typing import Any

from benchmarks import command, results
from llmkernel.params import SamplingParams
from llmkernel.worker.engine import Engine
from llmkernel.worker.scripted import ByteTokenizer, Script, ScriptedRunner
from llmkernel.worker.sequence import EngineEvent, Request
from llmkernel.worker.step import StepBatch, StepResult

BLOCK_SIZE = 16
WIDTHS = (1, 8, 32, 128)
NEW_TOKENS = 200
PROMPT_TOKENS = 128
LIMIT_US = 15
LIMIT_WIDTH = 32


class Timed:
    """A runner whose own time is taken."""

    def __init__(self, runner: ScriptedRunner) -> None:
        self.seconds = 0.0
        self.release = runner.release
        self._runner = runner

    def launch(self, batch: StepBatch) -> Any:
        """As the runner's, with its time added up."""
        began = time.thread_time()
        handle = self._runner.launch(batch)
        self.seconds += time.thread_time() - began
        return handle

    def collect(self, launched: Any) -> StepResult:
        """As the runner's, with its time added up."""
        began = time.thread_time()
        result = self._runner.collect(launched)
        self.seconds += time.thread_time() - began
        return result


class Counter:
    """Takes events as the front does and counts tokens."""

    def __init__(self) -> None:
        self.tokens = 0

    def __call__(self, events: list[EngineEvent]) -> None:
        """Take the events of a step."""
        self.tokens += sum(hasattr(event, "sampled") for event in events)


def measure(width: int, depth: int, blocks: int) -> float:
    """Microseconds a token of each of `width` streams, from submission to the last end."""
    runner = Timed(ScriptedRunner(Script(eos_after=10**6), BLOCK_SIZE, width))
    count = Counter()
    engine = Engine(
        runner,
        num_blocks=blocks,
        block_size=BLOCK_SIZE,
        max_concurrent=width,
        max_batch_tokens=512,
        context_length=2048,
        prefix_cache=True,
        depth=depth,
        on_events=count,
        on_death=print,
    )
    for key in range(width):
        engine.submit(_request(key))
    gc.collect()
    began = time.thread_time()
    while engine.step():
        pass
    taken = time.thread_time() - began - runner.seconds
    assert count.tokens == width * NEW_TOKENS, "a stream lost tokens"
    return 1e6 * taken / count.tokens


def _request(key: int) -> Request:
    prompt = ByteTokenizer().encode(f"Request number {key}. ".ljust(PROMPT_TOKENS, "x"))
    params = SamplingParams.build(temperature=0.0, max_tokens=NEW_TOKENS)
    return Request(key, f"client {key % 4}", tuple(prompt), params, NEW_TOKENS)


def run(repeats: int) -> dict[str, Any]:
    """The medians of each setting, printed as they come."""
    rows = []
    print("streams  depth  blocks   engine (CPU µs per token of each stream)")
    for width in WIDTHS:
        for depth in (0, 1):
            enough = width * ((PROMPT_TOKENS + NEW_TOKENS) // BLOCK_SIZE + 2) + 1
            for name, blocks in (("all", enough), ("half", max(enough // 2, 24))):
                taken = statistics.median(measure(width, depth, blocks) for _ in range(repeats))
                rows.append({"streams": width, "depth": depth, "blocks": name, "us": taken})
                print(f"{width:7}  {depth:5}  {name:6}  {taken:7.2f}")
    print(f"\nThe figure to hold is {LIMIT_US} µs at {LIMIT_WIDTH} streams with all their blocks.")
    return {"rows": rows, "limit_us": LIMIT_US, "new_tokens": NEW_TOKENS, "repeats": repeats}


def main() -> None:
    """Measure, print and, where asked, keep the figures."""
    parser = command.parser(__doc__)
    parser.add_argument(
        "--repeats", type=command.positive, default=5, help="runs of each (default: 5)"
    )
    arguments = parser.parse_args()
    figures = run(arguments.repeats)
    if arguments.save:
        print(results.save("engine_overhead", figures, "", arguments.save))


if __name__ == "__main__":
    command.run(main)
