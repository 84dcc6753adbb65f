"""`%llm`, `%generate`, `%%generate` and `%%chat`."""

from __future__ import annotations

import difflib
from typing import Any

import click
from IPython.core.magic import (
    Magics,
    cell_magic,
    line_cell_magic,
    magics_class,
    no_var_expand,
)
from traitlets import TraitError, Unicode, observe, validate

from llmkernel.client import mapping, starting
from llmkernel.errors import InvalidRequest, LLMKernelError
from llmkernel.notebook import batch, chatting, comparing, completion, failures, question_marks
from llmkernel.notebook.arguments import refusal
from llmkernel.notebook.commands import LLM, defaults_of, help_text
from llmkernel.notebook.comparing import COMPARE
from llmkernel.notebook.counting import MapBar
from llmkernel.notebook.generating import Asked, hand_over_code, value
from llmkernel.notebook.jobs import Job
from llmkernel.notebook.prompt import fill
from llmkernel.notebook.request import Request, read
from llmkernel.notebook.session import Session
from llmkernel.notebook.words import words

_MATCHER = "llmkernel"
_NAMES = (
    ("line", "llm"),
    ("cell", "llm"),
    ("line", "generate"),
    ("cell", "generate"),
    ("cell", "chat"),
)


def load(shell: Any) -> None:
    """Give a shell the magics, their completion and short errors."""
    magics = LLMKernelMagics(shell)
    shell.register_magics(magics)
    question_marks.install(shell)
    failures.install()
    starting.chosen = lambda: magics.session.worker
    if hasattr(shell, "kernel"):  # a terminal has tqdm's
        mapping.make_bar = lambda total: MapBar(shell, total)
    if shell.Completer is not None:
        shell.Completer.custom_matchers.append(
            completion.matcher(shell, LLM, lambda: list(magics.session.chats))
        )


def unload(shell: Any) -> None:
    """Take everything back that `load` gave. Workers and running generations stay."""
    for kind, name in _NAMES:
        shell.magics_manager.magics[kind].pop(name, None)
    magics = shell.magics_manager.registry.pop(LLMKernelMagics.__name__, None)
    if magics is not None:
        shell.configurables.remove(magics)
        magics.session.close()
    question_marks.uninstall(shell)
    failures.uninstall()
    mapping.make_bar = mapping.TqdmBar
    starting.chosen = starting.no_choice
    if shell.Completer is not None:
        shell.Completer.custom_matchers[:] = [
            matcher
            for matcher in shell.Completer.custom_matchers
            if getattr(matcher, "matcher_identifier", "") != _MATCHER
        ]


@magics_class
class LLMKernelMagics(Magics):
    """The magics of one shell and what it has chosen.

    `c.LLMKernelMagics.defaults = "-t 0 -n 200"` in a configuration file, or
    `%config LLMKernelMagics.defaults = "-t 0"`, is `%llm config` for every notebook.
    """

    shell: Any
    worker = Unicode("", help="The worker that is asked; empty for the only one that runs.").tag(
        config=True
    )
    defaults = Unicode("", help="Options of %%generate that hold where a cell has none.").tag(
        config=True
    )

    def __init__(self, shell: Any) -> None:
        super().__init__(shell)
        self.session = Session(shell)
        self._choose_worker()
        self._set_defaults()

    @observe("worker")
    def _choose_worker(self, _change: Any = None) -> None:
        if hasattr(self, "session"):  # else it is not made yet
            self.session.worker = self.worker or None

    @validate("defaults")
    def _check_defaults(self, proposal: Any) -> str:
        """What cannot be is refused, and what was before stays. Raises TraitError."""
        if hasattr(self, "session"):
            try:
                defaults_of(proposal.value, self.shell.user_ns)
            except InvalidRequest as error:  # traitlets takes a value back for its own error alone
                raise TraitError(str(error)) from error
        return str(proposal.value)

    @observe("defaults")
    def _set_defaults(self, _change: Any = None) -> None:
        """Raises InvalidRequest."""
        if hasattr(self, "session"):
            self.session.defaults = defaults_of(self.defaults, self.shell.user_ns)

    @no_var_expand
    @line_cell_magic
    @failures.interruptible
    def llm(self, line: str, cell: str | None = None) -> None:
        """Start, list, choose and stop workers; the page of `%llm help`."""
        first, _, rest = line.strip().partition(" ")
        if first == COMPARE.name:
            comparing.run(self.session, rest, cell)
        elif cell is not None:
            raise InvalidRequest(f"%%llm has {COMPARE.name} alone; write %llm {line} on one line.")
        else:
            self._command(line)

    def _command(self, line: str) -> None:
        given = [fill(word, self.shell.user_ns) for word in words(line)]
        name, *arguments = given or ["help"]
        command = LLM.commands.get(name)
        if command is None:
            begun = [known for known in LLM.commands if known.startswith(name)]
            near = begun or difflib.get_close_matches(name, LLM.commands, n=1)
            hint = f"Did you mean {near[0]}?" if near else f"There are {', '.join(LLM.commands)}."
            raise InvalidRequest(f"There is no %llm {name}. {hint}")
        title = f"%llm {name}"
        try:
            with command.make_context(title, arguments, obj=self.session) as context:
                command.invoke(context)
        except click.UsageError as error:
            raise refusal(error, title) from None

    @no_var_expand
    @line_cell_magic
    @failures.interruptible
    def generate(self, line: str, cell: str | None = None) -> Job | None:
        """Generate text from the prompt; the page of `%llm help generate`."""
        title = "%generate" if cell is None else "%%generate"
        session, names = self.session, self.shell.user_ns
        request = read(title, line, cell, session.defaults, names)
        client = session.client(request.worker)
        if "loop" in request.options:
            self._batch(client, request)
            return None
        asked = Asked(self.shell, client, request)
        if request.options.get("background"):
            return self._background(asked)
        self._foreground(asked)
        return None

    @no_var_expand
    @cell_magic
    @failures.interruptible
    def chat(self, line: str, cell: str) -> None:
        """Go on with a conversation; the page of `%llm help chat`."""
        chatting.run(self.session, line, cell)

    def _foreground(self, asked: Asked) -> None:
        try:
            answer = asked.read()
        except KeyboardInterrupt:
            self._store(asked.request, asked.stream.generation)
            raise
        except LLMKernelError:
            if asked.text:  # it stands on the screen
                self._store(asked.request, asked.stream.generation)
            raise
        self._store(asked.request, value(asked.request, answer))
        if asked.request.form == "code":
            hand_over_code(self.shell, answer)

    def _background(self, asked: Asked) -> Job | None:
        job = Job(self.shell, asked)
        self._store(asked.request, job)
        return None if asked.request.output else job

    def _batch(self, client: Any, request: Request) -> None:
        try:
            results = batch.run(self.shell, client, request)
        except KeyboardInterrupt as stop:
            self._store(request, getattr(stop, "partial", []))
            raise
        self._store(request, results)

    def _store(self, request: Request, result: Any) -> None:
        if request.output:
            self.session.variable(request.output, result)


LLMKernelMagics.llm.__doc__ = help_text()
LLMKernelMagics.generate.__doc__ = help_text("generate")
LLMKernelMagics.chat.__doc__ = help_text("chat")
