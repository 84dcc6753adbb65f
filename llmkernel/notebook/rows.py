"""What `--for` goes over, and the container that its answers come back in."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from llmkernel.client.generation import Generation
from llmkernel.errors import InvalidRequest
from llmkernel.notebook.tables import shorten

MOST_ITEMS = 100_000
"""All of them are in memory and in one table; what is endless would fill it."""
ANSWER, ERROR, GENERATION = "answer", "error", "generation"
"""The columns of the data frame that answers to the rows of a data frame are. The last is there
where an answer is a value that was read out of its text, so that nothing is shown twice."""


def items_of(values: Any, expression: str) -> list[Any]:
    """The items: those of a data frame are its rows, as dicts. Raises InvalidRequest."""
    if is_frame(values):
        twice = [name for name, count in Counter(values.columns).items() if count > 1]
        if twice:
            raise InvalidRequest(
                f"--for: {expression} has several columns {twice[0]!r}, so a row has no value of that "
                "name. Rename them, or choose the columns that the prompt needs."
            )
        rows: list[Any] = values.to_dict("records")
        return rows
    if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
        kind = type(values).__name__
        raise InvalidRequest(f"--for goes over a list or the like; {expression} is of type {kind}.")
    items = list(itertools.islice(values, MOST_ITEMS + 1))
    if len(items) > MOST_ITEMS:
        raise InvalidRequest(
            f"--for goes over {MOST_ITEMS:,} items at most, and {expression} has more. Take a part of "
            "them, or use llm.map in Python, which takes prompts as they come."
        )
    return items


def labels_of(values: Any, count: int) -> list[str]:
    """What each item is called in a table: its index, or its number."""
    labels = values.index if _has_index(values) else range(count)
    return [_text(label) for label in labels]


def is_frame(values: Any) -> bool:
    """Whether these are rows with named columns."""
    return hasattr(values, "to_dict") and hasattr(values, "columns")


def collected(values: Any, found: list[Any], results: list[Any], *, parsed: bool = False) -> Any:
    """Results in the container of `values`: a data frame, a Series with the index, or a list.

    `found` are generations and exceptions, `results` what is made of them: the same, unless they
    are `parsed`. Of a loop that was interrupted there may be fewer than items; they are None.
    """
    if not _has_index(values):
        return results
    import pandas as pd  # it is there: the values are its own

    index = values.index
    results, found = ([*each, *[None] * (len(index) - len(each))] for each in (results, found))
    if not is_frame(values):
        return pd.Series(results, index=index, name=values.name, dtype=object)
    table = {
        ANSWER: [None if isinstance(each, BaseException) else answer(each) for each in results],
        ERROR: [error(each) for each in results],
    }
    if parsed:
        table[GENERATION] = [each if isinstance(each, Generation) else None for each in found]
    columns = {name: pd.Series(column, index=index, dtype=object) for name, column in table.items()}
    return pd.DataFrame(columns, index=index)


def answer(result: Any) -> Any:
    """What a cell of the data frame holds: the answer, a list of several, or a value."""
    several = isinstance(result, Generation) and len(result.samples) > 1
    return result.samples if several else result


def error(result: Any) -> str | None:
    """Why there is no answer, in one line; None where there is one."""
    if not isinstance(result, BaseException):
        return None
    return f"{type(result).__name__}: {result}"


def named(item: Any, limit: int) -> str:
    """An item in a few words: the fields of a row, or what it is as text."""
    return shorten(_text(item, lambda: _fields(item, limit // 2)), limit)


def _fields(item: Any, limit: int) -> str:
    if not isinstance(item, Mapping):
        return str(item)
    return ", ".join(f"{name}: {shorten(_text(value), limit)}" for name, value in item.items())


def _text(value: Any, say: Callable[[], str] | None = None) -> str:
    """What a value says of itself; of one whose own code raises there is what it is.

    The answers are there by then, and must not be lost for a cell of the table beside them.
    """
    try:
        return say() if say else str(value)
    except Exception as error:  # noqa: BLE001 - the user's own objects raise anything
        return f"({type(value).__name__}: its text raised {type(error).__name__})"


def _has_index(values: Any) -> bool:
    return hasattr(values, "index") and hasattr(values, "iloc")
