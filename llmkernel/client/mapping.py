"""Many prompts at once: as many in flight as the worker can use, answers in order."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sized
from typing import Any, Protocol

from llmkernel import protocol
from llmkernel.client.calls import Arrival, Inbox
from llmkernel.client.checkpoint import Checkpoint
from llmkernel.client.generation import Generation
from llmkernel.client.link import Link
from llmkernel.client.reading import FAREWELL_SECONDS, InFlight, farewell
from llmkernel.errors import InvalidRequest, LLMKernelError, Overloaded

Result = Generation | LLMKernelError
Progress = bool | Callable[[Result], None]
"""Whether a bar is shown, or who is told of each result instead."""
_PAUSE_SECONDS = 0.2
"""How long to wait where the worker's queue is full of the requests of others."""


class Batch:
    """The requests of one map.

    `ask(item)` makes the request for one item, or raises why there is none. A failure
    stays in its item's place. Where the worker's queue is full a request is sent again. What a
    `checkpoint` knows is not asked, and what comes is kept there. Each result is told to
    `on_result`, or to `on_known` where it was there before.
    """

    def __init__(
        self,
        link: Link,
        inbox: Inbox,
        items: Iterable[Any],
        ask: Callable[[Any], protocol.Submit],
        *,
        concurrency: int,
        timeout: float | None,
        on_result: Callable[[Result], None],
        on_known: Callable[[Result], None],
        checkpoint: Checkpoint | None = None,
    ) -> None:
        self._checkpoint = checkpoint
        self._link = link
        self._inbox = inbox
        self._items = enumerate(items)
        self._ask = ask
        self._concurrency = concurrency
        self._timeout = timeout
        self._on_result = on_result
        self._on_known = on_known
        self._more = True
        self._again: deque[tuple[int, protocol.Submit]] = deque()
        self._full = False
        self._flying: dict[int, tuple[int, InFlight]] = {}
        self._results: dict[int, Result] = {}

    async def run(self) -> list[Result]:
        """All results in the order of the items.

        An interrupt cancels everything; its `partial` is the list so far, with what had come
        of an answer (finish_reason "cancelled") and None where nothing had.
        """
        try:
            self._fill()
            while self._flying or self._again:
                self._take(await self._inbox.get(self._patience()))
                self._fill()
        except (KeyboardInterrupt, asyncio.CancelledError) as stop:
            await self._stop()
            self._keep_pieces()
            stop.partial = self._so_far()  # type: ignore[union-attr]
            raise
        except BaseException:
            await self._stop()
            raise
        return [self._results[index] for index in range(len(self._results))]

    async def _stop(self) -> None:
        flying = [request for _, request in self._flying.values()]
        await farewell(flying, self._inbox, FAREWELL_SECONDS)

    def _keep_pieces(self) -> None:
        for index, request in self._flying.values():
            piece = request.generation
            if any(sample.token_ids for sample in piece.samples):
                self._results[index] = piece

    def _so_far(self) -> list[Result | None]:
        count = max(self._results, default=-1) + 1
        return [self._results.get(index) for index in range(count)]

    def _fill(self) -> None:
        while len(self._flying) < self._concurrency and not self._full:
            if self._again:
                self._send(*self._again.popleft())
            elif not self._next():
                return

    def _next(self) -> bool:
        item = next(self._items, None) if self._more else None
        if item is None:
            self._more = False
            return False
        index, prompt = item
        try:
            submit = self._ask(prompt)
        except LLMKernelError as error:
            self._settle(index, error)
            return True
        known = self._checkpoint.get(index, submit) if self._checkpoint else None
        if known is not None:
            self._results[index] = known
            self._on_known(known)
        else:
            self._send(index, submit)
        return True

    def _send(self, index: int, submit: protocol.Submit) -> None:
        request = InFlight(self._link, submit, self._inbox, self._timeout)
        self._flying[request.call.id] = (index, request)

    def _patience(self) -> float | None:
        """Seconds to wait for the next arrival before looking around."""
        waits = [left for _, request in self._flying.values() if (left := request.left) is not None]
        if self._full:
            waits.append(_PAUSE_SECONDS)
        return max(0.0, min(waits)) if waits else None

    def _take(self, arrival: Arrival | None) -> None:
        if arrival is None:
            self._full = False
            self._look_at_clock()
            return
        index, request = self._flying.get(arrival.call.id, (-1, None))
        if request is None:
            return
        if arrival.delta is not None:
            request.add(arrival.delta)
            return
        del self._flying[arrival.call.id]
        self._full = False
        try:
            answer = request.result()
        except Overloaded:
            self._full = True
            self._again.append((index, request.submit))
        except LLMKernelError as error:
            self._settle(index, error)
        else:
            if self._checkpoint is not None:
                self._checkpoint.put(index, request.submit, answer)
            self._settle(index, answer)

    def _look_at_clock(self) -> None:
        for _, request in self._flying.values():
            if request.left is not None and request.left <= 0:
                request.time_out()

    def _settle(self, index: int, result: Result) -> None:
        self._results[index] = result
        self._on_result(result)


def prompts(values: Any, *, template: bool) -> Iterable[Any]:
    """The prompts to map over: of a data frame its rows. Raises InvalidRequest for a single one."""
    if _is_frame(values):
        if not template:
            raise InvalidRequest(
                "Of a data frame map needs a column, map(frame['text']), or a template that "
                "puts columns in their places: template='{{ value.text }}'."
            )
        columns = [str(name) for name in values.columns]
        _check_distinct(columns)
        return [dict(zip(columns, row, strict=True)) for row in values.itertuples(index=False)]
    if isinstance(values, (str, bytes, Mapping)) or not isinstance(values, Iterable):
        raise InvalidRequest(
            f"map takes a list of prompts, and got {type(values).__name__}. "
            "For a single prompt call generate."
        )
    return values


def _check_distinct(columns: list[str]) -> None:
    """Names are compared as the text that a template has, to which 1 and "1" are one column."""
    twice = [name for name, count in Counter(columns).items() if count > 1]
    if twice:
        raise InvalidRequest(
            f"The data frame has several columns {twice[0]!r}, so a row has no value of that name. "
            "Rename them, or choose the columns that the template needs."
        )


def like(values: Any, results: list[Result]) -> Any:
    """The results in the container of `values`: a list, or a Series with its index.

    A Series gives a Series, and so does a data frame, with a result for each row.
    """
    pandas = sys.modules.get("pandas")
    if pandas is None or not isinstance(values, pandas.Series | pandas.DataFrame):
        return results
    name = None if _is_frame(values) else values.name
    return pandas.Series(results, index=values.index, name=name, dtype=object)


def _is_frame(values: Any) -> bool:
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(values, pandas.DataFrame)


class Bar(Protocol):
    """Shows how far a map is."""

    def step(self, result: Any) -> None:
        """One more is done."""

    def known(self) -> None:
        """One more was there from the beginning: it says nothing of the rate."""

    def close(self) -> None:
        """Leave the bar as it is."""


class TqdmBar:
    """A tqdm bar of results, with the number of failures once there are any."""

    def __init__(self, total: int | None, *, shown: bool = True) -> None:
        from tqdm.auto import tqdm

        self._bar: Any = tqdm(total=total, unit="prompt", disable=not shown)
        self._failed = 0

    def step(self, result: Result) -> None:
        """One more is done."""
        self._bar.update()
        if isinstance(result, LLMKernelError):
            self._failed += 1
            self._bar.set_postfix(failed=self._failed)

    def known(self) -> None:
        """One more was there from the beginning: it says nothing of the rate."""
        if not self._bar.disable:
            self._bar.initial += 1
            self._bar.n += 1
            self._bar.last_print_n = self._bar.n

    def close(self) -> None:
        """Leave the bar as it is."""
        self._bar.close()


make_bar: Callable[[int | None], Bar] = TqdmBar
"""What shows how far a map is; the magics put a bar here that a notebook can be saved with."""


def bar(values: Iterable[Any], *, shown: bool) -> Bar:
    """The bar of a map over `values`."""
    total = len(values) if isinstance(values, Sized) else None
    return make_bar(total) if shown else TqdmBar(total, shown=False)
