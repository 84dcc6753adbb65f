"""`llmkernel start`, `list`, `status` and `stop`."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import click

from llmkernel.cli import console
from llmkernel.cli.failure import Command
from llmkernel.cli.names import worker_argument
from llmkernel.errors import InvalidRequest, LLMKernelError
from llmkernel.options.numbers import FiniteRange
from llmkernel.options.worker import build_config, worker_options
from llmkernel.report import ask, ask_all, details, headline
from llmkernel.units import duration, size

if TYPE_CHECKING:
    from llmkernel.connection import Connection
    from llmkernel.protocol import StatusReport

json_option = click.option("--json", "as_json", is_flag=True, help="One JSON object.")


@click.command("start", cls=Command)
@worker_options
@click.option(
    "--timeout",
    type=FiniteRange(min=0, min_open=True),
    metavar="SECONDS",
    help="Give up where the worker is not ready in time; it waits as long as it takes otherwise.",
)
@json_option
def start_command(timeout: float | None, as_json: bool, **settings: Any) -> None:
    """Start a worker, or attach to the one that runs.

    MODEL is a hub id, a local folder, or left out for the embedded model. The command
    returns when the model is loaded; the worker stays until `llmkernel stop`.
    """
    from llmkernel import launcher
    from llmkernel.progress import ProgressBar

    config = build_config(settings)
    with ProgressBar() as bar:
        worker, started = launcher.begin(config, on_progress=bar.show, timeout=timeout)
    report = ask(worker)
    if as_json:
        console.json_line({"started": started} | summary(worker, report))
        return
    said = f"{worker.name} {'is ready' if started else 'already runs'}: {headline(report)}"
    console.line(said, untrusted=True)


@click.command("list", cls=Command)
@json_option
def list_command(as_json: bool) -> None:
    """List the workers that run on this machine."""
    from llmkernel import connection

    workers = connection.list_workers()
    found = [summary(worker, report) for worker, report in ask_all(workers)]
    if as_json:
        console.json_line({"workers": found})
    elif found:
        headings = ("name", "model", "state", "device", "pid", "up", "memory", "busy", "waiting")
        console.table(headings, map(_row, found))
    else:
        console.line("No worker runs. Start one with: llmkernel start", err=True)


@click.command("status", cls=Command)
@worker_argument
@json_option
def status_command(name: str | None, as_json: bool) -> None:
    """Say what a worker holds, what it took for it and what it does."""
    from llmkernel import connection

    worker = connection.find(name)
    report = ask(worker)
    if as_json:
        console.json_line(summary(worker, report))
    else:
        console.fields(details(worker, report))


@click.command("stop", cls=Command)
@worker_argument
@click.option("--all", "everyone", is_flag=True, help="Stop every worker of yours.")
@click.option("--now", is_flag=True, help="Cancel what runs instead of finishing it first.")
@click.option("--kill", is_flag=True, help="End a worker that does not answer any more.")
@json_option
def stop_command(name: str | None, everyone: bool, now: bool, kill: bool, as_json: bool) -> None:
    """Stop a worker and wait until it has given everything back.

    What runs is finished first, for 30 seconds at most.
    """
    from llmkernel import connection

    if everyone and name is not None:
        raise InvalidRequest("Give a name or --all, not both.")
    workers = connection.list_workers() if everyone else [connection.find(name)]
    with ThreadPoolExecutor(max_workers=max(1, len(workers))) as pool:
        failures = list(pool.map(lambda worker: _stop(worker, now, kill), workers))
    stopped = [worker.name for worker, why in zip(workers, failures, strict=True) if why is None]
    if as_json:
        console.json_line({"stopped": stopped})
    elif stopped or not workers:
        console.line(f"Stopped: {', '.join(stopped)}" if stopped else "No worker runs.", err=True)
    problems = [why for why in failures if why is not None]
    for why in problems[1:]:
        console.line(f"Error: {why.message}", untrusted=True, err=True)
    if problems:
        raise problems[0]


def summary(worker: Connection, report: StatusReport | None) -> dict[str, Any]:
    """What scripts get to know of a worker; no key is in it."""
    known = {
        "name": worker.name,
        "state": report.state if report else "unresponsive",
        "pid": worker.pid,
        "instance": worker.instance,
        "log": worker.log,
        "settings": worker.settings,
    }
    if report is None:
        return known
    said = {key: value for key, value in console.plain(report).items() if key != "id"}
    return known | said


def _stop(worker: Connection, now: bool, kill: bool) -> LLMKernelError | None:
    from llmkernel import launcher

    try:
        if kill:
            launcher.kill(worker)
        else:
            launcher.stop(worker, drain=not now)
    except LLMKernelError as error:
        return error
    return None


def _row(found: dict[str, Any]) -> tuple[str, ...]:
    model, load = found.get("model") or {}, found.get("load") or {}
    memory = found.get("device_bytes") or found.get("rss_bytes")
    uptime = found.get("uptime")
    return (
        found["name"],
        model.get("model") or found["settings"].get("model", "-"),
        found["state"],
        model.get("device", "-"),
        str(found["pid"]),
        "-" if uptime is None else duration(uptime),
        size(memory),
        str(load.get("running", "-")),
        str(load.get("waiting", "-")),
    )
