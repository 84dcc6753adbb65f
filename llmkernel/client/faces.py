"""The two faces of a client: `Client` blocks, `Client.aio` awaits. What they do is in core.py."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from os import PathLike
from types import TracebackType
from typing import Any, Self

from llmkernel.client import questions
from llmkernel.client.calls import AsyncInbox, SyncInbox, run
from llmkernel.client.core import STOP_SECONDS, Core
from llmkernel.client.generation import Generation, Piece, Score
from llmkernel.client.link import Link
from llmkernel.client.mapping import Progress
from llmkernel.client.questions import Messages, Prompt
from llmkernel.client.streams import AsyncStream, Stream
from llmkernel.client.terms import OWN, Terms
from llmkernel.connection import Connection
from llmkernel.params import SamplingParams
from llmkernel.protocol import StatusReport


class _Face:
    """What both faces have."""

    def __init__(self, link: Link) -> None:
        self._link = link

    @property
    def name(self) -> str:
        """The name of the worker."""
        return self._link.connection.name

    @property
    def connection(self) -> Connection:
        """Where the worker is. It changes when the worker has been started again."""
        return self._link.connection

    def __repr__(self) -> str:
        connection = self._link.connection
        return (
            f"{type(self).__name__}(name={connection.name!r}, model={connection.model!r}, "
            f"pid={connection.pid})"
        )


def on_terms(client: AsyncClient, terms: Terms) -> AsyncClient:
    """The same client, for requests that these terms hold for."""
    return AsyncClient(client._link, terms)


class Client(_Face):
    """A worker, for code that waits.

    Methods may be called from any thread, many at once, and inside a running event loop
    (which then stands still; use `aio` there). Sampling parameters are keywords with the
    names of SamplingParams, or a SamplingParams in `params`, or both.

    Any call may raise WorkerNotFound, WorkerDied, WorkerUnresponsive, NotAuthorized or
    ProtocolMismatch. Requests for text also raise InvalidRequest, Overloaded, NotReady or
    Draining before they start, and RequestEnded, with the answer so far in `partial`, if
    they break. Ctrl-C cancels the request in the worker and raises KeyboardInterrupt with
    the answer so far in `partial`. `timeout` in seconds, off by default, cancels the
    request and raises RequestTimedOut.
    """

    def __init__(self, connection: Connection) -> None:
        super().__init__(Link(connection))
        self._core = Core(self._link, SyncInbox)
        self._aio = AsyncClient(self._link)

    @property
    def aio(self) -> AsyncClient:
        """The same client for code that awaits, in any event loop."""
        return self._aio

    def generate(
        self,
        prompt: Prompt,
        params: SamplingParams | None = None,
        *,
        add_special_tokens: bool = True,
        timeout: float | None = None,
        **sampling: Any,
    ) -> Generation:
        """The continuation of `prompt`: a text, which is tokenised as it is, or token ids."""
        chosen = questions.sampling(params, sampling)
        submit = questions.completion(prompt, chosen, add_special_tokens=add_special_tokens)
        return run(self._core.generate(submit, timeout))

    def stream(
        self,
        prompt: Prompt,
        params: SamplingParams | None = None,
        *,
        add_special_tokens: bool = True,
        timeout: float | None = None,
        **sampling: Any,
    ) -> Stream:
        """The same, piece by piece: iterate over it. Leaving the loop early cancels the rest.

        Several answers (n) come interleaved, told apart by `index`. With best_of each
        answer comes whole, at the end.
        """
        chosen = questions.sampling(params, sampling)
        submit = questions.completion(prompt, chosen, add_special_tokens=add_special_tokens)
        return Stream(self._core.read(submit, timeout))

    def chat(
        self,
        messages: Messages,
        params: SamplingParams | None = None,
        *,
        continue_final_message: bool = False,
        timeout: float | None = None,
        **sampling: Any,
    ) -> Generation:
        """The next turn of a conversation, through the model's chat template.

        `messages` are {"role": ..., "content": ...} turns; a text is one turn of the user.
        With `continue_final_message` the answer goes on inside the last turn.
        """
        chosen = questions.sampling(params, sampling)
        submit = questions.conversation(
            messages, chosen, continue_final_message=continue_final_message
        )
        return run(self._core.generate(submit, timeout))

    def stream_chat(
        self,
        messages: Messages,
        params: SamplingParams | None = None,
        *,
        continue_final_message: bool = False,
        timeout: float | None = None,
        **sampling: Any,
    ) -> Stream:
        """`chat`, piece by piece."""
        chosen = questions.sampling(params, sampling)
        submit = questions.conversation(
            messages, chosen, continue_final_message=continue_final_message
        )
        return Stream(self._core.read(submit, timeout))

    def map(
        self,
        prompts: Iterable[Any],
        params: SamplingParams | None = None,
        *,
        progress: Progress = True,
        concurrency: int | None = None,
        timeout: float | None = None,
        add_special_tokens: bool = True,
        template: str | None = None,
        checkpoint: str | PathLike[str] | None = None,
        **sampling: Any,
    ) -> Any:
        """The answers to many prompts, in their order; the worker decodes them in one batch.

        A prompt is a text, token ids or a conversation. A prompt that fails has its
        exception in its place; one that the worker has no room for yet is sent again.
        Returns a list, or a pandas Series with the same index for a Series, and for the rows
        of a data frame, which need a `template` ({{ value.column }}). An answer is a `str`, so
        `frame["answer"] = llm.map(frame["text"])` is a column of text. `concurrency`
        is how many are in flight (default: twice the worker's batch), `timeout` is for
        each; `progress` may be a function that is called with each result as it comes. An interrupt
        cancels all, and its `partial` is the list so far.

        With a `template` such as "Summarise: {{ value }}" an item may be anything, and the text
        with the item in it is a turn of the user ({{ value.name }} is a part of an item). A
        model without a chat template gets it as it is. A `checkpoint` is a file that keeps
        each answer as it comes: the same call again asks only for what is not in it yet.
        """
        return run(
            self._core.map(
                prompts,
                questions.sampling(params, sampling),
                progress=progress,
                concurrency=concurrency,
                timeout=timeout,
                add_special_tokens=add_special_tokens,
                template=template,
                checkpoint=checkpoint,
            )
        )

    def score(
        self,
        text: Prompt,
        *,
        given: Prompt | None = None,
        top: int = 0,
        timeout: float | None = None,
    ) -> Score:
        """The log-probability of each token of `text` under the model's own logits.

        With `given` only the tokens of `text` after it are scored; the two are tokenised
        apart. `top` likeliest alternatives come with each token.
        """
        return run(self._core.score(text, given, top, timeout))

    def tokenize(self, text: str | Messages, *, add_special_tokens: bool = True) -> list[int]:
        """The token ids of a text, or of a conversation through the chat template."""
        return run(self._core.tokenize(text, add_special_tokens=add_special_tokens))

    def pieces(self, text: str | Messages, *, add_special_tokens: bool = True) -> list[Piece]:
        """The same tokens, each with the text that it stands for."""
        return run(self._core.pieces(text, add_special_tokens=add_special_tokens))

    def detokenize(self, token_ids: Sequence[int], *, skip_special_tokens: bool = False) -> str:
        """The text of token ids."""
        return run(self._core.detokenize(token_ids, skip_special_tokens=skip_special_tokens))

    def status(self, *, steps: bool = False) -> StatusReport:
        """What the worker holds, does and took; with `steps`, how its steps went, too."""
        return run(self._core.status(steps=steps))

    def stop(self, *, drain: bool = True, timeout: float = STOP_SECONDS) -> None:
        """End the worker, for everybody, and wait until it is gone.

        With `drain` it finishes what runs first, 30 s at most. Raises WorkerUnresponsive
        if it is still there after `timeout` seconds.
        """
        run(self._core.stop(drain=drain, timeout=timeout))

    def close(self) -> None:
        """End the connection, not the worker; requests in flight are cancelled."""
        self._link.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class AsyncClient(_Face):
    """A worker, for code that awaits: `Client.aio`. Each method is that of Client.

    A cancelled task cancels its request in the worker; the CancelledError then has the
    answer so far in `partial`. Works in any asyncio loop, and in several at once.
    """

    def __init__(self, link: Link, terms: Terms = OWN) -> None:
        super().__init__(link)
        self._core = Core(link, AsyncInbox, terms)

    async def generate(
        self,
        prompt: Prompt,
        params: SamplingParams | None = None,
        *,
        add_special_tokens: bool = True,
        timeout: float | None = None,
        **sampling: Any,
    ) -> Generation:
        """See Client.generate."""
        chosen = questions.sampling(params, sampling)
        submit = questions.completion(prompt, chosen, add_special_tokens=add_special_tokens)
        return await self._core.generate(submit, timeout)

    def stream(
        self,
        prompt: Prompt,
        params: SamplingParams | None = None,
        *,
        add_special_tokens: bool = True,
        timeout: float | None = None,
        **sampling: Any,
    ) -> AsyncStream:
        """See Client.stream."""
        chosen = questions.sampling(params, sampling)
        submit = questions.completion(prompt, chosen, add_special_tokens=add_special_tokens)
        return AsyncStream(self._core.read(submit, timeout))

    async def chat(
        self,
        messages: Messages,
        params: SamplingParams | None = None,
        *,
        continue_final_message: bool = False,
        timeout: float | None = None,
        **sampling: Any,
    ) -> Generation:
        """See Client.chat."""
        chosen = questions.sampling(params, sampling)
        submit = questions.conversation(
            messages, chosen, continue_final_message=continue_final_message
        )
        return await self._core.generate(submit, timeout)

    def stream_chat(
        self,
        messages: Messages,
        params: SamplingParams | None = None,
        *,
        continue_final_message: bool = False,
        timeout: float | None = None,
        **sampling: Any,
    ) -> AsyncStream:
        """See Client.stream_chat."""
        chosen = questions.sampling(params, sampling)
        submit = questions.conversation(
            messages, chosen, continue_final_message=continue_final_message
        )
        return AsyncStream(self._core.read(submit, timeout))

    async def map(
        self,
        prompts: Iterable[Any],
        params: SamplingParams | None = None,
        *,
        progress: Progress = True,
        concurrency: int | None = None,
        timeout: float | None = None,
        add_special_tokens: bool = True,
        template: str | None = None,
        checkpoint: str | PathLike[str] | None = None,
        **sampling: Any,
    ) -> Any:
        """See Client.map."""
        return await self._core.map(
            prompts,
            questions.sampling(params, sampling),
            progress=progress,
            concurrency=concurrency,
            timeout=timeout,
            add_special_tokens=add_special_tokens,
            template=template,
            checkpoint=checkpoint,
        )

    async def score(
        self,
        text: Prompt,
        *,
        given: Prompt | None = None,
        top: int = 0,
        timeout: float | None = None,
    ) -> Score:
        """See Client.score."""
        return await self._core.score(text, given, top, timeout)

    async def tokenize(self, text: str | Messages, *, add_special_tokens: bool = True) -> list[int]:
        """See Client.tokenize."""
        return await self._core.tokenize(text, add_special_tokens=add_special_tokens)

    async def pieces(self, text: str | Messages, *, add_special_tokens: bool = True) -> list[Piece]:
        """See Client.pieces."""
        return await self._core.pieces(text, add_special_tokens=add_special_tokens)

    async def detokenize(
        self, token_ids: Sequence[int], *, skip_special_tokens: bool = False
    ) -> str:
        """See Client.detokenize."""
        return await self._core.detokenize(token_ids, skip_special_tokens=skip_special_tokens)

    async def status(self, *, steps: bool = False) -> StatusReport:
        """See Client.status."""
        return await self._core.status(steps=steps)

    async def stop(self, *, drain: bool = True, timeout: float = STOP_SECONDS) -> None:
        """See Client.stop."""
        await self._core.stop(drain=drain, timeout=timeout)

    async def close(self) -> None:
        """See Client.close."""
        self._link.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._link.close()
