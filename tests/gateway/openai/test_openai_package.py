"""The openai package against a live gateway: whatever it can call that has a route here."""

from __future__ import annotations

import asyncio
from typing import Any

import openai
import pytest

from tests.gateway.serving import TOKEN

pytestmark = pytest.mark.timeout(60)

USER = [{"role": "user", "content": "What is a worker?"}]
GREEDY: dict[str, Any] = {"model": "scripted", "temperature": 0}


@pytest.fixture
def client(scripted):
    with openai.OpenAI(base_url=f"{scripted.url}/v1", api_key=TOKEN, max_retries=0) as client:
        yield client


@pytest.fixture
def expected(scripted):
    """What the client of the same worker says to the same question."""
    llm = scripted.worker()
    return llm.chat(USER, temperature=0)


def test_chat(client, expected):
    answer = client.chat.completions.create(messages=USER, **GREEDY)
    assert answer.choices[0].message.content == expected.text
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.completion_tokens == expected.usage.completion_tokens
    assert answer.usage.prompt_tokens_details.cached_tokens is not None


def test_chat_with_log_probabilities(client, expected):
    answer = client.chat.completions.create(messages=USER, logprobs=True, top_logprobs=2, **GREEDY)
    content = answer.choices[0].logprobs.content
    assert "".join(entry.token for entry in content).startswith(expected.text)
    assert all(entry.logprob <= 0 and entry.top_logprobs for entry in content)


def test_a_streamed_chat(client, expected):
    with client.chat.completions.create(
        messages=USER, stream=True, stream_options={"include_usage": True}, **GREEDY
    ) as stream:
        chunks = list(stream)
    assert chunks[-1].usage.completion_tokens == expected.usage.completion_tokens
    said = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(said) == expected.text


def test_the_helper_for_streams(client, expected):
    with client.chat.completions.stream(messages=USER, **GREEDY) as stream:
        final = stream.get_final_completion()
    assert final.choices[0].message.content == expected.text


def test_an_answer_is_sent_back_in_the_next_turn(client):
    first = client.chat.completions.create(messages=USER, **GREEDY).choices[0].message
    turns = [*USER, first, {"role": "user", "content": "And?"}]
    assert client.chat.completions.create(messages=turns, **GREEDY).choices[0].message.content


def test_completions(client):
    answer = client.completions.create(prompt=["a", "b"], max_tokens=4, n=1, echo=True, **GREEDY)
    assert [choice.text[0] for choice in answer.choices] == ["a", "b"]
    scored = client.completions.create(prompt="a", max_tokens=4, logprobs=1, **GREEDY)
    assert len(scored.choices[0].logprobs.tokens) == 4
    with client.completions.create(prompt="a", max_tokens=4, stream=True, **GREEDY) as stream:
        text = "".join(chunk.choices[0].text for chunk in stream)
    assert text == scored.choices[0].text


def test_models(client):
    (model,) = client.models.list().data
    assert client.models.retrieve(model.id) == model


def test_responses(client, expected):
    answer = client.responses.create(input="What is a worker?", **GREEDY)
    assert answer.output_text == expected.text
    assert answer.usage.output_tokens == expected.usage.completion_tokens
    turns = [{"role": "user", "content": "hi"}, *answer.output, {"role": "user", "content": "and?"}]
    stateless = client.responses.create(input=turns, store=False, **GREEDY)
    assert stateless.status == "completed"
    after = client.responses.create(input="and?", previous_response_id=answer.id, **GREEDY)
    assert after.previous_response_id == answer.id
    assert client.responses.retrieve(answer.id).output_text == expected.text
    client.responses.delete(answer.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(answer.id)


def test_the_items_of_a_response(client):
    first = client.responses.create(input="One?", instructions="Be brief.", **GREEDY)
    begun = [{"role": "user", "content": "Two?"}, {"role": "assistant", "content": "It is"}]
    second = client.responses.create(input=begun, previous_response_id=first.id, **GREEDY)
    items = client.responses.input_items.list(second.id, order="asc")
    told = [(item.role, item.content[0].type, item.content[0].text) for item in items]
    assert told == [
        ("user", "input_text", "One?"),
        ("assistant", "output_text", first.output_text),
        ("user", "input_text", "Two?"),
        ("assistant", "output_text", "It is"),
    ]
    ids = [item.id for item in items]
    newest = client.responses.input_items.list(second.id, limit=3)
    assert [item.id for item in newest.data] == ids[:0:-1]
    assert newest.has_more
    assert [item.id for item in newest] == ids[::-1], "the pages do not follow one another"
    for wrong in ({"limit": 0}, {"limit": 101}, {"order": "up"}, {"after": "msg_none"}):
        with pytest.raises(openai.BadRequestError) as error:
            client.responses.input_items.list(second.id, **wrong)
        assert error.value.param == next(iter(wrong))
    with pytest.raises(openai.NotFoundError):
        client.responses.input_items.list("resp_none")


def test_a_response_is_cancelled_by_leaving_it(client):
    answer = client.responses.create(input="One?", **GREEDY)
    with pytest.raises(openai.BadRequestError, match="in the background"):
        client.responses.cancel(answer.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.cancel("resp_none")


def test_the_tokens_of_a_response_are_counted(client):
    answer = client.responses.create(input="One?", **GREEDY)
    counted = client.responses.input_tokens.count(input="One?")
    assert counted.input_tokens == answer.usage.input_tokens
    more = client.responses.input_tokens.count(input="Two?", previous_response_id=answer.id)
    assert more.input_tokens > counted.input_tokens


def test_what_is_not_supported_says_so(client):
    with pytest.raises(openai.BadRequestError, match="compacted"):
        client.responses.compact(model="tgi", input="One?")
    with pytest.raises(openai.BadRequestError, match="Embeddings"):
        client.embeddings.create(model="tgi", input="One?")
    with pytest.raises(openai.NotFoundError, match="There is no such route"):
        client.moderations.create(input="One?")


def test_a_streamed_response(client, expected):
    with client.responses.stream(input="What is a worker?", **GREEDY) as stream:
        deltas = [event.delta for event in stream if event.type == "response.output_text.delta"]
        final = stream.get_final_response()
    assert "".join(deltas) == final.output_text == expected.text


def test_awaiting(scripted, expected):
    async def main() -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{scripted.url}/v1", api_key=TOKEN) as client:
            chat = client.chat.completions
            whole = await chat.create(messages=USER, **GREEDY)
            stream = await chat.create(messages=USER, stream=True, **GREEDY)
            pieces = [chunk.choices[0].delta.content or "" async for chunk in stream]
            response = await client.responses.create(input="What is a worker?", **GREEDY)
            many = await asyncio.gather(*(chat.create(messages=USER, **GREEDY) for _ in range(20)))
        texts = {answer.choices[0].message.content for answer in many}
        return [whole.choices[0].message.content, "".join(pieces), response.output_text, *texts]

    assert set(asyncio.run(main())) == {expected.text}


@pytest.mark.parametrize(
    ("fields", "error", "param"),
    [
        ({"temperature": -1}, openai.BadRequestError, "temperature"),
        (
            {"tools": [{"type": "function", "function": {"name": "f"}}]},
            openai.BadRequestError,
            "tools",
        ),
        ({"response_format": {"type": "json_object"}}, openai.BadRequestError, "response_format"),
        ({"extra_body": {"guided_json": {}}}, openai.BadRequestError, "guided_json"),
        ({"model": "other"}, openai.NotFoundError, "model"),
        ({"max_tokens": 5000}, openai.BadRequestError, None),
    ],
)
def test_errors_are_its_own_classes(client, fields, error, param):
    with pytest.raises(error) as refused:
        client.chat.completions.create(messages=USER, **GREEDY | fields)
    assert refused.value.param == param
    assert refused.value.code


def test_images_are_refused_by_their_place(client):
    parts = [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(messages=[{"role": "user", "content": parts}], **GREEDY)
    assert refused.value.param == "messages[0].content[0].type"


def test_structured_answers_are_refused(client):
    with pytest.raises(openai.BadRequestError, match="response_format"):
        client.chat.completions.create(
            messages=USER,
            response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": {}}},
            **GREEDY,
        )


def test_a_wrong_key(scripted):
    with (
        openai.OpenAI(base_url=f"{scripted.url}/v1", api_key="wrong", max_retries=0) as client,
        pytest.raises(openai.AuthenticationError),
    ):
        client.models.list()


def test_a_stream_that_breaks_raises(worker, open_gate, scripted):
    worker("breaks", "scripted:fail_at_step=6,eos_after=1000")
    gate = open_gate(workers=("breaks",))
    with openai.OpenAI(base_url=f"{gate.url}/v1", api_key=TOKEN, max_retries=0) as client:
        pieces = []
        with (
            client.chat.completions.create(
                messages=USER, stream=True, **GREEDY | {"model": "tgi"}
            ) as stream,
            pytest.raises(openai.APIError, match="step"),
        ):
            pieces.extend(stream)
    assert pieces


def test_a_full_gateway_is_a_rate_limit(open_gate, scripted):
    gate = open_gate(limits={"max_concurrent_requests": 1})
    with (
        openai.OpenAI(base_url=f"{gate.url}/v1", api_key=TOKEN, max_retries=0) as client,
        gate.server.gateway.permits.take(),
        pytest.raises(openai.RateLimitError),
    ):
        client.chat.completions.create(messages=USER, model="tgi")
