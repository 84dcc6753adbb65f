"""What a token costs in the worker beside the forward pass.

    python -m benchmarks.overhead [--save]

A real worker serves real clients, on one torch thread. Counted is CPU time: all of the worker's
process (engine, front, step inputs, sampling, detokenising, encryption, ZeroMQ's own threads)
less the engine thread's time inside the model's layers and output head, which a stop watch
wrapped around them takes (forward_clock/). Each run is made with short answers and with long
ones: the difference by the additional tokens is what a token costs, and what is left by the
requests is what a request costs (checks, its prompt's tokens, its end). CPU time and not wall
time, so that other work on the machine counts less; a busy machine still makes it larger. The scripted model has neither forward pass nor sampler, so it
shows the part that is not tensors.
"""

from __future__ import annotations

import asyncio
import mmap
import os
import statistics
import struct
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import command, results
from llmkernel import launcher
from llmkernel.client import Client
from llmkernel.config import WorkerConfig

WIDTHS = (1, 8, 32)
SHORT, LONG = 64, 448
"""Tokens of the answers that are compared."""
LIMIT_US = 60
CASES: dict[str, dict[str, dict[str, Any]]] = {
    "scripted:eos_after=100000": {"no model: engine, text and wire alone": {"temperature": 0}},
    "demo": {
        "embedded model, greedy": {"temperature": 0},
        "embedded model, temperature 0.8": {"temperature": 0.8},
        "embedded model, temperature 0.8, top_p 0.95": {"temperature": 0.8, "top_p": 0.95},
    },
}
"""Model → what is asked of it."""
ABANDONED_SECONDS = 120.0
"""Without work for so long a worker leaves: the benchmark that started it was killed."""
CLOCK_FOLDER = Path(__file__).parent / "forward_clock"


class Watch:
    """CPU seconds of a process, and of the forward passes in it."""

    def __init__(self, pid: int, memory: mmap.mmap) -> None:
        # the kernel's number for the CPU clock of another process (clock_getcpuclockid(3))
        self._clock = ((~pid) << 3) | 2
        self._memory = memory

    def read(self) -> tuple[float, float, float]:
        """Seconds of the process, seconds of its forward passes, number of passes."""
        seconds, passes = struct.unpack_from("dd", self._memory)
        return time.clock_gettime(self._clock), seconds, passes


@contextmanager
def timed_worker(model: str) -> Iterator[tuple[Client, Watch]]:
    """A worker on one torch thread, with the stop watch in it."""
    with tempfile.TemporaryDirectory(prefix="lk-overhead-") as folder:
        path = Path(folder) / "clock"
        path.write_bytes(bytes(16))
        with environment(
            PYTHONPATH=str(CLOCK_FOLDER), FORWARD_CLOCK=str(path), OMP_NUM_THREADS="1"
        ):
            connection = launcher.start(
                WorkerConfig.build(
                    name="bench-overhead", model=model, idle_timeout=ABANDONED_SECONDS
                )
            )
        try:
            with (
                path.open("r+b") as file,
                mmap.mmap(file.fileno(), 16) as memory,
                Client(connection) as client,
            ):
                yield client, Watch(connection.pid, memory)
        finally:
            launcher.stop(connection, drain=False)


@contextmanager
def environment(**values: str) -> Iterator[None]:
    """Set environment variables for the time of a `with`."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


class Cost(NamedTuple):
    """CPU microseconds."""

    token_us: float
    request_us: float
    forward_us: float
    """Of the forward pass, per token."""


def measure(client: Client, watch: Watch, width: int, sampling: dict[str, Any]) -> Cost:
    """One short and one long run of `width` streams at once."""
    short, short_forward = _spent(client, watch, width, SHORT, sampling)
    long, long_forward = _spent(client, watch, width, LONG, sampling)
    token = (long - short) / (LONG - SHORT)
    return Cost(token, short - SHORT * token, (long_forward - short_forward) / (LONG - SHORT))


def _spent(
    client: Client, watch: Watch, width: int, new_tokens: int, sampling: dict[str, Any]
) -> tuple[float, float]:
    """CPU microseconds a stream, beside the forward pass and inside it."""
    before = watch.read()
    tokens = asyncio.run(_streams(client, width, new_tokens, sampling))
    cpu, forward, _ = (now - then for now, then in zip(watch.read(), before, strict=True))
    assert tokens == width * new_tokens, "a stream lost tokens"
    return 1e6 * (cpu - forward) / width, 1e6 * forward / width


async def _streams(client: Client, width: int, new_tokens: int, sampling: dict[str, Any]) -> int:
    async def one(number: int) -> int:
        stream = client.aio.stream(
            f"Tell me a tiny story about number {number}.",
            max_tokens=new_tokens,
            ignore_eos=True,
            **sampling,
        )
        return sum([len(delta.token_ids) async for delta in stream])

    return sum(await asyncio.gather(*(one(number) for number in range(width))))


def run(repeats: int) -> dict[str, Any]:
    """The medians of each case at each width, printed as they come."""
    print("CPU µs in the worker".ljust(46) + "beside the forward pass     in it")
    print(f"{'case':45} streams  per token  per request  per token")
    rows = []
    for model, cases in CASES.items():
        with timed_worker(model) as (client, watch):
            for case, sampling in cases.items():
                measure(client, watch, max(WIDTHS), sampling)  # warm up
                rows += [_median(client, watch, case, width, sampling, repeats) for width in WIDTHS]
            assert model != "demo" or watch.read()[2] > 0, "the stop watch is not in the worker"
    print(f"\nTo hold: {LIMIT_US} µs per token beside the forward pass, in a full batch.")
    lengths = {"short": SHORT, "long": LONG}
    return {"rows": rows, "limit_us": LIMIT_US, "new_tokens": lengths, "repeats": repeats}


def _median(
    client: Client,
    watch: Watch,
    case: str,
    width: int,
    sampling: dict[str, Any],
    repeats: int,
) -> dict[str, Any]:
    found = [measure(client, watch, width, sampling) for _ in range(repeats)]
    cost = Cost(*(round(statistics.median(column), 2) for column in zip(*found, strict=True)))
    print(
        f"{case:45} {width:7}  {cost.token_us:9.1f}  {cost.request_us:11.0f}  {cost.forward_us:9.1f}",
        flush=True,
    )
    return {"case": case, "streams": width, **cost._asdict()}


def main() -> None:
    """Measure, print and, where asked, keep the figures."""
    parser = command.parser(__doc__)
    parser.add_argument(
        "--repeats", type=command.positive, default=5, help="runs at each width (default: 5)"
    )
    arguments = parser.parse_args()
    figures = run(arguments.repeats)
    if arguments.save:
        print(results.save("overhead", figures, "", arguments.save))


if __name__ == "__main__":
    command.run(main)
