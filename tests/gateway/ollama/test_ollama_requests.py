"""Bodies of Ollama's API as questions for a worker, and answers as its lines."""

from __future__ import annotations

import time

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmkernel.errors import InvalidRequest, UnsupportedField
from llmkernel.gateway.ollama import keep_alive, options, pull
from llmkernel.gateway.ollama import request as requests
from llmkernel.gateway.ollama.answer import Lines
from llmkernel.gateway.ollama.options import Options
from llmkernel.gateway.ollama.request import ChatRequest, GenerateRequest
from llmkernel.params import SamplingParams
from llmkernel.protocol import Progress
from tests.gateway.bodies_of import read, streamed

USER = {"role": "user", "content": "hi"}


def chat(*messages, **fields):
    body = {"model": "m", "messages": list(messages) or [USER]} | fields
    return requests.ask_chat(read(ChatRequest, **body))


def generate(prompt="hi", **fields):
    return requests.ask_generate(read(GenerateRequest, model="m", prompt=prompt, **fields))


def with_options(**given):
    return chat(options=given).params


def plain(value):
    return msgspec.json.decode(msgspec.json.encode(value))


def test_options_by_their_names_there():
    found = with_options(
        num_predict=5,
        temperature=0.5,
        top_k=3,
        top_p=0.9,
        min_p=0.1,
        typical_p=0.8,
        repeat_penalty=1.1,
        presence_penalty=1,
        frequency_penalty=-1,
        seed=4,
        stop=["a"],
    )
    assert found == SamplingParams(
        max_tokens=5,
        temperature=0.5,
        top_k=3,
        top_p=0.9,
        min_p=0.1,
        typical_p=0.8,
        repetition_penalty=1.1,
        presence_penalty=1.0,
        frequency_penalty=-1.0,
        seed=4,
        stop=["a"],
    )


@pytest.mark.parametrize("endless", [-1, -2])
def test_a_negative_limit_is_none(endless):
    assert with_options(num_predict=endless).max_tokens is None


UNSUPPORTED = {
    "num_keep": 4,
    "num_batch": 2,
    "num_gpu": 1,
    "num_thread": 4,
    "main_gpu": 0,
    "use_mmap": True,
    "use_mlock": True,
    "numa": True,
    "low_vram": True,
    "f16_kv": True,
    "logits_all": True,
    "vocab_only": True,
    "embedding_only": True,
    "mirostat": 2,
    "mirostat_tau": 5.0,
    "mirostat_eta": 0.1,
    "tfs_z": 0.5,
    "penalize_newline": False,
}


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_options_that_are_not_served_are_named(name):
    with pytest.raises(UnsupportedField) as refused:
        with_options(**{name: UNSUPPORTED[name]})
    assert refused.value.data["field"] == f"options.{name}"


def test_every_refused_option_is_tested():
    assert set(UNSUPPORTED) == set(options._REFUSED)


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"temperature": -1}, "options.temperature"),
        ({"num_predict": 0}, "options.num_predict"),
        ({"repeat_penalty": 0}, "options.repeat_penalty"),
        ({"repeat_penalty": 1.1, "repeat_last_n": 64}, "options.repeat_last_n"),
        ({"stop": [""]}, "options.stop"),
    ],
)
def test_bad_options_are_named_as_they_were_sent(given, field):
    with pytest.raises(InvalidRequest) as refused:
        with_options(**given)
    assert refused.value.data["field"] == field
    assert field.split(".")[1] in refused.value.message or field == "options.stop"


def test_the_penalty_looks_at_the_whole_context():
    assert with_options(repeat_penalty=1.1, repeat_last_n=-1).repetition_penalty == 1.1
    assert with_options(repeat_last_n=64) == SamplingParams()


def test_a_context_that_the_worker_has_not_is_refused():
    options.check_context(Options(num_ctx=1024), 1024)
    options.check_context(Options(), 1024)
    with pytest.raises(InvalidRequest, match="1025 tokens; the worker was started with 1024"):
        options.check_context(Options(num_ctx=1025), 1024)


@pytest.mark.parametrize(
    ("ask", "field", "value"),
    [
        (chat, "format", "json"),
        (chat, "format", {}),
        (chat, "think", True),
        (chat, "think", "high"),
        (chat, "tools", [{"type": "function"}]),
        (chat, "truncate", True),
        (chat, "shift", True),
        (generate, "suffix", "end"),
        (generate, "images", ["AAAA"]),
        (generate, "template", "{{ .Prompt }}"),
        (generate, "context", [1, 2]),
        (generate, "width", 512),
    ],
)
def test_what_is_not_served_is_refused_by_name(ask, field, value):
    with pytest.raises(UnsupportedField) as refused:
        ask(**{field: value})
    assert refused.value.data["field"] == field


@pytest.mark.parametrize(
    ("turn", "field"),
    [
        ({"role": "tool", "content": "x"}, "messages[0].role"),
        ({"role": "poet", "content": "x"}, "messages[0].role"),
        ({"role": "user", "images": ["AAAA"]}, "messages[0].images"),
        ({"role": "assistant", "tool_calls": [{}]}, "messages[0].tool_calls"),
        ({"role": "assistant", "thinking": "hm"}, "messages[0].thinking"),
    ],
)
def test_turns_that_are_not_served_are_named(turn, field):
    with pytest.raises(InvalidRequest) as refused:
        chat(turn)
    assert refused.value.data["field"] == field


def test_what_clients_send_empty_changes_nothing():
    empty = {"suffix": "", "template": "", "system": "", "images": [], "context": [], "format": ""}
    assert generate(**empty) == generate()
    assert chat(tools=[], think=False, truncate=False) == chat()


def test_a_prompt_is_a_turn_of_the_user():
    found = generate(system="Be brief.")
    assert [(turn.role, turn.content) for turn in found.messages] == [
        ("system", "Be brief."),
        ("user", "hi"),
    ]


def test_a_raw_prompt_is_itself():
    assert generate(raw=True).prompt == "hi"
    assert generate(raw=True).messages is None
    with pytest.raises(InvalidRequest, match="system has no place"):
        generate(raw=True, system="x")


def test_without_a_chat_template_a_lone_prompt_goes_as_it_is():
    assert requests.without_template(generate()).prompt == "hi"
    both = generate(system="x")
    assert requests.without_template(both) == both


@pytest.mark.parametrize("empty", [None, ""])
def test_without_a_question_there_is_nothing_to_ask(empty):
    assert generate(empty) is None
    assert chat(messages=[]) is None
    assert chat(messages=None) is None


def test_log_probabilities():
    assert chat(logprobs=True).params.logprobs == 0
    assert chat(logprobs=True, top_logprobs=4).params.logprobs == 4
    with pytest.raises(InvalidRequest, match="top_logprobs needs logprobs"):
        chat(top_logprobs=4)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (300, 300),
        (0, 0),
        (-1, None),
        (0.5, 0.5),
        ("5m", 300),
        ("1h30m", 5400),
        ("1.5h", 5400),
        ("500ms", 0.5),
        ("-1m", None),
        ("0", 0),
        ("30", 30),
        ("-1", None),
        ("+2s", 2),
    ],
)
def test_keep_alive(value, seconds):
    assert keep_alive.seconds(value) == seconds


@pytest.mark.parametrize("value", ["", "m", "5 m", "5d", "1h-5m", "٣m", "1" * 50 + "h"])
def test_what_is_no_duration_is_refused(value):
    with pytest.raises(InvalidRequest) as refused:
        keep_alive.seconds(value)
    assert refused.value.data["field"] == "keep_alive"


@pytest.mark.parametrize("text", ["9" * 50_000, "1h" * 25_000, "." * 50_000])
def test_a_long_text_is_refused_as_no_duration_at_once(text):
    began = time.monotonic()
    with pytest.raises(InvalidRequest):
        keep_alive.seconds(text)
    assert time.monotonic() - began < 0.5


@given(st.text(max_size=12))
def test_any_text_is_a_duration_or_refused(value):
    try:
        found = keep_alive.seconds(value)
    except InvalidRequest:
        return
    assert found is None or found >= 0


@given(streamed(most=1))
def test_the_lines_are_the_answer(given):
    deltas, whole = given
    for kind in ("chat", "generate"):
        lines = Lines(kind, "m")
        parts = plain([line for delta in deltas for line in lines.delta(delta)])
        last, only = plain(lines.end(whole)), plain(lines.whole(whole))
        said = [
            part["message"]["content"] if kind == "chat" else part["response"] for part in parts
        ]
        text = only["message"]["content"] if kind == "chat" else only["response"]
        assert "".join(said) == text == whole.text
        assert not any(part["done"] for part in parts)
        assert last["done"] is only["done"] is True
        assert last["done_reason"] == whole.finish_reason
        assert last["eval_count"] == whole.usage.completion_tokens
        scored = [entry for part in parts for entry in part.get("logprobs", ())]
        assert scored == only.get("logprobs", [])


def test_steps_of_a_download_in_its_words():
    moving = pull.status(Progress(stage="download", done=5, total=9, unit="bytes"), "a/b")
    assert plain(moving) == {
        "status": "pulling a/b",
        "digest": "a/b",
        "total": 9,
        "completed": 5,
    }
    assert plain(pull.status(Progress(stage="resolve"), "a/b")) == {"status": "pulling manifest"}
