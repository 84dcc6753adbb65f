"""An answer that is read while it is written."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from llmkernel.client.calls import run
from llmkernel.client.generation import Delta, Generation
from llmkernel.client.reading import Reading


class _Stream:
    """What both faces of a stream have.

    A stream that nobody holds any more is cancelled: `break` out of its loop is enough.
    """

    def __init__(self, reading: Reading) -> None:
        self._reading = reading

    @property
    def generation(self) -> Generation:
        """The answer as far as it has been read; complete once the loop over it has ended.

        Until then its finish reason is "cancelled", as if it were ended here.
        """
        return self._reading.request.generation

    @property
    def queue_position(self) -> int | None:
        """Requests that were ahead of it when the worker took it; None until then."""
        return self._reading.request.call.position

    @property
    def prompt_tokens(self) -> int | None:
        """Tokens of the prompt; None until the worker took it, which is before the first Delta."""
        return self._reading.request.call.prompt_tokens

    def close(self) -> None:
        """The rest is not wanted: cancel it in the worker. Again is no error."""
        self._reading.close()

    def __repr__(self) -> str:
        request = self._reading.request
        ended = request.over or request.call.cancelled
        said = repr(self.generation) if ended else f"{self.generation.text!r}, being written"
        return f"{type(self).__name__}({said})"


class Stream(_Stream):
    """Iterates over the Deltas of an answer.

    Use it in a for loop, or in a `with` statement that ends it early.
    """

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Delta:
        delta = run(self._reading.next())
        if delta is None:
            raise StopIteration
        return delta

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class AsyncStream(_Stream):
    """Iterates over the Deltas of an answer.

    Use it in an async for loop, or in an `async with` statement that ends it early.
    """

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Delta:
        delta = await self._reading.next()
        if delta is None:
            raise StopAsyncIteration
        return delta

    async def aclose(self) -> None:
        """Close it, and wait a moment for the worker to say how far it had come: `generation`."""
        await self._reading.leave()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
