"""What is refused, with which words, before it costs anything."""

from __future__ import annotations

import threading
import time

import pytest

from llmkernel import protocol
from llmkernel.protocol import ChatMessage
from llmkernel.worker import text_desk
from tests.conftest import wait_until
from tests.wire.raw import RawClient
from tests.wire.serving import serving

pytestmark = pytest.mark.timeout(30)

LONG = "scripted:step_ms=2,eos_after=100000"


def refusal(client, **fields):
    client.submit(**fields)
    refused = client.terminal()
    assert isinstance(refused, protocol.Refused), refused
    return refused


@pytest.mark.parametrize(
    ("fields", "code", "words"),
    [
        ({"prompt": ""}, "invalid_request", "empty"),
        ({"prompt": []}, "invalid_request", "empty"),
        ({"prompt": "", "messages": []}, "invalid_request", "messages is empty"),
        (
            {"prompt": "x", "messages": [ChatMessage(role="user", content="x")]},
            "invalid_request",
            "not both",
        ),
        (
            {"prompt": "", "messages": [ChatMessage(role="wizard", content="x")]},
            "invalid_request",
            "wizard",
        ),
        ({"prompt": [1, 261]}, "invalid_request", "ids 0 to 260"),
        ({"prompt": [-1]}, "invalid_request", "ids 0 to 260"),
        ({"prompt": [2**40]}, "invalid_request", "ids 0 to 260"),
        ({"stop_token_ids": [999]}, "invalid_request", "stop_token_ids"),
        ({"logit_bias": {999: 1.0}}, "invalid_request", "logit_bias"),
        ({"temperature": -1.0}, "invalid_request", "temperature"),
        ({"max_tokens": 0}, "invalid_request", "prompt_logprobs"),
        ({"prompt": "x" * (protocol.MAX_PROMPT_BYTES + 1)}, "invalid_request", "2097152"),
        ({"prompt": "x" * 3000}, "prompt_too_long", ""),
        ({"prompt": [97] * 3000}, "prompt_too_long", "3000"),
        ({"prompt": [-1] * 3000}, "prompt_too_long", "3000"),
        ({"prompt": "x" * 2000, "max_tokens": 1000}, "prompt_too_long", ""),
    ],
)
def test_what_cannot_be_served_is_refused_in_words(client, fields, code, words):
    refused = refusal(client, **fields)
    assert refused.code == code
    assert words in refused.message


def test_a_prompt_that_is_too_long_is_refused_with_both_numbers(client):
    refused = refusal(client, prompt="x" * 3000, max_tokens=10)
    assert refused.data["limit"] == 2048
    assert refused.data["needed"] >= 3001


def test_of_a_hopeless_prompt_only_the_beginning_is_tokenised(served, client):
    tokenised = []

    class Counting(type(served.parts.tokenizer)):
        def encode(self, text, add_special_tokens=True):
            tokenised.append(len(text))
            return super().encode(text, add_special_tokens)

    served.serve(Counting())
    refused = refusal(client, prompt="x" * 2_000_000)
    assert refused.code == "prompt_too_long"
    assert refused.data == {"needed": 16 * 2048, "limit": 2048}
    assert tokenised == [16 * 2048]


def test_prompt_logprobs_that_no_message_could_hold_are_refused(runtime_dir):
    with (
        serving("scripted:context_length=20000,blocks=2000") as served,
        RawClient(served.connection) as raw,
    ):
        refused = refusal(raw, prompt="x" * 19_000, max_tokens=0, prompt_logprobs=20)
    assert "prompt_logprobs=20" in refused.message


def test_a_model_without_a_chat_template_says_so(runtime_dir):
    with serving(ready=False) as served:
        info = protocol.ModelInfo(model="base", context_length=2048, max_concurrent=4)
        served.parts = served.parts._replace(info=info)
        served.front.set_ready(None, served.parts.tokenizer, info)
        with RawClient(served.connection) as raw:
            messages = [ChatMessage(role="user", content="hi")]
            refused = refusal(raw, prompt="", messages=messages)
            assert "no chat template" in refused.message
            raw.send(protocol.Tokenize(id=2, messages=messages))
            assert "no chat template" in raw.receive().message


def test_a_conversation_goes_through_the_template(client):
    messages = [ChatMessage(role="user", content="hi")]
    client.send(protocol.Tokenize(id=1, messages=messages))
    assert bytes(client.receive().token_ids) == b"user: hi\nassistant: "
    client.submit(key=2, prompt="", messages=messages)
    accepted = client.until(protocol.Accepted)
    assert accepted.prompt_tokens == len(b"user: hi\nassistant: ")
    turns = [*messages, ChatMessage(role="assistant", content="he")]
    client.submit(key=3, prompt="", messages=turns, continue_final_message=True)
    assert client.until(protocol.Accepted).prompt_tokens == len(b"user: hi\nassistant: he")


def test_an_id_in_flight_is_refused_and_its_first_use_goes_on(runtime_dir):
    with serving(LONG) as served, RawClient(served.connection) as raw:
        raw.submit(key=9, max_tokens=50)
        raw.until(protocol.Accepted)
        raw.submit(key=9, max_tokens=3)
        refused = raw.until(protocol.Refused)
        assert (refused.id, refused.data) == (9, {"duplicate": True})
        finished = raw.until(protocol.Finished)
        assert finished.usage.completion_tokens == 50
        raw.submit(key=9, max_tokens=3)
        assert raw.terminal().usage.completion_tokens == 3


def test_two_clients_may_use_the_same_id(served, client):
    with RawClient(served.connection) as other:
        client.submit(key=1, prompt="one", max_tokens=30)
        other.submit(key=1, prompt="two", max_tokens=30)
        texts = []
        for raw in (client, other):
            raw.terminal()
            texts.append("".join(delta.text for delta in raw.deltas()))
    assert texts[0] != texts[1]


def test_the_queue_takes_exactly_what_it_was_given_and_refuses_the_rest_at_once(runtime_dir):
    burst, queue, rows = 2000, 512, 64
    with (
        serving(LONG, queue=queue, max_concurrent=rows) as served,
        RawClient(served.connection, rcvhwm=0) as raw,
    ):
        served.gate.open.clear()
        began = time.monotonic()
        for key in range(burst):
            raw.submit(key=key, max_tokens=2, stream=False)
        answers = [raw.receive() for _ in range(burst)]
        took = time.monotonic() - began
        refused = [one for one in answers if isinstance(one, protocol.Refused)]
        accepted = {one.id for one in answers if isinstance(one, protocol.Accepted)}
        assert {one.code for one in refused} == {"overloaded"}
        assert (len(accepted), len(refused)) == (queue + rows, burst - queue - rows)
        served.gate.open.set()
        ended = [raw.terminal(20.0) for _ in accepted]
        assert {one.id for one in ended if isinstance(one, protocol.Finished)} == accepted
        raw.submit(key=1, max_tokens=2)
        assert isinstance(raw.terminal(), protocol.Finished)
    assert took / burst < 0.1 / 10  # each answer is far below 100 ms


def test_a_tokenizer_that_breaks_fails_its_own_request_only(served, client, caplog):
    broken, encode = "break it", served.parts.tokenizer.encode

    class Brittle(type(served.parts.tokenizer)):
        def encode(self, text, add_special_tokens=True):
            if text == broken:
                raise ZeroDivisionError(text)
            return encode(text, add_special_tokens)

    served.serve(Brittle())
    client.submit(key=1, prompt=broken)
    client.submit(key=2)
    ended = {one.id: one for one in (client.terminal(), client.terminal())}
    assert isinstance(ended[1], protocol.Refused)
    assert broken not in ended[1].message
    assert isinstance(ended[2], protocol.Finished)
    assert "ZeroDivisionError" in caplog.text
    assert broken not in caplog.text


def test_a_request_can_be_cancelled_while_its_prompt_is_tokenised(served, client):
    began, go_on = threading.Event(), threading.Event()

    class Slow(type(served.parts.tokenizer)):
        def encode(self, text, add_special_tokens=True):
            began.set()
            go_on.wait(10)
            return super().encode(text, add_special_tokens)

    served.serve(Slow())
    client.submit(key=1)
    assert began.wait(5)
    assert served.front.busy
    client.send(protocol.Cancel(id=1))
    assert isinstance(client.terminal(), protocol.Cancelled)
    go_on.set()
    wait_until(lambda: not served.front.busy, seconds=5, what="the front to be idle")
    assert client.listen(0.2) is None, "a second terminal message"


def test_tokenize_and_detokenize(client):
    client.send(protocol.Tokenize(id=1, text="añ", add_special_tokens=False))
    tokens = client.receive()
    assert bytes(tokens.token_ids).decode() == "añ"
    assert len(tokens.texts) == 3
    client.send(protocol.Tokenize(id=5, text="añ", add_special_tokens=False, texts=False))
    bare = client.receive()
    assert (bare.token_ids, bare.texts) == (tokens.token_ids, [])
    client.send(protocol.Detokenize(id=2, token_ids=tokens.token_ids))
    assert client.receive().text == "añ"
    client.send(protocol.Detokenize(id=3, token_ids=[5000]))
    assert isinstance(client.receive(), protocol.Refused)
    client.send(protocol.Tokenize(id=4, text="x" * (protocol.MAX_PROMPT_BYTES + 1)))
    assert isinstance(client.receive(), protocol.Refused)


def test_token_ids_that_wait_for_a_thread_do_not_fill_the_memory(served, client, monkeypatch):
    monkeypatch.setattr(text_desk, "MAX_WAITING_BYTES", 2**20)
    go_on = threading.Event()

    class Slow(type(served.parts.tokenizer)):
        def decode(self, token_ids, skip_special_tokens=False):
            go_on.wait(30)
            return "text"

    served.serve(Slow())
    many = [97] * 65_000  # a byte each on the wire, eight in a list
    for key in range(32):
        client.send(protocol.Detokenize(id=key, token_ids=many))
    refused = [client.receive() for _ in range(16)]
    assert {one.code for one in refused} == {"overloaded"}
    go_on.set()
    answers = [client.receive() for _ in range(16)]
    assert all(isinstance(one, protocol.Text) for one in answers)
    client.send(protocol.Detokenize(id=99, token_ids=many))
    assert isinstance(client.receive(), protocol.Text)


def test_nobody_works_on_the_texts_of_a_client_that_is_gone(served, client):
    go_on, read = threading.Event(), []

    class Slow(type(served.parts.tokenizer)):
        def decode(self, token_ids, skip_special_tokens=False):
            read.append(list(token_ids))
            go_on.wait(30)
            return "text"

    served.serve(Slow())
    with RawClient(served.connection) as gone:
        for key in range(20):
            gone.send(protocol.Detokenize(id=key, token_ids=[key]))
        wait_until(lambda: len(read) > 0, seconds=5, what="the first to begin")
    wait_until(lambda: not served.front.busy, seconds=10, what="the others to be given up")
    go_on.set()
    client.send(protocol.Detokenize(id=1, token_ids=[99]))
    assert isinstance(client.receive(), protocol.Text)
    assert len(read) < 5


def test_a_text_and_a_conversation_are_not_both_tokenised(client):
    turns = [ChatMessage(role="user", content="x")]
    client.send(protocol.Tokenize(id=1, text="y", messages=turns))
    refused = client.until(protocol.Refused, protocol.Tokens)
    assert isinstance(refused, protocol.Refused)
    assert "not both" in refused.message
