"""The bodies of Text Generation Inference's API, which are its OpenAPI schemas too."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

U32 = Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]
U64 = Annotated[int, msgspec.Meta(ge=0)]
"""Up to 2^64 - 1; that end is checked by hand, as schemas in JSON cannot hold it."""
I32 = Annotated[int, msgspec.Meta(ge=-(2**31), le=2**31 - 1)]

FinishReason = Literal["length", "eos_token", "stop_sequence"]


class Parameters(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How to generate. null stands for the default everywhere."""

    best_of: U64 | None = None
    """Generate this many answers and return the likeliest."""
    temperature: float | None = None
    repetition_penalty: float | None = None
    frequency_penalty: float | None = None
    top_k: I32 | None = None
    top_p: float | None = None
    typical_p: float | None = None
    do_sample: bool | None = None
    """Sample also where no other parameter asks for it."""
    max_new_tokens: U32 | None = None
    """Left out: as many as fit."""
    return_full_text: bool | None = None
    """Put the prompt before the answer."""
    stop: list[str] | None = None
    """Texts that end the answer; they are not part of it."""
    truncate: U64 | None = None
    """Keep only so many tokens of the prompt, the last ones."""
    watermark: bool | None = None
    """Not supported: refused when true."""
    details: bool | None = None
    decoder_input_details: bool | None = None
    """Log-probabilities of the prompt; implies details."""
    seed: U64 | None = None
    top_n_tokens: U32 | None = None
    grammar: Any = None
    """Not supported yet: refused when given."""
    adapter_id: str | None = None
    """Not supported yet: refused when given."""


class GenerateRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A prompt to go on with."""

    inputs: str
    parameters: Parameters | None = None


class CompatRequest(GenerateRequest, frozen=True, kw_only=True):
    """The same, with the choice of a stream."""

    stream: bool = False


class PrefillToken(msgspec.Struct, frozen=True):
    """A token of the prompt."""

    id: int
    text: str
    logprob: float | None


class Token(msgspec.Struct, frozen=True):
    """A token of the answer, or one that the model weighed."""

    id: int
    text: str
    logprob: float
    special: bool


class BestOfSequence(msgspec.Struct, frozen=True, omit_defaults=True):
    """One of the answers of best_of that was not the best."""

    generated_text: str
    finish_reason: FinishReason
    generated_tokens: int
    seed: int | None
    prefill: list[PrefillToken]
    tokens: list[Token]
    top_tokens: list[list[Token]] | None = None


class Details(msgspec.Struct, frozen=True, omit_defaults=True):
    """How an answer came about."""

    finish_reason: FinishReason
    generated_tokens: int
    seed: int | None
    prefill: list[PrefillToken]
    tokens: list[Token]
    best_of_sequences: list[BestOfSequence] | None = None
    top_tokens: list[list[Token]] | None = None


class GenerateResponse(msgspec.Struct, frozen=True, omit_defaults=True):
    """An answer."""

    generated_text: str
    details: Details | None = None


class StreamDetails(msgspec.Struct, frozen=True):
    """How a streamed answer came about; part of its last event."""

    finish_reason: FinishReason
    generated_tokens: int
    seed: int | None
    input_length: int


class StreamEvent(msgspec.Struct, frozen=True):
    """One token of a stream; the last one has the whole text."""

    index: int
    token: Token
    generated_text: str | None = None
    details: StreamDetails | None = None


class TopStreamEvent(StreamEvent, frozen=True):
    """The same where top_n_tokens asked for alternatives."""

    top_tokens: list[Token] = []


class SimpleToken(msgspec.Struct, frozen=True):
    """A token and where in the text it is."""

    id: int
    text: str
    start: int
    stop: int


class Turn(msgspec.Struct, frozen=True):
    """One turn of a conversation."""

    role: str
    content: Any
    """Text, or parts of type text."""


class ChatTokenizeRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A conversation to be made tokens."""

    messages: list[Turn]
    model: str | None = None


class ChatTokenizeResponse(msgspec.Struct, frozen=True):
    """The tokens of a conversation, and the text that its template made."""

    tokenize_response: list[SimpleToken]
    templated_text: str


class Info(msgspec.Struct, frozen=True, kw_only=True):
    """What is served, and within which limits."""

    model_id: str
    model_sha: str | None
    model_pipeline_tag: str | None
    max_concurrent_requests: int
    max_best_of: int
    max_stop_sequences: int
    max_input_tokens: int
    max_total_tokens: int
    validation_workers: int
    max_client_batch_size: int
    router: str
    version: str
    sha: str | None
    docker_label: str | None


class VertexInstance(msgspec.Struct, frozen=True, kw_only=True):
    """A prompt, or a conversation."""

    inputs: str | None = None
    messages: list[Turn] | None = None
    parameters: Parameters | None = None


class VertexRequest(msgspec.Struct, frozen=True):
    """Several prompts at once."""

    instances: list[VertexInstance]


class VertexResponse(msgspec.Struct, frozen=True):
    """Their answers, in order."""

    predictions: list[str]
