"""The anthropic package against a live gateway."""

from __future__ import annotations

import asyncio
from typing import Any

import anthropic
import pytest

from tests.conftest import wait_until
from tests.gateway.conftest import ENDLESS
from tests.gateway.serving import TOKEN

pytestmark = pytest.mark.timeout(60)

USER = [{"role": "user", "content": "What is a worker?"}]
GREEDY: dict[str, Any] = {"model": "scripted", "max_tokens": 500, "extra_body": {"temperature": 0}}


def connected(gate, key=TOKEN):
    return anthropic.Anthropic(base_url=gate.url, api_key=key, max_retries=0)


@pytest.fixture
def client(scripted):
    with connected(scripted) as client:
        yield client


@pytest.fixture
def llm(scripted):
    return scripted.worker()


def test_a_message(client, llm):
    expected = llm.chat(USER, temperature=0)
    answer = client.messages.create(messages=USER, **GREEDY)
    assert answer.content[0].text == expected.text
    assert answer.stop_reason == "end_turn"
    usage = answer.usage
    assert usage.input_tokens + usage.cache_read_input_tokens == expected.usage.prompt_tokens


def test_a_streamed_message(client, llm):
    with client.messages.stream(messages=USER, system="Be brief.", **GREEDY) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    turns = [{"role": "system", "content": "Be brief."}, *USER]
    expected = llm.chat(turns, temperature=0)
    assert text == final.content[0].text == expected.text
    assert final.usage.output_tokens == expected.usage.completion_tokens
    assert final.stop_reason == "end_turn"


def test_raw_events(client):
    events = list(client.messages.create(messages=USER, stream=True, **GREEDY))
    kinds = [event.type for event in events]
    assert kinds[0] == "message_start"
    assert kinds[-2:] == ["message_delta", "message_stop"]
    counted = client.messages.count_tokens(messages=USER, model="scripted").input_tokens
    assert events[0].message.usage.input_tokens == counted


def test_stop_sequences(client, llm):
    stop = llm.chat(USER, temperature=0).text[5]
    answer = client.messages.create(messages=USER, stop_sequences=[stop], **GREEDY)
    assert (answer.stop_reason, answer.stop_sequence) == ("stop_sequence", stop)
    assert stop not in answer.content[0].text


def test_an_answer_that_is_begun_is_gone_on_with(client, llm):
    turns = [*USER, {"role": "assistant", "content": "It is"}]
    expected = llm.chat(turns, temperature=0, continue_final_message=True)
    assert client.messages.create(messages=turns, **GREEDY).content[0].text == expected.text


def test_tokens_are_counted_as_the_model_reads_them(client):
    counted = client.messages.count_tokens(messages=USER, model="scripted", system="Be brief.")
    read = client.messages.create(messages=USER, system="Be brief.", **GREEDY).usage
    assert counted.input_tokens == read.input_tokens + read.cache_read_input_tokens


def test_models(client):
    assert [model.id for model in client.models.list()] == ["scripted"]


def test_awaiting(scripted, llm):
    async def main() -> list[str]:
        async with anthropic.AsyncAnthropic(base_url=scripted.url, api_key=TOKEN) as client:
            whole = await client.messages.create(messages=USER, **GREEDY)
            async with client.messages.stream(messages=USER, **GREEDY) as stream:
                pieces = [text async for text in stream.text_stream]
        return [whole.content[0].text, "".join(pieces)]

    assert set(asyncio.run(main())) == {llm.chat(USER, temperature=0).text}


@pytest.mark.parametrize(
    ("fields", "error", "words"),
    [
        ({"max_tokens": 0}, anthropic.BadRequestError, "max_tokens"),
        ({"tools": [{"name": "f", "input_schema": {}}]}, anthropic.BadRequestError, "tools"),
        (
            {"thinking": {"type": "enabled", "budget_tokens": 2000}},
            anthropic.BadRequestError,
            "thinking",
        ),
        ({"model": "other"}, anthropic.NotFoundError, "does not run here"),
    ],
)
def test_errors_are_its_own_classes(client, fields, error, words):
    with pytest.raises(error, match=words):
        client.messages.create(messages=USER, **GREEDY | fields)


def test_a_wrong_key(scripted):
    with connected(scripted, "wrong") as client, pytest.raises(anthropic.AuthenticationError):
        client.messages.create(messages=USER, **GREEDY)


def test_a_stream_that_breaks_raises(worker, open_gate, scripted):
    worker("breaks", "scripted:fail_at_step=6,eos_after=1000")
    with connected(open_gate(workers=("breaks",))) as client:
        seen = []
        stream = client.messages.create(messages=USER, stream=True, **GREEDY | {"model": "breaks"})
        with pytest.raises(anthropic.APIStatusError, match="step"), stream:
            seen.extend(event.type for event in stream)
    assert seen[0] == "message_start"
    assert "message_stop" not in seen


def test_a_client_that_goes_away_takes_its_request_with_it(worker, open_gate, scripted):
    worker("endless", ENDLESS)
    gate = open_gate(workers=("endless",))
    with connected(gate) as client:
        fields = GREEDY | {"model": "endless", "max_tokens": 10_000}
        with client.messages.create(messages=USER, stream=True, **fields) as stream:
            for _ in range(6):
                next(stream)
            assert gate.status("endless").load.running == 1
        wait_until(
            lambda: gate.status("endless").load.running == 0, seconds=3, what="the request to end"
        )
