"""Every way a call can end badly, and what each looks like on each path.

    LLMKernelError
    ├── InvalidRequest              a value, a name or a combination that cannot be served
    │   ├── UnsupportedField        a field that exists elsewhere but not here
    │   └── PromptTooLong           the prompt and the answer do not fit; carries both numbers
    ├── RequestEnded                a request that was taken and did not finish
    │   ├── RequestCancelled        somebody asked for it
    │   │   └── RequestTimedOut     the time that its sender gave it was over
    │   ├── SlowConsumer            the reader stopped reading
    │   ├── DeviceOutOfMemory       the device had no room for the step
    │   ├── NumericalError          the model produced NaN for this request
    │   ├── StepFailed              the step that this request was in raised
    │   └── EngineDied              the decode loop itself is gone
    ├── Unavailable                 not now; nothing was started
    │   ├── Overloaded              the queue is full
    │   ├── Draining                the worker is stopping
    │   └── NotReady                the model is still loading
    ├── ConnectionProblem           between this process and a worker
    │   ├── WorkerNotFound          no such worker runs
    │   ├── WorkerDied              it was there and is gone
    │   ├── WorkerUnresponsive      it is there and does not answer
    │   ├── NotAuthorized           the worker does not know this key
    │   └── ProtocolMismatch        the two sides speak different versions
    └── StartFailed                 a worker could not be started
        ├── ModelNotFound           no such folder or hub id
        ├── ModelGated              the hub wants a licence accepted or a token
        ├── HubUnreachable          offline, and not in the cache
        ├── NotEnoughMemory         carries needed and free bytes
        ├── UnsupportedModel        an architecture or setting outside the list
        ├── UnsafeCheckpoint        pickled weights or remote code
        ├── BrokenCheckpoint        a shard is torn or does not match its index
        ├── ConfigurationConflict   a worker of that name runs with other settings
        └── MissingDependency       an optional package is absent; names the extra

A message says what happened and what to do next. It never holds a prompt, a
key, a path or an address that its reader did not send. `TABLE` maps each code
that crosses the wire to its class, its HTTP status and the hint that notebooks
print under the message; a test keeps it complete.
"""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

from llmkernel.printable import printable

MAX_MESSAGE_CHARS = 20_000
"""Of a longer message both ends are kept: what it says may come out of a file of any size."""


class LLMKernelError(Exception):
    """Root of the tree.

    `data` holds the numbers behind the message (bytes, tokens, limits), never text
    of a prompt. Whatever names a message repeats, it can be logged, sent and shown: halves of
    surrogate pairs are written as escapes, and what a terminal would obey as its picture.
    """

    code: ClassVar[str] = "internal"

    def __init__(self, message: str, /, **data: Any) -> None:
        self.message = _text(message)
        self.data = {
            name: _text(value) if isinstance(value, str) else value for name, value in data.items()
        }
        super().__init__(self.message)


def _text(text: str) -> str:
    if len(text) > MAX_MESSAGE_CHARS:
        half = MAX_MESSAGE_CHARS // 2
        text = f"{text[:half]} … {text[-half:]}"
    return printable(text).encode(errors="backslashreplace").decode()


class InvalidRequest(LLMKernelError, ValueError):
    """A value, a name or a combination that cannot be served."""

    code = "invalid_request"


class UnsupportedField(InvalidRequest):
    """A field that other servers know and this one refuses rather than ignores."""

    code = "unsupported_field"


class PromptTooLong(InvalidRequest):
    """The prompt and the answer do not fit: `data` has `needed` and `limit` in tokens."""

    code = "prompt_too_long"


class RequestEnded(LLMKernelError):
    """A request that was taken and did not finish.

    `partial` is the `Generation` delivered so far, or None.
    """

    code = "request_ended"
    partial: Any = None


class RequestCancelled(RequestEnded):
    """The request was cancelled by its sender, by a stop or by a drain."""

    code = "cancelled"


class RequestTimedOut(RequestCancelled, TimeoutError):
    """The request was cancelled because the `timeout` of its sender was over."""

    code = "timed_out"


class SlowConsumer(RequestEnded):
    """The reader gave no credit for too long, so its stream was cut."""

    code = "slow_consumer"


class DeviceOutOfMemory(RequestEnded):
    """The device had no room for the step that this request was in."""

    code = "device_out_of_memory"


class NumericalError(RequestEnded):
    """The model produced NaN or no finite logit for this request."""

    code = "numerical_error"


class StepFailed(RequestEnded):
    """The step that this request was in raised; other requests go on."""

    code = "step_failed"


class EngineDied(RequestEnded):
    """The decode loop ended; the worker is leaving."""

    code = "engine_died"


class Unavailable(LLMKernelError):
    """Not now; nothing was started, and trying again later may work."""

    code = "unavailable"


class Overloaded(Unavailable):
    """The queue is full."""

    code = "overloaded"


class Draining(Unavailable):
    """The worker is stopping and takes no new work."""

    code = "draining"


class NotReady(Unavailable):
    """The model is still loading."""

    code = "not_ready"


class ConnectionProblem(LLMKernelError):
    """Something between this process and a worker."""

    code = "connection_problem"


class WorkerNotFound(ConnectionProblem):
    """No worker of that name runs."""

    code = "worker_not_found"


class WorkerDied(ConnectionProblem, RequestEnded):
    """The worker was there and is gone; `data["tokens_delivered"]` counts what arrived."""

    code = "worker_died"


class WorkerUnresponsive(ConnectionProblem, RequestEnded):
    """The worker exists and did not answer in time."""

    code = "worker_unresponsive"


class NotAuthorized(ConnectionProblem):
    """The worker does not know this client key."""

    code = "not_authorized"


class ProtocolMismatch(ConnectionProblem):
    """The two sides speak different versions of the protocol."""

    code = "protocol_mismatch"


class StartFailed(LLMKernelError):
    """A worker could not be started."""

    code = "start_failed"


class ModelNotFound(StartFailed):
    """There is no such folder, and the hub knows no such id or revision."""

    code = "model_not_found"


class ModelGated(StartFailed):
    """The hub wants a licence accepted or a token that may read the model."""

    code = "model_gated"


class HubUnreachable(StartFailed):
    """The hub cannot be reached and the files are not in the cache."""

    code = "hub_unreachable"


class NotEnoughMemory(StartFailed):
    """The model does not fit: `data` has `needed` and `free` in bytes."""

    code = "not_enough_memory"


class UnsupportedModel(StartFailed):
    """An architecture or a setting outside the supported list."""

    code = "unsupported_model"


class UnsafeCheckpoint(StartFailed):
    """Pickled weights, or code in the repository that was not asked for."""

    code = "unsafe_checkpoint"


class BrokenCheckpoint(StartFailed):
    """A shard is missing, torn or does not match its index."""

    code = "broken_checkpoint"


class ConfigurationConflict(StartFailed):
    """A worker of that name runs with other settings than the ones asked for."""

    code = "configuration_conflict"


class MissingDependency(StartFailed, ImportError):
    """An optional package is absent; the message names the extra that brings it."""

    code = "missing_dependency"


class Outcome(NamedTuple):
    """One row of the table: what a code is, over HTTP and in a notebook."""

    exception: type[LLMKernelError]
    http_status: int
    hint: str


_LOGS = "`%llm logs NAME` shows what the worker wrote."

TABLE: dict[str, Outcome] = {
    outcome.exception.code: outcome
    for outcome in (
        Outcome(LLMKernelError, 500, _LOGS),
        Outcome(InvalidRequest, 422, "Change the value that the message names."),
        Outcome(UnsupportedField, 422, "Remove the field that the message names."),
        Outcome(
            PromptTooLong,
            422,
            "Shorten the prompt, lower max_tokens or start with a larger context_length or kv_cache.",
        ),
        Outcome(RequestEnded, 500, _LOGS),
        Outcome(RequestCancelled, 499, "The text so far is kept."),
        Outcome(RequestTimedOut, 504, "The text so far is kept. Give a longer timeout."),
        Outcome(SlowConsumer, 408, "Read the stream as it arrives, or call generate instead."),
        Outcome(
            DeviceOutOfMemory,
            507,
            "Send fewer or shorter requests at once, or restart with a smaller kv_cache.",
        ),
        Outcome(
            NumericalError, 424, "Try another dtype; the weights or the prompt overflow this one."
        ),
        Outcome(StepFailed, 500, _LOGS),
        Outcome(EngineDied, 503, "Start the worker again with `%llm start MODEL`. " + _LOGS),
        Outcome(Unavailable, 503, "Try again in a moment."),
        Outcome(Overloaded, 429, "Try again in a moment, or start with a longer queue."),
        Outcome(Draining, 503, "Start the worker again with `%llm start MODEL`."),
        Outcome(
            NotReady, 503, "Wait until the model is loaded; `%llm status` shows how far it is."
        ),
        Outcome(ConnectionProblem, 502, "`llmkernel doctor` checks the runtime folder. " + _LOGS),
        Outcome(
            WorkerNotFound,
            404,
            "`%llm list` shows what runs; `%llm start` starts one; say which by its name.",
        ),
        Outcome(WorkerDied, 502, "Start it again with `%llm start MODEL`. " + _LOGS),
        Outcome(WorkerUnresponsive, 504, _LOGS),
        Outcome(NotAuthorized, 403, "Connect with the connection file of this worker."),
        Outcome(
            ProtocolMismatch,
            426,
            "Install the same llmkernel on both sides, then start the worker again.",
        ),
        Outcome(StartFailed, 500, _LOGS),
        Outcome(ModelNotFound, 404, "Check the spelling; a local folder must hold config.json."),
        Outcome(ModelGated, 403, "Accept the licence on the hub and set HF_TOKEN."),
        Outcome(
            HubUnreachable,
            503,
            "Check the network, or give a local folder. The environment variable HF_ENDPOINT names "
            "another hub; HF_HUB_OFFLINE=1 asks none.",
        ),
        Outcome(
            NotEnoughMemory, 507, "Use quantization='nf4', a smaller kv_cache or a smaller model."
        ),
        Outcome(UnsupportedModel, 422, "docs/models.md lists what is supported."),
        Outcome(UnsafeCheckpoint, 422, "Use safetensors weights of a supported family."),
        Outcome(
            BrokenCheckpoint,
            422,
            "Compare the files with the original model's, or download them again.",
        ),
        Outcome(
            ConfigurationConflict, 409, "Choose another name, or stop the running worker first."
        ),
        Outcome(MissingDependency, 501, "Install the extra that the message names."),
    )
}


def from_code(code: str, message: str, data: dict[str, Any] | None = None) -> LLMKernelError:
    """The exception for a code off the wire; an unknown code becomes the root class."""
    outcome = TABLE.get(code)
    cls = outcome.exception if outcome else LLMKernelError
    return cls(message, **(data or {}))


def missing(package: str, extra: str) -> MissingDependency:
    """The error for an absent optional `package`, naming the `extra` that brings it."""
    return MissingDependency(
        f"{package} is not installed. Install it with: pip install 'llmkernel[{extra}]'",
        package=package,
        extra=extra,
    )
