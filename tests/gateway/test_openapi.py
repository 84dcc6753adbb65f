"""The OpenAPI document is what the routes do, and nothing that fits or misfits it breaks them."""

from __future__ import annotations

import contextlib
import json
import re
from collections import Counter

import pytest

from llmkernel.gateway.openapi import describe
from llmkernel.gateway.table import all_routes

REFERENCE = re.compile(r'"\$ref":\s*"#/components/schemas/([^"]+)"')


def test_every_route_is_in_it(scripted):
    document = scripted.get("/api-doc/openapi.json").json()
    there = {
        (method.upper(), path) for path, methods in document["paths"].items() for method in methods
    }
    assert there == {(r.method, r.openapi_path) for r in all_routes() if not r.hidden}
    ids = [
        operation["operationId"]
        for each in document["paths"].values()
        for operation in each.values()
    ]
    assert len(ids) == len(set(ids))


def test_every_reference_leads_somewhere():
    document = json.dumps(describe(all_routes()))
    schemas = json.loads(document)["components"]["schemas"]
    assert set(REFERENCE.findall(document)) <= set(schemas)


def test_only_what_is_open_says_so():
    for path, methods in describe(all_routes())["paths"].items():
        for operation in methods.values():
            assert (operation.get("security") == []) == (path in ("/health", "/ping"))


def test_nothing_made_from_the_document_breaks_a_route(scripted):
    """Positive and negative data, NUL and all: never a 5xx, and the worker lives on."""
    schemathesis = pytest.importorskip("schemathesis")
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis.errors import Unsatisfiable

    document = scripted.get("/api-doc/openapi.json").json()
    # loading and unloading take seconds each; they have tests of their own
    document["paths"] = {
        p: each for p, each in document["paths"].items() if "repository/models" not in p
    }
    schema = schemathesis.openapi.from_dict(document)
    instance = scripted.status("scripted").instance
    broken: list[str] = []
    sent: Counter[str] = Counter()

    def call(case) -> None:
        answer = case.call(base_url=scripted.url, headers=dict(scripted.http.headers), timeout=30)
        sent[case.operation.label] += 1
        if answer.status_code >= 500:
            broken.append(f"{answer.status_code} {case.as_curl_command()[:300]}")

    modes = (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE)
    for operation in schema.get_all_operations():
        for mode in modes:
            strategy = operation.ok().as_strategy(generation_mode=mode)
            test = given(strategy)(call)
            bounded = settings(
                max_examples=6,
                phases=[Phase.generate],
                database=None,
                suppress_health_check=list(HealthCheck),
            )
            with contextlib.suppress(Unsatisfiable):  # of what takes nothing, nothing is wrong
                bounded(test)()
    assert broken == []
    assert sent["POST /generate"] >= 8
    assert len(sent) == len(list(schema.get_all_operations()))
    assert scripted.status("scripted").instance == instance
