"""What was deleted last, for as long as it can be put back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmkernel.errors import InvalidRequest
from llmkernel.notebook.panel.conversation import Conversation

if TYPE_CHECKING:
    from llmkernel.notebook.panel.desk import Desk


@dataclass(frozen=True, slots=True)
class Undo:
    """One deletion: what a view says of it, and how it is undone before the next change."""

    id: str
    words: str
    put_back: Callable[[], None]


def delete_turn(desk: Desk, turn: str) -> Undo:
    """Take a turn of the shown conversation away with all that followed it."""
    conversation = desk.current
    removed = conversation.remove(turn)

    def put_back() -> None:
        if conversation not in desk.conversations:
            raise InvalidRequest("That conversation is not there any more.")
        conversation.restore(removed)
        desk.current = conversation

    count = len(removed.turns)
    return Undo(turn, f"Deleted {count} turn{'' if count == 1 else 's'}.", put_back)


def delete_conversation(desk: Desk) -> Undo:
    """Take the shown conversation away; another one is shown, or a new one."""
    gone = desk.current
    place = desk.conversations.index(gone)
    desk.conversations.remove(gone)
    fresh = None if desk.conversations else desk.begin()
    desk.current = fresh or desk.conversations[-1]

    def put_back() -> None:
        gone.name, name = "", gone.name
        desk.conversations.insert(place, gone)
        gone.name = desk.free_name(name)
        if fresh is not None and _untouched(fresh):
            desk.conversations.remove(fresh)
        desk.current = gone

    return Undo(gone.prefix, f"Deleted {gone.name}.", put_back)


def _untouched(conversation: Conversation) -> bool:
    return not (
        conversation.turns or conversation.draft or conversation.start or conversation.pending
    )
