"""`%llm compare`: one prompt, several workers, side by side."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from llmkernel import connection
from llmkernel.errors import LLMKernelError, WorkerNotFound
from llmkernel.notebook import failures, hypertext, publisher
from llmkernel.notebook.arguments import (
    format_option,
    literal_option,
    parse,
    raw_option,
    system_option,
    trim,
)
from llmkernel.notebook.columns import Column, columns
from llmkernel.notebook.generating import begin
from llmkernel.notebook.refreshing import Refreshing
from llmkernel.notebook.rendering import answers, metadata, quiet_line
from llmkernel.notebook.request import Request, check_together, over, prompt_text
from llmkernel.notebook.session import Session
from llmkernel.notebook.tables import Bundle, sentence
from llmkernel.options.once import Once
from llmkernel.options.sampling import sampling_options, sampling_values
from llmkernel.params import SamplingParams

if TYPE_CHECKING:
    from llmkernel.client import Client
    from llmkernel.client.generation import Generation
    from llmkernel.client.streams import Stream

TITLE = "%llm compare"
_NOT_COMPARED = frozenset({"n", "best_of", "logprobs"})
_LOOK_SECONDS = 0.1
_FAREWELL_SECONDS = 2.0


@click.command("compare", cls=Once, add_help_option=False)
@click.option(
    "-m",
    "--worker",
    "workers",
    multiple=True,
    metavar="NAME",
    help="A worker to ask; may be given many times. All that run, where it is left out.",
)
@sampling_options()
@system_option
@raw_option
@format_option
@literal_option
@click.option(
    "-o", "--output", metavar="VAR", help="The variable that gets a dict: worker, answer or error."
)
@click.argument("prompt", required=False)
def _compare(**_: Any) -> None:
    """Ask several workers the same, at the same time, and show their answers side by side.

    PROMPT is the rest of the line, or the body of a `%%llm compare` cell. Under each answer
    stand its tokens, tokens a second and the time to its first token; a worker that fails
    has its error there, and where all of them fail the cell does.
    """


COMPARE = trim(_compare)
COMPARE.params = [param for param in COMPARE.params if param.name not in _NOT_COMPARED]
_OPTIONS = click.Command("compare", params=list(COMPARE.params[:-1]), add_help_option=False)
"""Without the prompt, which is not split into words."""


def run(session: Session, line: str, cell: str | None) -> None:
    """Ask, show, and put the answers into the variable of -o."""
    request = _request(session, TITLE if cell is None else f"%{TITLE}", line, cell)
    names = list(dict.fromkeys(request.options.get("workers", ()))) or _running()
    contenders = [_Contender(session, name, request) for name in names]
    comparison = _Comparison(session.shell, contenders)
    try:
        comparison.run()
    finally:
        if request.output:
            session.variable(request.output, comparison.results)
    comparison.raise_if_all_failed()


def _request(session: Session, title: str, line: str, cell: str | None) -> Request:
    """What all are asked, filled in once."""
    names = session.shell.user_ns
    parsed = parse(_OPTIONS, title, line, names)
    check_together(parsed.values)
    usual = {k: v for k, v in session.defaults.items() if k not in _NOT_COMPARED}
    options = over(usual, parsed.values)
    given = sampling_values(options)
    text = prompt_text(title, parsed.rest, cell)
    request = Request(text, SamplingParams.build(**given), given, options)
    return request._replace(text=request.filled(names))


def _running() -> list[str]:
    names = sorted(worker.name for worker in connection.list_workers())
    if not names:
        raise WorkerNotFound("No worker runs.")
    return names


class _Contender:
    """One worker and its answer as far as it has come."""

    def __init__(self, session: Session, name: str, request: Request) -> None:
        self.name = name
        self.request = request
        self.text = ""
        self.answer: Generation | None = None
        self.error: LLMKernelError | None = None
        self.over = threading.Event()
        self._stopped = False
        self._client: Client | None = None
        self._stream: Stream | None = None
        try:
            self._client = session.client(name)
        except LLMKernelError as error:
            self.error = error

    def read(self, on_change: Any) -> None:
        """Ask and read to the end; what goes wrong is kept."""
        try:
            if self._client is not None:
                self._read(self._client, on_change)
        except LLMKernelError as error:
            self.error = error
        finally:
            self.answer = self._stream.generation if self._stream else None
            self.over.set()
            on_change()

    def _read(self, client: Client, on_change: Any) -> None:
        self._stream = begin(client, self.request, self.request.text)
        if self._stopped:
            self._stream.close()
        for delta in self._stream:
            self.text += delta.text
            on_change()

    def stop(self) -> None:
        """Cancel it; what has come stays. Any thread."""
        self._stopped = True
        if self._stream is not None:
            self._stream.close()

    @property
    def result(self) -> Any:
        """The answer, else the error."""
        return self.error or self.answer

    def column(self, *, timed: bool) -> Column:
        """What there is of it."""
        parts: list[Bundle] = []
        if self.text:
            parts.append(answers([self.text], self.request.form))
        if self.error is not None:
            hint = failures.hint(self.error)
            parts.append(sentence(f"⚠ {type(self.error).__name__}: {self.error} {hint}".strip()))
        elif self.answer is not None:
            parts.append(quiet_line(self.answer, timed=timed))
        return Column(self.name, hypertext.stack(*(parts or [sentence("…")])))


class _Comparison:
    """All contenders, each read in a thread of its own, and the one output that shows them."""

    def __init__(self, shell: Any, contenders: list[_Contender]) -> None:
        self._shell = shell
        self._contenders = contenders
        self._timed = publisher.mode(shell) != "once"
        self._live = Refreshing(shell, self.bundle) if publisher.mode(shell) == "live" else None
        self._threads = [
            threading.Thread(
                target=contextvars.copy_context().run,
                args=(contender.read, self._changed),
                name="llmkernel-compare",
                daemon=True,
            )
            for contender in contenders
        ]

    def run(self) -> None:
        """Wait until all have ended and show them; an interrupt ends them and is raised again."""
        try:
            for thread in self._threads:
                thread.start()
            # not join: where that is interrupted, Python 3.11 takes a thread that runs for ended
            for contender in self._contenders:
                while not contender.over.wait(_LOOK_SECONDS):
                    pass
        except KeyboardInterrupt:
            self._stop()
            raise
        finally:
            self._show()

    def _stop(self) -> None:
        for contender in self._contenders:
            contender.stop()
        for contender, thread in zip(self._contenders, self._threads, strict=True):
            if thread.ident is not None:
                contender.over.wait(_FAREWELL_SECONDS)

    def _changed(self) -> None:
        if self._live is not None:
            self._live.changed()

    def _show(self) -> None:
        facts = self._facts()
        if self._live is None:
            publisher.show(self._shell, self.bundle(), facts)
        else:
            self._live.finish(self.bundle(), facts)

    def bundle(self) -> Bundle:
        """What there is to see now."""
        return columns(contender.column(timed=self._timed) for contender in self._contenders)

    def _facts(self) -> dict[str, Any]:
        given = self._contenders[0].request.given
        each = {
            contender.name: metadata(contender.name, given, contender.answer)["llmkernel"]
            for contender in self._contenders
            if contender.answer is not None
        }
        return {"llmkernel": {"compared": each}}

    @property
    def results(self) -> Mapping[str, Any]:
        """The answer of each, or its error."""
        return {contender.name: contender.result for contender in self._contenders}

    def raise_if_all_failed(self) -> None:
        """Raise the first error where there is nothing else."""
        errors = [contender.error for contender in self._contenders]
        if all(errors) and errors[0] is not None:
            raise errors[0]
