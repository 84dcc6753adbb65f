"""`--for NAME in EXPR`: one prompt for each item, all in one batch, and a table of answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from llmkernel.client.generation import Generation
from llmkernel.errors import InvalidRequest, LLMKernelError
from llmkernel.notebook import rows
from llmkernel.notebook.counting import Counter
from llmkernel.notebook.generating import is_chat, value
from llmkernel.notebook.prompt import Template
from llmkernel.notebook.rendering import NotJson
from llmkernel.notebook.request import Request
from llmkernel.notebook.tables import PLAIN, Bundle, shorten, stack, table
from llmkernel.units import count

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
    values = _theirs(expression, lambda: shell.ev(expression))
    items = _theirs(expression, lambda: rows.items_of(values, expression))
    prompts = _prompts(shell, client, request, name, items)
    counter = Counter(shell, len(items), shown=not request.options.get("quiet"))

    def collect(found: list[Any]) -> Any:
        results = [_result(request, each) for each in found]
        labels = rows.labels_of(values, len(items))
        shown = [_shown(*each) for each in zip(found, results, strict=True)]
        counter.finish(result_table(name, items, shown, labels))
        return rows.collected(values, found, results, parsed=request.form == "json")

    try:
        return collect(list(client.map(prompts, request.params, progress=counter.step)))
    except KeyboardInterrupt as stop:
        stop.partial = collect(getattr(stop, "partial", []))  # type: ignore[attr-defined]
        raise
    finally:
        counter.close()


def _theirs(expression: str, compute: Callable[[], Any]) -> Any:
    """What the user's own code gives, run for its value or item for item. Raises InvalidRequest."""
    try:
        return compute()
    except InvalidRequest:
        raise
    except Exception as error:  # whatever the user's own expression raises
        raise InvalidRequest(
            f"--for: {expression} raised {type(error).__name__}: {error}"
        ) from error


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


def _shown(found: Any, result: Any) -> Any:
    """What the table has of it: the model's words, or why they were of no use."""
    return result if isinstance(result, BaseException) else found


def result_table(
    name: str, items: list[Any], results: list[Any], labels: list[str] | None = None
) -> Bundle:
    """A row for each item: its label, the item, and its answer or why there is none."""
    labels = labels or [str(number) for number in range(len(items))]
    triples = list(zip(labels, items, results, strict=False))
    shown = [
        (shorten(label, _ITEM), rows.named(item, _ITEM), _answer(result))
        for label, item, result in triples[:MAX_ROWS]
    ]
    left = len(triples) - len(shown)
    if left:
        shown.append(("…", f"{left} more", "in the variable of -o"))
    return stack(table(("", name, "answer"), shown), _summary(len(items), results))


def _answer(result: Any) -> str:
    if isinstance(result, Generation):
        texts = [sample.text for sample in result.samples]
        if len(texts) == 1:
            return shorten(texts[0], _ANSWER)
        return " ".join(f"[{n}] {shorten(text, _ANSWER)}" for n, text in enumerate(texts, 1))
    if isinstance(result, BaseException):
        return shorten(f"⚠ {rows.error(result)}", _ANSWER)
    return "" if result is None else shorten(str(result), _ANSWER)


def _summary(asked: int, results: list[Any]) -> Bundle:
    failed = sum(isinstance(result, (LLMKernelError, NotJson)) for result in results)
    pieces = sum(getattr(result, "finish_reason", "") == "cancelled" for result in results)
    missing = asked - sum(result is not None for result in results) + pieces
    facts = [f"{asked - missing} of {asked} answered" if missing else count(asked, "answer")]
    facts += [f"{pieces} interrupted"] * bool(pieces)
    facts += [f"{failed} failed"] * bool(failed)
    line = " · ".join(facts)
    return {"text/markdown": f"<small>{line}</small>", PLAIN: f"({line})"}
