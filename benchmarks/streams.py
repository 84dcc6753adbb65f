"""Streams that are timed: when each request was sent and when each of its tokens was there.

The client is read in one thread, by asyncio: with 128 streams that takes less of a processor
than a thread for each, which wake each other up.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import statistics
import time
from collections.abc import Sequence
from typing import NamedTuple

from llmkernel.client import Client

Row = list[float]
"""Seconds of one stream: when it was asked for, then one for each token."""


class Rates(NamedTuple):
    """What streams of one width did."""

    tokens_per_second: float
    """Of all streams together while all of them were decoding, but the first eighth of that time, in
    which what had piled up before may come; where they never were, of the whole."""
    whole_per_second: float
    """From the first request to the last token, prompts included."""
    first_token_s: float
    gap_p50_ms: float
    gap_p99_ms: float


async def read(client: Client, prompt: list[int], new_tokens: int, row: Row) -> Row:
    """Stream a greedy answer of exactly `new_tokens` into `row`, as it comes."""
    row.append(time.perf_counter())
    stream = client.aio.stream(prompt, max_tokens=new_tokens, temperature=0, ignore_eos=True)
    async with stream:
        async for delta in stream:
            row += [time.perf_counter()] * len(delta.token_ids)
    return row


def together(client: Client, prompts: Sequence[list[int]], new_tokens: int) -> list[Row]:
    """All prompts at once."""

    async def everything() -> list[Row]:
        return await asyncio.gather(*(read(client, one, new_tokens, []) for one in prompts))

    rows = asyncio.run(everything())
    assert all(len(row) == new_tokens + 1 for row in rows), "a stream lost tokens"
    return rows


def first_token(client: Client, prompt: list[int]) -> float:
    """Seconds from sending a prompt to its first token."""
    (row,) = together(client, [prompt], 2)
    return row[1] - row[0]


def rates(rows: Sequence[Row]) -> Rates:
    """The figures of streams that ran at once."""
    began, ended = min(row[0] for row in rows), max(row[-1] for row in rows)
    tokens = sum(len(row) - 1 for row in rows)
    whole = tokens / (ended - began)
    between = gaps(rows)
    return Rates(
        tokens_per_second=_decoding(rows) or whole,
        whole_per_second=whole,
        first_token_s=statistics.median(row[1] - row[0] for row in rows),
        gap_p50_ms=1e3 * quantile(between, 0.5),
        gap_p99_ms=1e3 * quantile(between, 0.99),
    )


def gaps(rows: Sequence[Row]) -> list[float]:
    """Seconds between a stream's tokens, of all streams."""
    return [b - a for row in rows for a, b in itertools.pairwise(row[1:])]


def quantile(values: Sequence[float], share: float) -> float:
    """The value that `share` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def _decoding(rows: Sequence[Row]) -> float | None:
    begin, end = max(row[1] for row in rows), min(row[-1] for row in rows)
    if end <= begin:
        return None
    settled = begin + (end - begin) / 8
    begin = max(stamp for row in rows for stamp in row[1:] if stamp <= settled)
    inside = sum(begin < stamp <= end for row in rows for stamp in row[1:])
    return inside / (end - begin)
