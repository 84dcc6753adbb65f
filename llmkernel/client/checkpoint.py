"""Answers of a long map, kept in a file as they come, so that a run that was cut short goes on.

One line of JSON for each answer, under a key made of its place, its prompt and its parameters:
a changed prompt is asked again, whatever the file says. A last line that was cut off is ignored.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from llmkernel import protocol
from llmkernel.client.generation import Generation
from llmkernel.errors import InvalidRequest


class _Line(msgspec.Struct, frozen=True):
    """One answer in the file; several where n is above 1."""

    key: str
    answers: list[Generation]


class Checkpoint:
    """The answers in a file. Use it in a `with` statement.

    Raises InvalidRequest for a file that holds something else, or cannot be written.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        self._path = Path(path)
        self._known: dict[str, Generation] = {}
        try:
            if self._path.is_file():
                self._read(self._path.read_bytes())
            elif self._path.exists():
                raise InvalidRequest(f"The checkpoint {self._path.name} is no regular file.")
            # nothing is kept back, so closing it cannot fail where writing did
            self._file = self._path.open("ab", buffering=0)
        except OSError as error:
            raise InvalidRequest(
                f"The checkpoint {self._path.name} cannot be used: {error.strerror}."
            ) from None

    def get(self, index: int, submit: protocol.Submit) -> Generation | None:
        """The answer to this request at this place, if it is there."""
        return self._known.get(_key(index, submit)) if self._known else None

    def put(self, index: int, submit: protocol.Submit, answer: Generation) -> None:
        """Keep an answer; it is in the file when this returns. Raises InvalidRequest."""
        line = _Line(_key(index, submit), answer.samples)
        left = msgspec.json.encode(line) + b"\n"
        try:
            while left:  # on a disk that is nearly full a part of it is written first
                left = left[self._file.write(left) :]
        except OSError as error:
            raise InvalidRequest(
                f"The checkpoint {self._path.name} cannot be written: {error.strerror}. The answers "
                "before this one are in it: make room and run it again, and it goes on from there."
            ) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def _read(self, data: bytes) -> None:
        whole = data.rfind(b"\n") + 1
        decoder = msgspec.json.Decoder(_Line)
        for number, line in enumerate(data[:whole].splitlines(), 1):
            try:
                entry = decoder.decode(line)
                first, *others = entry.answers
            except (msgspec.DecodeError, ValueError):
                raise InvalidRequest(
                    f"Line {number} of {self._path.name} is no answer of a map. "
                    "Give another file as the checkpoint."
                ) from None
            self._known[entry.key] = replace(first, _others=tuple(others))
        if whole < len(data):  # what was cut off must not run into the next line
            with self._path.open("r+b") as file:
                file.truncate(whole)


def _key(index: int, submit: protocol.Submit) -> str:
    plain = msgspec.structs.replace(submit, id=0, stream=False)
    return f"{index}:{hashlib.sha256(msgspec.json.encode(plain)).hexdigest()[:32]}"
