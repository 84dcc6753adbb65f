"""What a client can do, written once.

Every coroutine here waits for nothing but an inbox (see calls.py): with a SyncInbox it
runs through in the caller's thread, with an AsyncInbox it suspends the caller's task.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable
from os import PathLike
from typing import Any, TypeVar

import msgspec

from llmkernel import protocol
from llmkernel.client import mapping, questions
from llmkernel.client.calls import Call, InboxMaker, Question
from llmkernel.client.checkpoint import Checkpoint
from llmkernel.client.generation import Generation, Piece, Score
from llmkernel.client.link import Link
from llmkernel.client.questions import Messages, Prompt
from llmkernel.client.reading import Reading
from llmkernel.client.templates import Template
from llmkernel.client.terms import OWN, Terms
from llmkernel.errors import (
    InvalidRequest,
    LLMKernelError,
    NotReady,
    WorkerDied,
    WorkerUnresponsive,
    from_code,
)
from llmkernel.params import SamplingParams

A = TypeVar("A", bound=protocol.Tokens | protocol.Text | protocol.StatusReport | protocol.Stopping)

STATUS_SECONDS = 15.0
TEXT_SECONDS = 60.0
STOP_SECONDS = 40.0
_POLL_SECONDS = 0.05
_MOST_IN_FLIGHT = 256


class Core:
    """Everything that both faces of a client do. `make_inbox` decides how it waits."""

    def __init__(self, link: Link, make_inbox: InboxMaker, terms: Terms = OWN) -> None:
        self.link = link
        self._make_inbox = make_inbox
        self._terms = terms._asdict()

    def read(
        self, submit: protocol.Submit, timeout: float | None, *, stream: bool = True
    ) -> Reading:
        """Send a request and return what reads its answer."""
        # log-probabilities of a long answer would not fit into one message
        stream = stream or submit.params.logprobs is not None
        submit = msgspec.structs.replace(submit, stream=stream, **self._terms)
        return Reading(self.link, submit, self._make_inbox(), questions.seconds(timeout))

    async def ask(self, question: Question, kind: type[A], timeout: float) -> A:
        """The one answer to a question.

        Raises WorkerUnresponsive if it does not come within `timeout` seconds, else what
        the worker or the connection says is wrong.
        """
        inbox = self._make_inbox()
        call = Call(question, inbox)
        try:
            self.link.start(call)
            await inbox.get(timeout)
        finally:
            if call.outcome is None:
                self.link.cancel(call)
        match call.outcome:
            case LLMKernelError() as error:
                raise error
            case protocol.Refused() as refused:
                raise from_code(refused.code, refused.message, refused.data)
            case answer if isinstance(answer, kind):
                return answer
        raise WorkerUnresponsive(
            f"The worker {self.link.connection.name!r} has not answered within {timeout:g} s."
        )

    async def generate(self, submit: protocol.Submit, timeout: float | None) -> Generation:
        """The whole answer to a request."""
        return await self.read(submit, timeout, stream=False).all()

    async def map(
        self,
        values: Iterable[Any],
        params: SamplingParams,
        *,
        progress: mapping.Progress,
        concurrency: int | None,
        timeout: float | None,
        add_special_tokens: bool,
        template: str | None,
        checkpoint: str | PathLike[str] | None,
    ) -> Any:
        """The answers to many prompts; see Client.map."""
        items = mapping.prompts(values, template=template is not None)
        if concurrency is not None and concurrency < 1:
            raise InvalidRequest(f"concurrency must be at least 1, and was {concurrency}.")

        in_flight, ask = await self._how_to_map(concurrency, template, params, add_special_tokens)
        with contextlib.ExitStack() as stack:
            kept = None if checkpoint is None else stack.enter_context(Checkpoint(checkpoint))
            bar = stack.enter_context(
                contextlib.closing(mapping.bar(items, shown=progress is True))
            )
            batch = mapping.Batch(
                self.link,
                self._make_inbox(),
                items,
                ask,
                concurrency=in_flight,
                timeout=questions.seconds(timeout),
                on_result=progress if callable(progress) else bar.step,
                on_known=progress if callable(progress) else lambda _: bar.known(),
                checkpoint=kept,
            )
            return mapping.like(values, await batch.run())

    async def _how_to_map(
        self,
        concurrency: int | None,
        template: str | None,
        params: SamplingParams,
        add_special_tokens: bool,
    ) -> tuple[int, Callable[[Any], protocol.Submit]]:
        """How many are in flight, and what makes the request for an item.

        By default twice what decodes at a time: the next one is there when a row becomes free.
        """
        form = None if template is None else Template(template)
        model = None
        if form is not None or concurrency is None:
            model = (await self.status()).model
            if model is None:
                raise NotReady("The model is still loading.")

        def ask(item: Any) -> protocol.Submit:
            if form is not None:
                text = form.fill(item)
                chats = model is not None and model.has_chat_template
                item = questions.turns(text) if chats else text
            submit = questions.any_prompt(item, params, add_special_tokens=add_special_tokens)
            return msgspec.structs.replace(submit, **self._terms)

        usual = 2 * model.max_concurrent if model is not None else _MOST_IN_FLIGHT
        return concurrency or max(1, min(usual, _MOST_IN_FLIGHT)), ask

    async def score(
        self, text: Prompt, given: Prompt | None, top: int, timeout: float | None
    ) -> Score:
        """The log-probabilities of a text; see Client.score."""
        params = SamplingParams.build(max_tokens=0, prompt_logprobs=top)
        skip = 0
        if given is not None:
            before = await self._token_ids(given, add_special_tokens=True)
            text = before + await self._token_ids(text, add_special_tokens=False)
            skip = len(before)
        submit = questions.completion(text, params)
        answer = await self.generate(submit, timeout)
        logprobs = (answer.prompt_logprobs or [])[skip:]
        return Score(logprobs=logprobs, usage=answer.usage, timings=answer.timings)

    async def _token_ids(self, prompt: Prompt, *, add_special_tokens: bool) -> list[int]:
        if isinstance(prompt, str):
            return await self.tokenize(prompt, add_special_tokens=add_special_tokens)
        return questions.token_ids(prompt)

    async def tokenize(self, text: str | Messages, *, add_special_tokens: bool) -> list[int]:
        """The token ids of a text or a conversation."""
        return (await self.tokens(text, add_special_tokens, texts=False)).token_ids

    async def pieces(self, text: str | Messages, *, add_special_tokens: bool) -> list[Piece]:
        """The tokens of a text or a conversation, each with its text."""
        tokens = await self.tokens(text, add_special_tokens)
        return [Piece(*pair) for pair in zip(tokens.token_ids, tokens.texts, strict=True)]

    async def tokens(
        self, text: str | Messages, add_special_tokens: bool, *, texts: bool = True
    ) -> protocol.Tokens:
        """The worker's own answer: ids beside each other, and with `texts` the text of each.

        Texts are most of a long answer, and what it takes to read it holds up the loop.
        """
        question = questions.text_question(text, add_special_tokens=add_special_tokens, texts=texts)
        return await self.ask(question, protocol.Tokens, TEXT_SECONDS)

    async def detokenize(self, token_ids: Iterable[int], *, skip_special_tokens: bool) -> str:
        """The text of token ids."""
        question = protocol.Detokenize(
            id=0,
            token_ids=questions.token_ids(token_ids),
            skip_special_tokens=skip_special_tokens,
        )
        return (await self.ask(question, protocol.Text, TEXT_SECONDS)).text

    async def status(self, *, steps: bool = False) -> protocol.StatusReport:
        """What the worker says of itself."""
        question = protocol.GetStatus(id=0, steps=steps)
        return await self.ask(question, protocol.StatusReport, STATUS_SECONDS)

    async def stop(self, *, drain: bool, timeout: float) -> None:
        """End the worker and wait until its process is gone."""
        deadline = time.monotonic() + timeout
        try:
            await self.ask(protocol.Stop(id=0, drain=drain), protocol.Stopping, STATUS_SECONDS)
        except WorkerDied:
            return
        connection = self.link.connection
        clock = self._make_inbox()
        while connection.alive:
            if time.monotonic() > deadline:
                raise WorkerUnresponsive(
                    f"The worker {connection.name!r} (process {connection.pid}) has not left "
                    f"within {timeout:g} s. End it with: llmkernel stop --kill {connection.name}"
                )
            await clock.get(_POLL_SECONDS)
