"""The wire: one typed message each, and nothing else crosses it.

Every ZeroMQ message is one frame of msgpack: a map with a `type` tag (the class
name in snake case) and the fields of the class. docs/protocol.md is the
specification; `PROTOCOL_VERSION` changes with it, and the two sides compare
majors in the hello. Fields that a peer does not know are ignored at the same
major version, except in `SamplingParams`, where they are refused by name.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from llmkernel.errors import InvalidRequest, LLMKernelError, UnsupportedField
from llmkernel.params import SamplingParams
from llmkernel.parts import (
    ChatMessage,
    FinishReason,
    Load,
    ModelInfo,
    Output,
    Spread,
    State,
    StepKind,
    StepReport,
    StreamDelta,
    Timings,
    TokenLogprob,
    TopToken,
    Usage,
)

# the parts are names of this module too: protocol.Usage is what everybody writes
__all__ = [
    "ChatMessage",
    "FinishReason",
    "Load",
    "ModelInfo",
    "Output",
    "Spread",
    "State",
    "StepKind",
    "StepReport",
    "StreamDelta",
    "Timings",
    "TokenLogprob",
    "TopToken",
    "Usage",
]

PROTOCOL_VERSION = (1, 2)
FIRST_VERSION = (1, 0)
"""What a hello or a welcome without `protocol` speaks: defaults are left out, and it was theirs."""
MAX_MESSAGE_BYTES = 8 * 2**20
MAX_WIRE_BYTES = MAX_MESSAGE_BYTES + 2**10
"""The same for ZeroMQ, which counts what encryption adds."""
MAX_PROMPT_BYTES = 2 * 2**20
CREDIT_WINDOW = 1024
"""Tokens that a worker sends on a stream before it waits for more credit."""


def _snake(name: str) -> str:
    return "".join("_" + c.lower() if c.isupper() and i else c.lower() for i, c in enumerate(name))


class _Message(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type", tag=_snake
):
    """Base of everything that is sent by itself."""


# Client to worker -------------------------------------------------------------


class Hello(_Message, frozen=True):
    """First message of a client; answered by Welcome or Goodbye."""

    protocol: tuple[int, int] = FIRST_VERSION
    """Major and minor version that the client speaks."""
    package: str = ""
    """Version of the client's library."""
    client: str = ""
    """What kind of client it is, for people who read logs."""


class Submit(_Message, frozen=True):
    """A request. Ends in exactly one of Finished, Cancelled, Refused, Failed.

    `prompt` is text or token ids; a conversation goes in `messages` instead. `id` is the
    client's own and must not be in flight twice on one connection: the second is Refused
    with `data` {"duplicate": true}, which does not end the first.
    """

    id: int
    prompt: str | list[int] = ""
    """Text, tokenised as it is, or token ids."""
    messages: list[ChatMessage] | None = None
    """A conversation, made a prompt by the model's chat template."""
    params: SamplingParams = SamplingParams()
    stream: bool = False
    """Send deltas as they come; else only the terminal message carries text.

    Where deltas are sent they carry everything, and the outputs of the terminal message
    have no text, token ids or logprobs. With best_of above n there are no deltas, since
    nobody knows yet which answers will be returned.
    """
    credit: int = CREDIT_WINDOW
    """Tokens that may be sent before more credit is given; no more than the default counts."""
    add_special_tokens: bool = True
    """For a text prompt: let the tokenizer add its own BOS and the like."""
    continue_final_message: bool = False
    """For a conversation whose last turn is the assistant's: go on inside that turn."""
    cache_salt: str = ""
    """Requests share cached tokens only with those of the same principal and the same salt.
    For a client that asks for several people; up to 512 characters."""
    max_prompt_tokens: int | None = None
    """Refuse a longer prompt, though the worker has room for it."""
    max_total_tokens: int | None = None
    """The same for prompt and answer together; without max_tokens the answer ends there."""


SINCE = {
    "cache_salt": (1, 1),
    "max_prompt_tokens": (1, 1),
    "max_total_tokens": (1, 1),
}
"""Fields of Submit that an older worker would ignore and that nobody may ignore: who shares what
with whom, and limits. A client does not send them to a worker that does not know them."""


class Cancel(_Message, frozen=True):
    """Stop a request; answered by its terminal message. Unknown ids are no error: it had ended."""

    id: int


class Credit(_Message, frozen=True):
    """The reader took tokens of a stream and has room for as many again."""

    id: int
    tokens: int


class Tokenize(_Message, frozen=True):
    """Text or a conversation to token ids; answered by Tokens or Refused."""

    id: int
    text: str = ""
    messages: list[ChatMessage] | None = None
    add_special_tokens: bool = True
    texts: bool = True
    """Send the text of each token as well; before 1.2 a worker always does."""


class Detokenize(_Message, frozen=True):
    """Token ids to text; answered by Text or Refused."""

    id: int
    token_ids: list[int]
    skip_special_tokens: bool = False


class GetStatus(_Message, frozen=True):
    """Ask for a StatusReport."""

    id: int
    steps: bool = False
    """Say how the steps went, too."""


class Watch(_Message, frozen=True):
    """Ask for Progress and StateChange as they happen; the present ones are sent at once."""


class Stop(_Message, frozen=True):
    """End the worker; answered by Stopping. `drain` finishes what runs first, at most 30 s."""

    id: int
    drain: bool = True


# Worker to client -------------------------------------------------------------


class Welcome(_Message, frozen=True):
    """Answer to Hello."""

    protocol: tuple[int, int] = FIRST_VERSION
    """Major and minor version that the worker speaks."""
    package: str = ""
    """Version of the worker's library."""
    instance: str = ""
    """The uuid in the connection file; another one means another worker answers there."""
    state: State = "loading"


class Goodbye(_Message, frozen=True):
    """The worker will not serve this connection (versions differ, or it is leaving)."""

    code: str
    message: str


class Progress(_Message, frozen=True):
    """How far loading is. `total` 0 means unknown.

    The stage "answer" is of whoever attaches: it waits for a worker that is silent.
    """

    stage: Literal["resolve", "download", "read", "quantise", "keep", "warm_up", "answer"]
    done: int = 0
    total: int = 0
    unit: Literal["bytes", "tensors", "steps", "seconds", ""] = ""
    detail: str = ""


class Ping(_Message, frozen=True):
    """Sent to a client that has work here and got nothing else for half a second.

    It tells the client that the worker lives. Nothing answers it: a client that is gone
    is noticed because it cannot be sent.
    """


class StateChange(_Message, frozen=True):
    """The worker is in another state now; `failed` carries the reason of a failed load."""

    state: State
    code: str = ""
    message: str = ""
    data: dict[str, Any] = {}


class Accepted(_Message, frozen=True):
    """The request passed the checks and is queued."""

    id: int
    prompt_tokens: int
    position: int = 0
    """Requests ahead of it in the queue."""


class Deltas(_Message, frozen=True):
    """Everything one step gave to the streams of one client."""

    deltas: list[StreamDelta]


class Finished(_Message, frozen=True):
    """Terminal: all answers are complete. Of best_of the n best are returned, the best first."""

    id: int
    outputs: list[Output]
    usage: Usage
    timings: Timings
    prompt_token_ids: list[int] = []
    """Only with prompt_logprobs."""
    prompt_logprobs: list[TokenLogprob] | None = None


class Cancelled(_Message, frozen=True):
    """Terminal: cancelled; what was generated so far is in `outputs`."""

    id: int
    outputs: list[Output] = []
    usage: Usage = Usage()
    timings: Timings = Timings()


class Refused(_Message, frozen=True):
    """Terminal: never started."""

    id: int
    code: str
    message: str
    data: dict[str, Any] = {}


class Failed(_Message, frozen=True):
    """Terminal: started and broke; what was generated so far is in `outputs`."""

    id: int
    code: str
    message: str
    data: dict[str, Any] = {}
    outputs: list[Output] = []
    usage: Usage = Usage()
    timings: Timings = Timings()


class Tokens(_Message, frozen=True):
    """Answer to Tokenize. `texts` has the text of each token, where they were asked for."""

    id: int
    token_ids: list[int]
    texts: list[str] = []


class Text(_Message, frozen=True):
    """Answer to Detokenize."""

    id: int
    text: str


class StatusReport(_Message, frozen=True):
    """Answer to GetStatus."""

    id: int
    state: State
    name: str
    instance: str
    pid: int
    uptime: float
    package: str = ""
    model: ModelInfo | None = None
    """None while loading."""
    load: Load = Load()
    progress: Progress | None = None
    clients: int = 0
    rss_bytes: int = 0
    device_bytes: int = 0
    """Allocated on the accelerator by the worker; 0 on the CPU."""
    steps: StepReport | None = None
    """Only where GetStatus asked for it, and not while loading."""


class Stopping(_Message, frozen=True):
    """Answer to Stop: the worker is on its way out."""

    id: int


ClientMessage = Hello | Submit | Cancel | Credit | Tokenize | Detokenize | GetStatus | Watch | Stop
WorkerMessage = (
    Welcome | Goodbye | Progress | StateChange | Ping | Accepted | Deltas | Finished | Cancelled
    | Refused | Failed | Tokens | Text | StatusReport | Stopping
)  # fmt: skip
TERMINAL = (Finished, Cancelled, Refused, Failed)

_encoder = msgspec.msgpack.Encoder()
_client_decoder = msgspec.msgpack.Decoder(ClientMessage)
_worker_decoder = msgspec.msgpack.Decoder(WorkerMessage)


def encode(message: ClientMessage | WorkerMessage) -> bytes:
    """Bytes for the wire.

    Raises InvalidRequest where a text holds half of a surrogate pair or the
    message is above MAX_MESSAGE_BYTES.
    """
    try:
        data = _encoder.encode(message)
    except (UnicodeEncodeError, OverflowError) as error:
        raise InvalidRequest(f"The message cannot be encoded: {error}.") from None
    if len(data) > MAX_MESSAGE_BYTES:
        raise InvalidRequest(
            f"The message has {len(data)} bytes; the limit is {MAX_MESSAGE_BYTES}."
        )
    return data


def decode_client(data: bytes) -> ClientMessage:
    """Parse what a client sent. Raises InvalidRequest for anything but a known message."""
    return _decode(_client_decoder, data)  # type: ignore[no-any-return]


def decode_worker(data: bytes) -> WorkerMessage:
    """Parse what a worker sent. Raises InvalidRequest for anything but a known message."""
    return _decode(_worker_decoder, data)  # type: ignore[no-any-return]


def wire_error(error: LLMKernelError) -> dict[str, Any]:
    """The `code`, `message` and `data` fields of a Refused, Failed or StateChange."""
    return {"code": error.code, "message": error.message, "data": error.data}


def _decode(decoder: msgspec.msgpack.Decoder[Any], data: bytes) -> Any:
    if len(data) > MAX_MESSAGE_BYTES:
        raise InvalidRequest(
            f"The message has {len(data)} bytes; the limit is {MAX_MESSAGE_BYTES}."
        )
    try:
        return decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        if "unknown field" in str(error):
            raise UnsupportedField(f"Refused: {error}") from None
        raise InvalidRequest(f"Not a message of this protocol: {error}") from None
