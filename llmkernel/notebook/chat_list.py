"""`%llm chats`: the conversations of a notebook."""

from __future__ import annotations

import click

from llmkernel.errors import InvalidRequest
from llmkernel.notebook import publisher
from llmkernel.notebook.arguments import variable
from llmkernel.notebook.chats import Chat
from llmkernel.notebook.markdown import safe
from llmkernel.notebook.session import Session, with_session
from llmkernel.notebook.tables import MARKDOWN, PLAIN, Bundle, sentence, shorten, stack, table
from llmkernel.notebook.untrusted import plain
from llmkernel.options.once import Once


@click.command("chats", cls=Once, add_help_option=False)
@click.argument("name", required=False)
@click.option("--reset", is_flag=True, help="Forget this conversation, or all of them.")
@click.option("--undo", is_flag=True, help="Take its last turn back.")
@click.option("-o", "--output", metavar="VAR", help="The variable that gets its messages.")
@with_session
def CHATS(  # noqa: N802 - as GENERATE and CHAT
    session: Session, name: str | None, reset: bool, undo: bool, output: str | None
) -> None:
    """List the conversations of `%%chat`, or show one of them.

    What -o puts into VAR is a list of messages that `chat` of a client takes, and
    `json.dump` writes.
    """
    target = variable(output) if output else None
    if name is None:
        if undo or target:
            raise InvalidRequest(f"Which one? {_known_chats(session)}")
        if reset:
            session.chats.clear()
        publisher.show(session.shell, _chat_list(session))
        return
    chat = _chat(session, name)
    if undo:
        chat.undo()
    if target:
        session.variable(target, chat.messages)
    if reset:
        del session.chats[name]
    publisher.show(session.shell, sentence(f"Forgot {name}.") if reset else _transcript(chat))


def _chat(session: Session, name: str) -> Chat:
    if name not in session.chats:
        raise InvalidRequest(f"There is no conversation {name!r}. {_known_chats(session)}")
    return session.chats[name]


def _known_chats(session: Session) -> str:
    known = ", ".join(session.chats)
    return f"There is: {known}." if known else "None was begun: %%chat [NAME] begins one."


def _chat_list(session: Session) -> Bundle:
    if not session.chats:
        return sentence(_known_chats(session))
    rows = [
        (chat.name, str(len(chat.exchanges)), chat.system or "", _last_question(chat))
        for chat in session.chats.values()
    ]
    return table(("name", "turns", "system", "last"), rows)


def _last_question(chat: Chat) -> str:
    """The beginning of what was asked last."""
    return shorten(chat.exchanges[-1].question, 60) if chat.exchanges else ""


def _transcript(chat: Chat) -> Bundle:
    if not chat.exchanges:
        return sentence(f"{chat.name} is empty.")
    parts = []
    for message in chat.messages:
        parts.append({MARKDOWN: f"**{message['role']}**", PLAIN: f"[{message['role']}]"})
        text = message["content"]
        parts.append({MARKDOWN: safe(text), PLAIN: plain(text)})
    return stack(*parts)
