"""An OpenAPI document as HTML, without a script."""

from __future__ import annotations

import html
import json
from collections.abc import Iterator
from typing import Any

_NO_EXAMPLE = 6
"""How deep references are followed in an example."""


def operations(document: dict[str, Any]) -> str:
    """The body of the page."""
    info = document["info"]
    lines = [
        f'<header><h1>{_text(info["title"])}</h1><span class="soft">{_text(info["version"])}</span>',
        '<a class="push" href="api-doc/openapi.json">OpenAPI</a><a href="./">Status</a></header>',
        f"<p>{_text(info['description'])}</p>",
    ]
    for tag in document["tags"]:
        lines.append(f'<h2 id="{_text(tag["name"])}">{_text(tag["name"])}</h2><div class="card">')
        lines += [_operation(document, *each) for each in _of_tag(document, tag["name"])]
        lines.append("</div>")
    return "".join(lines)


def _of_tag(document: dict[str, Any], tag: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            if tag in operation["tags"]:
                yield method, path, operation


def _operation(document: dict[str, Any], method: str, path: str, operation: dict[str, Any]) -> str:
    parts = [f"<p>{_text(operation['summary'])}</p>"]
    body = operation.get("requestBody", {}).get("content", {}).get("application/json")
    if body is not None:
        if "example" in body:
            parts.append(f"<p>Example</p><pre>{_text(json.dumps(body['example'], indent=2))}</pre>")
        parts += ["<p>Body</p>", _schema(document, body["schema"])]
    for status, answer in operation["responses"].items():
        kinds = ", ".join(answer.get("content", {})) or "no body"
        parts.append(
            f"<p><code>{_text(status)}</code> {_text(answer['description'])} "
            f'<span class="soft">{_text(kinds)}</span></p>'
        )
    return (
        f'<details><summary><span class="verb {method}">{method.upper()}</span>'
        f'<code class="path">{_text(path)}</code>'
        f'<span class="soft">{_text(operation["summary"])}</span></summary>'
        f"<div>{''.join(parts)}</div></details>"
    )


def _schema(document: dict[str, Any], schema: dict[str, Any]) -> str:
    found = _resolve(document, schema)
    fields = found.get("properties", {})
    if not fields:
        return f"<pre>{_text(_kind(document, schema))}</pre>"
    rows = []
    for name, field in fields.items():
        needed = " *" if name in found.get("required", ()) else ""
        default = f"default {json.dumps(field['default'])}" if "default" in field else ""
        rows.append(
            f"<tr><td><code>{_text(name)}{needed}</code></td><td>{_text(_kind(document, field))}</td>"
            f'<td class="soft">{_text(default)}</td></tr>'
        )
        inner = _inner(document, field)
        if inner:
            rows.append(f'<tr><td></td><td colspan="2">{_schema(document, inner)}</td></tr>')
    about = f'<p class="soft">{_text(found["description"])}</p>' if "description" in found else ""
    return f'{about}<div class="scroll"><table>{"".join(rows)}</table></div>'


def _inner(document: dict[str, Any], field: dict[str, Any]) -> dict[str, Any] | None:
    """The one object that a field may be, where there is one."""
    options = [field, *field.get("anyOf", ()), field.get("items", {})]
    found = [each for each in options if "$ref" in each]
    return found[0] if len(found) == 1 and _resolve(document, found[0]).get("properties") else None


def _kind(document: dict[str, Any], schema: dict[str, Any], depth: int = 0) -> str:
    if depth > _NO_EXAMPLE:
        return "…"
    if "anyOf" in schema:
        return " or ".join(_kind(document, each, depth + 1) for each in schema["anyOf"])
    if "$ref" in schema:
        return str(schema["$ref"]).rsplit("/", 1)[-1]
    if schema.get("type") == "array":
        return f"list of {_kind(document, schema.get('items', {}), depth + 1)}"
    if "enum" in schema:
        return " | ".join(json.dumps(each) for each in schema["enum"])
    return str(schema.get("type", "anything"))


def _resolve(document: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    reference = schema.get("$ref")
    if reference is None:
        return schema
    name = str(reference).rsplit("/", 1)[-1]
    found: dict[str, Any] = document["components"]["schemas"][name]
    return found


def _text(value: Any) -> str:
    return html.escape(str(value))
