"""Why an answer ended, where more than one thing ended it at the same token."""

from __future__ import annotations

import pytest

INPUTS = "How do I stop a cell?"


@pytest.fixture(scope="module")
def plain(open_gate, scripted):
    """The same worker behind a gateway without TGI's habits."""
    return open_gate(tgi_compat="plain")


def details(gate, **parameters):
    body = {"inputs": INPUTS, "parameters": {"details": True, **parameters}}
    whole = gate.post("/generate", body).json()["details"]
    streamed = gate.events("/generate_stream", body)[-1]["details"]
    assert (streamed["finish_reason"], streamed["generated_tokens"]) == (
        whole["finish_reason"],
        whole["generated_tokens"],
    )
    return whole


def test_length_comes_before_the_end_token_as_in_tgi(scripted, plain):
    ended = details(scripted, max_new_tokens=200)
    assert ended["finish_reason"] == "eos_token"
    count = ended["generated_tokens"]
    assert details(scripted, max_new_tokens=count + 1)["finish_reason"] == "eos_token"
    assert details(scripted, max_new_tokens=count)["finish_reason"] == "length"
    assert details(plain, max_new_tokens=count)["finish_reason"] == "eos_token"


def test_length_comes_before_a_stop_text_as_in_tgi(scripted, plain):
    whole = scripted.post("/generate", {"inputs": INPUTS, "parameters": {"max_new_tokens": 200}})
    stop = [whole.json()["generated_text"][6:9]]
    ended = details(scripted, max_new_tokens=200, stop=stop)
    assert ended["finish_reason"] == "stop_sequence"
    count = ended["generated_tokens"]
    assert details(scripted, max_new_tokens=count, stop=stop)["finish_reason"] == "length"
    assert details(plain, max_new_tokens=count, stop=stop)["finish_reason"] == "stop_sequence"


def test_each_of_several_answers_has_its_own_reason(scripted):
    both = {"best_of": 2, "do_sample": True, "details": True, "max_new_tokens": 3}
    answer = scripted.post("/generate", {"inputs": INPUTS, "parameters": both}).json()["details"]
    assert answer["finish_reason"] == "length"
    assert [other["finish_reason"] for other in answer["best_of_sequences"]] == ["length"]
