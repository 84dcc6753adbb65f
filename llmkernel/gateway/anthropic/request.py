"""The bodies of POST /v1/messages and /v1/messages/count_tokens, and the question in them."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from operator import attrgetter
from typing import Any

import msgspec

from llmkernel.errors import InvalidRequest
from llmkernel.gateway import features
from llmkernel.gateway.translation import content, sampling
from llmkernel.gateway.translation.ask import Ask, conversation
from llmkernel.gateway.translation.refusals import (
    CONTEXT,
    REASONING,
    SCHEDULING,
    STORAGE,
    Refused,
    refuse,
)
from llmkernel.protocol import ChatMessage

_NOTES = ("cache_control", "citations")
"""The prefix cache needs no marks; a text that cites nothing has null."""
_REFUSED = {
    "tools": Refused(features.tools, ([],)),
    "tool_choice": Refused(features.tools, ({"type": "none"}, {"type": "auto"})),
    "mcp_servers": Refused(features.tools, ([],)),
    "thinking": Refused(REASONING, ({"type": "disabled"},)),
    "output_config": Refused(features.grammar, ({},)),
    "output_format": Refused(features.grammar),
    "context_management": Refused(CONTEXT, ({},)),
    "container": Refused(STORAGE),
    "speed": Refused(SCHEDULING, ("standard",)),
}
_SAMPLING = {
    "service_tier": Refused(SCHEDULING, ("auto", "standard_only")),
    "inference_geo": Refused(SCHEDULING),
}
_NAMES = {"stop": "stop_sequences"}


class MessageTurn(msgspec.Struct, forbid_unknown_fields=True):
    """A turn of a conversation."""

    role: str
    content: content.Content


class Conversation(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What is read before an answer.

    `cache_control`, `user_profile_id`, `workspace_id` and `diagnostics` are taken and change
    nothing: the prefix cache needs no marks. The other fields typed Any are refused, by name,
    unless they ask for nothing.
    """

    messages: list[MessageTurn]
    model: str | None = None
    system: content.Content | None = None
    cache_control: Any = None
    tools: Any = None
    tool_choice: Any = None
    mcp_servers: Any = None
    thinking: Any = None
    output_config: Any = None
    output_format: Any = None
    context_management: Any = None
    container: Any = None
    speed: Any = None
    user_profile_id: Any = None
    workspace_id: Any = None
    diagnostics: Any = None


class MessagesRequest(Conversation, kw_only=True, forbid_unknown_fields=True):
    """A message: the fields of Anthropic's API, and `seed`.

    `metadata` is taken and changes nothing.
    """

    max_tokens: int
    stop_sequences: list[str] | None = None
    stream: bool | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    seed: int | None = None
    metadata: dict[str, Any] | None = None
    service_tier: Any = None
    inference_geo: Any = None


def ask(request: MessagesRequest) -> Ask:
    """The question. Raises InvalidRequest or UnsupportedField naming the field."""
    refuse(request, _SAMPLING)
    values = {
        "max_tokens": request.max_tokens,
        "stop": request.stop_sequences,
        "temperature": request.temperature,
        "top_k": request.top_k,
        "top_p": request.top_p,
        "seed": request.seed,
    }
    return conversation(turns(request), sampling.build(values, _NAMES))


def turns(request: Conversation) -> list[ChatMessage]:
    """The conversation, the system's turn first. Raises InvalidRequest or UnsupportedField.

    Turns of one role that follow one another become one, as this API says.
    """
    refuse(request, _REFUSED)
    if not request.messages:
        raise InvalidRequest("messages is empty: give at least one turn.", field="messages")
    found = [_turn(turn, f"messages[{number}]") for number, turn in enumerate(request.messages)]
    if request.system is None:
        return list(_joined(found))
    system = content.text(request.system, "system", notes=_NOTES)
    return [ChatMessage(role="system", content=system), *_joined(found)]


def _turn(turn: MessageTurn, where: str) -> ChatMessage:
    if turn.role not in ("user", "assistant"):
        raise InvalidRequest(
            f"{where}.role must be user or assistant; what the system says goes into system.",
            field=f"{where}.role",
        )
    text = content.text(turn.content, f"{where}.content", notes=_NOTES)
    return ChatMessage(role=turn.role, content=text)


def _joined(found: Iterable[ChatMessage]) -> Iterable[ChatMessage]:
    for role, same in groupby(found, key=attrgetter("role")):
        yield ChatMessage(role=role, content="\n".join(turn.content for turn in same))
