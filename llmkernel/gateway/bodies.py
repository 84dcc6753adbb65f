"""From the bytes of a body to a checked value, and what is said where that fails."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from llmkernel.gateway.faults import Refusal
from llmkernel.gateway.unknown import did_you_mean, fields_at

T = TypeVar("T")
_UNKNOWN = "Object contains unknown field "
_MOST_SAID = 160
"""Characters of what msgspec says: it repeats names of fields, which may be as long as a body."""
_decoders: dict[Any, msgspec.json.Decoder[Any]] = {}


def decode(body: bytes, kind: type[T]) -> T:
    """The value in a body of JSON. Raises Refusal naming the place of what does not fit."""
    if not body.strip():
        raise Refusal("syntax", "The body is empty.")
    decoder = _decoders.get(kind)
    if decoder is None:
        decoder = _decoders.setdefault(kind, msgspec.json.Decoder(kind))
    try:
        return decoder.decode(body)  # type: ignore[no-any-return]
    except msgspec.ValidationError as error:
        what, _, place = str(error).partition(" - at ")
        what = what if len(what) <= _MOST_SAID else f"{what[:_MOST_SAID]}…`"
        field = place.strip("`").removeprefix("$").removeprefix(".")
        words = _words(what, field) + _near(kind, what, field)
        raise Refusal("shape", words, field=_blamed(what, field)) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Refusal("syntax", f"The body is no JSON: {_position(error)}.") from None
    except RecursionError:
        raise Refusal("syntax", "The body is nested too deeply.") from None


def _words(what: str, field: str) -> str:
    plain = what.replace("`", "'")
    return f"{field}: {plain}" if field else plain


def _near(kind: Any, what: str, field: str) -> str:
    """For a mistyped field the one that was probably meant."""
    name = what.removeprefix(_UNKNOWN).strip("`")
    if not what.startswith(_UNKNOWN):
        return ""
    hint = did_you_mean(name, fields_at(kind, field))
    return f".{hint}" if hint else ""


def _blamed(what: str, field: str) -> str:
    """The field itself, also where msgspec only names the object that it is missing from."""
    for lead in (_UNKNOWN, "Object missing required field "):
        if what.startswith(lead):
            name = what.removeprefix(lead).strip("`")
            return f"{field}.{name}" if field else name
    return field


def _position(error: Exception) -> str:
    # msgspec says where and what kind; it never repeats what it read beyond one character
    if isinstance(error, UnicodeDecodeError):
        return "it is not UTF-8"
    return str(error).removeprefix("JSON is malformed: ")
