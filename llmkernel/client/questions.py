"""What callers write, made into the questions of the protocol; mistakes are refused here first."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, TypeAlias

import msgspec

from llmkernel import protocol
from llmkernel.errors import InvalidRequest
from llmkernel.params import SamplingParams, has_lone_surrogate

Prompt: TypeAlias = str | Sequence[int]
"""Text, or token ids."""
Messages: TypeAlias = str | Sequence[Mapping[str, str] | protocol.ChatMessage]
"""A conversation of {"role": ..., "content": ...} turns; a text is one turn of the user."""

INT32_MAX = 2**31 - 1
_TokenIds = list[Annotated[int, msgspec.Meta(ge=0, le=INT32_MAX)]]
_LONGEST_SECONDS = 1e8
"""Three years: what the system's own clocks hold."""
_TURNS = (Mapping, protocol.ChatMessage)
_SEVERAL = " Many prompts go through map; of a batch of token ids give one, such as input_ids[0]."


def sampling(params: SamplingParams | None, changes: Mapping[str, Any]) -> SamplingParams:
    """Parameters from an object, keywords, or both, of which the keywords win.

    Raises InvalidRequest.
    """
    if params is None:
        return SamplingParams.build(**changes)
    if not isinstance(params, SamplingParams):
        raise InvalidRequest(
            f"params must be a SamplingParams, and was {type(params).__name__}. "
            "Single parameters are given by keyword."
        )
    return SamplingParams.build(**{**msgspec.structs.asdict(params), **changes})


def completion(
    prompt: Prompt, params: SamplingParams, *, add_special_tokens: bool = True
) -> protocol.Submit:
    """The request to go on after a prompt. Raises InvalidRequest for what is no prompt."""
    return protocol.Submit(
        id=0,
        prompt=_text("The prompt", prompt)
        if isinstance(prompt, str)
        else token_ids(prompt, "prompt"),
        params=params,
        add_special_tokens=add_special_tokens,
    )


def conversation(
    messages: Messages, params: SamplingParams, *, continue_final_message: bool = False
) -> protocol.Submit:
    """The request for the next turn. Raises InvalidRequest for what is no conversation."""
    return protocol.Submit(
        id=0,
        messages=turns(messages),
        params=params,
        continue_final_message=continue_final_message,
    )


def any_prompt(prompt: Any, params: SamplingParams, *, add_special_tokens: bool) -> protocol.Submit:
    """The request for a text, token ids or a conversation. Raises InvalidRequest."""
    if isinstance(prompt, Sequence) and prompt and isinstance(prompt[0], _TURNS):
        return conversation(prompt, params)
    return completion(prompt, params, add_special_tokens=add_special_tokens)


def turns(messages: Messages) -> list[protocol.ChatMessage]:
    """The turns of a conversation. Raises InvalidRequest naming the one that is none."""
    if isinstance(messages, str):
        messages = [{"role": "user", "content": messages}]
    if not isinstance(messages, Iterable) or isinstance(messages, Mapping):
        raise InvalidRequest(
            'messages must be a list of {"role": ..., "content": ...}, '
            f"and was {type(messages).__name__}."
        )
    found = [_turn(number, message) for number, message in enumerate(messages)]
    if found and found[-1].role == "user" and not found[-1].content.strip():
        raise InvalidRequest("The message to answer is empty.", field="messages")
    return found


def seconds(timeout: float | None) -> float | None:
    """A timeout as it is waited for; None for none, and for infinity. Raises InvalidRequest."""
    if timeout is None:
        return None
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not timeout > 0:
        raise InvalidRequest(f"timeout must be above 0 seconds, and was {timeout!r}.")
    return min(float(timeout), _LONGEST_SECONDS) if math.isfinite(timeout) else None


def token_ids(values: Iterable[int], field: str = "token_ids") -> list[int]:
    """Plain token ids from a list, tuple or array. Raises InvalidRequest for anything else."""
    if isinstance(values, (str, bytes, Mapping)) or not isinstance(values, Iterable):
        raise InvalidRequest(
            f"Expected text or a list of token ids, and got {type(values).__name__}."
        )
    if type(values) is list:
        with contextlib.suppress(msgspec.ValidationError):
            return msgspec.convert(values, _TokenIds)  # what tokenizers make, a million at once
    ids = [_token_id(value) for value in values]
    if ids and not 0 <= min(ids) <= max(ids) <= INT32_MAX:
        raise InvalidRequest("A token id cannot be negative or above 2^31 - 1.", field=field)
    return ids


def text_question(
    text: str | Messages, *, add_special_tokens: bool = True, texts: bool = True
) -> protocol.Tokenize:
    """The question for the tokens of a text or a conversation. Raises InvalidRequest."""
    if isinstance(text, str):
        checked = _text("The text", text)
        return protocol.Tokenize(
            id=0, text=checked, add_special_tokens=add_special_tokens, texts=texts
        )
    if isinstance(text, (bytes, Mapping)) or not isinstance(text, Iterable):
        raise _no_text(type(text).__name__)
    messages = list(text)
    if messages and not isinstance(messages[0], _TURNS):
        raise _no_text(f"{type(text).__name__} of {type(messages[0]).__name__}")
    return protocol.Tokenize(id=0, messages=turns(messages), texts=texts)


def _no_text(what: str) -> InvalidRequest:
    return InvalidRequest(
        'Expected text or a conversation, a list of {"role": ..., "content": ...}, '
        f"and got {what}."
    )


def _token_id(value: Any) -> int:
    if hasattr(value, "__index__") and not isinstance(value, bool):
        with contextlib.suppress(TypeError):  # arrays have the method, and most have no number
            return int(value.__index__())
    several = isinstance(value, Sequence) or getattr(value, "ndim", 0) > 0
    raise InvalidRequest(
        f"A prompt is text or a list of token ids, and held a {type(value).__name__}."
        + (_SEVERAL if several else "")
    )


def _turn(number: int, message: Any) -> protocol.ChatMessage:
    if isinstance(message, protocol.ChatMessage):
        return message
    if not isinstance(message, Mapping) or set(message) != {"role", "content"}:
        raise InvalidRequest(
            f'messages[{number}] must be {{"role": ..., "content": ...}} and nothing else.',
            field="messages",
        )
    for name, value in message.items():
        if not isinstance(value, str):
            raise InvalidRequest(
                f"messages[{number}][{name!r}] must be text, and was {type(value).__name__}.",
                field="messages",
            )
    texts = {name: _text(f"messages[{number}][{name!r}]", message[name]) for name in message}
    return protocol.ChatMessage(**texts)


def _text(what: str, text: str) -> str:
    text = str(text)  # an answer is text and more, and only the text goes over the wire
    if has_lone_surrogate(text):
        raise InvalidRequest(f"{what} holds half of a surrogate pair, which is no text.")
    size = len(text.encode())
    if size > protocol.MAX_PROMPT_BYTES:
        raise InvalidRequest(
            f"{what} has {size} bytes; the limit is {protocol.MAX_PROMPT_BYTES}.",
            size=size,
            limit=protocol.MAX_PROMPT_BYTES,
        )
    return text
