"""Waiting: for the first token of prompts of several lengths, and between tokens of running streams.

    python -m benchmarks.latency [--shape NAME] [--save]

A worker serves a random checkpoint of the shape in NF4, as in benchmarks.decode. Through the real
client, in turn:

- time to first token of an idle worker, for prompts of each length, none of them seen before;
- the gaps between the tokens of running streams while a long prompt arrives, from sending it
  to its first token, and while none does. A step computes part of that prompt beside a
  token of each stream, so the gaps are those steps;
- time to first token of a prompt and of the same prompt again, which the prefix cache knows.

Prompts are token ids, so tokenising is not in it. Everything was done once before it is measured.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from benchmarks import command, results, serving, streams
from benchmarks.prompts import Prompts
from benchmarks.streams import Row, quantile
from llmkernel.client import Client

_LOOK = 0.005
"""Seconds between looks at how far the streams are."""
_QUIET = 64
"""Tokens that each stream makes undisturbed between two arrivals."""


class Window(NamedTuple):
    """A stretch of time, in seconds of the clock that stamps the tokens."""

    begin: float
    end: float


class Gaps(NamedTuple):
    """Milliseconds between tokens."""

    gaps: int
    p50_ms: float
    p99_ms: float


def first_tokens(
    client: Client, prompts: Prompts, lengths: list[int], repeats: int
) -> list[dict[str, float]]:
    """Median and worst seconds to the first token of an idle worker, by length of the prompt."""
    rows = []
    print("prompt   first token, median   worst")
    for length in lengths:
        times = [streams.first_token(client, prompts.take(length)) for _ in range(repeats + 1)][1:]
        median, worst = statistics.median(times), max(times)
        rows.append({"prompt_tokens": length, "median_s": median, "worst_s": worst})
        print(f"{length:6}   {1e3 * median:16.1f} ms   {1e3 * worst:.1f} ms", flush=True)
    return rows


def arrivals(client: Client, prompts: Prompts, arguments: argparse.Namespace) -> dict[str, Any]:
    """Gaps between tokens of running streams, with and without a prompt that arrives."""
    rows, windows = asyncio.run(_disturbed(client, prompts, arguments))
    between = [Window(a.end, b.begin) for a, b in itertools.pairwise(windows)]
    quiet, arriving = _gaps(rows, between), _gaps(rows, windows[1:])  # the first one warms up
    ratio = arriving.p99_ms / quiet.p50_ms
    first_token = statistics.median(one.end - one.begin for one in windows[1:])
    print(f"\n{arguments.streams} streams, gaps between tokens     p50        p99")
    print(f"nothing arrives {quiet.p50_ms:20.2f} ms {quiet.p99_ms:7.2f} ms")
    print(
        f"{arguments.arriving:5} tokens arrive {arriving.p50_ms:16.2f} ms {arriving.p99_ms:7.2f} ms"
    )
    print(f"first token of what arrives after {first_token:.3f} s")
    print(f"p99 while they arrive / p50 while nothing does: {ratio:.2f}", flush=True)
    return {
        "streams": arguments.streams,
        "arriving_tokens": arguments.arriving,
        "quiet": quiet._asdict(),
        "arriving": arriving._asdict(),
        "p99_over_quiet_p50": ratio,
        "p99_over_own_p50": arriving.p99_ms / arriving.p50_ms,
        "first_token_s": first_token,
    }


async def _disturbed(
    client: Client, prompts: Prompts, arguments: argparse.Namespace
) -> tuple[list[Row], list[Window]]:
    """Streams that run until prompts have arrived, one more than is counted, and when those did."""
    rows: list[Row] = [[] for _ in range(arguments.streams)]
    tasks = [
        asyncio.create_task(streams.read(client, prompts.take(128), arguments.longest, row))
        for row in rows
    ]
    windows = []
    try:
        for _ in range(arguments.repeats + 1):
            await _further(rows, tasks)
            row = await streams.read(client, prompts.take(arguments.arriving), 2, [])
            windows.append(Window(row[0], row[1]))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return rows, windows


async def _further(rows: list[Row], tasks: Sequence[asyncio.Task[Row]]) -> None:
    """Wait until each stream has made so many tokens more."""
    goals = [len(row) + _QUIET + (not row) for row in rows]
    while any(len(row) < goal for row, goal in zip(rows, goals, strict=True)):
        for task in tasks:
            if task.done():
                task.result()
                raise command.Refused("The streams ended too early: a larger --longest, or fewer.")
        await asyncio.sleep(_LOOK)


def _gaps(rows: list[Row], windows: Sequence[Window]) -> Gaps:
    """Of the tokens that came inside the windows."""
    found = [
        1e3 * (b - a)
        for row in rows
        for a, b in itertools.pairwise(row[1:])
        if any(window.begin < b <= window.end for window in windows)
    ]
    return Gaps(len(found), quantile(found, 0.5), quantile(found, 0.99))


def repeated(client: Client, prompts: Prompts, length: int, repeats: int) -> dict[str, float]:
    """Seconds to the first token of a prompt, and of the same one again."""
    times = []
    for _ in range(repeats + 1):
        prompt = prompts.take(length)
        times.append((streams.first_token(client, prompt), streams.first_token(client, prompt)))
    first, again = (statistics.median(column) for column in zip(*times[1:], strict=True))
    print(
        f"\n{length} tokens of prompt: first token after {1e3 * first:.1f} ms, "
        f"of the same prompt again after {1e3 * again:.1f} ms ({first / again:.1f} times sooner)"
    )
    return {
        "prompt_tokens": length,
        "first_s": first,
        "again_s": again,
        "times_sooner": first / again,
    }


def _arguments(given: list[str] | None) -> argparse.Namespace:
    parser = serving.parser(__doc__)
    parser.add_argument("--prompt-tokens", type=command.numbers, default=[128, 2048, 8192])
    parser.add_argument("--streams", type=command.positive, default=16)
    parser.add_argument(
        "--arriving", type=command.positive, default=8192, help="tokens of the long prompt"
    )
    parser.add_argument(
        "--longest", type=command.positive, default=2000, help="tokens of a stream at most"
    )
    parser.add_argument(
        "--repeated", type=command.positive, default=4096, help="tokens of the prompt sent twice"
    )
    parser.add_argument("--repeats", type=command.positive, default=5)
    return parser.parse_args(given)


def main(given: list[str] | None = None) -> None:
    """Measure, print and, where asked, keep the figures."""
    arguments = _arguments(given)
    shape = serving.shape(arguments)
    longest = max(*arguments.prompt_tokens, arguments.arriving, 128 + arguments.longest)
    asked = serving.settings(arguments, context_length=longest + 64)
    prompts = Prompts(shape.vocabulary)
    with (
        serving.checkpoint(shape, arguments.folder) as folder,
        serving.worker(folder, asked) as client,
    ):
        print(f"{shape.name}, medians of {arguments.repeats}", flush=True)
        figures = {
            "shape": shape.name,
            "settings": asked | {"repeats": arguments.repeats},
            "first_token": first_tokens(
                client, prompts, arguments.prompt_tokens, arguments.repeats
            ),
            "gaps": arrivals(client, prompts, arguments),
            "repeated": repeated(client, prompts, arguments.repeated, arguments.repeats),
            "model": msgspec.to_builtins(client.status().model) | {"model": shape.name},
        }
    if arguments.save:
        print(results.save("latency", figures, shape.name, arguments.save))


if __name__ == "__main__":
    command.run(main)
