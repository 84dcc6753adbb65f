"""Errors: what each means and what to do. Hints come from `llmkernel.errors.TABLE`."""

from __future__ import annotations

import re

from demo_data.base import Topic, topic
from llmkernel.errors import TABLE

_MEANS: dict[str, tuple[str, str]] = {
    "WorkerNotFound": (
        "no worker of that name runs",
        """
        it says that no worker [runs|was found|is running]
        there is no worker
        no such worker
        it cannot find [a|the|my] worker
        """,
    ),
    "WorkerDied": (
        "the worker was there and is gone, for example because it was killed or crashed",
        """
        the worker [crashed|died|disappeared|is gone|was killed]
        my worker died in the middle of an answer
        the connection broke because the worker is dead
        """,
    ),
    "WorkerUnresponsive": (
        "the worker exists and did not answer in time",
        """
        the worker [does not answer|hangs|is stuck|does not respond|is frozen]
        no answer from the worker
        it times out waiting for the worker
        """,
    ),
    "NotAuthorized": (
        "the worker does not know this client key",
        """
        the worker [refuses my key|does not know my key]
        I am not allowed to connect
        access denied by the worker
        """,
    ),
    "ProtocolMismatch": (
        "the two sides speak different versions of the protocol",
        """
        the versions do not match
        client and worker have different versions
        I updated llmkernel and now it does not connect
        """,
    ),
    "PromptTooLong": (
        "the prompt and the answer do not fit into the context length; the message has both numbers",
        """
        my prompt is too long
        the prompt does not fit
        the text is too long for the model
        is a long prompt cut
        """,
    ),
    "Overloaded": (
        "the queue of the worker is full",
        """
        the queue is full
        the worker has too much to do
        too many requests are waiting
        """,
    ),
    "Draining": (
        "the worker is stopping and takes no new work",
        """
        the worker is [stopping|draining|going down]
        it says the worker takes no new work
        """,
    ),
    "NotReady": (
        "the model is still loading",
        """
        the model is not ready
        the model is still loading, what do I do
        it says that it is still loading
        """,
    ),
    "SlowConsumer": (
        "the reader stopped reading, so its stream was cut",
        """
        my stream was cut because I read too slowly
        the stream ended with slow consumer
        """,
    ),
    "DeviceOutOfMemory": (
        "the device had no room for the step",
        """
        the GPU ran out of memory during [a request|generation]
        out of memory while generating
        """,
    ),
    "NumericalError": (
        "the model produced NaN for this request",
        """
        the model produced NaN
        I get NaN
        a request failed with not a number
        """,
    ),
    "StepFailed": (
        "the step that the request was in raised an error; other requests go on",
        """
        a step failed
        it says the step failed
        """,
    ),
    "EngineDied": (
        "the decode loop ended and the worker is leaving",
        """
        the engine died
        the decode loop is gone
        """,
    ),
    "RequestCancelled": (
        "the request was cancelled by its sender, by a stop or by a drain",
        """
        my request was cancelled
        who cancelled my request
        """,
    ),
    "RequestTimedOut": (
        "the request was cancelled because the timeout of its sender was over",
        """
        my request [timed out|ran into the timeout]
        the timeout [is over|was too short|passed]
        how do I [set|use|raise] a timeout
        give a request more time
        it took longer than the timeout
        """,
    ),
    "InvalidRequest": (
        "a value, a name or a combination cannot be served",
        """
        a parameter is [wrong|out of range|invalid|refused]
        it says there is no parameter of that name
        my value was refused
        I misspelled a parameter
        """,
    ),
    "UnsupportedField": (
        "a field that other servers know is refused here rather than ignored",
        """
        a field is not supported
        it says that a field is unsupported
        are unknown parameters ignored
        """,
    ),
    "ModelNotFound": (
        "there is no such folder, and the hub knows no such id or revision",
        """
        the model was not found
        it cannot find the model
        the hub does not know the model
        I misspelled the model name
        """,
    ),
    "ModelGated": (
        "the hub wants a licence accepted or a token that may read the model",
        """
        the model is gated
        the hub says I may not read this model
        access to the model is restricted
        """,
    ),
    "HubUnreachable": (
        "the hub cannot be reached and the files are not in the cache",
        """
        the hub cannot be reached
        the download fails because there is no network
        it cannot reach Hugging Face
        """,
    ),
    "NotEnoughMemory": (
        "the model does not fit; the message has the needed and the free bytes",
        """
        there is not enough memory to load the model
        the model does not fit when I start it
        starting fails for lack of memory
        """,
    ),
    "UnsupportedModel": (
        "the architecture or a setting is outside the supported list",
        """
        the architecture is not supported
        my model is refused by name
        """,
    ),
    "UnsafeCheckpoint": (
        "the weights are pickled, or the repository wants to run its own code",
        """
        the checkpoint is refused because it is a pickle
        it says the checkpoint is unsafe
        """,
    ),
    "BrokenCheckpoint": (
        "a shard is missing, torn or does not match its index",
        """
        a shard is [broken|missing|torn]
        the weights are damaged
        the download is incomplete
        """,
    ),
    "ConfigurationConflict": (
        "a worker of that name runs with other settings than the ones asked for",
        """
        a worker of that name runs with other settings
        it says the settings conflict
        I started the same name with another model
        """,
    ),
    "MissingDependency": (
        "an optional package is absent; the message names the extra that brings it",
        """
        a package is missing
        it says that an optional package is absent
        ImportError when I start a worker
        """,
    ),
}

_ABOUT = """
<whatis> {name}
<whatis> {words}
what does {name} mean
what does {name} mean and what do I do
<whatdoes> the error {name} mean
I get {name}
I [got|get|see|have] [a|an|the error|the exception] {name} [error|], what [now|do I do|does it mean]
what do I do [about|when I get|when I see|with|against] {name}
<how> fix {name}
<how> [solve|handle|repair|get rid of|cure] {name}
why do I get {name}
why [did|does] my cell [raise|fail with|end with|show] {name}
my cell raised {name}
{name}
{name}: what to do
help, {name}
llmkernel.errors.{name}
"""
_WORDS = re.compile(r"(?<=[a-z])(?=[A-Z])")


def _error_topic(name: str, means: str, symptoms: str) -> Topic:
    outcome = next(row for row in TABLE.values() if row.exception.__name__ == name)
    words = _WORDS.sub(" ", name).lower()
    questions = _ABOUT.format(name=name, words=words) + symptoms
    answer = f"{name} means: {means}. {outcome.hint}"
    brief = f"{name}: {outcome.hint}"
    return topic(f"error_{name}", questions, answer, f"{name}; {outcome.hint[:30]}", brief)


TOPICS = [_error_topic(name, *rest) for name, rest in _MEANS.items()] + [
    topic(
        "errors_list",
        """
        which errors [are there|exist|can happen|can I get]
        list [the|all] [errors|exceptions]
        what exceptions [are there|does llmkernel raise|should I catch]
        <how> catch [errors|all errors|an error] [in Python|]
        what is LLMKernelError
        <how> handle errors in [Python|my code]
        where are the errors defined
        root of the exceptions
        """,
        """All errors are in `llmkernel.errors` under LLMKernelError: InvalidRequest (bad values),
        RequestEnded (it started and broke), Unavailable (not now), ConnectionProblem (no worker to
        talk to) and StartFailed (a worker could not start).""",
        "LLMKernelError",
    ),
    topic(
        "start_failed",
        """
        <whatis> StartFailed
        what does StartFailed mean
        the worker does not start
        starting fails
        [the start|%llm start|llmkernel start] failed
        why does my worker not start
        what can go wrong at the start
        """,
        """StartFailed means: a worker could not be started. The message names the cause and the
        cure, and `llmkernel logs` shows what the worker wrote.""",
        "StartFailed; logs",
    ),
    topic(
        "partial",
        """
        <how> get the text that came before an error
        is the partial text lost on an error
        what is error.partial
        what happens to the text when a request fails
        the text before the failure
        """,
        """The exception keeps it: `error.partial` is the Generation that was delivered before the
        failure.""",
        "partial",
    ),
]
