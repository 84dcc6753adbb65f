"""Conversations as files: JSON, which keeps every branch, and Markdown, which people read."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable
from typing import Any

import msgspec

from llmkernel.errors import InvalidRequest
from llmkernel.notebook.panel.attachments import Attachment
from llmkernel.notebook.panel.conversation import ROLES, Conversation, Turn

FORMAT = "llmkernel-conversation"
VERSION = 1
MAX_CHARS = 20_000_000
_HEADINGS = {"system": "System", "user": "You", "assistant": "Model"}
_ROLE_OF = {title.lower(): role for role, title in _HEADINGS.items()}
_ROLE_OF |= {"user": "user", "assistant": "assistant"}
_MARK = re.compile(r"^## (\w+)[ \t]*$", re.MULTILINE)
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})(.*)")


class _Saved(msgspec.Struct, frozen=True):
    """One turn in a file."""

    role: str
    text: str
    state: str = "done"
    attachments: list[dict[str, Any]] = []
    facts: dict[str, Any] = {}
    problem: str = ""
    shown: int | None = None
    children: list[_Saved] = []


class _File(msgspec.Struct, frozen=True):
    """The whole file."""

    format: str
    version: int
    name: str = ""
    system: str = ""
    shown: int | None = None
    turns: list[_Saved] = []


def to_json(conversation: Conversation) -> str:
    """Every branch, attachment and figure, for `from_json`."""
    first = [each for each in conversation.turns.values() if each.parent is None]
    path = conversation.path
    whole = {
        "format": FORMAT,
        "version": VERSION,
        "name": conversation.name,
        "system": conversation.system,
        "shown": first.index(path[0]) if path else None,
        "turns": [_saved(conversation, turn) for turn in first],
    }
    return json.dumps(whole, indent=1, ensure_ascii=False) + "\n"


def to_markdown(conversation: Conversation) -> str:
    """The shown turns under headings, as a page and for `from_markdown`."""
    parts = [f"# {conversation.name}"]
    parts += [
        f"## {_HEADINGS.get(message['role'], message['role'])}\n\n{_deeper(message['content'])}"
        for message in conversation.messages()
    ]
    return "\n\n".join(parts) + "\n"


def load(text: str, into: Conversation) -> None:
    """Fill a conversation from a file of either kind.

    A plain list of messages in JSON is taken too. Raises InvalidRequest, and keeps what was,
    for anything else.
    """
    if len(text) > MAX_CHARS:
        raise InvalidRequest(f"The file has more than {MAX_CHARS:,} characters.")
    if not text.lstrip().startswith(("{", "[")):
        _load_markdown(text, into)
        return
    try:
        value = json.loads(text)
    except ValueError as error:
        raise InvalidRequest(f"This is no JSON: {error}.") from None
    if isinstance(value, list):
        into.replace(value)
    else:
        _load_file(value, into)


def _load_file(value: Any, into: Conversation) -> None:
    try:
        file = msgspec.convert(value, _File)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"This is no conversation: {error}.") from None
    if file.format != FORMAT or file.version != VERSION:
        raise InvalidRequest(
            f"This is no conversation that can be read here: format {file.format!r}, "
            f"version {file.version}; expected {FORMAT!r}, version {VERSION}."
        )
    _check_roles(file.turns)
    into.clear()
    into.name = file.name or into.name
    into.system = file.system
    _put(into, file.turns, file.shown, None)


def _check_roles(turns: Iterable[_Saved]) -> None:
    todo = list(turns)
    while todo:
        turn = todo.pop()
        if turn.role not in ROLES:
            raise InvalidRequest(f"A turn has the role {turn.role!r}; there are user, assistant.")
        todo += turn.children


def _put(into: Conversation, turns: list[_Saved], shown: int | None, after: str | None) -> None:
    """Add branches with all below them; the shown one last, so that it is shown."""
    todo = [(turns, shown, after)]
    while todo:
        turns, shown, after = todo.pop()
        made = [_add(into, each, after) for each in turns]
        todo += [
            (each.children, each.shown, turn.id)
            for each, turn in zip(turns, made, strict=True)
            if each.children
        ]
        if shown is not None and 0 <= shown < len(made):
            into.step(made[-1].id, shown - (len(made) - 1))


def _add(into: Conversation, saved: _Saved, after: str | None) -> Turn:
    turn = into.add(saved.role, saved.text, after, [_attachment(one) for one in saved.attachments])
    ended = saved.state in ("done", "stopped", "failed")
    turn.state = saved.state if ended else "stopped"  # type: ignore[assignment]
    turn.facts, turn.problem = dict(saved.facts), saved.problem
    return turn


def _attachment(value: dict[str, Any]) -> Attachment:
    try:
        return msgspec.convert(value, Attachment)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"This is no attachment: {error}.") from None


def _saved(conversation: Conversation, turn: Turn) -> dict[str, Any]:
    saved: dict[str, Any] = {"role": turn.role, "text": turn.text, "state": turn.state}
    if turn.attachments:
        saved["attachments"] = [dataclasses.asdict(each) for each in turn.attachments]
    if turn.facts:
        saved["facts"] = turn.facts
    if turn.problem:
        saved["problem"] = turn.problem
    if turn.children:
        saved["children"] = [_saved(conversation, conversation.turns[c]) for c in turn.children]
        saved["shown"] = turn.children.index(turn.shown) if turn.shown else None
    return saved


def _load_markdown(text: str, into: Conversation) -> None:
    marks = [mark for mark in _marks(text) if mark[1] in _ROLE_OF]
    if not marks:
        raise InvalidRequest(
            "This is no conversation: Markdown needs the headings '## You' and '## Model'."
        )
    ends = [start for start, _, _ in marks[1:]] + [len(text)]
    messages = [
        {"role": _ROLE_OF[title], "content": _shallower(text[begin:end]).strip("\n")}
        for (_, title, begin), end in zip(marks, ends, strict=True)
    ]
    title = re.match(r"# +(.+)", text)
    into.replace(messages)
    if title:
        into.name = title[1].strip()


def _marks(text: str) -> list[tuple[int, str, int]]:
    """Headings of level two outside code: where they begin, what they say, where they end."""
    found: list[tuple[int, str, int]] = []
    at = 0
    for line, in_code in _lines(text):
        mark = None if in_code else _MARK.match(line.rstrip("\n"))
        if mark:
            found.append((at, mark[1].lower(), at + len(line)))
        at += len(line)
    return found


def _lines(text: str) -> Iterable[tuple[str, bool]]:
    """The lines of a text, each with whether it is inside a fenced block."""
    fence = ""
    for line in text.splitlines(keepends=True):
        found = _FENCE.match(line)
        if not fence and found:
            fence = found[1]
            yield line, True
        elif fence:
            yield line, True
            if found and found[1].startswith(fence) and not found[2].strip():
                fence = ""
        else:
            yield line, False


def _deeper(text: str) -> str:
    """Headings of our own level are indented by one more sign, so that they cannot be a turn's."""
    return "".join(
        f"#{line}" if not in_code and _opens_turn(line) else line for line, in_code in _lines(text)
    )


def _shallower(text: str) -> str:
    return "".join(
        line[1:] if not in_code and line.startswith("#") and _opens_turn(line[1:]) else line
        for line, in_code in _lines(text)
    )


def _opens_turn(line: str) -> bool:
    stripped = line.rstrip("\n").lstrip("#")
    mark = _MARK.match("##" + stripped)
    return line.startswith("##") and mark is not None and mark[1].lower() in _ROLE_OF
