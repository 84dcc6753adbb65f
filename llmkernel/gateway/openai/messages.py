"""The messages of a chat completion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from llmkernel.errors import InvalidRequest
from llmkernel.gateway import features
from llmkernel.gateway.translation import content
from llmkernel.gateway.translation.refusals import NAMES, REASONING, Refused, refuse
from llmkernel.protocol import ChatMessage

_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
"""Developer is what newer clients call the system; chat templates know the older name."""
_TOOL_ROLES = ("tool", "function")
_REFUSED = {
    "name": Refused(NAMES),
    "tool_calls": Refused(features.tools, ([],)),
    "tool_call_id": Refused(features.tools),
    "function_call": Refused(features.tools),
    "audio": Refused(features.audio),
    "refusal": Refused(features.grammar),
    "annotations": Refused(features.tools, ([],)),
    "reasoning_content": Refused(REASONING, ("",)),
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
        features.tools(message.role, f"{where}.role")
    if message.role not in _ROLES:
        raise InvalidRequest(
            f"{where}.role must be one of {', '.join(_ROLES)}.", field=f"{where}.role"
        )
    refuse(message, _REFUSED, f"{where}.")
    text = content.text(message.content, f"{where}.content")
    return ChatMessage(role=_ROLES[message.role], content=text)
