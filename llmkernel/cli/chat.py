"""`llmkernel chat`: a conversation in the terminal."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from llmkernel.cli import answers, console
from llmkernel.cli.conversation import Conversation
from llmkernel.cli.failure import Command, report
from llmkernel.cli.names import worker_option
from llmkernel.cli.prompt import Turns
from llmkernel.errors import InvalidRequest, LLMKernelError, PromptTooLong, RequestEnded
from llmkernel.options.sampling import sampling_options, sampling_values
from llmkernel.params import SamplingParams
from llmkernel.printable import printable

if TYPE_CHECKING:
    from llmkernel.client import Client
    from llmkernel.client.generation import Generation

_HELP = '''\
/help             this list
/reset            forget what was said; the system text stays
/system [TEXT]    show or set what the model is told first; "-" removes it
/set [NAME VALUE] show the parameters, or set one, such as: /set temperature 0.2
/undo             forget the last question and its answer
/retry            ask the last question again
/history          show what was said
/save FILE        write the conversation: JSON where the name ends in .json, else Markdown
/load FILE        go on with a conversation saved as JSON
/quit             leave, as Ctrl-D does

A line that ends with \\ goes on in the next one; """ begins and ends a text of many lines.
A question that begins with a slash is written with two. Ctrl-C stops an answer.'''


@click.command("chat", cls=Command)
@worker_option
@click.option("--system", metavar="TEXT", default="", help="What the model is told first.")
@click.option(
    "--load",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Go on with a conversation that /save wrote as JSON.",
)
@click.option("--stats", is_flag=True, help="Tokens, speed and time to first token each time.")
@click.option("--json", "as_json", is_flag=True, help="NDJSON: one object for each answer.")
@sampling_options()
def chat_command(
    worker: str | None,
    system: str,
    load: Path | None,
    stats: bool,
    as_json: bool,
    **sampling: Any,
) -> None:
    """Talk with the model in the terminal.

    What was said is sent along with each question. /help lists the commands; Ctrl-C stops an
    answer and keeps what has come, Ctrl-D leaves. Through a pipe each line is a question.
    """
    from llmkernel import connection
    from llmkernel.client import Client

    values = sampling_values(sampling)
    conversation, saved = Conversation.load(load) if load else (Conversation(), {})
    conversation.system = system or conversation.system
    with Client(connection.find(worker)) as client:
        talk = Talk(client, conversation, saved | values, stats=stats, as_json=as_json)
        turns = Turns()
        if turns.interactive:
            console.line(
                console.dim(f"{client.name} · /help for commands, Ctrl-D to leave"), err=True
            )
        talk.run(turns)


class Talk:
    """A conversation with one worker, line by line."""

    def __init__(
        self,
        client: Client,
        conversation: Conversation,
        values: dict[str, Any],
        *,
        stats: bool = False,
        as_json: bool = False,
    ) -> None:
        self.client = client
        self.conversation = conversation
        self.params = _one_answer(values)
        self._stats = stats
        self._as_json = as_json
        self._commands: dict[str, Callable[[str], None]] = {
            "help": self._help,
            "reset": self._reset,
            "system": self._system,
            "set": self._set,
            "undo": self._undo,
            "retry": self._retry,
            "history": self._history,
            "save": self._save,
            "load": self._load,
            "quit": self._quit,
            "exit": self._quit,
        }

    def run(self, turns: Turns) -> None:
        """Take turns until the end of the input.

        Typed by a person, an error is shown and the conversation goes on; through a pipe it
        ends the program, as nobody would notice.
        """
        while True:
            try:
                self.take(turns.next())
            except EOFError:
                if turns.interactive:
                    console.line(err=True)
                return
            except KeyboardInterrupt:
                console.line(err=True)  # what was being typed is dropped
                if not turns.interactive:
                    raise
            except LLMKernelError as error:
                if not turns.interactive:
                    raise
                report(error)
                if isinstance(error, PromptTooLong):
                    console.line(console.dim("/undo or /reset makes room here."), err=True)

    def take(self, text: str) -> None:
        """One turn: a command, a question, or nothing. Raises EOFError for /quit."""
        if text.startswith("//"):
            self.ask(text[1:])
        elif text.startswith("/"):
            name, _, rest = text[1:].partition(" ")
            self._command(name)(rest.strip())
        elif text.strip():
            self.ask(text)

    def ask(self, question: str) -> None:
        """Ask and write the answer; an interrupted or broken one is kept as far as it came."""
        turns = answers.plain(self.conversation.asking(question))
        stream = self.client.stream_chat(turns, self.params)
        try:
            if self._as_json:
                for _ in stream:
                    pass
            else:
                answers.write_stream(stream)
        except KeyboardInterrupt as stop:
            stream.close()
            self._keep(question, getattr(stop, "partial", None) or stream.generation)
            if not sys.stdin.isatty():
                raise
        except RequestEnded as error:
            self._keep(question, error.partial or stream.generation)
            raise
        else:
            self._keep(question, stream.generation)

    def _keep(self, question: str, answer: Generation) -> None:
        if answer.text:
            self.conversation.add(question, answer.text)
        if self._as_json:
            console.json_line(answers.record(answer, self.client))
        elif self._stats:
            answers.write_statistics(answer)

    def _command(self, name: str) -> Callable[[str], None]:
        if name in self._commands:
            return self._commands[name]
        near = difflib.get_close_matches(name, self._commands, n=1)
        hint = f" Did you mean /{near[0]}?" if near else " /help lists them."
        raise InvalidRequest(
            f"There is no command /{name}.{hint} A question is written with two slashes."
        )

    def _say(self, text: str) -> None:
        # not into a file that the answers go to
        console.line(printable(text), err=not sys.stdout.isatty())

    def _help(self, _: str) -> None:
        self._say(_HELP)

    def _reset(self, _: str) -> None:
        self.conversation.reset()
        self._say("Forgotten.")

    def _system(self, text: str) -> None:
        if text:
            self.conversation.system = "" if text == "-" else text
        self._say(f"System: {self.conversation.system or '(nothing)'}")

    def _set(self, text: str) -> None:
        name, _, value = text.partition(" ")
        if name and not value:
            raise InvalidRequest("Write /set NAME VALUE, for example: /set temperature 0.2")
        if name:
            changed = self._values() | {name: _value(value.strip())}
            self.params = _one_answer(changed)
        given = ", ".join(f"{key}={value}" for key, value in self._values().items())
        self._say(f"Parameters: {given or 'the defaults'}")

    def _values(self) -> dict[str, Any]:
        default = SamplingParams()
        values = msgspec.structs.asdict(self.params)
        return {key: value for key, value in values.items() if value != getattr(default, key)}

    def _undo(self, _: str) -> None:
        question = self.conversation.undo()
        self._say("There is nothing to forget." if question is None else f"Forgotten: {question}")

    def _retry(self, _: str) -> None:
        turns = list(self.conversation.turns)
        question = self.conversation.undo()
        if question is None:
            raise InvalidRequest("Nothing has been asked yet.")
        try:
            self.ask(question)
        except LLMKernelError:
            self.conversation.turns = turns  # better the old answer than none
            raise

    def _history(self, _: str) -> None:
        for turn in self.conversation.messages:
            self._say(f"{_NAMES.get(turn.role, turn.role)}: {turn.content}")

    def _save(self, name: str) -> None:
        path = _path(name, "/save talk.json")
        self.conversation.save(path, model=self.client.connection.model, params=self._values())
        self._say(f"Saved: {path}")

    def _load(self, name: str) -> None:
        path = _path(name, "/load talk.json")
        self.conversation, values = Conversation.load(path)
        self.params = _one_answer(values)
        self._say(f"Loaded: {len(self.conversation)} turns.")

    def _quit(self, _: str) -> None:
        raise EOFError


_NAMES = {"system": "system", "user": "you", "assistant": "model"}


def _one_answer(values: dict[str, Any]) -> SamplingParams:
    params = SamplingParams.build(**values)
    if params.n > 1 or params.logprobs is not None or params.prompt_logprobs is not None:
        raise InvalidRequest(
            "A conversation goes on with one answer and shows no log-probabilities; "
            "`llmkernel generate` has both.",
        )
    return params


def _value(text: str) -> Any:
    """A number, a list, true or false where the text is one, else the text."""
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text


def _path(name: str, example: str) -> Path:
    if not name:
        raise InvalidRequest(f"Give the name of a file, for example: {example}")
    return Path(name).expanduser()
