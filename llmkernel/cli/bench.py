"""`llmkernel bench`: how fast the running worker answers, at several widths."""

from __future__ import annotations

import asyncio
import itertools
import math
import random
import statistics
import time
from typing import TYPE_CHECKING

import click
import msgspec

from llmkernel.cli import console
from llmkernel.cli.failure import Command
from llmkernel.cli.names import worker_option
from llmkernel.errors import InvalidRequest, NotReady
from llmkernel.params import SamplingParams
from llmkernel.units import count

if TYPE_CHECKING:
    from llmkernel.client import Client
    from llmkernel.protocol import ModelInfo


_HEADINGS = (
    "streams",
    "tokens/s",
    "each",
    " first p50",
    " first p95",
    "   gap p50",
    "   gap p95",
)


class Measured(msgspec.Struct, frozen=True):
    """One width: so many streams at once, each begun when the one before it has ended."""

    width: int
    requests: int
    tokens: int
    seconds: float
    tokens_per_second: float
    """Of all streams together, from the first request to the last token."""
    first_token_p50: float
    first_token_p95: float
    """Seconds from sending a request to its first piece of text."""
    gap_p50: float
    gap_p95: float
    """Seconds between a stream's tokens."""


class Load(msgspec.Struct, frozen=True):
    """What is asked for at each width."""

    prompt_tokens: int
    new_tokens: int
    rounds: int


@click.command("bench", cls=Command)
@worker_option
@click.option(
    "-c",
    "--concurrency",
    default="1,2,4,8,16,32",
    show_default=True,
    metavar="N,N,…",
    help="Streams at once, one measurement for each.",
)
@click.option(
    "--prompt-tokens",
    type=click.IntRange(min=1),
    default=64,
    show_default=True,
    metavar="N",
    help="Length of the prompts, which are random and share nothing.",
)
@click.option(
    "-n",
    "--max-tokens",
    type=click.IntRange(min=2),
    default=64,
    show_default=True,
    metavar="N",
    help="Tokens of each answer.",
)
@click.option(
    "--rounds",
    type=click.IntRange(min=1),
    default=2,
    show_default=True,
    metavar="N",
    help="Requests of each stream, one after the other.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def bench_command(
    worker: str | None,
    concurrency: str,
    prompt_tokens: int,
    max_tokens: int,
    rounds: int,
    as_json: bool,
) -> None:
    """Measure the running worker: tokens/s, time to first token, gaps.

    Greedy streams of random prompts through the public client, so what is measured is what a
    notebook gets; whatever else the worker does at the time is measured along.
    """
    from llmkernel import connection
    from llmkernel.client import Client

    widths = _widths(concurrency)
    load = Load(prompt_tokens, max_tokens, rounds)
    with Client(connection.find(worker)) as client:
        model = _model(client, load)
        if not as_json:
            console.line(f"{client.name}: {model.model} on {model.device}, {_what(load)}")
            console.line("  ".join(_HEADINGS))
        found = []
        for width in widths:
            found.append(measure(client, width, load, model.vocab_size))
            if not as_json:
                console.line(_row(found[-1]))
        if as_json:
            console.json_line({"model": model, "load": load, "measured": found})


def measure(client: Client, width: int, load: Load, vocabulary: int) -> Measured:
    """Run `width` streams at once, each `load.rounds` times, and count what comes."""
    return asyncio.run(_measure(client, width, load, vocabulary))


async def _measure(client: Client, width: int, load: Load, vocabulary: int) -> Measured:
    async def stream(seed: int) -> list[list[float]]:
        generator = random.Random(seed)
        return [await _one(client, load, generator, vocabulary) for _ in range(load.rounds)]

    seed = time.monotonic_ns()  # the prefix cache must not know the prompts of another run
    began = time.perf_counter()
    streams = await asyncio.gather(*(stream(seed + number) for number in range(width)))
    seconds = time.perf_counter() - began
    stamps = list(itertools.chain.from_iterable(streams))
    firsts = [one[1] - one[0] for one in stamps]
    gaps = [b - a for one in stamps for a, b in itertools.pairwise(one[1:])]
    tokens = sum(len(one) - 1 for one in stamps)
    return Measured(
        width=width,
        requests=len(stamps),
        tokens=tokens,
        seconds=seconds,
        tokens_per_second=tokens / seconds,
        first_token_p50=statistics.median(firsts),
        first_token_p95=_quantile(firsts, 0.95),
        gap_p50=statistics.median(gaps),
        gap_p95=_quantile(gaps, 0.95),
    )


async def _one(
    client: Client, load: Load, generator: random.Random, vocabulary: int
) -> list[float]:
    """When the request was sent, then when each of its tokens was there."""
    prompt = [generator.randrange(vocabulary) for _ in range(load.prompt_tokens)]
    params = SamplingParams(
        max_tokens=load.new_tokens, temperature=0.0, ignore_eos=True, skip_special_tokens=False
    )
    stamps = [time.perf_counter()]
    async with client.aio.stream(prompt, params) as stream:
        async for delta in stream:
            stamps += [time.perf_counter()] * len(delta.token_ids)
    return stamps


def _model(client: Client, load: Load) -> ModelInfo:
    model = client.status().model
    if model is None:
        raise NotReady("The model is still loading.")
    longest = load.prompt_tokens + load.new_tokens
    if longest > model.context_length:
        raise InvalidRequest(
            f"{load.prompt_tokens} tokens of prompt and {load.new_tokens} of answer are more than "
            f"the {model.context_length} that this worker holds."
        )
    return model


def _widths(text: str) -> list[int]:
    try:
        widths = [int(part) for part in text.split(",")]
    except ValueError:
        widths = []
    if not widths or min(widths) < 1 or max(widths) > 1024:
        raise InvalidRequest(f"{text!r} are no numbers of streams. Write for example 1,4,16.")
    return widths


def _quantile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)]


def _what(load: Load) -> str:
    return (
        f"{load.prompt_tokens} tokens of prompt, {load.new_tokens} of answer, "
        f"{count(load.rounds, 'request')} a stream"
    )


def _row(one: Measured) -> str:
    times = (one.first_token_p50, one.first_token_p95, one.gap_p50, one.gap_p95)
    cells = (
        str(one.width),
        f"{one.tokens_per_second:.0f}",
        f"{one.tokens_per_second / one.width:.0f}",
        *(f"{1000 * seconds:.1f} ms" for seconds in times),
    )
    return "  ".join(cell.rjust(len(head)) for cell, head in zip(cells, _HEADINGS, strict=True))
