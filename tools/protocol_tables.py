"""Write the tables of docs/protocol.md from the messages; with --check only say whether they are up to date.

    python tools/protocol_tables.py
    python tools/protocol_tables.py --check

Fields, types, defaults and their meaning are read from the sources, so that the page says
what the code does. What stands between `<!-- table: NAME -->` and `<!-- end -->` is replaced.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import NamedTuple, get_args

from llmkernel import errors, params, parts, protocol

TARGET = Path(__file__).parent.parent / "docs" / "protocol.md"
_TABLE = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
_CONSTANTS = {
    "CREDIT_WINDOW": str(protocol.CREDIT_WINDOW),
    "PROTOCOL_VERSION": str(list(protocol.PROTOCOL_VERSION)),
    "FIRST_VERSION": str(list(protocol.FIRST_VERSION)),
}


class Field(NamedTuple):
    """One field as the source has it."""

    name: str
    kind: str
    default: str | None
    meaning: str


class Structure(NamedTuple):
    """One class as the source has it."""

    name: str
    meaning: str
    fields: list[Field]


def structures(module: object) -> dict[str, Structure]:
    """The classes of a module, in order."""
    source = Path(str(module.__file__)).read_text()  # type: ignore[attr-defined]
    return {
        node.name: Structure(node.name, ast.get_docstring(node) or "", list(_fields(node)))
        for node in ast.parse(source).body
        if isinstance(node, ast.ClassDef)
    }


def _fields(node: ast.ClassDef) -> Iterator[Field]:
    for statement, after in zip(node.body, [*node.body[1:], None], strict=True):
        if not isinstance(statement, ast.AnnAssign) or not isinstance(statement.target, ast.Name):
            continue
        default = None if statement.value is None else _default(ast.unparse(statement.value))
        yield Field(
            statement.target.id, _kind(ast.unparse(statement.annotation)), default, _meaning(after)
        )


def _meaning(node: ast.stmt | None) -> str:
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return " ".join(str(node.value.value).split())
    return ""


def _default(text: str) -> str:
    text = _CONSTANTS.get(text, text)
    if text.endswith("()"):
        return "{}"
    text = text.replace("'", '"')
    return {"None": "nil", "True": "true", "False": "false"}.get(text, text)


def _kind(text: str) -> str:
    """A type in the words of msgpack."""
    alternatives = re.sub(r"Literal\[(.*?)\]", r"\1", text).replace("'", '"')
    if alternatives != text:
        return alternatives.replace(", ", " | ")
    for ours, theirs in (
        (r"\bFinishReason\b", "finish reason"),
        (r"\bState\b", "state"),
        (r"\bNone\b", "nil"),
        (r"tuple\[int, int\]", "[int, int]"),
        (r"list\[(\w+)\]", r"[\1, …]"),
        (r"dict\[(\w+), (\w+)\]", r"{\1: \2}"),
    ):
        text = re.sub(ours, theirs, text)
    return text


def messages(union: UnionType) -> str:
    """A section for each message of a direction."""
    known = structures(protocol)
    return "\n".join(_section(known[cls.__name__], tag=_tag(cls)) for cls in get_args(union))


def structure_tables() -> str:
    """A section for each structure that is sent inside messages."""
    found = [one for one in structures(parts).values() if not one.name.startswith("_")]
    found.append(structures(params)["SamplingParams"])
    return "\n".join(_section(one, tag="") for one in found)


def codes() -> str:
    """The error codes that may cross the wire."""
    rows = ["| code | meaning |", "|---|---|"]
    for code, outcome in errors.TABLE.items():
        summary = (outcome.exception.__doc__ or "").strip().splitlines()[0]
        rows.append(f"| `{code}` | {_cell(summary)} |")
    return "\n".join(rows) + "\n"


def limits() -> str:
    """The numbers that both sides rely on."""
    values = {
        "protocol version": ".".join(map(str, protocol.PROTOCOL_VERSION)),
        "largest message": f"{protocol.MAX_MESSAGE_BYTES} bytes",
        "largest prompt": f"{protocol.MAX_PROMPT_BYTES} bytes of UTF-8",
        "credit window": f"{protocol.CREDIT_WINDOW} tokens",
    }
    rows = [f"| {name} | {value} |" for name, value in values.items()]
    return "\n".join(["| what | how much |", "|---|---|", *rows]) + "\n"


def _tag(cls: type) -> str:
    return str(cls.__struct_config__.tag)  # type: ignore[attr-defined]


def _section(one: Structure, tag: str) -> str:
    title = f"### `{tag}`" if tag else f"### {one.name}"
    lines = [title, "", _prose(one.meaning), ""]
    if one.fields:
        lines += ["| field | type | default | meaning |", "|---|---|---|---|"]
        lines += [_row(field) for field in one.fields]
        lines.append("")
    return "\n".join(lines)


def _row(field: Field) -> str:
    default = "required" if field.default is None else f"`{field.default}`"
    return f"| `{field.name}` | {_cell(field.kind)} | {_cell(default)} | {_cell(field.meaning)} |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _prose(text: str) -> str:
    return "\n".join(line.strip() for line in text.splitlines())


def page(text: str) -> str:
    """The page with its tables made anew."""
    tables = {
        "limits": limits,
        "client": lambda: messages(protocol.ClientMessage),
        "worker": lambda: messages(protocol.WorkerMessage),
        "structures": structure_tables,
        "codes": codes,
    }

    def table(match: re.Match[str]) -> str:
        return f"{match[1]}\n{tables[match[2]]()}\n{match[3]}"

    return _TABLE.sub(table, text)


def main() -> int:
    """Write the page, or with --check compare it."""
    text = TARGET.read_text()
    made = page(text)
    if "--check" in sys.argv[1:]:
        if made != text:
            print("docs/protocol.md is out of date: run python tools/protocol_tables.py")
        return int(made != text)
    TARGET.write_text(made)
    return 0


if __name__ == "__main__":
    sys.exit(main())
