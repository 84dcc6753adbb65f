"""One generation of a cell, from the question to what is left of it, however it ends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmkernel.errors import LLMKernelError
from llmkernel.notebook import output, publisher
from llmkernel.notebook.rendering import (
    Shown,
    answers,
    code_of,
    metadata,
    no_code,
    notes,
    parse_json,
)
from llmkernel.notebook.request import Request

if TYPE_CHECKING:
    from llmkernel.client import Client
    from llmkernel.client.generation import Generation
    from llmkernel.client.streams import Stream

_NO_CODE = "no code block in the answer: the new cell has all of it"


class Asked:
    """A request that was sent, and the output that shows its answer.

    Raises what the client raises where it cannot be sent.
    """

    def __init__(self, shell: Any, client: Client, request: Request) -> None:
        text = request.filled(shell.user_ns)
        self.request = request
        self.worker = client.name
        self.timed = publisher.mode(shell) != "once"
        self.stream = begin(client, request, text)
        self.output = _output(shell, request)
        if request.options.get("background"):
            self.output.begin()

    @property
    def text(self) -> str:
        """What has come so far, of all answers."""
        return "".join(sample.text for sample in self.stream.generation.samples)

    def read(self) -> Generation:
        """Show the answer as it comes; returns it whole.

        Whatever else happens, what has come stays on the screen: the request is cancelled
        and the KeyboardInterrupt raised again, or the error that ended it is raised.
        """
        try:
            with self.stream:
                for delta in self.stream:
                    self.output.add(delta.index, delta.text)
        except KeyboardInterrupt:
            self._finish("interrupted", self.request.remark)
            raise
        except LLMKernelError as error:
            # in the background nobody sees the exception before they ask for the result
            alone = self.request.options.get("background")
            ended = f"{type(error).__name__}: {error}" if alone else "broken off"
            self._finish(ended, self.request.remark_of_failure)
            raise
        except BaseException:  # leave no thread behind, whatever it is
            self.output.abandon()
            raise
        try:
            self._finish("", self.request.remark)
        except BaseException:
            self.output.abandon()
            raise
        return self.stream.generation

    def _finish(self, ended: str, remark: str) -> None:
        answer = self.stream.generation
        if ended and not self.text and not self.request.options.get("background"):
            self.output.abandon()
            return
        texts = [sample.text for sample in answer.samples]
        logprobs = [sample.logprobs for sample in answer.samples]
        stopped = [isinstance(sample.stop_reason, str) for sample in answer.samples]
        body = answers(texts, self.request.form, logprobs, stopped)
        facts = metadata(self.worker, self.request.given, answer)
        if self.request.form == "code" and not ended and no_code(texts):
            remark = _NO_CODE
        under = notes(answer, timed=self.timed, ended=ended, remark=remark)
        self.output.finish(Shown(body, under, facts))


def _output(shell: Any, request: Request) -> output.Output:
    live = publisher.mode(shell) == "live"
    if request.options.get("quiet") or (request.options.get("background") and not live):
        return output.Output()  # in the background text would come into whatever cell runs then
    return output.make(shell, request.form, request.params.n)


def begin(client: Client, request: Request, text: str) -> Stream:
    """Send a request for a filled text."""
    prompt = request.prompt(text, chat=is_chat(client, request))
    if isinstance(prompt, str):
        return client.stream(prompt, request.params)
    return client.stream_chat(prompt, request.params)


def is_chat(client: Client, request: Request) -> bool:
    """Whether the prompt is a turn: unless it is raw, or the model knows no conversations.

    A system text asks for a conversation, so the worker says where there can be none.
    """
    if request.options.get("raw"):
        return False
    if request.history is not None or request.options.get("system") is not None:
        return True
    model = client.status().model
    return model is None or model.has_chat_template


def value(request: Request, answer: Generation) -> Any:
    """What the variable of -o gets: the answer, or what it says where that is JSON.

    Raises NotJson.
    """
    if request.form != "json":
        return answer
    parsed = [parse_json(sample.text) for sample in answer.samples]
    return parsed if len(parsed) > 1 else parsed[0]


def hand_over_code(shell: Any, answer: Generation) -> None:
    """Put the code of an answer into a new cell."""
    shell.set_next_input(code_of(answer.text), replace=False)
