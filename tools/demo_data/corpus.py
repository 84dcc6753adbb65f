"""The mixture, and how it becomes rows of token ids."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from demo_data import arithmetic, code, dialogues, extraction, knowledge, lists, stories, topics
from demo_data.base import Chat, Example, weighted

if TYPE_CHECKING:
    from tokenizers import Tokenizer

BEGIN, END, SYSTEM, USER, ASSISTANT, PAD = (
    "<|begin|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>", "<|pad|>",
)  # fmt: skip
SPECIALS = (BEGIN, END, SYSTEM, USER, ASSISTANT, PAD)

MIXTURE = (
    (topics.example, 46.0),
    (arithmetic.example, 20.0),
    (stories.example, 7.0),
    (lists.example, 6.0),
    (knowledge.example, 7.0),
    (extraction.example, 6.0),
    (code.example, 4.0),
    (dialogues.example, 4.0),
)


class Rows(NamedTuple):
    """Packed training rows, each [rows, length].

    `ids` are tokens (uint16), `document` says which example of its row a token
    belongs to (uint16), `target` whether the token is one to predict (bool).
    """

    ids: npt.NDArray[np.uint16]
    document: npt.NDArray[np.uint16]
    target: npt.NDArray[np.bool_]


def examples(seed: int) -> Iterator[Example]:
    """An endless stream of examples; the same seed gives the same stream."""
    rng = Random(seed)
    while True:
        yield weighted(rng, MIXTURE)(rng)


def segments(example: Example) -> list[tuple[str, bool]]:
    """The text of an example with its special tokens, and which parts of it are predicted."""
    if not isinstance(example, Chat):
        return [(BEGIN + example.prompt, False), (example.text + END, True)]
    system = f"{SYSTEM}{example.system}{END}" if example.system else ""
    parts = [(BEGIN + system, False)]
    for turn in example.turns:
        parts.append((f"{USER}{turn.user}{END}{ASSISTANT}", False))
        parts.append((turn.assistant + END, True))
    return parts


def rows(tokenizer: Tokenizer, seed: int, count: int, length: int) -> Rows:
    """`count` rows of `length` tokens, whole examples one after the other, the rest padded."""
    ids = np.full((count, length), tokenizer.token_to_id(PAD), dtype=np.uint16)
    document = np.zeros((count, length), dtype=np.uint16)
    target = np.zeros((count, length), dtype=np.bool_)
    source = (_encoded(tokenizer, example) for example in examples(seed))
    tokens, flags = next(source)
    for row in range(count):
        at, number = 0, 1
        while True:
            if len(tokens) > length:  # too long for any row
                tokens, flags = next(source)
                continue
            if at + len(tokens) > length:
                break
            ids[row, at : at + len(tokens)] = tokens
            target[row, at : at + len(tokens)] = flags
            document[row, at : at + len(tokens)] = number
            at, number = at + len(tokens), number + 1
            tokens, flags = next(source)
    return Rows(ids, document, target)


def _encoded(tokenizer: Tokenizer, example: Example) -> tuple[list[int], list[bool]]:
    tokens: list[int] = []
    flags: list[bool] = []
    for text, predicted in segments(example):
        part = tokenizer.encode(text, add_special_tokens=False).ids
        tokens += part
        flags += [predicted] * len(part)
    return tokens, flags
