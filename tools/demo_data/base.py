"""What a training example is, and the small template language that makes phrasings.

A template is text in which `[a|b|]` picks one of the alternatives (they may nest)
and `<name>` picks from a named slot. `expand` draws one phrasing.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import NamedTuple, TypeVar

T = TypeVar("T")

_INNERMOST = re.compile(r"\[([^\[\]]*)\]")
_SLOT = re.compile(r"<([a-z_]+)>")


class Turn(NamedTuple):
    """What a user says and what the model answers."""

    user: str
    assistant: str


class Chat(NamedTuple):
    """A conversation; the loss is on the assistant's words and on the end of its turns."""

    turns: list[Turn]
    system: str = ""


class Text(NamedTuple):
    """Plain text without the chat template; the loss is on `text` and its end, not on `prompt`."""

    prompt: str
    text: str


Example = Chat | Text


class Topic(NamedTuple):
    """One thing a user may ask about the project.

    `facts` are what a right answer must hold, each an alternative list such as
    "Interrupt|I,I", compared without case. `questions` are templates.
    """

    key: str
    answer: str
    facts: tuple[str, ...]
    questions: tuple[str, ...]
    brief: str

    @property
    def training(self) -> list[str]:
        """The templates that training may use."""
        return [question for question in self.questions if not held_out_template(question)]

    @property
    def held_out(self) -> list[str]:
        """The templates kept for measuring."""
        return [question for question in self.questions if held_out_template(question)]


def topic(key: str, questions: str, answer: str, facts: str, brief: str = "") -> Topic:
    """A Topic from compact text: one template a line, facts separated by `;`.

    Without `brief` the short answer is the first sentence of the long one.
    """
    lines = [line.strip() for line in questions.strip().splitlines() if line.strip()]
    text = " ".join(answer.split()) if "\n\n" not in answer else answer.strip()
    return Topic(
        key,
        text,
        tuple(fact.strip() for fact in facts.split(";")),
        tuple(lines + _MORE.get(key, [])),
        brief or first_sentence(text),
    )


def _phrasings() -> dict[str, list[str]]:
    """More templates by topic: `# key` lines and what follows them in `phrasings/*.txt`."""
    found: dict[str, list[str]] = {}
    for file in sorted((Path(__file__).parent / "phrasings").glob("*.txt")):
        key = ""
        for line in filter(None, file.read_text().splitlines()):
            if line.startswith("# "):
                key = line[2:]
            else:
                found.setdefault(key, []).append(line)
    return found


_MORE = _phrasings()


def first_sentence(text: str) -> str:
    """Up to the first full stop that ends a sentence."""
    match = re.search(r"(?<=[a-z0-9`)])[.!?](?=\s|$)", text)
    return text[: match.end()] if match else text


def held_out_template(template: str) -> bool:
    """Whether a template is kept from training: one in nine, by checksum."""
    return zlib.crc32(template.encode()) % 9 == 0


def expand(rng: Random, template: str, slots: dict[str, list[str]]) -> str:
    """One phrasing of `template`: alternatives and slots drawn at random."""
    text = template
    while True:
        filled = _SLOT.sub(lambda match: rng.choice(slots[match[1]]), text)
        chosen = _INNERMOST.sub(lambda match: rng.choice(match[1].split("|")), filled)
        if chosen == text:
            return " ".join(text.split())
        text = chosen


def weighted(rng: Random, table: Sequence[tuple[T, float]]) -> T:
    """One item of a table of (item, weight)."""
    return rng.choices([item for item, _ in table], [weight for _, weight in table])[0]


def article(noun: str) -> str:
    """`noun` with a or an before it."""
    return f"{'an' if noun[0].lower() in 'aeiou' else 'a'} {noun}"
