"""HTTP beside ZeroMQ: tokens/s and time to the first token of the same requests over both.

    python -m benchmarks.gateway [--streams 1,8,32,128] [--step-ms 20] [--save]

A worker with the scripted model makes a token for every stream in each step, whose length is
given, so that what differs is the way that the tokens take. A gateway runs in a process of its own,
as `llmkernel serve` makes it; streams are read from TGI's /generate_stream by a bare HTTP/1.1
reader in one asyncio thread, which costs less than any client library. The two ways take turns,
round by round; the medians are shown. The gateway's own metrics say for how long its loop was held
up at most, and how much processor time it used of that: the rest is other processes' share.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import command, results, streams
from benchmarks.streams import Row
from llmkernel import launcher
from llmkernel.client import Client
from llmkernel.config import WorkerConfig

TOKEN = "the token of a benchmark, no secret"
NEW_TOKENS = 100
_BLOCK = re.compile(r"^llmkernel_loop_(block|busy)_seconds (\S+)", re.MULTILINE)


class Gateway(NamedTuple):
    """A running gateway."""

    host: str
    port: int

    def metrics(self) -> str:
        """Its page of metrics."""
        request = urllib.request.Request(
            f"http://{self.host}:{self.port}/metrics", headers={"X-Api-Key": TOKEN}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            text: str = answer.read().decode()
        return text

    def longest_block(self) -> tuple[float, float]:
        """Seconds for which its loop was held up, and was busy, at most since the last question."""
        found = dict(_BLOCK.findall(self.metrics()))
        return float(found["block"]), float(found["busy"])


@contextmanager
def served(model: str) -> Iterator[tuple[Client, Gateway]]:
    """A worker with this model, and a gateway in front of it."""
    with tempfile.TemporaryDirectory(prefix="lk-") as folder:
        for variable, name in (("JUPYTER_RUNTIME_DIR", "runtime"), ("XDG_RUNTIME_DIR", "run")):
            (Path(folder) / name).mkdir(mode=0o700)
            os.environ[variable] = str(Path(folder) / name)
        config = WorkerConfig.build(model=model, name="bench", max_concurrent=128)
        connection = launcher.start(config)
        process = _gateway()
        try:
            assert process.stdout is not None, "it is a pipe"
            line = next(line for line in process.stdout if line.startswith("Serving"))
            port = int(line.rsplit(":", 1)[1])
            with Client(connection) as client:
                yield client, Gateway("127.0.0.1", port)
        finally:
            process.terminate()
            process.wait(40)
            launcher.stop(connection, drain=False)


def _gateway() -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "llmkernel.cli", "serve", "--port", "0",
         "--max-concurrent-requests", "256"],
        env=os.environ | {"LLMKERNEL_GATEWAY_TOKEN": TOKEN, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )  # fmt: skip


async def read(gateway: Gateway, prompt: str, row: Row) -> Row:
    """Stream one answer into `row`, as it comes."""
    body = json.dumps({"inputs": prompt, "parameters": {"max_new_tokens": NEW_TOKENS}}).encode()
    head = (
        f"POST /generate_stream HTTP/1.1\r\nHost: {gateway.host}\r\nX-Api-Key: {TOKEN}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    row.append(time.perf_counter())
    reader, writer = await asyncio.open_connection(gateway.host, gateway.port)
    writer.write(head.encode() + body)
    while part := await reader.read(65536):
        row += [time.perf_counter()] * part.count(b'data: {"index"')
    writer.close()
    return row


def over_http(gateway: Gateway, prompts: list[str]) -> list[Row]:
    """All prompts at once, over HTTP."""

    async def everything() -> list[Row]:
        return await asyncio.gather(*(read(gateway, one, []) for one in prompts))

    return _whole(asyncio.run(everything()))


def over_zeromq(client: Client, prompts: list[str]) -> list[Row]:
    """All prompts at once, through the client, asking for what the gateway asks for."""

    async def one(prompt: str, row: Row) -> Row:
        row.append(time.perf_counter())
        stream = client.aio.stream(prompt, max_tokens=NEW_TOKENS, temperature=0, logprobs=0)
        async with stream:
            async for delta in stream:
                row += [time.perf_counter()] * len(delta.token_ids)
        return row

    async def everything() -> list[Row]:
        return await asyncio.gather(*(one(prompt, []) for prompt in prompts))

    return _whole(asyncio.run(everything()))


def _whole(rows: list[Row]) -> list[Row]:
    short = [len(row) - 1 for row in rows if len(row) != NEW_TOKENS + 1]
    assert not short, f"streams of {short[:3]} tokens instead of {NEW_TOKENS}"
    return rows


def compare(client: Client, gateway: Gateway, width: int, rounds: int) -> dict[str, Any]:
    """The medians of both ways at one width."""
    found: dict[str, list[streams.Rates]] = {"zeromq": [], "http": []}
    blocks = []
    for number in range(rounds + 1):  # the first one warms up
        prompts = [f"stream {index} of round {number}" for index in range(width)]
        zeromq = streams.rates(over_zeromq(client, prompts))
        gateway.longest_block()
        http = streams.rates(over_http(gateway, [prompt + "!" for prompt in prompts]))
        block = gateway.longest_block()
        if number:
            found["zeromq"].append(zeromq)
            found["http"].append(http)
            blocks.append(block)
    figures: dict[str, Any] = {
        "streams": width,
    }
    figures["longest_block_ms"] = round(1e3 * max(late for late, _ in blocks), 1)
    figures["longest_busy_ms"] = round(1e3 * max(busy for _, busy in blocks), 1)
    for way, rates in found.items():
        figures[f"{way}_tokens_per_second"] = _median(rates, "whole_per_second")
        figures[f"{way}_first_token_ms"] = round(1e3 * _median(rates, "first_token_s", 6), 2)
        figures[f"{way}_gap_p99_ms"] = _median(rates, "gap_p99_ms")
    share = figures["http_tokens_per_second"] / figures["zeromq_tokens_per_second"]
    return figures | {"share": round(share, 3)}


def _median(rates: list[streams.Rates], name: str, digits: int = 1) -> float:
    return round(float(statistics.median(getattr(each, name) for each in rates)), digits)


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    parser = command.parser(__doc__)
    parser.add_argument("--streams", type=command.numbers, default=[1, 8, 32, 128])
    parser.add_argument("--step-ms", type=float, default=20.0, help="time of a decode step")
    parser.add_argument("--rounds", type=command.positive, default=3)
    asked = parser.parse_args(arguments)
    model = f"scripted:step_ms={asked.step_ms:g},eos_after=100000,blocks=20000"
    rows = []
    print(
        "streams   zeromq tok/s   http tok/s   share   first: zeromq, http ms   longest block, busy ms"
    )
    with served(model) as (client, gateway):
        for width in asked.streams:
            row = compare(client, gateway, width, asked.rounds)
            rows.append(row)
            print(
                f"{width:7}   {row['zeromq_tokens_per_second']:12.1f}   "
                f"{row['http_tokens_per_second']:10.1f}   {row['share']:5.0%}   "
                f"{row['zeromq_first_token_ms']:13.1f}, {row['http_first_token_ms']:6.1f}   "
                f"{row['longest_block_ms']:13.1f}, {row['longest_busy_ms']:7.1f}"
            )
    if asked.save:
        figures = {"step_ms": asked.step_ms, "new_tokens": NEW_TOKENS, "widths": rows}
        print(f"Kept in {results.save('gateway', figures, '', asked.save)}")


if __name__ == "__main__":
    command.run(main)
