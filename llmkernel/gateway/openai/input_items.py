"""The `input` of a response: a text, or messages old and new."""

from __future__ import annotations

from typing import Any

import msgspec

from llmkernel.errors import InvalidRequest
from llmkernel.gateway import features
from llmkernel.gateway.translation import content
from llmkernel.gateway.translation.refusals import beyond
from llmkernel.protocol import ChatMessage

_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
_KINDS = ("input_text", "output_text", "text")
_NOTES = ("annotations", "logprobs")
"""What answers of this API have beside their text, so that they can be sent back."""


class InputItem(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A turn. Items that are no message are refused, by their type."""

    type: str = "message"
    role: str | None = None
    content: content.Content | None = None
    id: Any = None
    status: Any = None
    phase: Any = None


def turns(given: str | list[dict[str, Any]]) -> list[ChatMessage]:
    """The conversation. Raises InvalidRequest naming the item and the field."""
    if isinstance(given, str):
        return [ChatMessage(role="user", content=given)]
    return [_turn(item, f"input[{number}]") for number, item in enumerate(given)]


def _turn(given: dict[str, Any], where: str) -> ChatMessage:
    kind = given.get("type", "message")
    if kind != "message":
        _refuse(kind, f"{where}.type")
    item = _item(given, where)
    if item.role not in _ROLES:
        raise InvalidRequest(
            f"{where}.role must be one of {', '.join(_ROLES)}.", field=f"{where}.role"
        )
    text = content.text(item.content, f"{where}.content", _KINDS, _NOTES)
    return ChatMessage(role=_ROLES[item.role], content=text)


def _item(given: dict[str, Any], where: str) -> InputItem:
    for name in given:
        if name not in InputItem.__struct_fields__:
            raise InvalidRequest(f"There is no field {where}.{name}.", field=f"{where}.{name}")
    try:
        return msgspec.convert(given, InputItem)
    except msgspec.ValidationError as error:
        what, _, place = str(error).partition(" - at ")
        field = where + place.strip("`").removeprefix("$")
        raise InvalidRequest(f"{field}: {what.replace('`', '')}.", field=field) from None


def _refuse(kind: Any, where: str) -> None:
    if kind == "reasoning":
        beyond("control of reasoning")(kind, where)
    if isinstance(kind, str) and kind.endswith(("_call", "_output")):
        features.tools(kind, where)
    raise InvalidRequest(f"{where} must be message.", field=where)
