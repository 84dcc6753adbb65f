"""Metrics, the status of the page, and traces: numbers that agree with what was done."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client.parser import text_string_to_metric_families

from llmkernel.errors import TABLE, RequestEnded
from llmkernel.gateway.faults import _STATUS
from llmkernel.gateway.metrics import cause
from llmkernel.gateway.tracing import Tracer
from tests.conftest import wait_until
from tests.gateway.serving import Gate

BODY = {"inputs": "How do I", "parameters": {"max_new_tokens": 5}}
PROMPT = len(BODY["inputs"]) + 1


def samples(gate) -> dict[tuple, float]:
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(gate.get("/metrics").text)
        for sample in family.samples
    }


def gained(gate, before: dict[tuple, float]) -> dict[tuple, float]:
    after = samples(gate)
    return {
        key: value - before.get(key, 0)
        for key, value in after.items()
        if value != before.get(key, 0)
    }


def test_requests_are_counted_under_tgis_names(open_gate, scripted):
    gate = open_gate(limits={"max_concurrent_requests": 1})
    before = samples(gate)
    assert gate.post("/generate", BODY).status_code == 200
    assert gate.post("/generate", {"inputs": ""}).status_code == 422
    assert gate.post("/generate", BODY | {"parameters": {"top_k": "x"}}).status_code == 422
    with gate.server.gateway.permits.take():
        assert gate.post("/generate", BODY).status_code == 429
    found = gained(gate, before)
    assert found["tgi_request_count_total",] == 4
    assert found["tgi_request_success_total",] == 1
    assert found["tgi_request_failure_total", ("err", "validation")] == 2
    assert found["tgi_request_failure_total", ("err", "overloaded")] == 1
    assert found["tgi_request_input_length_sum",] == PROMPT
    assert found["tgi_request_generated_tokens_sum",] == 5
    assert found["tgi_request_max_new_tokens_sum",] == 5
    for name in ("duration", "validation_duration", "queue_duration", "inference_duration"):
        assert found[f"tgi_request_{name}_count",] == 1
    assert found["tgi_request_mean_time_per_token_duration_count",] == 1


def test_what_generated_nothing_did_not_fail_in_generation(open_gate, scripted):
    gate = open_gate()
    before = samples(gate)
    chat = {"messages": [{"role": "user", "content": "x"}]}
    wrong = {"Authorization": "Bearer wrong"}
    assert gate.post("/v1/chat/completions", chat, headers=wrong).status_code == 401
    assert gate.post("/generate", BODY, headers=wrong).status_code == 401
    assert gate.post("/generate", BODY, headers={"Host": "evil.example"}).status_code == 403
    assert not [name for name, *_ in gained(gate, before) if name.startswith("tgi_request")]
    assert gate.post("/v1/chat/completions", chat | {"model": "dmo"}).status_code == 404
    gate.server.gateway.permits.closed = True
    assert gate.post("/generate", BODY).status_code == 503
    found = gained(gate, before)
    assert found["tgi_request_count_total",] == 2
    failures = {key[1][1]: n for key, n in found.items() if key[0] == "tgi_request_failure_total"}
    assert failures == {"validation": 1, "healthcheck": 1}


@pytest.mark.parametrize("code", [*TABLE, *_STATUS, "dropped"])
def test_each_outcome_has_a_cause_of_tgis(code):
    broke = code in TABLE and issubclass(TABLE[code].exception, RequestEnded)
    assert (cause(code) == "generation") == (broke and code != "slow_consumer")
    words = {"validation", "overloaded", "dropped", "incomplete", "template", "generation"}
    assert cause(code) in words | {"healthcheck"}


def test_every_metric_of_tgi_that_has_a_meaning_here_is_there(scripted):
    scripted.post("/generate", BODY)
    names = {name for name, *_ in samples(scripted)}
    gauges = {
        "tgi_queue_size", "tgi_batch_current_size", "tgi_batch_current_max_tokens",
        "tgi_batch_max_total_tokens",
    }  # fmt: skip
    assert gauges <= names
    assert "tgi_request_skipped_tokens_sum" in names
    edges = {
        dict(labels)["le"]
        for name, *labels in samples(scripted)
        if name == "tgi_request_duration_bucket"
    }
    assert len(edges) == 36
    assert "0.00015000000000000001" in edges or "0.00015" in edges


def test_a_worker_without_work_has_no_block_in_use(open_gate, scripted):
    gate = open_gate()
    wait_until(
        lambda: samples(gate)["tgi_batch_current_max_tokens",] == 0,
        seconds=5,
        what="a report without blocks in use",
    )
    (worker,) = gate.get("/llmkernel/status").json()["workers"]
    assert worker["blocks"] == worker["free_blocks"] > 0
    assert samples(gate)["tgi_batch_max_total_tokens",] % worker["blocks"] == 0


TGI = {
    "tgi_request_count": "counter", "tgi_request_success": "counter",
    "tgi_request_failure": "counter", "tgi_batch_inference_count": "counter",
    "tgi_batch_inference_success": "counter", "tgi_batch_inference_failure": "counter",
    "tgi_batch_concat": "counter",
    "tgi_queue_size": "gauge", "tgi_batch_current_size": "gauge",
    "tgi_batch_current_max_tokens": "gauge", "tgi_batch_max_total_tokens": "gauge",
    "tgi_request_duration": "histogram", "tgi_request_validation_duration": "histogram",
    "tgi_request_queue_duration": "histogram", "tgi_request_inference_duration": "histogram",
    "tgi_request_mean_time_per_token_duration": "histogram",
    "tgi_request_input_length": "histogram", "tgi_request_max_new_tokens": "histogram",
    "tgi_request_generated_tokens": "histogram", "tgi_request_skipped_tokens": "histogram",
    "tgi_batch_next_size": "histogram", "tgi_batch_inference_duration": "histogram",
    "tgi_batch_forward_duration": "histogram", "tgi_batch_decode_duration": "histogram",
    "tgi_batch_filter_duration": "histogram", "tgi_batch_concat_duration": "histogram",
}  # fmt: skip
"""Every metric that Text Generation Inference has."""
EMPTY = ("tgi_batch_filter_duration", "tgi_batch_concat_duration")
"""Work that is not done here: a step is planned anew, no batch is cut or joined to another."""


def test_the_page_has_tgis_metrics(scripted):
    scripted.post("/generate", BODY)
    page = scripted.get("/metrics").text
    kinds = {family.name: family.type for family in text_string_to_metric_families(page)}
    found = {
        name: kind
        for name, kind in kinds.items()
        if name.startswith("tgi_") and not name.endswith("_created")
    }
    assert found == TGI
    for name in found:  # counters have no ending there, and dashboards ask for what is there
        assert re.search(rf"(?m)^{name}(_bucket)?[ {{]", page) or name == "tgi_request_failure", (
            name
        )
        assert not re.search(rf"(?m)^{name}_total", page)
    for name in EMPTY:
        counts = [value for key, value in samples(scripted).items() if key[0] == f"{name}_count"]
        assert counts
        assert not any(counts)
        assert f"`{name}`" in (Path("docs") / "gateway.md").read_text()


def test_steps_are_counted_as_batches(scripted):
    def steps(kind: str, method: str) -> float:
        labels = (("method", method), ("model", "scripted"), ("worker", "scripted"))
        return samples(scripted)[f"tgi_batch_{kind}", *labels]

    def total(kind: str) -> float:
        return steps(kind, "prefill") + steps(kind, "decode")

    scripted.post("/generate", BODY)
    truth = scripted.status("scripted").load.steps
    wait_until(
        lambda: total("inference_success_total") == truth, seconds=5, what="the worker's report"
    )
    before = steps("inference_count_total", "prefill"), steps("inference_count_total", "decode")
    scripted.post("/generate", BODY)
    truth = scripted.status("scripted").load.steps
    wait_until(lambda: total("inference_success_total") == truth, seconds=5, what="its next one")
    after = steps("inference_count_total", "prefill"), steps("inference_count_total", "decode")
    assert after[0] - before[0] == 1
    assert after[1] - before[1] >= 4
    for kind in ("inference", "forward", "decode"):
        assert total(f"{kind}_duration_count") == truth
    assert total("inference_failure_total") == 0
    sums = [total(f"{kind}_duration_sum") for kind in ("inference", "forward", "decode")]
    assert sums[0] == pytest.approx(sums[1] + sums[2])
    worker = (("model", "scripted"), ("worker", "scripted"))
    page = samples(scripted)
    prompts = page["tgi_batch_next_size_count", *worker]
    assert prompts == steps("inference_count_total", "prefill")
    assert page["tgi_batch_next_size_sum", *worker] >= prompts
    assert page["tgi_batch_next_size_bucket", ("le", "1.0"), *worker] <= prompts


def test_what_workers_count_is_there_too(scripted):
    scripted.post("/generate", BODY)

    def made() -> float:
        labels = (("model", "scripted"), ("worker", "scripted"))
        return samples(scripted)["llmkernel_generated_tokens_total", *labels]

    truth = scripted.status("scripted").load.tokens_generated
    assert truth >= 5
    wait_until(lambda: made() == truth, seconds=5, what="the worker's report")


def test_labels_do_not_grow_with_odd_requests(scripted):
    scripted.get("/nowhere/0")
    before = set(samples(scripted))
    for number in range(50):
        scripted.get(f"/nowhere/{number}")
        scripted.get(f"/info?model=odd-{number}")
    assert len(set(samples(scripted)) - before) <= 4


def test_the_status_tells_numbers_and_no_text(scripted):
    scripted.post("/generate", {"inputs": "a secret prompt", "parameters": {"max_new_tokens": 5}})
    answer = scripted.get("/llmkernel/status")
    status = answer.json()
    (worker,) = status["workers"]
    assert (worker["name"], worker["state"], worker["context_length"]) == (
        "scripted",
        "ready",
        2048,
    )
    assert status["requests"][0]["generated_tokens"] == 5
    assert "secret" not in answer.text
    wait_until(
        lambda: scripted.get("/llmkernel/status").json()["workers"][0]["speeds"],
        seconds=5,
        what="a sample of the speed",
    )


@pytest.fixture
def traced(open_gate, scripted) -> Iterator[tuple[Gate, InMemorySpanExporter]]:
    """A gateway that keeps its spans."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    gate = open_gate()
    before, gate.server.gateway.tracer = gate.server.gateway.tracer, Tracer(provider)
    yield gate, exporter
    gate.server.gateway.tracer = before
    provider.shutdown()


def spans_of(exporter: InMemorySpanExporter, count: int) -> list[ReadableSpan]:
    wait_until(
        lambda: len(exporter.get_finished_spans()) >= count, seconds=5, what=f"{count} spans"
    )
    spans = list(exporter.get_finished_spans())
    assert len(spans) == count
    return spans


PHASES = ["llmkernel.queue", "llmkernel.prefill", "llmkernel.decode"]


def test_a_trace_goes_on_from_the_callers(traced):
    gate, exporter = traced
    trace, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    gate.post("/generate", BODY, headers={"traceparent": f"00-{trace}-{parent}-01"})
    found = spans_of(exporter, 4)
    spans = {span.name: span for span in found}
    assert set(spans) == {"POST /generate", *PHASES}
    request = spans["POST /generate"]
    assert f"{request.context.trace_id:032x}" == trace
    assert f"{request.parent.span_id:016x}" == parent
    assert spans["llmkernel.decode"].parent.span_id == request.context.span_id
    assert request.attributes["gen_ai.usage.output_tokens"] == 5
    assert request.attributes["llmkernel.outcome"] == "ok"
    assert "How do I" not in str([span.to_json() for span in spans.values()])
    gate.post("/generate", {"inputs": ""}, headers={"traceparent": "nonsense"})
    failed = spans_of(exporter, 5)[-1]
    assert failed.attributes["llmkernel.outcome"] == "invalid_request"
    assert not failed.status.is_ok


def test_a_trace_reaches_the_engines_steps(traced):
    gate, exporter = traced
    answer = gate.post("/generate", BODY)
    spans = {span.name: span for span in spans_of(exporter, 4)}
    request, *phases = (spans[name] for name in ["POST /generate", *PHASES])
    edges = [request.start_time, *(p.start_time for p in phases), phases[-1].end_time]
    assert edges == sorted(edges)
    assert phases[-1].end_time <= request.end_time
    for one, other in itertools.pairwise(phases):
        assert one.end_time == other.start_time
    queue = (phases[0].end_time - phases[0].start_time) / 1e6
    assert queue == pytest.approx(int(answer.headers["x-queue-time"]), abs=1)
    first = phases[1].attributes["llmkernel.step.first"]
    last = phases[2].attributes["llmkernel.step.last"]
    assert last - first >= 4  # five tokens, the first of them by the step that read the prompt
    assert {phase.attributes["llmkernel.worker"] for phase in phases} == {"scripted"}


def test_answers_side_by_side_have_their_own_times(traced):
    gate, exporter = traced
    body = {"model": "tgi", "prompt": ["one", "two", "three"], "max_tokens": 1500}
    body["ignore_eos"] = True
    assert gate.post("/v1/completions", body).status_code == 200
    spans = spans_of(exporter, 10)
    request = next(span for span in spans if span.name == "POST /v1/completions")
    decodes = [span for span in spans if span.name == "llmkernel.decode"]
    assert len(decodes) == 3
    for span in spans:
        assert request.start_time <= span.start_time
        assert span.end_time <= request.end_time, "their times were put one after the other"
    lasts = [span.attributes["llmkernel.step.last"] for span in decodes]
    firsts = [s.attributes["llmkernel.step.first"] for s in spans if s.name == "llmkernel.prefill"]
    assert max(firsts) < min(lasts), "they shared steps"


def test_a_request_that_breaks_has_the_phases_that_the_worker_told(traced, worker):
    gate, exporter = traced
    worker("breaks", "scripted:fail_at_step=6,eos_after=100000")
    body = {"model": "breaks", "messages": [{"role": "user", "content": "x"}], "max_tokens": 50}

    def asked() -> int:
        return gate.post("/v1/chat/completions", body).status_code

    wait_until(lambda: asked() != 404, seconds=10, what="the gateway to see it")

    def ended() -> list[ReadableSpan]:
        spans = exporter.get_finished_spans()
        return [s for s in spans if s.parent is None and "llmkernel.worker" in s.attributes]

    wait_until(ended, seconds=5, what="the span of the request")
    (parent,) = ended()
    spans = exporter.get_finished_spans()
    assert not parent.status.is_ok
    assert parent.attributes["llmkernel.outcome"] == "step_failed"
    assert parent.attributes["gen_ai.usage.output_tokens"] > 0
    phases = [s for s in spans if s.parent and s.parent.span_id == parent.context.span_id]
    assert [phase.name for phase in phases] == PHASES


@pytest.mark.parametrize(
    ("endpoint", "sent_to"),
    [
        ("http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/traces"),
        ("http://127.0.0.1:4318/", "http://127.0.0.1:4318/v1/traces"),
        ("https://[::1]:4318", "https://[::1]:4318/v1/traces"),
        ("https://traces.example/v1/traces", "https://traces.example/v1/traces"),
        ("https://traces.example/otlp?key=1", "https://traces.example/otlp?key=1"),
    ],
)
def test_a_collector_without_a_path_gets_its_traces_where_collectors_take_them(endpoint, sent_to):
    from llmkernel.gateway.tracing import address_for_traces

    assert address_for_traces(endpoint) == sent_to


def test_traces_without_the_extra_name_it(monkeypatch):
    import sys

    from llmkernel.errors import MissingDependency
    from llmkernel.gateway.tracing import tracer_to

    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.resources", None)
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(MissingDependency, match=r"llmkernel\[otel\]"):
        tracer_to("http://127.0.0.1:1", "test")
