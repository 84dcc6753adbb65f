"""A conversation as a tree of turns: plain data, without a widget, a worker or a clock.

Nothing that was said is lost by saying it again: an edited question and a regenerated answer
are further branches beside the first. Each turn remembers which of its continuations is shown,
so the shown turns form one path from the first question to the last answer.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from llmkernel.errors import InvalidRequest
from llmkernel.notebook.panel.attachments import Attachment, with_attachments
from llmkernel.notebook.untrusted import plain, whole

State = Literal["done", "running", "stopped", "failed"]
Messages = list[dict[str, str]]
ROLES = ("user", "assistant")
_LONGEST_NAME = 60
_MOST_VIEWS = 32


def name_of(text: str) -> str:
    """A text as the name of a conversation: one line that is not long and can be seen."""
    name = " ".join(plain(whole(text)).split())[:_LONGEST_NAME].rstrip()
    return name if any(each.isprintable() for each in name.replace(" ", "")) else "Conversation"


@dataclass(slots=True)
class Turn:
    """What one side said. `facts` are the figures of an answer, `problem` why it broke off."""

    id: str
    role: str
    text: str
    parent: str | None
    state: State = "done"
    attachments: list[Attachment] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    problem: str = ""
    edited: bool = False
    """Whether a person has written into what the model said."""
    children: list[str] = field(default_factory=list)
    shown: str | None = None
    """The child that is shown."""

    @property
    def content(self) -> str:
        """What the model reads of it."""
        return with_attachments(self.text, self.attachments)


@dataclass(frozen=True, slots=True)
class Removed:
    """A turn that was taken away with all that followed it: it is the first of `turns`.

    `place` is where it stood among its branches, `order` that of all turns before.
    """

    turns: list[Turn]
    place: int
    order: list[str]
    shown: bool


class Conversation:
    """Turns under a name, with what the model is told before them.

    `draft`, `start` and `pending` are what a person has typed, as a question and as the beginning
    of its answer, and attached, and not sent yet.
    """

    def __init__(self, name: str, prefix: str = "t") -> None:
        self.name = name
        self.system = ""
        self.draft = ""
        self.start = ""
        self.draft_by = ""
        """Which view typed it last."""
        self.heard: dict[str, int] = {}
        """How many drafts of a view were taken: until then it knows better than what it is shown."""
        self.pending: list[Attachment] = []
        self.turns: dict[str, Turn] = {}
        self.prefix = prefix
        """What the ids of its turns begin with."""
        self._numbers = itertools.count(1)
        self._first: list[str] = []
        self._first_shown: str | None = None

    def hear(self, view: str, number: Any) -> None:
        """Note the number of the draft of a view that was taken; of many views the last ones."""
        if isinstance(number, int):
            self.heard.pop(view, None)
            self.heard[view] = number
            if len(self.heard) > _MOST_VIEWS:
                del self.heard[next(iter(self.heard))]

    @property
    def path(self) -> list[Turn]:
        """The turns that are shown, in order."""
        return list(self._walk())

    def branches(self, turn: str) -> list[str]:
        """A turn and what stands in its place on other branches, in order of making."""
        return list(self._children(self.turns[turn].parent))

    def up_to(self, turn: str | None) -> list[Turn]:
        """The turns from the first one to this one, itself included."""
        found: list[Turn] = []
        while turn is not None:
            found.append(self.turns[turn])
            turn = found[-1].parent
        return found[::-1]

    def add(
        self, role: str, text: str, after: str | None, attachments: Iterable[Attachment] = ()
    ) -> Turn:
        """A new turn after another one, or with None at the beginning; it is shown."""
        turn = Turn(f"{self.prefix}{next(self._numbers)}", role, whole(text), after)
        turn.attachments = list(attachments)
        self.turns[turn.id] = turn
        self._children(after).append(turn.id)
        self.show(turn.id)
        return turn

    def rewrite(self, turn: str, text: str) -> Turn:
        """The same turn with another text, as a branch beside it; it is shown."""
        old = self.turns[turn]
        new = self.add(old.role, text, old.parent, old.attachments)
        new.edited = old.role == "assistant" and (old.edited or new.text != old.text)
        return new

    def step(self, turn: str, by: int) -> None:
        """Show another branch, `by` places along; at the ends nothing happens."""
        branches = self.branches(turn)
        place = branches.index(turn) + by
        if 0 <= place < len(branches):
            self.show(branches[place])

    def show(self, turn: str) -> None:
        """Show this turn among its branches."""
        self._show(self.turns[turn].parent, turn)

    def is_shown(self, turn: str) -> bool:
        """Whether it is the one that is shown among its branches."""
        parent = self.turns[turn].parent
        return turn == (self._first_shown if parent is None else self.turns[parent].shown)

    def remove(self, turn: str) -> Removed:
        """Take a turn away with all that followed it; a branch beside it is shown."""
        gone = self.turns[turn]
        siblings = self._children(gone.parent)
        place, order, shown = siblings.index(turn), list(self.turns), self.is_shown(turn)
        siblings.remove(turn)
        removed = Removed([self.turns.pop(each) for each in self._below(turn)], place, order, shown)
        if shown:
            neighbour = siblings[min(place, len(siblings) - 1)] if siblings else None
            self._show(gone.parent, neighbour)
        return removed

    def restore(self, removed: Removed) -> None:
        """Put back what was removed, where it stood. Raises InvalidRequest where that has gone."""
        first = removed.turns[0]
        if first.parent is not None and first.parent not in self.turns:
            raise InvalidRequest("What it followed is not there any more.")
        self._children(first.parent).insert(removed.place, first.id)
        turns = self.turns | {turn.id: turn for turn in removed.turns}
        known = [turn for turn in removed.order if turn in turns]
        self.turns = {turn: turns[turn] for turn in [*known, *turns]}
        if removed.shown:
            self.show(first.id)

    def clear(self) -> None:
        """Take everything away; ids are not used again."""
        self.turns.clear()
        self._first.clear()
        self._first_shown = None

    def messages(self, until: str | None = None) -> Messages:
        """What `chat` of a client takes: the shown turns, or those up to a turn, system first."""
        turns = self.path if until is None else self.up_to(until)
        return self.opening + [{"role": turn.role, "content": turn.content} for turn in turns]

    @property
    def opening(self) -> Messages:
        """The system message, where there is one."""
        return [{"role": "system", "content": self.system}] if self.system.strip() else []

    def replace(self, messages: Iterable[Mapping[str, str]]) -> None:
        """Say these messages instead. Raises InvalidRequest, and keeps what was, for no messages."""
        checked = [_checked(number, message) for number, message in enumerate(messages)]
        system = ""
        if checked and checked[0]["role"] == "system":
            system = whole(checked.pop(0)["content"])
        wrong = next((each["role"] for each in checked if each["role"] not in ROLES), None)
        if wrong is not None:
            raise InvalidRequest(
                f"A panel shows turns of user and assistant after one system message; got {wrong!r}."
            )
        self.clear()
        self.system = system
        after = None
        for message in checked:
            after = self.add(message["role"], message["content"], after).id

    def _show(self, parent: str | None, turn: str | None) -> None:
        if parent is None:
            self._first_shown = turn
        else:
            self.turns[parent].shown = turn

    def _walk(self) -> Iterator[Turn]:
        turn = self._first_shown
        while turn is not None:
            yield self.turns[turn]
            turn = self.turns[turn].shown

    def _children(self, parent: str | None) -> list[str]:
        return self._first if parent is None else self.turns[parent].children

    def _below(self, turn: str) -> list[str]:
        found, todo = [], [turn]
        while todo:
            found.append(todo.pop())
            todo += self.turns[found[-1]].children
        return found


def _checked(number: int, message: Any) -> dict[str, str]:
    if not isinstance(message, Mapping) or set(message) != {"role", "content"}:
        raise InvalidRequest(f'Message {number} must be {{"role": ..., "content": ...}}.')
    if not all(isinstance(value, str) for value in message.values()):
        raise InvalidRequest(f"The role and the content of message {number} must be text.")
    return dict(message)
