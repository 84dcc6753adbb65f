"""OpenAI's routes over a real gateway and worker: the tokens of the client beside it."""

from __future__ import annotations

import json

import pytest

from llmkernel.errors import InvalidRequest
from tests.conftest import wait_until
from tests.gateway.conftest import ENDLESS

pytestmark = pytest.mark.timeout(60)

USER = {"role": "user", "content": "What is a worker?"}
CHAT, COMPLETIONS, RESPONSES = "/v1/chat/completions", "/v1/completions", "/v1/responses"


@pytest.fixture
def llm(scripted):
    """The client of the same worker, past the gateway."""
    return scripted.worker()


def chat(gate, *messages, **fields):
    answer = gate.post(CHAT, {"messages": list(messages) or [USER], **fields})
    assert answer.status_code == 200, answer.text
    return answer.json()


def error_of(answer):
    assert answer.status_code == 400, answer.text
    return answer.json()["error"]


SAMPLING = [
    {"temperature": 0},
    {"seed": 5, "temperature": 0.7, "top_p": 0.9, "max_tokens": 30},
    {"seed": 5, "n": 3, "max_tokens": 9},
    {"seed": 9, "frequency_penalty": 1.5, "presence_penalty": -1, "max_tokens": 9},
    {"temperature": 0, "stop": [" a", "e"]},
    {"seed": 3, "top_k": 4, "min_p": 0.1, "repetition_penalty": 1.2, "max_tokens": 9},
    {"temperature": 0, "logit_bias": {"111": 50}, "max_tokens": 9},
]


@pytest.mark.parametrize("sampling", SAMPLING, ids=str)
def test_a_chat_is_that_of_the_client(scripted, llm, sampling):
    ours = dict(sampling)
    if "logit_bias" in ours:
        ours["logit_bias"] = {int(key): bias for key, bias in ours["logit_bias"].items()}
    expected = llm.chat([USER], **ours)
    choices = chat(scripted, **sampling)["choices"]
    assert [each["message"]["content"] for each in choices] == [
        each.text for each in expected.samples
    ]
    assert [each["finish_reason"] for each in choices] == [
        each.finish_reason for each in expected.samples
    ]


@pytest.mark.parametrize(
    "sampling", [each for each in SAMPLING if "logit_bias" not in each], ids=str
)
def test_completions_are_those_of_the_client(scripted, llm, sampling):
    prompts = ["once", "upon a time"]
    sampling = {"max_tokens": 12} | sampling
    answer = scripted.post(COMPLETIONS, {"prompt": prompts, **sampling}).json()
    expected = [sample for prompt in prompts for sample in llm.generate(prompt, **sampling).samples]
    assert [each["text"] for each in answer["choices"]] == [each.text for each in expected]


def test_a_last_turn_of_the_assistant_is_gone_on_with(scripted, llm):
    turns = [USER, {"role": "assistant", "content": "A worker is"}]
    expected = llm.chat(turns, temperature=0, continue_final_message=True).text
    answer = chat(scripted, *turns, temperature=0)
    assert answer["choices"][0]["message"]["content"] == expected
    assert expected != llm.chat([USER], temperature=0).text


def test_usage_says_what_was_cached(scripted):
    question = {
        "role": "user",
        "content": "A question that is long enough for several blocks. " * 4,
    }
    first = chat(scripted, question, max_tokens=2)["usage"]
    second = chat(scripted, question, max_tokens=2)["usage"]
    assert first["prompt_tokens_details"]["cached_tokens"] < 32
    assert second["prompt_tokens_details"]["cached_tokens"] > 100
    assert second["prompt_tokens"] == first["prompt_tokens"]


def test_a_streamed_chat_is_the_whole_one(scripted):
    body = {"messages": [USER], "seed": 4, "n": 2, "max_tokens": 12}
    events = scripted.events(
        CHAT, body | {"stream": True, "stream_options": {"include_usage": True}}
    )
    assert events[-1] == "[DONE]"
    whole = chat(scripted, **{key: value for key, value in body.items() if key != "messages"})
    assert events[-2]["usage"]["completion_tokens"] == whole["usage"]["completion_tokens"]
    for choice in whole["choices"]:
        own = [
            each["delta"].get("content", "")
            for event in events[:-2]
            for each in event["choices"]
            if each["index"] == choice["index"]
        ]
        assert "".join(own) == choice["message"]["content"]


def test_streamed_completions_are_the_whole_ones(scripted):
    body = {"prompt": ["once", "upon"], "seed": 4, "n": 2, "max_tokens": 9, "echo": True}
    whole = scripted.post(COMPLETIONS, body).json()["choices"]
    events = scripted.events(COMPLETIONS, body | {"stream": True})
    assert events.pop() == "[DONE]"
    texts = [""] * 4
    for event in events:
        for choice in event["choices"]:
            texts[choice["index"]] += choice["text"]
    assert texts == [choice["text"] for choice in whole]


def test_scoring_is_that_of_the_client(scripted, llm):
    body = {"prompt": "a text", "max_tokens": 0, "echo": True, "logprobs": 2}
    (choice,) = scripted.post(COMPLETIONS, body).json()["choices"]
    score = llm.score("a text", top=2)
    assert choice["text"] == "a text"
    assert choice["logprobs"]["token_logprobs"] == [each.logprob for each in score.logprobs]
    assert choice["logprobs"]["text_offset"][:3] == [0, 0, 1]  # the BOS has no text in it


def test_the_echo_of_token_ids_is_their_text(scripted):
    body = {"prompt": list(b"hello"), "max_tokens": 3, "echo": True}
    assert scripted.post(COMPLETIONS, body).json()["choices"][0]["text"].startswith("hello")


def test_a_response_goes_on_after_another(scripted, llm):
    first = scripted.post(
        RESPONSES, {"input": "hello", "temperature": 0, "instructions": "Be brief."}
    )
    first = first.json()
    text = first["output"][0]["content"][0]["text"]
    body = {"input": "and then?", "temperature": 0, "previous_response_id": first["id"]}
    second = scripted.post(RESPONSES, body).json()
    turns = [("user", "hello"), ("assistant", text), ("user", "and then?")]
    expected = llm.chat([{"role": role, "content": text} for role, text in turns], temperature=0)
    assert second["output"][0]["content"][0]["text"] == expected.text
    assert second["previous_response_id"] == first["id"]
    assert second["usage"]["input_tokens"] == expected.usage.prompt_tokens


def test_a_response_that_is_not_stored_cannot_be_gone_on_after(scripted):
    first = scripted.post(
        RESPONSES, {"input": "hello", "max_output_tokens": 2, "store": False}
    ).json()
    answer = scripted.post(RESPONSES, {"input": "x", "previous_response_id": first["id"]})
    assert answer.status_code == 404
    assert answer.json()["error"]["param"] == "previous_response_id"


def test_a_response_is_kept_until_it_is_let_go(scripted):
    made = scripted.post(RESPONSES, {"input": "hello", "max_output_tokens": 2}).json()
    path = f"{RESPONSES}/{made['id']}"
    assert scripted.get(path).json() == made
    assert scripted.http.delete(path).json()["deleted"]
    assert scripted.get(path).status_code == 404
    assert scripted.http.delete(path).status_code == 404


def test_a_streamed_response_is_the_whole_one(scripted):
    body = {"input": "hello", "temperature": 0}
    events = scripted.events(RESPONSES, body | {"stream": True})
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    kinds = list(dict.fromkeys(event["type"] for event in events))
    assert kinds == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    whole = scripted.post(RESPONSES, body).json()["output"][0]["content"][0]["text"]
    assert "".join(event.get("delta", "") for event in events) == whole
    assert events[-1]["response"]["output"][0]["content"][0]["text"] == whole


def test_tokens_and_templates(scripted, llm):
    ids = llm.tokenize([USER])
    answer = scripted.post("/apply-template", {"messages": [USER]}).json()
    assert answer["tokens"] == ids
    assert USER["content"] in answer["prompt"]
    assert answer["prompt"] == llm.detokenize(ids)
    text = scripted.post("/detokenize", {"tokens": list(b"hello")}).json()
    assert text["content"] == text["prompt"] == "hello"
    assert error_of(scripted.post("/detokenize", {"tokens": [10**6]}))
    assert error_of(scripted.post("/apply-template", {"messages": []}))["param"] == "messages"


def test_models(scripted):
    listed = scripted.get("/v1/models").json()
    assert listed["object"] == "list"
    assert [model["id"] for model in listed["data"]] == ["scripted"]
    assert scripted.get("/v1/models/scripted").json() == listed["data"][0]
    assert scripted.get("/v1/models/tgi").json() == listed["data"][0]
    missing = scripted.get("/v1/models/none/such")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "model_not_found")


def test_an_unknown_model_is_a_404_that_names_the_field(scripted):
    answer = scripted.post(CHAT, {"messages": [USER], "model": "other"})
    assert answer.status_code == 404
    assert answer.json()["error"]["param"] == "model"
    assert answer.json()["error"]["code"] == "model_not_found"


@pytest.mark.parametrize("name", ["tgi", "dummy", "scripted", None])
def test_names_that_mean_the_model_that_runs(scripted, name):
    assert chat(scripted, model=name, max_tokens=1)["model"] == "scripted"


def test_what_does_not_fit_says_so_before_the_stream(scripted):
    body = {"prompt": "x" * 5000, "stream": True}
    error = error_of(scripted.post(COMPLETIONS, body))
    assert (error["code"], error["type"]) == ("context_length_exceeded", "invalid_request_error")


@pytest.mark.parametrize("body", [b"", b"{", b'{"messages": NaN}', b"[1]", b"\xff", b"null"])
def test_a_body_that_is_none_is_a_400(scripted, body):
    answer = scripted.http.post(CHAT, content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


def test_answers_beyond_the_permits_are_refused_at_once(scripted, open_gate):
    narrow = open_gate(limits={"max_concurrent_requests": 3})
    body = {"messages": [USER], "n": 3, "max_tokens": 1}
    with narrow.server.gateway.permits.take():
        answer = narrow.post(CHAT, body)
    assert answer.status_code == 429
    assert answer.json()["error"]["type"] == "rate_limit_error"
    assert "Retry-After" in answer.headers
    assert narrow.post(CHAT, body).status_code == 200


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS, RESPONSES])
def test_a_client_that_goes_away_takes_its_request_with_it(worker, open_gate, scripted, path):
    name = f"endless{path.count('/')}{path[-1]}"
    worker(name, ENDLESS)
    gate = open_gate(workers=(name,))
    body = {"prompt": ["x", "y"], "max_tokens": 10_000, "stream": True, "temperature": 0}
    if path != COMPLETIONS:
        body = {"stream": True, "temperature": 0}
        body |= {"input": "x"} if path == RESPONSES else {"messages": [USER]}
    with gate.http.stream("POST", path, json=body) as answer:
        lines = answer.iter_lines()
        for _ in range(20):
            next(lines)
        assert gate.status(name).load.running > 0
    wait_until(lambda: gate.status(name).load.running == 0, seconds=3, what="the request to end")


def test_a_stream_that_breaks_ends_with_an_error(worker, open_gate, scripted):
    events = broken(worker, open_gate, "chatty", CHAT, {"messages": [USER]})
    assert [set(event) for event in events[-2:]][-1] == {"error"}
    assert set(events[-1]["error"]) == {"message", "type", "param", "code"}
    assert events[-1]["error"]["type"] == "server_error"
    assert "choices" in events[-2]


def test_completions_that_break_end_with_an_error(worker, open_gate, scripted):
    events = broken(worker, open_gate, "writer", COMPLETIONS, {"prompt": "x", "max_tokens": 99})
    assert set(events[-1]) == {"error"}


def test_a_response_that_breaks_is_failed(worker, open_gate, scripted):
    events = broken(worker, open_gate, "responder", RESPONSES, {"input": "x"})
    *_, error, failed = events
    assert (error["type"], failed["type"]) == ("error", "response.failed")
    assert failed["sequence_number"] == error["sequence_number"] + 1 == len(events) - 1
    assert failed["response"]["status"] == "failed"
    assert failed["response"]["error"]["message"] == error["message"]


def broken(worker, open_gate, name, path, body):
    """The events of a stream whose step fails after it has begun; none says that it is whole."""
    worker(name, "scripted:fail_at_step=8,eos_after=1000")
    events = open_gate(workers=(name,)).events(path, {**body, "stream": True, "temperature": 0})
    assert "[DONE]" not in events
    assert len(events) > 3
    assert "completed" not in json.dumps(events)
    return events


# each row of the reference server's table of validation that OpenAI's API has a name for
ROWS = {
    "best_of": ([1, 2, 64], [0, -1, 65, 1.5, "2"]),
    "temperature": ([0, 0.1, 1, 100], [-0.1, 100.1, "1"]),
    "repetition_penalty": ([0.1, 1, 100], [0, -1, 100.1]),
    "frequency_penalty": ([-2, 0, 2], [-2.1, 2.1]),
    "presence_penalty": ([-2, 0, 2], [-2.1, 2.1]),
    "top_k": ([0, 1, 1000], [-1, 1.5]),
    "top_p": ([0.1, 1.0], [0, -0.5, 1.1]),
    "typical_p": ([0.1, 1.0], [0, 1.1]),
    "max_tokens": ([1, 100], [0, -1, 2048, 2**31, 1.5]),
    "stop": ([[], ["a"], ["a"] * 16, "a"], [["a"] * 17, [""], [1], ["a" * 1025]]),
    "seed": ([0, 1, -(2**63), 2**63 - 1], [2**63, 1.5, "1"]),
    "logprobs": ([0, 5, 20], [-1, 21]),
    "logit_bias": ([{"5": 1}, {}], [{"100000": 1}, {"5": 101}, {"-1": 1}]),
    "prompt": (["x", [1, 2]], ["", [], "x" * 3000, [100000]]),
    "n": ([1, 64], [0, 65]),
}
CASES = [
    pytest.param(name, value, good, id=f"{name}-{str(value)[:20]}-{good}")
    for name, (taken, refused) in ROWS.items()
    for good, values in ((True, taken), (False, refused))
    for value in values
]


@pytest.mark.parametrize(("name", "value", "good"), CASES)
def test_the_verdict_is_that_of_the_client(scripted, llm, name, value, good):
    fields = {"prompt": "x", "max_tokens": 2, name: value}
    answer = scripted.post(COMPLETIONS, fields)
    assert (answer.status_code == 200) == good, answer.text
    assert answer.status_code in (200, 400)
    if name == "logit_bias":
        fields[name] = {int(key): bias for key, bias in value.items()}
    assert taken_by(llm, fields) == good


def taken_by(llm, fields):
    try:
        llm.generate(fields.pop("prompt"), **fields)
    except InvalidRequest:
        return False
    return True


TURNS = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "h"}]


@pytest.mark.parametrize(
    ("path", "body", "prompts", "characters"),
    [
        (CHAT, {"messages": TURNS}, 1, 6),
        (COMPLETIONS, {"prompt": ["ab", "cde"]}, 2, 5),
        (COMPLETIONS, {"prompt": [5, 6]}, 1, 0),
    ],
)
def test_headers_tell_the_times_as_on_tgis_routes(scripted, path, body, prompts, characters):
    body = body | {"max_tokens": 3}
    answer = scripted.post(path, body)
    numbers = ("total-time", "validation-time", "queue-time", "inference-time", "time-per-token")
    assert all(answer.headers[f"x-{name}"].isdecimal() for name in numbers)
    assert float(answer.headers["x-compute-time"]) > 0
    usage = answer.json()["usage"]
    assert usage["completion_tokens"] == 3 * prompts
    assert answer.headers["x-generated-tokens"] == str(usage["completion_tokens"])
    assert answer.headers["x-prompt-tokens"] == str(usage["prompt_tokens"])
    with scripted.http.stream("POST", path, json=body | {"stream": True}) as streamed:
        for headers in (answer.headers, streamed.headers):
            assert headers["x-compute-type"] == "1-cpu"
            assert headers["x-compute-characters"] == str(characters)
