"""`%%chat`: one cell's turn in a conversation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from llmkernel.errors import InvalidRequest, LLMKernelError
from llmkernel.notebook.arguments import (
    format_option,
    literal_option,
    output_option,
    quiet_option,
    system_option,
    trim,
    values_of,
    worker_option,
)
from llmkernel.notebook.chats import DEFAULT, Chat, Exchange, Place, Position, system_of, turns
from llmkernel.notebook.generating import Asked, hand_over_code, value
from llmkernel.notebook.prompt import fill
from llmkernel.notebook.request import Request, check_together
from llmkernel.notebook.session import Session
from llmkernel.notebook.words import words
from llmkernel.options.once import Once
from llmkernel.options.sampling import sampling_options, sampling_values
from llmkernel.params import SamplingParams

TITLE = "%%chat"
_SEVERAL = frozenset({"n", "best_of"})
_NOT_FOR_A_TURN = _SEVERAL | {"raw", "logprobs"}


@click.command("chat", cls=Once, add_help_option=False)
@click.argument("name", required=False)
@worker_option
@sampling_options()
@system_option
@format_option
@output_option
@literal_option
@quiet_option
def _chat(**_: Any) -> None:
    """Go on with a conversation.

    The body of the cell is the next turn in the conversation NAME (`main` where it is left
    out), and the model is given all of it. A cell that is run again takes its turn once
    more: what it said, and all that was said after, is taken back first, and the line under
    the answer says so. `%llm chats` lists, shows, exports and resets conversations; they end
    with the kernel. A turn that fails leaves its conversation as it was.
    """


CHAT = trim(_chat)
CHAT.params = [param for param in CHAT.params if param.name not in _SEVERAL]


def run(session: Session, line: str, cell: str) -> None:
    """Take one turn. Raises what asking raises, and NotJson."""
    shell = session.shell
    options, text = _read(line, cell, session.defaults, shell.user_ns)
    chat = session.chats.get(options["name"]) or Chat(options["name"])
    place = Place.of(shell)
    position = chat.position(place)
    said = _said(options, position, session.defaults)
    request = _request(options, text, position, said)
    question = request.filled(shell.user_ns)
    # what is in the question now is not looked at again
    request = request._replace(text=question, options={**request.options, "literal": True})
    asked = Asked(shell, session.client(request.worker), request)

    def keep() -> None:
        answer = asked.stream.generation.text
        chat.put(position, Exchange(question, answer, said, place))
        session.chats[chat.name] = chat

    _take(session, asked, keep)


def _take(session: Session, asked: Asked, keep: Any) -> None:
    output = asked.request.output
    try:
        answer = asked.read()
    except KeyboardInterrupt:
        if asked.stream.generation.text:
            keep()  # it stands on the screen
            if output:
                session.variable(output, asked.stream.generation)
        raise
    except LLMKernelError:
        if asked.text and output:  # it stands on the screen, but the turn was not taken
            session.variable(output, asked.stream.generation)
        raise
    keep()
    result = value(asked.request, answer)
    if output:
        session.variable(output, result)
    if asked.request.form == "code":
        hand_over_code(session.shell, answer)


def _read(
    line: str, cell: str, defaults: Mapping[str, Any], names: Mapping[str, Any]
) -> tuple[dict[str, Any], str]:
    """What the cell says over the defaults of the notebook, and its text."""
    values = values_of(CHAT, TITLE, [fill(word, names) for word in words(line)])
    check_together(values)
    text = cell.removesuffix("\n")
    if not text.strip():
        raise InvalidRequest("The turn is empty. Write it in the lines under %%chat.")
    usual = {k: v for k, v in defaults.items() if k not in _NOT_FOR_A_TURN and k != "system"}
    return {"name": DEFAULT} | usual | values, text


def _said(
    options: Mapping[str, Any], position: Position, defaults: Mapping[str, Any]
) -> str | None:
    """The system text that this turn brings; None where that of the turns before holds."""
    said: str | None = options.get("system")
    before = system_of(position.before)
    return defaults.get("system") if said is None and before is None else said


def _request(options: dict[str, Any], text: str, position: Position, said: str | None) -> Request:
    system = system_of(position.before) if said is None else said
    given = sampling_values(options)
    asking = {name: value for name, value in options.items() if name != "system"}
    if system:
        asking["system"] = system
    params = SamplingParams.build(**given)
    request = Request(text, params, given, asking, turns(position.before))
    name = options["name"]
    return request._replace(
        remark=f"{name}: {position.remark}",
        remark_of_failure=f"{name}: {position.remark_of_failure}",
    )
