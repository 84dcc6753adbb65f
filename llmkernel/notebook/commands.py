"""`%llm`: start, list, status, use, stop, logs, config and help, as click commands.

Their options are those of the command line; what they show is output of the cell.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

import click

from llmkernel import connection, launcher, paths
from llmkernel.connection import Connection
from llmkernel.errors import InvalidRequest, WorkerNotFound
from llmkernel.notebook import publisher, watching
from llmkernel.notebook.arguments import (
    GENERATE,
    given,
    shared_options,
    trim,
    values_of,
    variable,
    worker_option,
)
from llmkernel.notebook.card import card
from llmkernel.notebook.chat_list import CHATS
from llmkernel.notebook.chatting import CHAT
from llmkernel.notebook.comparing import COMPARE
from llmkernel.notebook.panel.command import PANEL
from llmkernel.notebook.progress import LoadProgress
from llmkernel.notebook.prompt import fill
from llmkernel.notebook.request import check_together, over
from llmkernel.notebook.session import Session, with_session
from llmkernel.notebook.tables import PLAIN, sentence, table
from llmkernel.notebook.untrusted import plain
from llmkernel.notebook.words import words
from llmkernel.options.numbers import FiniteRange
from llmkernel.options.once import Once
from llmkernel.options.sampling import sampling_values
from llmkernel.options.worker import build_config, worker_options
from llmkernel.params import SamplingParams
from llmkernel.protocol import StatusReport
from llmkernel.report import ask, ask_all, headline
from llmkernel.units import duration, size

_OVERVIEW = """\
%llm start [MODEL]     load a model, or attach to the worker that has it
%llm list              the workers of this machine
%llm status [NAME]     what a worker holds and does, as it changes
%llm use NAME          choose the worker that %%generate asks
%llm stop [NAME]       end a worker and give its memory back
%llm logs [NAME]       what a worker wrote
%llm compare PROMPT    one prompt, several workers (-m A -m B), side by side
%llm panel [NAME]      a chat panel: streams beside running cells
%llm chats [NAME]      the conversations of %%chat: list, show, export, reset
%llm config [OPTIONS]  show or set defaults of %%generate in this notebook
%llm help [TOPIC]      the options of a command, or of generate

%%generate [OPTIONS]   the cell is the prompt; {{ expression }} stands for a value
%generate [OPTIONS] PROMPT
%%chat [NAME]          the cell is the next turn of a conversation"""

_NONE = "No worker runs. Start one with: %llm start"

CELLS = {"generate": GENERATE, "chat": CHAT}
"""The magics of cells, by what `%llm help` calls them."""


class _Commands(click.Group):
    command_class = Once


@click.group("llm", cls=_Commands, add_help_option=False, no_args_is_help=False)
def LLM() -> None:  # noqa: N802 - it is what the magic is called
    """The workers of this machine, seen from a notebook."""


@LLM.command("start", add_help_option=False)
@worker_options
@click.option("-o", "--output", metavar="VAR", help="The variable that gets the client.")
@with_session
def start(session: Session, /, output: str | None, **settings: Any) -> None:
    """Start a worker, or attach to the one that runs.

    MODEL is a hub id, a local folder, or left out for the embedded model. The worker stays
    until `%llm stop`, whatever happens to this kernel, and `%%generate` asks it from now on.
    """
    name = variable(output) if output else None
    config = build_config(settings)
    ran_before = connection.running(config.name) is not None
    progress = LoadProgress(session.shell)
    try:
        worker = launcher.start(config, on_progress=progress.show)
        report = ask(worker)
    except BaseException:  # an interrupt too leaves no bar behind
        progress.failed()
        raise
    session.worker = worker.name
    verb = "already runs" if ran_before else "is ready"
    progress.done(f"{worker.name} {verb}: {headline(report)}")
    if name:
        session.variable(name, session.client())


@LLM.command("list", add_help_option=False)
@with_session
def list_(session: Session) -> None:
    """List the workers that run on this machine; * marks the one that this notebook uses."""
    found = ask_all(connection.list_workers())
    used = found[0][0].name if len(found) == 1 else session.worker
    rows = [_row(worker, report, used=worker.name == used) for worker, report in found]
    headings = ("name", "model", "state", "device", "up", "memory", "running + waiting")
    publisher.show(session.shell, table(headings, rows) if rows else sentence(_NONE))


@LLM.command("status", add_help_option=False)
@click.argument("name", required=False)
@click.option(
    "--watch",
    is_flag=False,
    flag_value=str(watching.WITHOUT_END),
    type=FiniteRange(min=0, min_open=True),
    metavar="[SECONDS]",
    help="Run as long as it changes: so many seconds, or until stopped; NAME goes before.",
)
@with_session
def status(session: Session, name: str | None, watch: float | None) -> None:
    """Say what a worker holds, what it took for it and what it does, as it changes.

    The card changes in its place for ten minutes while other cells run, until it is asked for
    again. On a terminal, and where outputs are compared, it is shown once.
    """
    worker = session.find(name)
    if watch is not None:
        watching.watch(session.shell, worker, watch)
    elif publisher.mode(session.shell) == "live":
        session.follow(worker)
    else:
        publisher.show(session.shell, card(worker, ask(worker)))


@LLM.command("use", add_help_option=False)
@click.argument("name")
@click.option("-o", "--output", metavar="VAR", help="The variable that gets the client.")
@with_session
def use(session: Session, name: str, output: str | None) -> None:
    """Choose the worker that `%%generate` asks in this notebook."""
    target = variable(output) if output else None
    worker = connection.find(name)
    report = ask(worker)
    session.worker = worker.name
    publisher.show(session.shell, sentence(f"Using {worker.name}: {headline(report)}"))
    if target:
        session.variable(target, session.client())


@LLM.command("stop", add_help_option=False)
@click.argument("name", required=False)
@click.option("--now", is_flag=True, help="Cancel what runs instead of finishing it first.")
@with_session
def stop(session: Session, name: str | None, now: bool) -> None:
    """Stop a worker and wait until it has given everything back.

    What runs, for this notebook or another, is finished first, for 30 seconds at most.
    """
    worker = session.find(name)
    launcher.stop(worker, drain=not now)
    if session.worker == worker.name:
        session.worker = None
    publisher.show(session.shell, sentence(f"Stopped {worker.name}."))


@LLM.command("logs", add_help_option=False)
@click.argument("name", required=False)
@click.option(
    "-n",
    "--lines",
    type=click.IntRange(min=0),
    default=50,
    show_default=True,
    metavar="N",
    help="Lines to show.",
)
@with_session
def logs(session: Session, name: str | None, lines: int) -> None:
    """Show what a worker wrote; the last one's where none runs."""
    found = name or session.worker or connection.last_log()
    path = paths.log_path(found)
    if not path.exists():
        raise WorkerNotFound(f"There is no log of a worker {found!r}.")
    with path.open(encoding="utf-8", errors="replace") as file:
        text = plain("".join(deque(file, maxlen=lines))).rstrip("\n")
    publisher.show(session.shell, {PLAIN: text or "The log is empty."})


@LLM.command("config", add_help_option=False)
@worker_option
@shared_options
@click.option("--reset", is_flag=True, help="Forget all defaults first.")
@with_session
def config(session: Session, /, worker: str | None, reset: bool, **values: Any) -> None:
    """Show the defaults of `%%generate` in this notebook, or set those that are given.

    An option of a cell goes before its default.
    """
    wanted = given(values)
    check_together(wanted)
    defaults = wanted if reset else over(session.defaults, wanted)
    SamplingParams.build(**sampling_values(defaults))
    chosen = connection.find(worker).name if worker else None if reset else session.worker
    session.worker, session.defaults = chosen, defaults
    rows = [("worker", session.worker or "the only one that runs")]
    rows += [(name.rstrip("_"), str(value)) for name, value in session.defaults.items()]
    publisher.show(session.shell, table(("default", "value"), rows))


trim(LLM.commands["config"])
_DEFAULTS = Once(
    "config",
    params=[p for p in LLM.commands["config"].params if p.name not in ("worker", "reset")],
    add_help_option=False,
)
LLM.add_command(CHATS)
LLM.add_command(PANEL)
LLM.add_command(COMPARE)


@LLM.command("help", add_help_option=False)
@click.argument("topic", required=False)
@with_session
def help_(session: Session, topic: str | None) -> None:
    """Show all commands, or the options of one of them or of generate."""
    publisher.show(session.shell, {PLAIN: help_text(topic)})


def help_text(topic: str | None = None) -> str:
    """The overview, or the page of one topic. Raises InvalidRequest for an unknown one."""
    if topic is None:
        return _OVERVIEW
    topic = topic.lstrip("%").removeprefix("llm ").strip()
    command = CELLS.get(topic) or LLM.commands.get(topic)
    if command is None:
        known = ", ".join([*CELLS, *LLM.commands])
        raise InvalidRequest(f"There is no help on {topic!r}. There is on: {known}.")
    title = f"%%{topic}" if topic in CELLS else f"%llm {topic}"
    return command.get_help(click.Context(command, info_name=title, max_content_width=88))


def defaults_of(line: str, names: Mapping[str, Any]) -> dict[str, Any]:
    """The defaults that a line of options stands for. Raises InvalidRequest."""
    try:
        values = values_of(_DEFAULTS, "%llm config", [fill(word, names) for word in words(line)])
    except InvalidRequest as error:
        raise InvalidRequest(f"LLMKernelMagics.defaults = {line!r}: {error.message}") from None
    check_together(values)
    SamplingParams.build(**sampling_values(values))
    return values


def _row(worker: Connection, report: StatusReport | None, *, used: bool) -> tuple[str, ...]:
    name = f"{worker.name}{'*' if used else ''}"
    if report is None:
        return name, worker.model, "unresponsive", "-", "-", "-", "-"
    return (
        name,
        report.model.model if report.model else worker.model,
        report.state,
        report.model.device if report.model else "-",
        duration(report.uptime),
        size(report.device_bytes or report.rss_bytes),
        f"{report.load.running} + {report.load.waiting}",
    )
