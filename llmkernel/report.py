"""What a worker says of itself, in words: the same in a terminal and in a notebook."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from llmkernel.connection import Connection
from llmkernel.errors import LLMKernelError
from llmkernel.protocol import Load, ModelInfo, StatusReport
from llmkernel.units import count, duration, number, size

PATIENCE = 5.0
"""Seconds that a worker may take to say how it is."""


def ask(worker: Connection) -> StatusReport:
    """The status of a worker. Raises WorkerUnresponsive where it does not answer in time."""
    from llmkernel.watcher import Watcher

    with Watcher(worker) as watcher:
        return watcher.status(PATIENCE)


def ask_all(workers: list[Connection]) -> list[tuple[Connection, StatusReport | None]]:
    """The status of each worker, asked at the same time; None for one that does not answer."""
    with ThreadPoolExecutor(max_workers=8) as pool:
        return list(zip(workers, pool.map(_try_ask, workers), strict=True))


def headline(report: StatusReport) -> str:
    """The model, where it is and how much it can hold."""
    model = report.model
    if model is None:
        return f"state {report.state}"
    quantised = "" if model.quantization == "none" else f" {model.quantization},"
    return (
        f"{model.model} ({number(model.parameters)} parameters,{quantised} {model.dtype}) "
        f"on {model.device}, {model.context_length:,} tokens of context"
    )


def details(worker: Connection, report: StatusReport) -> list[tuple[str, str]]:
    """Names and values: what the worker holds, what it took for it and what it does."""
    rows = [
        ("name", worker.name),
        ("state", report.state),
        ("process", f"{worker.pid}, up {duration(report.uptime)}"),
        ("clients", str(report.clients)),
        ("memory", size(report.rss_bytes)),
    ]
    if report.device_bytes:
        rows.append(("on the device", _taken(report)))
    if report.progress is not None and report.state == "loading":
        rows.append(("loading", f"{report.progress.stage} {report.progress.detail}".strip()))
    if report.model is not None:
        rows += _model(report.model)
        rows += _load(report)
    return [*rows, ("log", worker.log)]


def hit_rate(load: Load) -> float | None:
    """The share of prompt tokens that were in the prefix cache; None before the first prompt."""
    return load.cached_tokens / load.prompt_tokens if load.prompt_tokens else None


def _taken(report: StatusReport) -> str:
    most = report.model.gpu_memory if report.model is not None else 0
    return size(report.device_bytes) + (f" of {size(most)} at most" if most else "")


def _model(model: ModelInfo) -> list[tuple[str, str]]:
    revision = f" at {model.revision}" if model.revision else ""
    cache = f"{size(model.kv_cache_bytes)}: {model.kv_blocks} blocks of {model.block_size} tokens"
    return [
        ("model", model.model + revision),
        ("architecture", f"{model.architecture}, {number(model.parameters)} parameters"),
        ("weights", f"{size(model.weights_bytes)}, {model.quantization}, {model.dtype}"),
        ("device", model.device),
        ("computed by", model.kernels or "nothing: answers are scripted"),
        ("context", f"{model.context_length:,} tokens"),
        ("keys and values", cache),
        ("at once", f"{model.max_concurrent} sequences, {model.queue} requests may wait"),
        ("chat template", "yes" if model.has_chat_template else "no"),
    ]


def _load(report: StatusReport) -> list[tuple[str, str]]:
    load = report.load
    requests = count(load.requests_finished, "request")
    tokens = f"{count(load.prompt_tokens, 'token')} read ({load.cached_tokens} cached), {load.tokens_generated} made"
    rate = hit_rate(load)
    return [
        ("now", f"{load.running} running, {load.waiting} waiting"),
        ("speed", f"{load.tokens_per_second:.1f} tokens/s over the last ten seconds"),
        ("blocks", f"{load.free_blocks} free, {load.cached_blocks} cached"),
        ("cache hits", "-" if rate is None else f"{rate:.0%} of prompt tokens"),
        ("so far", f"{requests}, {load.requests_failed} failed; {tokens}"),
    ]


def _try_ask(worker: Connection) -> StatusReport | None:
    try:
        return ask(worker)
    except LLMKernelError:
        return None  # listed as unresponsive
