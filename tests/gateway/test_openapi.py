"""The OpenAPI document is what the routes do, and nothing that fits or misfits it breaks them."""

from __future__ import annotations

import contextlib
import html
import json
import re
from collections import Counter

import pytest

from llmkernel.gateway.openapi import describe
from llmkernel.gateway.table import all_routes

EXAMPLES = 20
"""For each operation, of bodies that fit and of those that do not."""
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


def test_schemas_are_named_as_people_would_and_have_the_required_fields_first():
    schemas = describe(all_routes())["components"]["schemas"]
    assert [name for name in schemas if "." in name] == []
    assert {"OpenAIChatRequest", "OllamaChatRequest", "TGIGenerateRequest"} <= set(schemas)
    chat = schemas["OpenAIChatRequest"]
    assert next(iter(chat["properties"])) == "messages"
    assert "default" not in chat["properties"]["temperature"]
    assert "\n  " not in chat["description"]
    for schema in schemas.values():
        needed = [name in schema.get("required", ()) for name in schema.get("properties", {})]
        assert needed == sorted(needed, reverse=True)


def test_every_example_is_answered(scripted):
    examples = [(r.path, r.example) for r in all_routes() if r.example is not None]
    assert {path for path, _ in examples} >= {r.path for r in all_routes() if r.generates} - {
        "/vertex"
    }
    text = scripted.get("/docs").text
    for path, body in examples:
        assert scripted.post(path, body).status_code == 200
        assert html.escape(json.dumps(body, indent=2)) in text


def test_only_what_is_open_says_so():
    for path, methods in describe(all_routes())["paths"].items():
        for operation in methods.values():
            assert (operation.get("security") == []) == (path in ("/health", "/ping"))


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_nothing_made_from_the_document_breaks_a_route(scripted):
    """Positive and negative data, NUL and all: never a 5xx, and the worker lives on."""
    schemathesis = pytest.importorskip("schemathesis")
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis.errors import Unsatisfiable

    document = scripted.get("/api-doc/openapi.json").json()
    schema = schemathesis.openapi.from_dict(document)
    instance = scripted.status("scripted").instance
    broken: list[str] = []
    sent: Counter[str] = Counter()

    def call(case) -> None:
        if "/repository/models/" in case.path and sent[case.operation.label] % 2:
            # the one that runs, which no request may end: the gateway did not start it
            case.path_parameters = {"model": "scripted"}
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
                max_examples=EXAMPLES,
                phases=[Phase.generate],
                database=None,
                suppress_health_check=list(HealthCheck),
            )
            with contextlib.suppress(Unsatisfiable):  # of what takes nothing, nothing is wrong
                bounded(test)()
    assert broken == []
    assert sent["POST /generate"] >= EXAMPLES + 2
    assert sent["POST /v2/repository/models/{model}/unload"] >= EXAMPLES
    assert len(sent) == len(list(schema.get_all_operations()))
    assert scripted.status("scripted").instance == instance
