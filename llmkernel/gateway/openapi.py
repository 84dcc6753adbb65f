"""The OpenAPI document: made from the table of routes and the schemas that validate."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Iterable
from typing import Any

import msgspec

from llmkernel._version import __version__
from llmkernel.gateway.routes import Route
from llmkernel.gateway.table import all_routes

_REFERENCES = "#/components/schemas/{name}"
_ROOMS = {"tgi": "TGI", "openai": "OpenAI"}
_PLACE = re.compile(r"\{(\w+)\*?\}")
_DESCRIPTION = (
    "The models of this machine in the dialects of other servers. Every route but /health and "
    "/ping needs the gateway's token."
)
_ERRORS = {
    "400": "The body is no JSON, or the dialect's word for what cannot be served",
    "401": "No token, or a wrong one",
    "403": "A foreign Host or Origin",
    "404": "No such model",
    "405": "Another method",
    "413": "The body is too large",
    "415": "The body does not say that it is JSON",
    "422": "A value or a combination that cannot be served",
    "424": "The request was taken and broke",
    "429": "Too many requests in flight; Retry-After says when to try again",
    "503": "No model takes requests now",
}


@functools.cache
def document() -> bytes:
    """The document of this installation, as JSON."""
    return msgspec.json.encode(describe(all_routes()))


def describe(routes: Iterable[Route]) -> dict[str, Any]:
    """The document of these routes."""
    shown = [route for route in routes if not route.hidden]
    types = [kind for route in shown for kind in _types(route)]
    schemas, components = msgspec.json.schema_components(types, ref_template=_REFERENCES)
    short = _short_names(components)
    components = {
        short[name]: _tidy(_renamed(schema, short)) for name, schema in components.items()
    }
    found = iter(_renamed(list(schemas), short))
    paths: dict[str, dict[str, Any]] = {}
    for route in shown:
        given = {name: next(found) for name in _named(route)}
        paths.setdefault(route.openapi_path, {})[route.method.lower()] = _operation(route, given)
    names = dict.fromkeys(route.dialect.name for route in shown)
    return {
        "openapi": "3.1.0",
        "info": {"title": "llmkernel", "version": __version__, "description": _DESCRIPTION},
        "tags": [{"name": name} for name in names],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"token": []}],
    }


def _short_names(names: Iterable[str]) -> dict[str, str]:
    """A name for each schema: where several have one, that of the dialect goes before it."""
    short: dict[str, str] = {}
    for name in names:
        *modules, last = name.split(".")
        room = modules[2] if len(modules) > 2 else ""  # llmkernel.gateway.ROOM
        short[name] = _ROOMS.get(room, room.title()) + last
    assert len(set(short.values())) == len(short), "two schemas have one name"
    return short


def _renamed(value: Any, short: dict[str, str]) -> Any:
    """The same with its references to schemas by their short names."""
    if isinstance(value, list):
        return [_renamed(each, short) for each in value]
    if not isinstance(value, dict):
        return value
    return {
        key: _REFERENCES.format(name=short[each.rpartition("/")[2]])
        if key == "$ref"
        else _renamed(each, short)
        for key, each in value.items()
    }


def _tidy(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema to be read: what is required first, no default that only says "nothing"."""
    required = schema.get("required", ())
    fields = schema.get("properties", {})
    for field in fields.values():
        if "default" in field and field["default"] is None:
            del field["default"]
    ordered = dict(sorted(fields.items(), key=lambda pair: pair[0] not in required))
    more: dict[str, Any] = {"properties": ordered} if fields else {}
    if "description" in schema:
        more["description"] = inspect.cleandoc(schema["description"])
    return schema | more


def _named(route: Route) -> list[str]:
    return [name for name in ("body", "answer", "event") if getattr(route, name) is not None]


def _types(route: Route) -> list[Any]:
    return [getattr(route, name) for name in _named(route)]


def _operation(route: Route, schemas: dict[str, Any]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": _operation_id(route),
        "summary": route.summary,
        "tags": [route.dialect.name],
        "responses": {"200": _success(route, schemas), **_failures(route)},
    }
    places = _PLACE.findall(route.path)
    if places:
        operation["parameters"] = [
            {
                "name": name,
                "in": "path",
                "required": True,
                "schema": {"type": "string", "minLength": 1},
            }
            for name in places
        ]
    if "body" in schemas:
        content = {"schema": schemas["body"]}
        if route.example is not None:
            content["example"] = dict(route.example)
        operation["requestBody"] = {"required": True, "content": {"application/json": content}}
    if route.open:
        operation["security"] = []
    return operation


def _success(route: Route, schemas: dict[str, Any]) -> dict[str, Any]:
    content: dict[str, Any] = {}
    if "answer" in schemas:
        content["application/json"] = {"schema": schemas["answer"]}
    if route.streams:
        content[route.streams] = {"schema": schemas.get("event", {})}
    return {"description": route.summary, **({"content": content} if content else {})}


def _failures(route: Route) -> dict[str, Any]:
    wanted = {"401", "403", "404", "405", "503"}
    if route.body is not None:
        wanted |= {"400", "413", "415", "422"}
    if route.permit:
        wanted |= {"424", "429"}
    return {status: {"description": text} for status, text in _ERRORS.items() if status in wanted}


def _operation_id(route: Route) -> str:
    words = re.sub(r"[^A-Za-z0-9]+", "_", route.path).strip("_") or "root"
    return f"{route.method.lower()}_{words}"
