"""Clients that leave, do not read or come in crowds, and a gateway that stops."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import logging
import os
import signal
import socket
import threading
import time

import httpx
import pytest

from llmkernel.gateway.faults import failure_of
from tests.conftest import wait_until
from tests.gateway.conftest import ENDLESS
from tests.gateway.serving import TOKEN, gate, rest_of

LONG = {"inputs": "go on", "parameters": {"max_new_tokens": 15_000}}


@pytest.fixture(scope="module")
def endless(worker, open_gate):
    worker("endless", ENDLESS)
    return open_gate(workers=("endless",))


def raw(
    port: int, path: str, body: dict, *, receive: int | None = None, more: bytes = b""
) -> socket.socket:
    """A request over a socket of one's own; its answer is not read."""
    data = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {TOKEN}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
    )
    sock = socket.socket()
    if receive is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive)
    sock.settimeout(20)
    sock.connect(("127.0.0.1", port))
    sock.sendall(head.encode() + data + more)
    return sock


def running(endless) -> int:
    return endless.status("endless").load.running


@pytest.mark.parametrize("path", ["/generate", "/generate_stream", "/"])
def test_a_client_that_leaves_has_its_request_cancelled(endless, path):
    sock = raw(endless.port, path, LONG)
    wait_until(lambda: running(endless) == 1, seconds=10, what="the request to run")
    sock.close()
    left = time.monotonic()
    wait_until(lambda: running(endless) == 0, seconds=5, what="its end")
    assert time.monotonic() - left < 2
    wait_until(
        lambda: endless.server.gateway.permits.taken == 0, seconds=5, what="its permit to be back"
    )
    assert endless.server.gateway.recent.requests[0].outcome == "dropped"


USER = [{"role": "user", "content": "go on"}]
DIALECTS = {
    "/generate_stream": LONG,
    "/generate": LONG,
    "/v1/chat/completions": {"messages": USER, "stream": True},
    "/v1/completions": {"prompt": ["a", "b"], "max_tokens": 15_000, "stream": True},
    "/v1/responses": {"input": "go on", "stream": True},
    "/v1/messages": {"messages": USER, "max_tokens": 15_000, "stream": True},
    "/api/chat": {"model": "endless", "messages": USER},
}


@pytest.mark.parametrize("path", DIALECTS)
def test_what_was_generated_for_who_left_is_counted(endless, path):
    recent = endless.server.gateway.recent.requests
    recent.clear()
    before = endless.status("endless").load.tokens_generated
    sock = raw(endless.port, path, DIALECTS[path])
    wait_until(
        lambda: endless.status("endless").load.tokens_generated > before + 20,
        seconds=10,
        what="some tokens",
    )
    sock.close()
    wait_until(lambda: recent, seconds=5, what="its end")
    assert recent[0].outcome == "dropped"
    assert recent[0].generated_tokens >= 10
    assert recent[0].prompt_tokens >= 2


def test_a_worker_that_dies_in_a_stream_has_its_tokens_counted(worker, open_gate):
    killed = worker("killed", ENDLESS)
    gateway = open_gate(workers=("killed",))
    body = {"input": "go on", "stream": True}
    with gateway.http.stream("POST", "/v1/responses", json=body) as answer:
        lines = answer.iter_lines()
        for _ in range(60):
            next(lines)
        os.kill(killed.pid, signal.SIGKILL)
        rest = [json.loads(line[6:]) for line in lines if line.startswith("data: ")]
    assert [event["type"] for event in rest[-2:]] == ["error", "response.failed"]
    recent = gateway.server.gateway.recent.requests
    wait_until(lambda: recent, seconds=5, what="its end")
    assert (recent[0].outcome, recent[0].generated_tokens > 10) == ("worker_died", True)


@pytest.mark.parametrize("path", ["/generate", "/generate_stream"])
@pytest.mark.parametrize("more", [b"\r\n", b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"])
def test_a_client_that_leaves_bytes_behind_has_its_request_cancelled(endless, path, more):
    sock = raw(endless.port, path, LONG, more=more)
    wait_until(lambda: running(endless) == 1, seconds=10, what="the request to run")
    sock.sendall(more)
    time.sleep(0.3)  # whatever is in the way of the end is there before it
    sock.close()
    wait_until(lambda: running(endless) == 0, seconds=5, what="its end")
    wait_until(
        lambda: endless.server.gateway.permits.taken == 0, seconds=5, what="its permit to be back"
    )
    assert endless.server.gateway.recent.requests[0].outcome == "dropped"


def test_a_pipelined_request_is_answered_after_the_first(endless):
    short = {"inputs": "x", "parameters": {"max_new_tokens": 150}}
    more = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
    received = rest_of(raw(endless.port, "/generate", short, more=more))
    assert received.count(b"HTTP/1.1 200 OK") == 2


def test_a_neighbour_does_not_notice_who_leaves(endless):
    body = {"inputs": "a neighbour", "parameters": {"max_new_tokens": 120}}
    alone = endless.post("/generate", body).json()
    leavers = [raw(endless.port, "/generate_stream", LONG) for _ in range(4)]
    answers: list = []
    thread = threading.Thread(target=lambda: answers.append(endless.post("/generate", body).json()))
    thread.start()
    for sock in leavers:
        time.sleep(0.05)
        sock.close()
    thread.join(30)
    assert answers == [alone]


def test_a_reader_that_does_not_read_is_cut(worker, open_gate):
    # steps that take no time would leave texts to be made for longer than a farewell waits
    worker("quick", "scripted:step_ms=0.5,eos_after=100000,context_length=20000,blocks=20000")
    impatient = open_gate(workers=("quick",), write_seconds=0.5)
    wide = {"top_n_tokens": 5, **LONG["parameters"]}
    sock = raw(impatient.port, "/generate_stream", LONG | {"parameters": wide}, receive=4096)
    recent = impatient.server.gateway.recent.requests
    wait_until(lambda: recent, seconds=30, what="the stream to be cut")
    assert recent[0].outcome == "slow_consumer"
    assert recent[0].generated_tokens > 50
    assert recent[0].prompt_tokens == len("go on") + 1
    wait_until(lambda: impatient.status("quick").load.running == 0, seconds=5, what="its end")
    wait_until(lambda: not impatient.server._http._connections, seconds=5, what="the cut")
    sock.close()


def test_a_reader_that_reads_slowly_is_not_cut(worker, open_gate):
    worker("quick", "scripted:step_ms=0.5,eos_after=100000,context_length=20000,blocks=20000")
    impatient = open_gate(workers=("quick",), write_seconds=2.0)
    body = LONG | {"parameters": {"top_n_tokens": 5, "max_new_tokens": 15_000}}
    recent = len(impatient.server.gateway.recent.requests)
    # a small window, so that the system takes some of it every 0.2 s and not every 0.8
    sock = raw(impatient.port, "/generate_stream", body, receive=8192)
    began, received = time.monotonic(), 0
    while time.monotonic() - began < 8:
        received += len(sock.recv(8192))
        time.sleep(0.1)
    assert len(impatient.server.gateway.recent.requests) == recent, "it is still being answered"
    assert received < 800_000, "it does read slowly"
    wait_until(
        lambda: len(impatient.server.gateway.recent.requests) > recent,
        seconds=20,
        what="the cut once nothing is read",
    )
    assert impatient.server.gateway.recent.requests[0].outcome == "slow_consumer"
    sock.close()


def test_more_than_the_permits_is_refused_at_once(worker, open_gate):
    worker("endless", ENDLESS)
    narrow = open_gate(workers=("endless",), limits={"max_concurrent_requests": 2})
    held = [raw(narrow.port, "/generate_stream", LONG) for _ in range(2)]
    wait_until(lambda: narrow.server.gateway.permits.taken == 2, seconds=10, what="two in flight")
    began = time.monotonic()
    for path in ("/generate", "/generate_stream", "/"):
        # before anything in the body is looked at
        answer = narrow.post(path, {"inputs": ""})
        assert answer.status_code == 429
        assert answer.json() == {"error": "Model is overloaded", "error_type": "overloaded"}
        assert answer.headers["Retry-After"] == "1"
    assert time.monotonic() - began < 1
    assert narrow.get("/info").status_code == 200
    for sock in held:
        sock.close()
    wait_until(lambda: narrow.server.gateway.permits.taken == 0, seconds=5, what="free permits")
    best = {"inputs": "x", "parameters": {"best_of": 2, "do_sample": True, "max_new_tokens": 2}}
    assert narrow.post("/generate", best).status_code == 200


def test_what_never_fits_is_not_asked_to_try_again(worker, open_gate):
    worker("endless", ENDLESS)
    narrow = open_gate(workers=("endless",), limits={"max_concurrent_requests": 3})
    body = {"messages": USER, "n": 5, "max_tokens": 2}
    many = narrow.post("/v1/chat/completions", body)
    assert (many.status_code, many.json()["error"]["param"]) == (400, "n")
    assert "up to 3 at once" in many.json()["error"]["message"]
    assert "Retry-After" not in many.headers
    prompts = {"prompt": ["a", "b"], "n": 2, "max_tokens": 2}
    assert narrow.post("/v1/completions", prompts).status_code == 400
    assert narrow.post("/v1/completions", {**prompts, "n": 1}).status_code == 200
    several = {"instances": [{"inputs": "x", "parameters": {"max_new_tokens": 2}}] * 4}
    assert narrow.post("/vertex", several).status_code == 422
    with narrow.server.gateway.permits.take():
        full = narrow.post("/v1/chat/completions", {**body, "n": 3})
    assert (full.status_code, full.headers["Retry-After"]) == (429, "1")


def test_connections_have_a_number(worker, open_gate):
    worker("endless", ENDLESS)
    few = open_gate(workers=("endless",), max_connections=3)
    held = [socket.create_connection(("127.0.0.1", few.port)) for _ in range(3)]
    time.sleep(0.2)
    with socket.create_connection(("127.0.0.1", few.port), timeout=5) as late:
        late.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            assert late.recv(100) == b""
    held.pop().close()
    time.sleep(0.2)
    assert few.get("/health").status_code == 200
    for sock in held:
        sock.close()


def test_a_connection_that_says_nothing_is_closed(worker, open_gate):
    worker("endless", ENDLESS)
    strict = open_gate(workers=("endless",), idle_seconds=0.5)
    with socket.create_connection(("127.0.0.1", strict.port), timeout=10) as mute:
        mute.sendall(b"GET /health HTTP/1.1\r\nHost: loc")
        assert mute.recv(100) == b""


def said_to(port: int, data: bytes) -> bytes:
    """All that comes back; the whole of `data` can be sent, and the end is no reset."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as raw:
        raw.sendall(data)
        parts = []
        while part := raw.recv(65536):
            parts.append(part)
        return b"".join(parts)


@pytest.mark.parametrize("size", [66_000, 200_000, 700_000])
def test_headers_that_are_too_large_are_answered(endless, size):
    said = said_to(endless.port, b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * size)
    head, _, body = said.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 431 Request Header Fields Too Large\r\n")
    assert b"\r\nConnection: close" in head
    assert json.loads(body) == {
        "error": "The headers are larger than 65536 bytes.",
        "error_type": "headers_too_large",
    }


def test_a_client_library_gets_the_status_of_headers_that_are_too_large(endless):
    answer = endless.get("/health", headers={"X-Large": "x" * 300_000})
    assert answer.status_code == 431
    assert endless.get("/health").status_code == 200


def test_headers_within_the_limit_are_read(endless):
    assert endless.get("/health", headers={"X-Large": "x" * 60_000}).status_code == 200


def test_a_part_of_a_body_without_a_length_gets_no_word_about_headers(endless):
    head = (
        f"POST /generate HTTP/1.1\r\nHost: localhost\r\nX-Api-Key: {TOKEN}\r\n"
        "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    with contextlib.suppress(ConnectionError):
        assert b"431" not in said_to(endless.port, head.encode() + b"1" * 1000)


def test_who_does_not_stop_sending_headers_is_cut(endless):
    with pytest.raises(ConnectionError):
        said_to(endless.port, b"GET /health HTTP/1.1\r\nX: " + b"x" * 20_000_000)


def test_a_pause_in_a_stream_has_comments(worker, open_gate):
    worker("slow", "scripted:step_ms=400,eos_after=3")
    gate = open_gate(workers=("slow",), keep_alive_seconds=0.1)
    body = {"inputs": "x", "parameters": {"max_new_tokens": 3}}
    with gate.http.stream("POST", "/generate_stream", json=body) as answer:
        lines = list(answer.iter_lines())
    assert lines.count(":") >= 2
    assert len([line for line in lines if line.startswith("data:")]) == 3


def test_every_answer_has_an_id(endless):
    given = endless.get("/info", headers={"X-Request-Id": "mine-1"})
    assert given.headers["X-Request-Id"] == "mine-1"
    for wrong in ("a b", "x" * 200, "<script>"):
        made = endless.get("/info", headers={"X-Request-Id": wrong}).headers["X-Request-Id"]
        assert len(made) == 32
    assert endless.get("/info").headers["X-Request-Id"] != made


def test_a_stop_lets_work_end_and_cuts_what_takes_too_long(worker):
    worker("endless", ENDLESS)
    with gate(workers=("endless",), drain_seconds=20.0) as patient:
        body = {"inputs": "x", "parameters": {"max_new_tokens": 200}}
        asked = (f"{patient.url}/generate",)
        more = {"json": body, "headers": {"Authorization": f"Bearer {TOKEN}"}}
        answers: list = []
        thread = threading.Thread(
            target=lambda: answers.append(httpx.post(*asked, **more, timeout=30).json())
        )
        thread.start()
        wait_until(lambda: patient.server.gateway.permits.taken == 1, seconds=10, what="a request")
    thread.join(20)
    assert len(answers[0]["generated_text"]) == 200
    with gate(workers=("endless",), drain_seconds=0.2) as hasty:
        sock = raw(hasty.port, "/generate_stream", LONG)
        wait_until(lambda: hasty.server.gateway.permits.taken == 1, seconds=10, what="a request")
        time.sleep(0.2)
    received = rest_of(sock)
    assert b'"error_type":"healthcheck"' in received


def test_a_response_that_a_stop_cuts_is_failed(worker):
    worker("endless", ENDLESS)
    with gate(workers=("endless",), drain_seconds=0.2) as hasty:
        sock = raw(hasty.port, "/v1/responses", {"input": "go on", "stream": True})
        wait_until(lambda: hasty.server.gateway.permits.taken == 1, seconds=10, what="a request")
        time.sleep(0.3)
    received = rest_of(sock)
    lines = received.decode().splitlines()
    events = [json.loads(line[6:]) for line in lines if line.startswith("data: ")]
    assert [event["type"] for event in events[-2:]] == ["error", "response.failed"]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert events[-1]["response"]["error"]["code"] == "draining"
    assert "event: response.failed" in lines


def test_while_it_stops_new_requests_are_refused(endless):
    endless.server.gateway.permits.closed = True
    try:
        answer = endless.post("/generate", {"inputs": "x"})
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
        for path in ("/health", "/ping", "/v2/health/ready"):
            assert endless.get(path).status_code == 503
    finally:
        endless.server.gateway.permits.closed = False


def test_an_unforeseen_fault_is_told_without_its_words(endless, caplog):
    async def fault(*_args, **_more):
        raise ValueError("a secret prompt")

    models = endless.server.gateway.models
    original = models._find
    models._find = fault
    try:
        with caplog.at_level(logging.INFO, "llmkernel.gateway"):
            answer = endless.post("/generate", {"inputs": "another secret"})
            wait_until(
                lambda: any(record.msg == "request" for record in caplog.records),
                seconds=5,
                what="the log",
            )
    finally:
        models._find = original
    assert answer.status_code == 500
    assert answer.json() == {
        "error": "Incomplete generation",
        "error_type": "incomplete_generation",
    }
    shown = [str(record.__dict__) for record in caplog.records]
    assert any("ValueError" in line and "test_manners.py" in line for line in shown)
    assert not any("secret" in line for line in shown)


def test_no_dialect_gets_the_words_of_an_unforeseen_fault():
    failure = failure_of(ValueError("a secret prompt"))
    assert (failure.status, failure.code) == (500, "internal")
    assert "secret" not in str(failure)


def test_the_loop_is_not_held_up_by_a_large_body(endless):
    """A neighbour gets on while two megabytes are read and refused."""
    longest = asyncio.run_coroutine_threadsafe(_longest_pause(1.0), endless.loop)
    time.sleep(0.1)
    answer = endless.post("/generate", {"inputs": "x" * 1_999_000})
    assert answer.status_code == 422
    assert longest.result(10) < 0.25


async def _longest_pause(seconds: float) -> float:
    """Of a loop; what the machine gives other processes meanwhile is not counted."""
    longest, end = 0.0, time.monotonic() + seconds
    while (before := time.monotonic()) < end:
        worked = time.process_time()
        await asyncio.sleep(0.005)
        waited = time.monotonic() - before - 0.005
        longest = max(longest, min(waited, time.process_time() - worked))
    return longest


def test_a_loop_that_is_held_up_is_noticed():
    async def held_up() -> float:
        looking = asyncio.create_task(_longest_pause(0.5))
        await asyncio.sleep(0.05)
        until = time.process_time() + 0.3
        while time.process_time() < until:
            pass
        return await looking

    assert asyncio.run(held_up()) > 0.25


@pytest.mark.parametrize("path", ["/generate", "/v1/chat/completions", "/api/chat"])
def test_a_compressed_body_is_refused_as_that(scripted, path):
    body = gzip.compress(b"{}")
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    answer = scripted.http.post(path, content=body, headers=headers)
    assert answer.status_code == 415
    assert "Content-Encoding" in answer.text
