"""A conversation in a terminal: its turns, its settings, and its file. Nothing is printed here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from llmkernel.errors import InvalidRequest
from llmkernel.protocol import ChatMessage

MAX_FILE_BYTES = 64 * 2**20
"""Of a saved conversation; no context holds a part of that."""
_TITLES = {"system": "System", "user": "You", "assistant": "Model"}


class Saved(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The JSON file of a conversation."""

    messages: list[ChatMessage]
    model: str = ""
    params: dict[str, Any] = {}


class Conversation:
    """Turns so far. An answer is added when it is there, whole or stopped half way."""

    def __init__(self, system: str = "") -> None:
        self.system = system
        self.turns: list[ChatMessage] = []

    def __len__(self) -> int:
        return len(self.turns)

    @property
    def messages(self) -> list[ChatMessage]:
        """What the model is given: the system text, then the turns."""
        first = [ChatMessage(role="system", content=self.system)] if self.system else []
        return first + self.turns

    def asking(self, text: str) -> list[ChatMessage]:
        """The messages with `text` as the next question, which is not added yet."""
        return [*self.messages, ChatMessage(role="user", content=text)]

    def add(self, question: str, answer: str) -> None:
        """Take in one exchange."""
        self.turns.append(ChatMessage(role="user", content=question))
        self.turns.append(ChatMessage(role="assistant", content=answer))

    def undo(self) -> str | None:
        """Forget the last exchange; its question, or None where there is none."""
        if not self.turns:
            return None
        while self.turns:
            turn = self.turns.pop()
            if turn.role == "user":
                return turn.content
        return ""

    def reset(self) -> None:
        """Forget all turns; the system text stays."""
        self.turns.clear()

    def save(self, path: Path, *, model: str, params: dict[str, Any]) -> None:
        """Write the conversation: JSON where the name ends in .json, else Markdown.

        Raises InvalidRequest where the file cannot be written.
        """
        if path.suffix == ".json":
            saved = Saved(messages=self.messages, model=model, params=params)
            text = msgspec.json.format(msgspec.json.encode(saved)).decode() + "\n"
        else:
            text = "\n\n".join(
                f"**{_TITLES.get(turn.role, turn.role)}**\n\n{turn.content}"
                for turn in self.messages
            )
            text += "\n"
        try:
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise InvalidRequest(f"Cannot write {path}: {error.strerror}.") from None

    @classmethod
    def load(cls, path: Path) -> tuple[Conversation, dict[str, Any]]:
        """A conversation from a JSON file that `save` wrote, and its parameters.

        Raises InvalidRequest where the file cannot be read or is something else.
        """
        try:
            with path.open("rb") as file:
                data = file.read(MAX_FILE_BYTES + 1)  # a device has no end
            if len(data) > MAX_FILE_BYTES:
                raise InvalidRequest(f"{path} has more than {MAX_FILE_BYTES:,} bytes.")
            saved = msgspec.json.decode(data, type=Saved)
        except OSError as error:
            raise InvalidRequest(f"Cannot read {path}: {error.strerror}.") from None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise InvalidRequest(f"{path} is no saved conversation: {error}.") from None
        turns = list(saved.messages)
        system = turns.pop(0).content if turns and turns[0].role == "system" else ""
        conversation = cls(system)
        conversation.turns = turns
        return conversation, saved.params
