"""The one table of routes. A new dialect adds its list here, and tests walk what this says."""

from __future__ import annotations

import importlib
from collections.abc import Iterable

from llmkernel.gateway.routes import Route

ROOMS = (
    "health",
    "operations",
    "repository",
    "tgi.routes",
    "openai.routes",
    "anthropic.routes",
    "ollama.routes",
)
"""Modules of llmkernel.gateway whose `ROUTES` are served, in order: the first match wins."""


def all_routes() -> list[Route]:
    """Every route there is."""
    found: list[Route] = []
    for room in ROOMS:
        module = importlib.import_module(f"llmkernel.gateway.{room}")
        found += module.ROUTES
    _check(found)
    return found


def by_path(routes: Iterable[Route]) -> dict[str, dict[str, Route]]:
    """The routes of each path, by method, in the order of the table."""
    paths: dict[str, dict[str, Route]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method] = route
    return paths


def _check(routes: list[Route]) -> None:
    seen = [(route.method, route.path) for route in routes]
    twice = {pair for pair in seen if seen.count(pair) > 1}
    assert not twice, f"routes that are there twice: {twice}"
