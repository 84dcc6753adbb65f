"""Conversations that `%%chat` cells make together.

A conversation is what its cells show. A cell that is run again takes back what it said, and
with it all that was said after: the later cells answered to something that is gone, and are
run again to go on. A front end that does not name its cells (a terminal, nbclient) runs each
of them once, so there every cell goes on at the end.
"""

from __future__ import annotations

from typing import Any, NamedTuple

Turns = list[dict[str, str]]
DEFAULT = "main"


class Place(NamedTuple):
    """Which cell runs, where the front end says so, and which run of it this is."""

    cell: str | None
    run: str

    @classmethod
    def of(cls, shell: Any) -> Place:
        """The cell that a shell runs now."""
        parent: dict[str, Any] = getattr(shell, "get_parent", dict)() or {}
        cell = (parent.get("metadata") or {}).get("cellId")
        run = (parent.get("header") or {}).get("msg_id", "")
        return cls(str(cell) if cell else None, str(run))


class Exchange(NamedTuple):
    """A question and its answer. `system` is None where the cell said nothing about it."""

    question: str
    answer: str
    system: str | None
    place: Place


class Position(NamedTuple):
    """Where a cell goes on: after `before`. `gone` counts the later exchanges that end here."""

    before: list[Exchange]
    again: bool
    gone: int

    @property
    def number(self) -> int:
        """The number of the exchange that comes next, from 1."""
        return len(self.before) + 1

    @property
    def remark_of_failure(self) -> str:
        """What happened where nothing was put there: the conversation is as it was before."""
        return f"turn {self.number} not taken"

    @property
    def remark(self) -> str:
        """What happened, in words."""
        words = f"turn {self.number}"
        if not self.again:
            return words
        words += " again"
        if self.gone:
            first, last = self.number + 1, self.number + self.gone
            words += f"; turn {first} is" if first == last else f"; turns {first} to {last} are"
            words += " left out until run again"
        return words


class Chat:
    """One conversation."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.exchanges: list[Exchange] = []

    def position(self, place: Place) -> Position:
        """Where the cell that runs now goes on."""
        for index, exchange in enumerate(self.exchanges):
            its = exchange.place
            if its.cell is not None and its.cell == place.cell and its.run != place.run:
                return Position(self.exchanges[:index], True, len(self.exchanges) - index - 1)
        return Position(list(self.exchanges), False, 0)

    def put(self, position: Position, exchange: Exchange) -> None:
        """An exchange was made there: the conversation ends with it."""
        self.exchanges = [*position.before, exchange]

    def undo(self) -> None:
        """Take back the last exchange."""
        self.exchanges = self.exchanges[:-1]

    @property
    def system(self) -> str | None:
        """What the model is told before everything."""
        return system_of(self.exchanges)

    @property
    def messages(self) -> Turns:
        """The conversation as `Client.chat` takes it, the system text first."""
        first = [{"role": "system", "content": self.system}] if self.system else []
        return [*first, *turns(self.exchanges)]


def system_of(exchanges: list[Exchange]) -> str | None:
    """What was last said about it; None where nothing was, "" where it was taken away."""
    said = [exchange.system for exchange in exchanges if exchange.system is not None]
    return said[-1] if said else None


def turns(exchanges: list[Exchange]) -> Turns:
    """Questions and answers as messages."""
    return [
        {"role": role, "content": text}
        for exchange in exchanges
        for role, text in (("user", exchange.question), ("assistant", exchange.answer))
    ]
