"""What the views show, sent to them as what changed.

Every message has the next number `n`. A view that misses one asks for everything, and gets it
with the number up to which it holds. So views agree, whenever they opened and whatever the
notebook server dropped.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from typing import Any

Message = dict[str, Any]


class Broadcast:
    """The state as the views have it. `send` puts a message on its way, from any thread."""

    def __init__(self, send: Callable[[Message], None]) -> None:
        self._send = send
        self._lock = threading.RLock()
        self._number = 0
        self._shown: dict[str, Any] = {}
        self._turns: dict[str, dict[str, Any]] = {}

    def show(self, state: dict[str, Any], turns: dict[str, dict[str, Any]]) -> None:
        """Make this what is shown: named values, and turns by id."""
        with self._lock:
            values = {key: value for key, value in state.items() if self._differs(key, value)}
            new = {key: turn for key, turn in turns.items() if key not in self._turns}
            changed = {
                key: _changes(self._turns[key], turn)
                for key, turn in turns.items()
                if key in self._turns and self._turns[key] != turn
            }
            gone = [key for key in self._turns if key not in turns]
            self._shown = copy.deepcopy(state)
            self._turns = {key: dict(turn) for key, turn in turns.items()}
            parts = {"set": values, "turns": new, "change": changed, "gone": gone}
            message = {key: part for key, part in parts.items() if part}
            if message:
                self._next(message)

    def append(self, turn: str, text: str) -> None:
        """A turn that is shown has gained text."""
        with self._lock:
            if turn in self._turns:
                self._turns[turn]["text"] += text
                self._next({"turn": turn, "add": text})

    def whole(self) -> Message:
        """Everything, for a view that opens late or has missed something."""
        with self._lock:
            whole = {"n": self._number, "whole": self._shown, "turns": self._turns}
            return copy.deepcopy(whole)

    def tell(self, message: Message) -> None:
        """Something that is no state: the answer to what one view asked."""
        self._send(message)

    def _differs(self, key: str, value: Any) -> bool:
        return key not in self._shown or self._shown[key] != value

    def _next(self, message: Message) -> None:
        self._number += 1
        self._send({"n": self._number} | message)


def _changes(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """What of a turn is another now; None for what is not there any more. Its text is long."""
    changes = {name: value for name, value in new.items() if old.get(name) != value}
    return changes | dict.fromkeys(name for name in old if name not in new)
