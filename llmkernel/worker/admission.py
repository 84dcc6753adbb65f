"""What a request must be before it may cost anything: the checks, cheap ones first, and its tokens.

Nothing in a message about a refusal repeats the prompt.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from llmkernel.errors import InvalidRequest, PromptTooLong
from llmkernel.params import SamplingParams, has_lone_surrogate
from llmkernel.protocol import (
    MAX_MESSAGE_BYTES,
    MAX_PROMPT_BYTES,
    ChatMessage,
    ModelInfo,
    Submit,
    Tokenize,
)
from llmkernel.worker.text import Tokenizer

_PROBE_CHARS = 16
"""Characters for each token of the context that are tokenised before the rest of a long text."""
MAX_SALT_CHARS = 512
_LOGPROB_BYTES = 40
"""What one token with its log-probability takes in a message, roughly."""


def check(submit: Submit, info: ModelInfo, vocab_size: int) -> None:
    """Refuse what can be seen without tokenising. Raises InvalidRequest or PromptTooLong."""
    submit.params.check()
    if len(submit.cache_salt) > MAX_SALT_CHARS or has_lone_surrogate(submit.cache_salt):
        raise InvalidRequest(
            f"cache_salt must be a text of up to {MAX_SALT_CHARS} characters.", field="cache_salt"
        )
    if submit.messages is not None:
        if submit.prompt:
            raise InvalidRequest("Give a prompt or messages, not both.", field="messages")
        check_chat(submit.messages, info)
    elif isinstance(submit.prompt, str):
        check_text(submit.prompt)
    else:
        if len(submit.prompt) > info.context_length > 0:
            raise PromptTooLong(
                f"The prompt has {len(submit.prompt)} tokens; "
                f"the context length is {info.context_length}.",
                needed=len(submit.prompt),
                limit=info.context_length,
            )
        _check_ids("prompt", submit.prompt, vocab_size)
    _check_ids("stop_token_ids", submit.params.stop_token_ids, vocab_size)
    _check_ids("logit_bias", list(submit.params.logit_bias), vocab_size)


def check_text(text: str) -> None:
    """Refuse a text that is too long to be tokenised or that is no text. Raises InvalidRequest."""
    if has_lone_surrogate(text):
        raise InvalidRequest(
            "The prompt holds half of a surrogate pair, which is no text.", field="prompt"
        )
    size = len(text.encode())
    if size > MAX_PROMPT_BYTES:
        raise InvalidRequest(
            f"The prompt has {size} bytes; the limit is {MAX_PROMPT_BYTES}.",
            field="prompt",
            size=size,
            limit=MAX_PROMPT_BYTES,
        )


def check_chat(messages: Sequence[ChatMessage], info: ModelInfo) -> None:
    """Refuse a conversation that cannot be rendered. Raises InvalidRequest."""
    if not info.has_chat_template:
        raise InvalidRequest(
            f"The model {info.model} has no chat template. Use generate with a prompt of your "
            "own, or start a model that was tuned for conversations.",
            field="messages",
        )
    if not messages:
        raise InvalidRequest("messages is empty: give at least one turn.", field="messages")
    check_text("".join(message.role + message.content for message in messages))


def check_token_ids(token_ids: Sequence[int], vocab_size: int) -> None:
    """Refuse ids that the model does not have. Raises InvalidRequest."""
    _check_ids("token_ids", token_ids, vocab_size)


def encode(
    what: Submit | Tokenize, tokenizer: Tokenizer, context_length: int = 0
) -> tuple[int, ...]:
    """Token ids of a prompt, a text or a conversation. Slow: call it off the loop.

    Raises InvalidRequest where the chat template refuses, and PromptTooLong for a text whose
    beginning alone is far above `context_length`, where that is given.
    """
    if what.messages is not None:
        turns = [{"role": turn.role, "content": turn.content} for turn in what.messages]
        goes_on = isinstance(what, Submit) and what.continue_final_message
        text = tokenizer.render_chat(turns, goes_on)
        special = False  # the template writes the special tokens itself
    elif isinstance(what, Tokenize):
        text, special = what.text, what.add_special_tokens
    elif isinstance(what.prompt, str):
        text, special = what.prompt, what.add_special_tokens
        if not text:
            return ()  # a lone BOS would pass for a prompt
    else:
        return tuple(what.prompt)
    _check_beginning(text, tokenizer, context_length)
    return tuple(tokenizer.encode(text, special))


def _check_beginning(text: str, tokenizer: Tokenizer, context_length: int) -> None:
    """Spare the work for a text that has no chance: megabytes take a tokenizer seconds.

    Where a text is cut changes the tokens beside the cut only, so twice the limit is
    certainly too much.
    """
    beginning = text[: _PROBE_CHARS * context_length]
    if not beginning or len(beginning) == len(text):
        return
    count = len(tokenizer.encode(beginning, False))
    if count > 2 * context_length:
        raise PromptTooLong(
            f"The prompt has more than {count} tokens; the context length is {context_length}.",
            needed=count,
            limit=context_length,
        )


def check_tokens(submit: Submit, prompt: Sequence[int]) -> None:
    """Refuse an empty prompt and one whose log-probabilities no message could hold.

    Raises InvalidRequest.
    """
    if not prompt:
        raise InvalidRequest("The prompt is empty: give at least one token.", field="prompt")
    wanted = submit.params.prompt_logprobs
    if wanted is not None and (size := _logprob_size(prompt, wanted)) > MAX_MESSAGE_BYTES:
        raise InvalidRequest(
            f"prompt_logprobs={wanted} for {len(prompt)} tokens makes about {size} bytes; "
            f"the limit is {MAX_MESSAGE_BYTES}. Ask for fewer alternatives or a shorter prompt.",
            field="prompt_logprobs",
        )


def bounded(submit: Submit, prompt_tokens: int, max_tokens: int) -> int:
    """How long the answer may be within the bounds that the request brings itself.

    `max_tokens` is what the engine has room for. Raises PromptTooLong.
    """
    most = submit.max_prompt_tokens
    if most is not None and prompt_tokens > most:
        raise PromptTooLong(
            f"The prompt has {prompt_tokens} tokens; no more than {most} are taken here.",
            needed=prompt_tokens,
            limit=most,
            bound="sender",
        )
    most, asked = submit.max_total_tokens, submit.params.max_tokens
    if most is None:
        return max_tokens
    needed = prompt_tokens + (1 if asked is None else asked)
    if needed > most:
        answer = "one token" if asked is None else f"max_tokens {asked}"
        raise PromptTooLong(
            f"The prompt has {prompt_tokens} tokens; with {answer} that is {needed}, "
            f"and no more than {most} are taken here.",
            needed=needed,
            limit=most,
            bound="sender",
        )
    return min(max_tokens, most - prompt_tokens)


def engine_params(params: SamplingParams) -> SamplingParams:
    """What the sampler is asked for: ranking best_of needs log-probabilities in any case."""
    if params.width > params.n and params.logprobs is None:
        return msgspec.structs.replace(params, logprobs=0)
    return params


def _logprob_size(prompt: Sequence[int], alternatives: int) -> int:
    return len(prompt) * (alternatives + 1) * _LOGPROB_BYTES


def _check_ids(what: str, token_ids: Sequence[int], vocab_size: int) -> None:
    if token_ids and not (min(token_ids) >= 0 and max(token_ids) < vocab_size):
        raise InvalidRequest(
            f"{what} holds an id outside the vocabulary, which has ids 0 to {vocab_size - 1}.",
            field=what,
        )
