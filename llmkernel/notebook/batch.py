"""`--for NAME in EXPR`: one prompt for each item, all in one batch, and a table of answers."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from llmkernel.client.generation import Generation
from llmkernel.errors import InvalidRequest, LLMKernelError
from llmkernel.notebook import failures, publisher
from llmkernel.notebook.generating import is_chat, value
from llmkernel.notebook.pace import Pace
from llmkernel.notebook.prompt import Template
from llmkernel.notebook.rendering import NotJson
from llmkernel.notebook.request import Request
from llmkernel.notebook.tables import PLAIN, Bundle, shorten, stack, table

if TYPE_CHECKING:
    from llmkernel.client import Client

MAX_ROWS = 100
_ITEM, _ANSWER = 60, 400
"""Characters of a cell of the table."""


def run(shell: Any, client: Client, request: Request) -> Any:
    """Ask for every item, show the table, and return the answers in the items' container.

    A failure stands in its place: an LLMKernelError, or NotJson. An interrupt cancels all;
    what has come is in the KeyboardInterrupt's `partial`, None where nothing had.
    """
    name, expression = request.options["loop"]
    values, items = _items(_evaluated(shell, expression), expression)
    prompts = _prompts(shell, client, request, name, items)
    progress = _Progress(shell, len(items), quiet=bool(request.options.get("quiet")))
    try:
        found = client.map(prompts, request.params, progress=progress.step)
    except KeyboardInterrupt as stop:
        results = [_result(request, each) for each in getattr(stop, "partial", [])]
        progress.finish(name, items, results)
        stop.partial = results  # type: ignore[attr-defined]
        failures.shorten(stop)
        raise
    results = [_result(request, each) for each in found]
    progress.finish(name, items, list(found))
    return _like(values, results)


def _evaluated(shell: Any, expression: str) -> Any:
    try:
        return shell.ev(expression)
    except Exception as error:  # whatever the user's own expression raises
        raise InvalidRequest(
            f"--for: {expression} raised {type(error).__name__}: {error}"
        ) from error


def _items(values: Any, expression: str) -> tuple[Any, list[Any]]:
    """The values and their items: those of a data frame are its rows, as dicts."""
    if hasattr(values, "to_dict") and hasattr(values, "columns"):
        return values, values.to_dict("records")
    if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
        kind = type(values).__name__
        raise InvalidRequest(f"--for goes over a list or the like; {expression} is a {kind}.")
    return values, list(values)


def _prompts(
    shell: Any, client: Client, request: Request, name: str, items: list[Any]
) -> list[Any]:
    """One prompt for each item; the template is read once. Raises before anything is sent."""
    texts = [request.text] * len(items)
    if not request.options.get("literal"):
        template = Template(request.text)
        texts = [template.fill({**shell.user_ns, name: item}) for item in items]
    chat = is_chat(client, request)
    return [request.prompt(text, chat=chat) for text in texts]


def _result(request: Request, found: Any) -> Any:
    if not isinstance(found, Generation):
        return found
    try:
        return value(request, found)
    except NotJson as error:
        return error


def _like(values: Any, results: list[Any]) -> Any:
    """Results with the index of a Series or a data frame, else a list."""
    if not hasattr(values, "index") or not hasattr(values, "iloc"):
        return results
    import pandas as pd  # it is there: the values are its own

    return pd.Series(results, index=values.index, dtype=object)


class _Progress:
    """How many have been answered, and in their place in the end the table."""

    def __init__(self, shell: Any, total: int, *, quiet: bool) -> None:
        self._shell = shell
        self._total = total
        self._quiet = quiet
        self._mode = publisher.mode(shell)
        self._display = publisher.Display(shell)
        self._pace = Pace()
        self._done = 0

    def step(self, _result: Any) -> None:
        """One more is there."""
        self._done += 1
        now = time.monotonic()
        if self._mode == "live" and not self._quiet and not self._pace.wait(now):
            self._display.publish({PLAIN: f"{self._done} of {self._total} answered"})
            self._pace.shown(now, time.monotonic(), 0)

    def finish(self, name: str, items: list[Any], results: list[Any]) -> None:
        """Show the table."""
        if self._quiet:
            return
        shown = result_table(name, items, results)
        if self._mode == "live":
            self._display.publish(shown)
        else:
            publisher.show(self._shell, shown)


def result_table(name: str, items: list[Any], results: list[Any]) -> Bundle:
    """A row for each item: the item, and its answer or why there is none."""
    pairs = list(zip(items, results, strict=False))
    rows = [
        (str(number), shorten(str(item), _ITEM), _answer(result))
        for number, (item, result) in enumerate(pairs[:MAX_ROWS])
    ]
    left = len(pairs) - len(rows)
    if left:
        rows.append(("…", f"{left} more", "in the variable of -o"))
    return stack(table(("", name, "answer"), rows), _summary(len(items), results))


def _answer(result: Any) -> str:
    if isinstance(result, Generation):
        texts = [sample.text for sample in result.samples]
        if len(texts) == 1:
            return shorten(texts[0], _ANSWER)
        return " ".join(f"[{n}] {shorten(text, _ANSWER)}" for n, text in enumerate(texts, 1))
    if isinstance(result, BaseException):
        return f"{type(result).__name__}: {result}"
    return "" if result is None else shorten(str(result), _ANSWER)


def _summary(asked: int, results: list[Any]) -> Bundle:
    failed = sum(isinstance(result, (LLMKernelError, NotJson)) for result in results)
    pieces = sum(getattr(result, "finish_reason", "") == "cancelled" for result in results)
    missing = asked - sum(result is not None for result in results) + pieces
    facts = [f"{asked - missing} of {asked} answered" if missing else f"{asked} answers"]
    facts += [f"{pieces} interrupted"] * bool(pieces)
    facts += [f"{failed} failed"] * bool(failed)
    line = " · ".join(facts)
    return {"text/markdown": f"<small>{line}</small>", PLAIN: f"({line})"}
