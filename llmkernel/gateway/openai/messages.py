"""The messages of a chat completion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from llmkernel.errors import InvalidRequest
from llmkernel.gateway.translation import content
from llmkernel.gateway.translation.refusals import Feature, Refused, refuse, unsupported
from llmkernel.protocol import ChatMessage

_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
"""Developer is what newer clients call the system; chat templates know the older name."""
_TOOL_ROLES = ("tool", "function")
_REFUSED = {
    "name": Refused(Feature.NAMES),
    "tool_calls": Refused(Feature.TOOLS, ([],)),
    "tool_call_id": Refused(Feature.TOOLS),
    "function_call": Refused(Feature.TOOLS),
    "audio": Refused(Feature.AUDIO),
    "refusal": Refused(Feature.GRAMMAR),
    "annotations": Refused(Feature.TOOLS, ([],)),
    "reasoning_content": Refused(Feature.REASONING, ("",)),
}


class Message(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """One turn. The fields below `content` are known and refused unless they are empty."""

    role: str
    content: content.Content | None = None
    name: Any = None
    tool_calls: Any = None
    tool_call_id: Any = None
    function_call: Any = None
    audio: Any = None
    refusal: Any = None
    annotations: Any = None
    reasoning_content: Any = None


def turns(messages: Sequence[Message]) -> list[ChatMessage]:
    """The conversation. Raises InvalidRequest naming the message and the field."""
    return [_turn(message, f"messages[{number}]") for number, message in enumerate(messages)]


def _turn(message: Message, where: str) -> ChatMessage:
    if message.role in _TOOL_ROLES:
        raise unsupported(f"{where}.role", Feature.TOOLS)
    if message.role not in _ROLES:
        raise InvalidRequest(
            f"{where}.role must be one of {', '.join(_ROLES)}.", field=f"{where}.role"
        )
    refuse(message, _REFUSED, f"{where}.")
    text = content.text(message.content, f"{where}.content")
    return ChatMessage(role=_ROLES[message.role], content=text)
