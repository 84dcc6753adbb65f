"""The bodies of POST /api/chat and /api/generate, and the questions in them."""

from __future__ import annotations

from typing import Any

import msgspec

from llmkernel.errors import InvalidRequest
from llmkernel.gateway import features
from llmkernel.gateway.ollama import options
from llmkernel.gateway.ollama.options import Options
from llmkernel.gateway.translation.ask import Ask, conversation
from llmkernel.gateway.translation.refusals import (
    CONTEXT,
    INFILLING,
    REASONING,
    TEMPLATES,
    Refused,
    refuse,
)
from llmkernel.params import SamplingParams
from llmkernel.protocol import ChatMessage

_REFUSED = {
    "format": Refused(features.grammar, ("",)),
    "think": Refused(REASONING, (False, "")),
    "truncate": Refused(CONTEXT, (False,)),
    "shift": Refused(CONTEXT, (False,)),
}
_CHAT = {"tools": Refused(features.tools, ([],))}
_GENERATE = {
    "suffix": Refused(INFILLING, ("",)),
    "images": Refused(features.images, ([],)),
    "template": Refused(TEMPLATES, ("",)),
    "context": Refused(CONTEXT, ([],)),
    "width": Refused(features.images),
    "height": Refused(features.images),
    "steps": Refused(features.images),
}
_MESSAGE = {
    "images": Refused(features.images, ([],)),
    "tool_calls": Refused(features.tools, ([],)),
    "tool_name": Refused(features.tools, ("",)),
    "thinking": Refused(REASONING, ("",)),
}


class Turn(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A turn of a conversation."""

    role: str
    content: str = ""
    images: Any = None
    tool_calls: Any = None
    tool_name: Any = None
    thinking: Any = None


class Common(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What both have. Fields typed Any are refused, by name, unless they ask for nothing."""

    model: str
    stream: bool | None = None
    """Streamed unless it is false."""
    options: Options | None = None
    keep_alive: float | str | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    format: Any = None
    think: Any = None
    truncate: Any = None
    shift: Any = None


class ChatRequest(Common, kw_only=True, forbid_unknown_fields=True):
    """The next turn of a conversation; without one, only load the model."""

    messages: list[Turn] | None = None
    tools: Any = None


class GenerateRequest(Common, kw_only=True, forbid_unknown_fields=True):
    """An answer to a prompt; without one, only load the model."""

    prompt: str | None = None
    system: str | None = None
    raw: bool | None = None
    """The prompt as it is, without the model's chat template."""
    suffix: Any = None
    images: Any = None
    template: Any = None
    context: Any = None
    width: Any = None
    height: Any = None
    steps: Any = None


def ask_chat(request: ChatRequest) -> Ask | None:
    """The question, or None where there is none. Raises InvalidRequest or UnsupportedField."""
    refuse(request, _CHAT)
    params = _params(request)
    turns = request.messages or []
    found = [_turn(turn, f"messages[{number}]") for number, turn in enumerate(turns)]
    return conversation(found, params) if found else None


def ask_generate(request: GenerateRequest) -> Ask | None:
    """The question, or None where there is none. Raises InvalidRequest or UnsupportedField."""
    refuse(request, _GENERATE)
    params = _params(request)
    if not request.prompt:
        return None
    if request.raw:
        if request.system:
            raise InvalidRequest("system has no place in a raw prompt.", field="system")
        return Ask(params=params, prompt=request.prompt)
    turns = [ChatMessage(role="system", content=request.system)] if request.system else []
    return conversation([*turns, ChatMessage(role="user", content=request.prompt)], params)


def without_template(ask: Ask) -> Ask:
    """The question for a model that has no chat template: a lone prompt goes as it is."""
    if ask.messages is None or len(ask.messages) > 1:
        return ask
    return Ask(params=ask.params, prompt=ask.messages[0].content)


def _params(request: Common) -> SamplingParams:
    refuse(request, _REFUSED)
    wanted = (request.top_logprobs or 0) if request.logprobs else None
    if request.top_logprobs and wanted is None:
        raise InvalidRequest("top_logprobs needs logprobs to be true.", field="top_logprobs")
    return options.params(request.options or Options(), wanted)


def _turn(turn: Turn, where: str) -> ChatMessage:
    if turn.role == "tool":
        features.tools(turn.role, f"{where}.role")
    if turn.role not in ("system", "user", "assistant"):
        raise InvalidRequest(
            f"{where}.role must be system, user or assistant.", field=f"{where}.role"
        )
    refuse(turn, _MESSAGE, f"{where}.")
    return ChatMessage(role=turn.role, content=turn.content)
