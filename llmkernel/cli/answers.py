"""One request of a command: how it is asked, how its answer is written, what a script gets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmkernel.cli import console
from llmkernel.cli.failure import answer_record
from llmkernel.protocol import ChatMessage, Timings, Usage

if TYPE_CHECKING:
    from llmkernel.client import Client
    from llmkernel.client.generation import Delta, Generation
    from llmkernel.client.streams import Stream
    from llmkernel.params import SamplingParams


def has_chat_template(client: Client) -> bool:
    """Whether the worker's model takes conversations; while it loads, that it does."""
    model = client.status().model
    return model is None or model.has_chat_template


def as_turns(prompt: str, system: str | None) -> list[ChatMessage]:
    """A prompt as a conversation of one turn."""
    first = [ChatMessage(role="system", content=system)] if system is not None else []
    return [*first, ChatMessage(role="user", content=prompt)]


def plain(turns: list[ChatMessage]) -> list[dict[str, str]]:
    """Turns as the client takes them from anybody, so that it checks them."""
    return [{"role": turn.role, "content": turn.content} for turn in turns]


def write_stream(stream: Stream) -> None:
    """Write an answer as it comes, and end the line. Leaves nothing half written on an interrupt."""
    last = "\n"
    try:
        for delta in stream:
            console.write(delta.text, untrusted=True)
            last = delta.text or last
    finally:
        if not last.endswith("\n"):
            console.line()


def write_whole(answer: Generation) -> None:
    """Write one answer, or several under their numbers."""
    for number, sample in enumerate(answer.samples, 1):
        if len(answer.samples) > 1:
            console.line(f"[{number}]")
        console.write(sample.text, untrusted=True)
        if not sample.text.endswith("\n"):
            console.line()


def write_statistics(answer: Generation) -> None:
    """The quiet line under an answer, on standard error."""
    facts = statistics(answer.usage, answer.timings)
    if answer.finish_reason == "length":
        facts += " · stopped at max_tokens"
    console.line(console.dim(facts), err=True)


def write_cut(answer: Generation, params: SamplingParams) -> None:
    """Say on standard error that an answer has no end, where nobody asked for its length."""
    if answer.finish_reason == "length" and params.max_tokens is None:
        console.line(console.dim("The context is full: the answer has no end."), err=True)


def statistics(usage: Usage, timings: Timings) -> str:
    """Tokens, speed and time to first token."""
    facts = [f"{usage.completion_tokens} tokens"]
    if timings.decode > 0 and usage.completion_tokens > 1:
        # the first token comes out of the prefill
        facts.append(f"{(usage.completion_tokens - 1) / timings.decode:.1f} tokens/s")
    facts.append(f"first after {timings.time_to_first_token:.3f} s")
    if usage.cached_tokens:
        facts.append(f"{usage.cached_tokens} of {usage.prompt_tokens} prompt tokens from the cache")
    return " · ".join(facts)


def delta_record(delta: Delta) -> dict[str, Any]:
    """A piece of an answer as one line of NDJSON."""
    return {
        "type": "delta",
        "index": delta.index,
        "text": delta.text,
        "token_ids": delta.token_ids,
        "logprobs": delta.logprobs,
    }


def record(answer: Generation, client: Client) -> dict[str, Any]:
    """An answer as a script reads it. `samples` has all of them where there are several."""
    first = answer_record(answer)
    several = (
        [answer_record(sample) for sample in answer.samples] if len(answer.samples) > 1 else None
    )
    return first | {
        "samples": several,
        "prompt_token_ids": answer.prompt_token_ids,
        "prompt_logprobs": answer.prompt_logprobs,
        "usage": answer.usage,
        "timings": answer.timings,
        "worker": client.name,
        "model": client.connection.model,
    }


def ask(
    client: Client, prompt: str, turns: list[ChatMessage] | None, params: SamplingParams
) -> Stream:
    """Begin a stream: a conversation where `turns` are given, else the prompt as it is."""
    if turns is not None:
        return client.stream_chat(plain(turns), params)
    return client.stream(prompt, params)
