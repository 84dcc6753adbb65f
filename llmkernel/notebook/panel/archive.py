"""Conversations as files: JSON, which keeps every branch, and Markdown, which people read."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, UnsetType

from llmkernel.errors import InvalidRequest
from llmkernel.notebook.panel import markdown_file
from llmkernel.notebook.panel.attachments import Attachment
from llmkernel.notebook.panel.conversation import ROLES, Conversation, Turn
from llmkernel.notebook.panel.markdown_file import Part
from llmkernel.notebook.untrusted import whole

FORMAT = "llmkernel-conversation"
VERSION = 2
MAX_CHARS = 20_000_000
CAN_BE_READ = (
    "What a panel exported can be read, as JSON or as Markdown, and a list of messages in JSON: "
    '[{"role": "user", "content": "..."}].'
)


Count = Annotated[int, msgspec.Meta(ge=0, le=10**12)]
Amount = Annotated[float, msgspec.Meta(ge=0, le=1e9)]


class Facts(msgspec.Struct, frozen=True, omit_defaults=True):
    """The figures of an answer, as `Answering` gives them. Others are left out."""

    tokens: Count | UnsetType = UNSET
    ahead: Count | UnsetType = UNSET
    first: Amount | UnsetType = UNSET
    rate: Amount | UnsetType = UNSET
    reason: str | UnsetType | None = UNSET
    prompt: Count | UnsetType = UNSET
    cached: Count | UnsetType = UNSET
    queue: Amount | UnsetType = UNSET


class Saved(msgspec.Struct, frozen=True):
    """One turn in a file: `parent` is the number of the turn before it, among those before."""

    role: str
    text: str
    parent: int | None = None
    shown: bool = True
    state: str = "done"
    attachments: list[Attachment] = []
    facts: Facts = Facts()
    problem: str = ""
    edited: bool = False


class _Nested(msgspec.Struct, frozen=True):
    """One turn in a file of version 1, which had a turn inside the one before it."""

    role: str
    text: str
    state: str = "done"
    attachments: list[Attachment] = []
    facts: Facts = Facts()
    problem: str = ""
    shown: int | None = None
    children: list[_Nested] = []


class _File(msgspec.Struct, frozen=True):
    """The whole file."""

    format: str
    version: int
    name: str = ""
    system: str = ""
    shown: int | None = None
    turns: list[Any] = []


def to_json(conversation: Conversation) -> str:
    """Every branch, attachment and figure, for `load`."""
    whole = {
        "format": FORMAT,
        "version": VERSION,
        "name": conversation.name,
        "system": conversation.system,
        "turns": saved(conversation),
    }
    return json.dumps(whole, indent=1, ensure_ascii=False) + "\n"


def saved(conversation: Conversation) -> list[dict[str, Any]]:
    """All turns as plain data, each after the one that it follows."""
    numbers = {turn: number for number, turn in enumerate(conversation.turns)}
    return [_saved(conversation, turn, numbers) for turn in conversation.turns.values()]


def put(into: Conversation, turns: Iterable[Saved]) -> None:
    """Add turns to an empty conversation. Raises InvalidRequest for those that are none."""
    checked = list(turns)
    for number, turn in enumerate(checked):
        _check(number, turn)
    made: list[Turn] = []
    for turn in checked:
        made.append(_add(into, turn, None if turn.parent is None else made[turn.parent].id))
    for turn, added in zip(checked, made, strict=True):
        if turn.shown:
            into.show(added.id)


def to_markdown(conversation: Conversation) -> str:
    """The shown turns under headings, as a page and for `load`."""
    parts = [Part(each["role"], each["content"]) for each in conversation.opening]
    parts += [Part(turn.role, turn.content, turn.edited) for turn in conversation.path]
    return markdown_file.write(conversation.name, parts)


def load(text: str, into: Conversation) -> None:
    """Fill a conversation from a file of either kind.

    A plain list of messages in JSON is taken too. Raises InvalidRequest, and keeps what was,
    for anything else.
    """
    if len(text) > MAX_CHARS:
        raise InvalidRequest(f"The file has more than {MAX_CHARS:,} characters.")
    text = text.removeprefix("\ufeff")  # some programs begin every file with it
    if not text.strip():
        raise InvalidRequest("The file is empty.")
    if not text.lstrip().startswith(("{", "[")):
        _load_markdown(text, into)
        return
    try:
        value = whole(json.loads(text))
    except json.JSONDecodeError as error:
        raise _refused(f"This is no JSON: {error}.") from None
    except RecursionError:
        raise _refused("It is nested too deeply to be a conversation.") from None
    except ValueError:  # Python reads no number of thousands of digits
        raise _refused("It has a number of too many digits.") from None
    if isinstance(value, list):
        into.replace(value)
    else:
        _load_file(value, into)


def _load_file(value: Any, into: Conversation) -> None:
    try:
        file = msgspec.convert(value, _File)
        if file.format != FORMAT or file.version not in (1, VERSION):
            raise _refused(
                f"This is no conversation that can be read here: format {file.format!r}, "
                f"version {file.version}; expected {FORMAT!r}, version {VERSION}."
            )
        turns = _flat(file) if file.version == 1 else msgspec.convert(file.turns, list[Saved])
    except (msgspec.ValidationError, RecursionError) as error:
        raise _refused(f"This is no conversation: {error}.") from None
    trial = Conversation("")
    put(trial, turns)  # raises before anything is changed
    into.clear()
    into.name = file.name or into.name
    into.system = file.system
    put(into, turns)


def _refused(why: str) -> InvalidRequest:
    return InvalidRequest(f"{why} {CAN_BE_READ}")


def _flat(file: _File) -> list[Saved]:
    """The turns of a file of version 1, in the order of version 2."""
    flat: list[Saved] = []
    todo: list[tuple[list[_Nested], int | None, int | None]]
    todo = [(msgspec.convert(file.turns, list[_Nested]), file.shown, None)]
    while todo:
        turns, shown, parent = todo.pop()
        for place, turn in enumerate(turns):
            values = {name: getattr(turn, name) for name in _BOTH}
            flat.append(Saved(parent=parent, shown=place == shown, **values))
            todo.append((turn.children, turn.shown, len(flat) - 1))
    return flat


_BOTH = ("role", "text", "state", "attachments", "facts", "problem")
"""What a turn has in files of both versions."""


def _check(number: int, turn: Saved) -> None:
    if turn.role not in ROLES:
        raise InvalidRequest(f"A turn has the role {turn.role!r}; there are user, assistant.")
    if turn.parent is not None and not 0 <= turn.parent < number:
        raise InvalidRequest(f"Turn {number} follows a turn {turn.parent}, which is not before it.")


def _add(into: Conversation, turn: Saved, after: str | None) -> Turn:
    added = into.add(turn.role, turn.text, after, turn.attachments)
    ended = turn.state in ("done", "stopped", "failed")
    added.state = turn.state if ended else "stopped"  # type: ignore[assignment]
    added.facts, added.edited = msgspec.to_builtins(turn.facts), turn.edited
    added.problem = turn.problem
    return added


def _saved(conversation: Conversation, turn: Turn, numbers: Mapping[str, int]) -> dict[str, Any]:
    parent = None if turn.parent is None else numbers[turn.parent]
    kept: dict[str, Any] = {"role": turn.role, "text": turn.text, "parent": parent}
    kept |= {"shown": conversation.is_shown(turn.id), "state": turn.state}
    if turn.attachments:
        kept["attachments"] = [dataclasses.asdict(each) for each in turn.attachments]
    if turn.facts:
        kept["facts"] = turn.facts
    if turn.problem:
        kept["problem"] = turn.problem
    if turn.edited:
        kept["edited"] = True
    return kept


def _load_markdown(text: str, into: Conversation) -> None:
    try:
        name, parts = markdown_file.read(text)
    except InvalidRequest as error:
        if "\0" in text or "\ufffd" in text:  # what a page makes of bytes that are none
            raise _refused("This is no conversation: it is no text in UTF-8.") from None
        if _is_json(text):
            raise _refused(
                "This is no conversation: the JSON has neither messages nor turns."
            ) from None
        raise _refused(error.message) from None
    into.replace([{"role": part.role, "content": part.content} for part in parts])
    into.name = name or into.name
    said = [part for part in parts if part.role != "system"]
    for turn, part in zip(into.path, said, strict=True):
        turn.edited = part.edited


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True
