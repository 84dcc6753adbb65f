"""Text Generation Inference's routes: its shapes, headers and errors, with the client's answers."""

from __future__ import annotations

import pytest

from llmkernel.client.link import Link

INPUTS = "How do I stop a cell?"
GREEDY = {"max_new_tokens": 200}


@pytest.fixture(scope="module")
def plain(open_gate, scripted):
    """The same worker behind a gateway without TGI's habits."""
    return open_gate(tgi_compat="plain")


def generate(gate, path="/generate", inputs=INPUTS, **parameters):
    answer = gate.post(path, {"inputs": inputs, "parameters": parameters})
    assert answer.status_code == 200, answer.text
    return answer.json()


def stream(gate, inputs=INPUTS, **parameters):
    return gate.events("/generate_stream", {"inputs": inputs, "parameters": parameters})


def refusal(gate, path="/generate", **parameters):
    answer = gate.post(path, {"inputs": INPUTS, "parameters": parameters})
    return answer.status_code, answer.json()["error"]


def client_of(gate):
    return gate.worker()


def test_the_same_tokens_as_the_client_beside_it(scripted):
    expected = client_of(scripted).generate(INPUTS, temperature=0, max_tokens=200)
    body = generate(scripted, details=True, **GREEDY)
    assert body["generated_text"] == expected.text
    assert [token["id"] for token in body["details"]["tokens"]] == expected.token_ids
    seeded = client_of(scripted).generate(INPUTS, temperature=0.9, seed=7, max_tokens=50)
    drawn = generate(scripted, temperature=0.9, seed=7, max_new_tokens=50)
    assert drawn["generated_text"] == seeded.text


def test_details_have_every_field(scripted):
    body = generate(scripted, details=True, decoder_input_details=True, top_n_tokens=2, **GREEDY)
    details = body["details"]
    assert set(details) == {
        "finish_reason", "generated_tokens", "seed", "prefill", "tokens", "top_tokens"
    }  # fmt: skip
    assert (details["finish_reason"], details["seed"]) == ("eos_token", None)
    assert details["generated_tokens"] == len(details["tokens"]) == len(details["top_tokens"])
    assert details["prefill"][0] == {"id": 257, "text": "<bos>", "logprob": None}
    assert "".join(token["text"] for token in details["prefill"][1:]) == INPUTS
    *shown, last = details["tokens"]
    assert set(last) == {"id", "text", "logprob", "special"}
    assert (last["text"], last["special"]) == ("<eos>", True)
    assert "".join(token["text"] for token in shown) == body["generated_text"]
    assert all(len(others) <= 2 for others in details["top_tokens"])
    assert "details" not in generate(scripted, **GREEDY)


def test_sampling_is_told_by_a_seed_that_gives_the_same_again(scripted):
    first = generate(scripted, details=True, do_sample=True, max_new_tokens=40)
    seed = first["details"]["seed"]
    again = generate(scripted, details=True, do_sample=True, seed=seed, max_new_tokens=40)
    assert again == first
    high = generate(scripted, details=True, do_sample=True, seed=2**64 - 1, max_new_tokens=4)
    assert high["details"]["seed"] == 2**64 - 1


def test_without_parameters_tokens_are_drawn(scripted):
    texts = {
        scripted.post("/generate", {"inputs": INPUTS}).json()["generated_text"] for _ in range(5)
    }
    assert len(texts) > 1


def test_best_of_gives_the_likeliest_and_the_others(scripted):
    body = generate(scripted, best_of=2, do_sample=True, details=True, max_new_tokens=10)
    (other,) = body["details"]["best_of_sequences"]
    assert set(other) == {
        "generated_text", "finish_reason", "generated_tokens", "seed", "prefill", "tokens"
    }  # fmt: skip

    def mean(tokens):
        return sum(token["logprob"] for token in tokens) / len(tokens)

    assert mean(body["details"]["tokens"]) >= mean(other["tokens"])


def test_a_stop_text_ends_the_answer_and_is_not_in_it(scripted):
    whole = generate(scripted, **GREEDY)["generated_text"]
    stop = whole[6:9]
    body = generate(scripted, stop=[stop], details=True, **GREEDY)
    assert body["generated_text"] == whole[: whole.index(stop)]
    assert body["details"]["finish_reason"] == "stop_sequence"
    events = stream(scripted, stop=[stop], details=True, **GREEDY)
    assert events[-1]["generated_text"] == body["generated_text"]
    assert "".join(event["token"]["text"] for event in events) == body["generated_text"]


def test_truncate_keeps_the_end(scripted):
    body = generate(scripted, truncate=4, details=True, decoder_input_details=True, **GREEDY)
    assert "".join(token["text"] for token in body["details"]["prefill"]) == INPUTS[-4:]


def test_the_prompt_comes_back_where_it_is_asked_for_and_from_the_root(scripted, plain):
    text = generate(scripted, **GREEDY)["generated_text"]
    assert generate(scripted, return_full_text=True, **GREEDY)["generated_text"] == INPUTS + text
    assert generate(scripted, "/", **GREEDY) == [{"generated_text": INPUTS + text}]
    assert generate(scripted, "/", return_full_text=False, **GREEDY) == [{"generated_text": text}]
    assert generate(plain, "/", **GREEDY) == [{"generated_text": text}]
    events = stream(scripted, return_full_text=True, **GREEDY)
    assert events[-1]["generated_text"] == INPUTS + text


def test_a_stream_has_an_event_for_each_token(scripted):
    whole = generate(scripted, details=True, **GREEDY)
    events = stream(scripted, details=True, **GREEDY)
    assert [event["index"] for event in events] == list(range(1, len(events) + 1))
    assert [event["token"] for event in events] == whole["details"]["tokens"]
    assert all(event["generated_text"] is event["details"] is None for event in events[:-1])
    assert events[-1]["generated_text"] == whole["generated_text"]
    assert events[-1]["details"] == {
        "finish_reason": "eos_token",
        "generated_tokens": len(events),
        "seed": None,
        "input_length": len(INPUTS) + 1,
    }
    assert "top_tokens" not in events[0]
    assert len(stream(scripted, top_n_tokens=1, **GREEDY)[0]["top_tokens"]) <= 1


@pytest.mark.parametrize("most", [1, 2, 5])
def test_the_last_event_has_the_text_also_at_the_limit(scripted, most):
    events = stream(scripted, max_new_tokens=most, details=True)
    assert len(events) == most
    assert events[-1]["details"]["finish_reason"] == "length"
    assert events[-1]["generated_text"] == "".join(event["token"]["text"] for event in events)


def test_the_root_streams_where_it_is_asked_to(scripted):
    body = {"inputs": INPUTS, "parameters": GREEDY, "stream": True}
    events = scripted.events("/", body)
    assert events[-1]["generated_text"] == generate(scripted, "/", **GREEDY)[0]["generated_text"]


def test_headers_tell_the_times(scripted):
    answer = scripted.post("/generate", {"inputs": INPUTS, "parameters": GREEDY})
    numbers = ("total-time", "validation-time", "queue-time", "inference-time", "time-per-token")
    for name in (*numbers, "prompt-tokens", "generated-tokens", "compute-characters"):
        assert answer.headers[f"x-{name}"].isdecimal()
    assert float(answer.headers["x-compute-time"]) > 0
    assert answer.headers["x-compute-characters"] == str(len(INPUTS))
    assert answer.headers["x-prompt-tokens"] == str(len(INPUTS) + 1)
    assert answer.headers["x-compute-type"] == "1-cpu"
    with scripted.http.stream("POST", "/generate_stream", json={"inputs": INPUTS}) as streamed:
        assert streamed.headers["content-type"] == "text/event-stream"
        assert streamed.headers["x-accel-buffering"] == "no"
        assert streamed.headers["x-compute-type"] == "1-cpu"
        assert streamed.headers["x-compute-characters"] == str(len(INPUTS))


def test_refusals_of_a_stream_are_events_in_strict_mode(scripted, plain):
    (event,) = stream(scripted, top_p=1.0)
    assert event == {
        "error": "Input validation error: `top_p` must be > 0.0 and < 1.0",
        "error_type": "validation",
    }
    body = {"inputs": INPUTS, "parameters": {"top_p": 1.0}}
    assert plain.post("/generate_stream", body).status_code == 422


def test_what_the_engine_cannot_do_is_refused_by_name(scripted):
    for field, value in (
        ("grammar", {"type": "regex", "value": "a+"}),
        ("adapter_id", "my-lora"),
        ("watermark", True),
    ):
        status, error = refusal(scripted, **{field: value})
        assert status == 422
        assert field in error
    assert "grammar" not in generate(scripted, grammar=None, adapter_id=None, watermark=False)


def test_a_misspelt_parameter_is_refused_and_other_fields_are_let_pass(scripted):
    answer = scripted.post("/generate", {"inputs": INPUTS, "parameters": {"max_tokens": 1}})
    assert (answer.status_code, answer.headers["content-type"][:10]) == (422, "text/plain")
    assert "max_tokens" in answer.text
    body = {"inputs": INPUTS, "parameters": GREEDY, "options": {"use_cache": False}}
    assert scripted.post("/generate", body).status_code == 200


@pytest.mark.parametrize(
    ("body", "headers", "status", "start"),
    [
        (b"{", {}, 400, "Failed to parse the request body as JSON"),
        (b'{"inputs": "\xff"}', {}, 400, "Failed to parse the request body as JSON"),
        (
            b'{"parameters": {"grammar": ' + b"[" * 100_000,
            {},
            400,
            "Failed to parse the request body as JSON",
        ),
        (b"{}", {}, 422, "Failed to deserialize the JSON body into the target type: "),
        (b'{"inputs": 5}', {}, 422, "Failed to deserialize the JSON body into the target type: "),
        (b"{}", {"Content-Type": "text/plain"}, 415, "Expected request with `Content-Type"),
        (b" " * 2_000_001, {}, 413, "Failed to buffer the request body: length limit exceeded"),
    ],
)
def test_bodies_that_are_none(scripted, body, headers, status, start):
    headers = {"Content-Type": "application/json"} | headers
    answer = scripted.http.post("/generate", content=body, headers=headers)
    assert (answer.status_code, answer.headers["content-type"][:10]) == (status, "text/plain")
    assert answer.text.startswith(start)


def test_a_body_in_chunks_is_bounded_too(scripted):
    answer = scripted.http.post(
        "/generate",
        content=(b" " * 6000 for _ in range(400)),
        headers={"Content-Type": "application/json"},
    )
    assert answer.status_code == 413


def test_no_token_is_told_as_json_that_the_clients_show(scripted):
    answer = scripted.http.post("/generate", json={}, headers={"Authorization": "none"})
    assert answer.status_code == 401
    assert answer.json()["error"].startswith("A token is needed: send it as `Authorization: Bea")


def test_tokenize_says_where_each_token_is(scripted):
    found = scripted.post("/tokenize", {"inputs": "dö 🙂"}).json()
    assert found[0] == {"id": 257, "text": "", "start": 0, "stop": 0}
    assert [token["id"] for token in found[1:]] == list("dö 🙂".encode())
    assert [(token["text"], token["start"], token["stop"]) for token in found[1:4]] == [
        ("d", 0, 1),
        ("ö", 1, 2),
        ("ö", 1, 2),
    ]
    assert all("dö 🙂"[each["start"] : each["stop"]] == each["text"] for each in found)
    assert scripted.post("/tokenize", {"inputs": ""}).status_code == 422


def test_chat_tokenize_shows_what_the_template_makes(scripted):
    turns = [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]
    body = scripted.post("/chat_tokenize", {"messages": turns}).json()
    assert body["templated_text"] == "user: hi\nassistant: "
    assert "".join(each["text"] for each in body["tokenize_response"]) == body["templated_text"]
    odd = scripted.post("/chat_tokenize", {"messages": [{"role": "elf", "content": "x"}]})
    assert (odd.status_code, odd.json()["error_type"]) == (422, "template_error")
    image = {"type": "image_url", "image_url": {"url": "http://169.254.169.254/"}}
    turns = [{"role": "user", "content": [image]}]
    refused = scripted.post("/chat_tokenize", {"messages": turns})
    assert (refused.status_code, "messages[0].content" in refused.text) == (422, True)


def test_info_has_every_key(open_gate, scripted):
    info = scripted.get("/info").json()
    assert set(info) == {
        "model_id", "model_sha", "model_pipeline_tag", "max_concurrent_requests", "max_best_of",
        "max_stop_sequences", "max_input_tokens", "max_total_tokens", "validation_workers",
        "max_client_batch_size", "router", "version", "sha", "docker_label",
    }  # fmt: skip
    assert (info["model_id"], info["max_total_tokens"]) == ("scripted", 2048)
    small = open_gate(limits={"max_total_tokens": 100, "max_input_tokens": 50, "max_best_of": 1})
    info = small.get("/info").json()
    assert (info["max_total_tokens"], info["max_input_tokens"]) == (100, 50)
    answer = small.post("/generate", {"inputs": "x" * 60, "parameters": {"max_new_tokens": 1}})
    assert answer.json()["error"].endswith("`inputs` must have less than 50 tokens. Given: 61")
    assert refusal(small, best_of=2)[1].endswith("`best_of` != 1 is not allowed for this endpoint")


def test_hosted_forms(scripted):
    text = generate(scripted, **GREEDY)["generated_text"]
    body = {"inputs": INPUTS, "parameters": GREEDY}
    assert scripted.post("/invocations", body).json() == [{"generated_text": INPUTS + text}]
    instances = [body, {"messages": [{"role": "user", "content": "hi"}]}]
    predictions = scripted.post("/vertex", {"instances": instances}).json()["predictions"]
    assert (predictions[0], len(predictions)) == (text, 2)
    assert scripted.post("/vertex", {"instances": [body] * 5}).status_code == 422
    assert scripted.post("/vertex", {"instances": [{}]}).status_code == 422


def test_a_failure_of_the_worker_is_a_failed_generation(worker, open_gate):
    worker("broken", "scripted:fail_at_step=1")
    gate = open_gate(workers=("broken",))
    answer = gate.post("/generate", {"inputs": INPUTS, "parameters": GREEDY})
    assert answer.status_code == 424
    assert answer.json()["error_type"] == "generation"
    assert answer.json()["error"].startswith("Request failed during generation: ")
    worker("breaks", "scripted:fail_at_step=4")
    gate = open_gate(workers=("breaks",))
    events = stream(gate, **GREEDY)
    assert events[-1]["error_type"] == "generation"


# How long a prompt may be ------------------------------------------------------------------


@pytest.fixture(scope="module")
def narrow(open_gate, scripted):
    """The same worker behind a gateway with limits of its own."""
    limits = {"max_input_tokens": 100, "max_total_tokens": 129}
    return open_gate(workers=("scripted",), limits=limits)


@pytest.fixture(scope="module")
def endless(worker, open_gate):
    """A worker whose answers end where there is no more room."""
    worker("endless", "scripted:eos_after=100000")
    return open_gate(workers=("endless",))


@pytest.fixture
def asked(scripted, monkeypatch):
    """The kinds of question that the gateway sends to its worker, as they are sent."""
    kinds: list[str] = []
    start = Link.start

    def noted(link, call):
        kinds.append(type(call.question).__name__)
        start(link, call)

    monkeypatch.setattr(Link, "start", noted)
    return lambda: [kind for kind in kinds if kind != "GetStatus"]


@pytest.mark.parametrize(
    "parameters", [GREEDY, {}, {"max_new_tokens": 1500}, {"details": True, "max_new_tokens": 3}]
)
def test_a_worker_is_asked_one_question_for_an_answer(scripted, asked, parameters):
    body = {"inputs": INPUTS, "parameters": parameters}
    assert scripted.post("/generate", body).status_code == 200
    assert asked() == ["Submit"]


def test_a_worker_is_asked_one_question_for_a_stream(scripted, asked):
    events = stream(scripted, max_new_tokens=5)
    assert len(events) == 5
    assert asked() == ["Submit"]


def test_a_prompt_is_counted_first_where_it_is_to_be_cut(scripted, asked):
    generate(scripted, truncate=4, **GREEDY)
    assert asked() == ["Tokenize", "Submit"]


@pytest.mark.parametrize("length", [120, 2000, 40_000, 200_000])
@pytest.mark.parametrize("most", [1, 100, 1024, 1500, None])
def test_a_prompt_that_is_too_long_is_told_with_its_length(narrow, length, most):
    tokens = length + 1
    added = max(129 - tokens, 0) if most is None else min(most, 1024)
    parameters = {} if most is None else {"max_new_tokens": most}
    says = f"`inputs` must have less than 100 tokens. Given: {tokens}"
    if tokens + added > 129:
        says = (
            "`inputs` tokens + `max_new_tokens` must be <= 129. "
            f"Given: {tokens} `inputs` tokens and {added} `max_new_tokens`"
        )
    error = {"error": f"Input validation error: {says}", "error_type": "validation"}
    body = {"inputs": "x" * length, "parameters": parameters}
    answer = narrow.post("/generate", body)
    assert (answer.status_code, answer.json()) == (422, error)
    assert narrow.events("/generate_stream", body) == [error]


@pytest.mark.parametrize("most", [1025, 1500, 2000, 2048, 2**32 - 1])
@pytest.mark.parametrize("streamed", [False, True])
def test_an_answer_above_1024_tokens_is_cut_to_the_room_there_is(endless, most, streamed):
    parameters = {"max_new_tokens": most, "details": True}
    inputs = "x" * 900
    if streamed:
        *_, last = stream(endless, inputs, **parameters)
        details = last["details"]
        assert details["input_length"] == 901
    else:
        details = generate(endless, inputs=inputs, **parameters)["details"]
    assert details["generated_tokens"] == min(most, 2048 - 901)
    assert details["finish_reason"] == "length"


def test_an_answer_without_a_limit_is_refused_where_the_worker_has_less_room(worker, open_gate):
    worker("roomless", "scripted:blocks=9,context_length=2048", max_concurrent=1)
    gate = open_gate(workers=("roomless",))
    body = {"inputs": INPUTS}
    answer = gate.post("/generate", body)
    assert answer.status_code == 422
    assert "this worker has room for 128" in answer.json()["error"]
    assert gate.post("/generate_stream", body).status_code == 422
    assert len(stream(gate, max_new_tokens=3)) == 3
