"""Variables and files that go to the model with a question, as quoted text.

What is attached is a copy made at that moment, so that a conversation says what was asked, and
not what a variable became since. The quotation is a fence that nothing inside can close.
"""

from __future__ import annotations

import contextlib
import json
import keyword
import re
import types
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmkernel.errors import InvalidRequest
from llmkernel.notebook.markdown import fence
from llmkernel.notebook.untrusted import plain, whole
from llmkernel.units import count

MAX_CHARS = 20_000
"""Of one attachment; what is cut off is said in its note."""
MAX_FILE_BYTES = 2_000_000
HEAD_ROWS = 20
_HIDDEN = {"In", "Out", "exit", "quit", "get_ipython", "open"}
_MOST_LISTED = 200
_NO_KIND = re.compile(r"[^\w+#.-]")
"""A file may be called anything; what follows a fence is one word."""


@dataclass(frozen=True, slots=True)
class Attachment:
    """A quoted piece of data. `note` says what it is and how much of it is here."""

    name: str
    kind: str
    note: str
    text: str
    tokens: int | None = None
    """None until a worker has counted them."""

    @property
    def quoted(self) -> str:
        """What the model reads."""
        return f"{self.name} ({self.note}):\n{fence(self.text, self.kind)}"


def with_attachments(text: str, attachments: list[Attachment]) -> str:
    """The content of a message: what is attached, quoted, and then the text."""
    return "\n\n".join([*(each.quoted for each in attachments), text])


def from_name(name: str, variables: Mapping[str, Any]) -> Attachment:
    """The variable of that name, or the file. Raises InvalidRequest where there is neither."""
    name = name.strip()
    if name in variables:
        return from_value(name, variables[name])
    with contextlib.suppress(OSError, RuntimeError):  # too long for a path; a home of nobody
        path = Path(name).expanduser()
        if name and path.is_file():
            return from_file(path, path.name if path.is_absolute() else path.as_posix())
    raise InvalidRequest(f"There is no variable and no file {plain(name)!r} here.")


def from_file(path: Path, name: str) -> Attachment:
    """A text file under a name. Raises InvalidRequest for one that is too large, or no text."""
    size = path.stat().st_size
    if size > MAX_FILE_BYTES:
        raise InvalidRequest(
            f"{path.name} has {size:,} bytes; up to {MAX_FILE_BYTES:,} can be attached. "
            "Attach a part of it, from a variable."
        )
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise InvalidRequest(f"{path.name} is no text in UTF-8.") from None
    except OSError as error:
        raise InvalidRequest(f"{path.name} cannot be read: {error.strerror}.") from None
    return from_text(name, text, path.suffix.lstrip("."))


def from_text(name: str, text: str, kind: str = "") -> Attachment:
    """A text under a name."""
    return _cut(name, kind or "text", f"{len(text):,} characters", text)


def from_value(name: str, value: Any) -> Attachment:
    """A value of the notebook: the head of a table, the items of a collection, a text.

    Raises InvalidRequest where its own code, which can be anything, does.
    """
    try:
        return _from_value(name, value)
    except Exception as error:  # whatever a property or a __repr__ of somebody raises
        kind = type(value).__name__
        raise InvalidRequest(
            f"{plain(name)} cannot be attached: its {kind} raised {type(error).__name__}."
        ) from error


def _from_value(name: str, value: Any) -> Attachment:
    if isinstance(value, str):
        return from_text(name, value)
    if hasattr(value, "to_csv") and hasattr(value, "head") and hasattr(value, "shape"):
        return _frame(name, value)
    if isinstance(value, (dict, list, tuple)):
        items = f"{type(value).__name__} of {len(value):,}"
        return _cut(name, "json", items, _json(value))
    return _cut(name, "text", _kind(value), _begin(_reprs(value, ())))


def names_of(variables: Mapping[str, Any]) -> list[dict[str, str]]:
    """What a person may want to attach: names and kinds of the notebook's data."""
    found: list[dict[str, str]] = []
    for name, value in list(variables.items()):
        with contextlib.suppress(Exception):  # a proxy that is not set, say, raises at every touch
            if _is_data(name, value):
                found.append({"name": whole(name), "kind": _kind(value)})
    return sorted(found, key=lambda entry: entry["name"].lower())[:_MOST_LISTED]


def _is_data(name: str, value: Any) -> bool:
    return (
        not name.startswith("_")
        and name not in _HIDDEN
        and not keyword.iskeyword(name)
        and not isinstance(value, (types.ModuleType, type))
        and not callable(value)
    )


def _frame(name: str, frame: Any) -> Attachment:
    rows = int(frame.shape[0])
    columns = f", {count(frame.shape[1], 'column')}" if len(frame.shape) > 1 else ""
    part = f"first {HEAD_ROWS} of {rows:,} rows" if rows > HEAD_ROWS else count(rows, "row")
    return _cut(
        name, "csv", f"{type(frame).__name__}, {part}{columns}", frame.head(HEAD_ROWS).to_csv()
    )


def _kind(value: Any) -> str:
    shape = getattr(value, "shape", None)
    if isinstance(shape, tuple) and shape:
        return f"{type(value).__name__} {' x '.join(map(str, shape))}"
    if isinstance(value, (str, list, tuple, dict, set)):
        return f"{type(value).__name__} of {len(value):,}"
    return type(value).__name__


def _json(value: Any) -> str:
    encoder = json.JSONEncoder(indent=1, ensure_ascii=False, default=str)
    try:
        return _begin(encoder.iterencode(value))
    except (TypeError, ValueError):  # keys that are no text, or a circle
        return _begin(_reprs(value, ()))


def _begin(pieces: Iterable[str]) -> str:
    """As many pieces as show that there are too many: a value may have millions."""
    kept, chars = [], 0
    for piece in pieces:
        kept.append(piece)
        chars += len(piece)
        if chars > 4 * MAX_CHARS:
            break
    return "".join(kept)


_BRACKETS: dict[type[Any], str] = {dict: "{}", list: "[]", tuple: "()", set: "{}"}


def _reprs(value: Any, above: tuple[int, ...]) -> Iterator[str]:
    """What `repr` says, piece by piece; `above` are the collections that it stands in."""
    brackets = _BRACKETS.get(type(value))
    if brackets is None or (not value and isinstance(value, set)):
        yield repr(value)
        return
    if id(value) in above:
        yield "...".join(brackets)
        return
    inside = (*above, id(value))
    yield brackets[0]
    for number, item in enumerate(value):
        yield ", " if number else ""
        if isinstance(value, dict):
            yield f"{item!r}: "
        yield from _reprs(value[item] if isinstance(value, dict) else item, inside)
    yield "," if isinstance(value, tuple) and len(value) == 1 else ""
    yield brackets[1]


def _cut(name: str, kind: str, note: str, text: str) -> Attachment:
    begins = plain(whole(text[: 4 * MAX_CHARS])).strip("\n")  # of a text that may be endless
    if len(begins) > MAX_CHARS or len(text) > 4 * MAX_CHARS:
        note += f", cut to the first {MAX_CHARS:,} characters"
    text = begins[:MAX_CHARS]
    name = " ".join(plain(whole(name)).split())
    return Attachment(name, _NO_KIND.sub("", kind)[:20], note, text)
