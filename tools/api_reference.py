"""Write docs/api.md from the public names; with --check only say whether it is up to date.

    python tools/api_reference.py
    python tools/api_reference.py --check

Signatures come from the functions, texts from their docstrings, fields with their meaning from
the sources, since the docstring after a field is nowhere else.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import llmkernel
from llmkernel import errors
from llmkernel.client.faces import AsyncClient
from llmkernel.client.generation import Score
from llmkernel.client.streams import Stream
from llmkernel.config import WorkerConfig

TARGET = Path(__file__).parent.parent / "docs" / "api.md"
INTRODUCTION = """\
<!-- Written by tools/api_reference.py; `make lint` checks that it is up to date. -->

# Python

```python
import llmkernel

llm = llmkernel.start()  # the embedded model; attaches where it runs
print(llm.chat("How do I stop a running cell?", max_tokens=80))
for delta in llm.stream("Once upon a time", max_tokens=40):
    print(delta.text, end="")
frame["summary"] = llm.map(frame["text"], template="Summarise: {{ value }}")  # a column of text
```

An answer is a `str`, with `.usage`, `.logprobs` and more beside the text: see Generation.

Names are loaded when they are first used; `import llmkernel` brings in no tensor library.
"""
FUNCTIONS = (llmkernel.start, llmkernel.connect, llmkernel.list_workers)
RESULTS = (llmkernel.Generation, llmkernel.Delta, Score)
SETTINGS = (llmkernel.SamplingParams, WorkerConfig)
ASYNC = """\
## Client.aio

The same methods for code that awaits, in any event loop: `await llm.aio.generate(…)`,
`async for delta in llm.aio.stream(…)`. Cancelling the task cancels the request in the worker.
"""


def reference() -> str:
    """The whole page."""
    parts = [INTRODUCTION, *map(_function, FUNCTIONS), _class(llmkernel.Client), ASYNC]
    parts += [_class(Stream), *map(_class, RESULTS), *map(_class, SETTINGS), _errors()]
    _check_faces()
    return "\n".join(parts)


def _function(function: Callable[..., Any]) -> str:
    name = f"llmkernel.{function.__name__}"
    return f"## {name}\n\n{_signature(name, function)}\n\n{_text(function)}\n"


def _class(cls: type) -> str:
    parts = [f"## {cls.__name__}\n\n{_text(cls)}\n"]
    if rows := [_row(*field) for field in _fields(cls)]:
        parts.append("| field | type | default | meaning |\n|---|---|---|---|\n" + "\n".join(rows))
        parts.append("")
    for name, member in _members(cls):
        title = f"{cls.__name__}.{name}"
        parts.append(f"### {title}\n")
        if not isinstance(member, property):
            parts.append(_signature(title, member) + "\n")
        parts.append(_text(member) + "\n")
    return "\n".join(parts)


def _members(cls: type) -> Iterator[tuple[str, Any]]:
    """Public methods and properties in the order of the source, those of base classes first."""
    for base in reversed(cls.__mro__):
        if not base.__module__.startswith("llmkernel"):
            continue
        for name, member in vars(base).items():
            plain = member.__func__ if isinstance(member, classmethod) else member
            if not name.startswith("_") and (
                inspect.isfunction(plain) or isinstance(plain, property)
            ):
                yield name, plain


def _signature(name: str, function: Callable[..., Any]) -> str:
    signature = inspect.signature(function)
    shown = [value for key, value in signature.parameters.items() if key not in ("self", "cls")]
    parts, keyword = [], False
    for value in shown:
        if value.kind is value.KEYWORD_ONLY and not keyword:
            parts.append("*")
        keyword |= value.kind in (value.KEYWORD_ONLY, value.VAR_POSITIONAL)
        parts.append(_parameter(value))
    line = f"{name}({', '.join(parts)}) -> {signature.return_annotation}"
    if len(line) > 88:
        line = f"{name}(\n    " + ",\n    ".join(parts) + f",\n) -> {signature.return_annotation}"
    return f"```python\n{line}\n```"


def _parameter(value: inspect.Parameter) -> str:
    # str(value) would put the annotation, which is text, in quotes
    stars = {value.VAR_POSITIONAL: "*", value.VAR_KEYWORD: "**"}.get(value.kind, "")
    default = "" if value.default is value.empty else f" = {value.default!r}"
    return f"{stars}{value.name}: {value.annotation}{default}"


def _text(member: Any) -> str:
    return inspect.cleandoc(member.__doc__ or "")


def _fields(cls: type) -> Iterator[tuple[str, str, str, str]]:
    """Name, type, default and meaning of each annotated public field."""
    (node,) = ast.parse(inspect.getsource(cls)).body
    assert isinstance(node, ast.ClassDef)
    for statement, after in zip(node.body, [*node.body[1:], None], strict=True):
        if not isinstance(statement, ast.AnnAssign) or not isinstance(statement.target, ast.Name):
            continue
        name, value = statement.target.id, statement.value
        if not name.startswith("_"):
            default = "required" if value is None else f"`{_default(value)}`"
            yield name, ast.unparse(statement.annotation), default, _meaning(after)


def _default(value: ast.expr) -> str:
    text = ast.unparse(value)
    made = re.fullmatch(r"\w*field\(default_factory=(\w+)\)", text)
    if made:
        return f"{made[1]}()"
    return {"_NO_USAGE": "Usage()", "_NO_TIME": "Timings()", "DEMO_MODEL": "'demo'"}.get(text, text)


def _meaning(node: ast.stmt | None) -> str:
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return " ".join(str(node.value.value).split())
    return ""


def _row(name: str, kind: str, default: str, meaning: str) -> str:
    kind = kind.replace("|", "\\|")
    return f"| `{name}` | {kind} | {default} | {meaning.replace('|', chr(92) + '|')} |"


def _errors() -> str:
    """The tree of exceptions, each with the first line of what it says of itself."""
    lines = ["## Exceptions", "", "All are in `llmkernel.errors`.", ""]

    def branch(cls: type, depth: int) -> None:
        summary = _text(cls).splitlines()[0]
        lines.append(f"{'  ' * depth}- `{cls.__name__}`: {summary}")
        for child in cls.__subclasses__():
            if child.__module__ == errors.__name__:
                branch(child, depth + 1)

    branch(errors.LLMKernelError, 0)
    return "\n".join(lines) + "\n"


def _check_faces() -> None:
    """The page says that both faces are the same; so they have to be."""
    names = {name for name, _ in _members(llmkernel.Client)} - {"aio"}
    assert names == {name for name, _ in _members(AsyncClient)}, "the faces differ"


def main(arguments: list[str]) -> int:
    """Write or check the page."""
    text = reference()
    if arguments == ["--check"]:
        if TARGET.exists() and TARGET.read_text() == text:
            return 0
        sys.stderr.write("docs/api.md is not what the code says. Run: make docs\n")
        return 1
    TARGET.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
