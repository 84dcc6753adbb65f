"""POST /api/pull: fetch a model that the gateway may load, and say how far it is."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager, suppress
from typing import Any
from weakref import WeakKeyDictionary

import msgspec

from llmkernel import environment
from llmkernel.errors import Overloaded, StartFailed, UnsupportedField, from_code
from llmkernel.gateway.exchange import Exchange
from llmkernel.gateway.gateway import Gateway
from llmkernel.gateway.ollama.names import named, plain
from llmkernel.gateway.outflow import NDJSON
from llmkernel.protocol import Progress


class PullRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Which model to fetch."""

    model: str | None = None
    name: str | None = None
    """The older name of `model`."""
    stream: bool | None = None
    insecure: bool | None = None


class PullStatus(msgspec.Struct, kw_only=True, omit_defaults=True):
    """How far it is; bytes where they are known."""

    status: str
    digest: str | msgspec.UnsetType = msgspec.UNSET
    total: int | msgspec.UnsetType = msgspec.UNSET
    completed: int | msgspec.UnsetType = msgspec.UNSET


MOST_DOWNLOADS = 2
"""At once; each is a process, and a hub's bandwidth is shared anyway."""
_downloads: WeakKeyDictionary[Gateway, int] = WeakKeyDictionary()
SUCCESS = PullStatus(status="success")


async def pull(exchange: Exchange) -> None:
    """Fetch a model into the hub's cache. A client that goes away ends the download."""
    request = exchange.read(PullRequest)
    if request.insecure:
        raise UnsupportedField("insecure is not supported: the hub is asked as it is set up.")
    models = exchange.gateway.models
    name = models.allowed(plain(models, named(request.model, request.name)))
    there = bool(models.serving(name))
    out = exchange.stream(NDJSON) if request.stream is not False else None
    if not there:
        with _turn(exchange.gateway):
            async with aclosing(_download(name)) as steps:
                async for step in steps:
                    if out is not None:
                        await out.line(step)
    if out is None:
        exchange.answer(SUCCESS)
        return
    await out.line(SUCCESS)


@contextmanager
def _turn(gateway: Gateway) -> Iterator[None]:
    """One of the downloads at a time. Raises Overloaded."""
    if _downloads.get(gateway, 0) >= MOST_DOWNLOADS:
        raise Overloaded(
            f"{MOST_DOWNLOADS} downloads run already. Try again when one of them has ended."
        )
    _downloads[gateway] = _downloads.get(gateway, 0) + 1
    try:
        yield
    finally:
        _downloads[gateway] -= 1


async def _download(name: str) -> AsyncGenerator[PullStatus, None]:
    """What the process that downloads says. Raises StartFailed and below."""
    yield PullStatus(status="pulling manifest")
    record: dict[str, Any] = {}
    async with _process(name) as lines:
        async for line in lines:
            record = msgspec.json.decode(line)
            if "error" in record:
                raise from_code(**record["error"])
            if "folder" not in record:
                yield status(msgspec.convert(record, Progress), name)
    if "folder" not in record:
        raise StartFailed("The download ended without a word. `llmkernel pull` says more.")


def status(progress: Progress, name: str) -> PullStatus:
    """A step of the download in Ollama's words."""
    if progress.stage != "download" or not progress.total:
        return PullStatus(status="pulling manifest")
    return PullStatus(
        status=f"pulling {name}", digest=name, total=progress.total, completed=progress.done
    )


@asynccontextmanager
async def _process(name: str) -> AsyncGenerator[asyncio.StreamReader, None]:
    """A process that downloads, until the block ends."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "llmkernel.worker.pull", name),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env=environment.for_worker(),
    )
    assert process.stdout is not None, "it is a pipe"
    try:
        yield process.stdout
    finally:
        with suppress(ProcessLookupError):  # it has ended
            process.kill()
        await process.wait()
