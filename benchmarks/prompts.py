"""Prompts of any length that say nothing and share nothing, so that no cache can help."""

from __future__ import annotations

import itertools

from benchmarks.command import Refused
from benchmarks.word_tokenizer import SPECIAL


class Prompts:
    """Hands out prompts for a vocabulary; no two share a block of their beginning."""

    def __init__(self, vocabulary: int) -> None:
        self._span = vocabulary - SPECIAL
        self._numbers = itertools.count()

    def take(self, length: int) -> list[int]:
        """A prompt of `length` ids that nobody has seen."""
        number = next(self._numbers)
        if number >= self._span:
            raise Refused(
                f"A vocabulary of {self._span} has no more prompts that share nothing: ask for fewer."
            )
        return [SPECIAL + (number * 7919 + place * 31) % self._span for place in range(length)]

    def several(self, count: int, length: int) -> list[list[int]]:
        """`count` of them."""
        return [self.take(length) for _ in range(count)]
