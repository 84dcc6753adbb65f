"""huggingface_hub's InferenceClient on the chat route."""

from __future__ import annotations

import asyncio

import pytest
from huggingface_hub import AsyncInferenceClient, InferenceClient
from huggingface_hub.errors import HfHubHTTPError

from tests.gateway.serving import TOKEN

pytestmark = pytest.mark.timeout(60)

TURN = [{"role": "user", "content": "What is a worker?"}]
GREEDY = {"temperature": 0.0}


@pytest.fixture
def expected(scripted):
    llm = scripted.worker()
    return llm.chat(TURN, temperature=0)


def places(gate):
    """The ways to say where it is."""
    return [{"base_url": f"{gate.url}/v1"}, {"base_url": gate.url}, {"model": gate.url}]


@pytest.mark.parametrize("way", range(3))
def test_chat(scripted, expected, way):
    with InferenceClient(api_key=TOKEN, **places(scripted)[way]) as client:
        answer = client.chat_completion(TURN, max_tokens=500, **GREEDY)
        assert answer.choices[0].message.content == expected.text
        assert answer.usage.completion_tokens == expected.usage.completion_tokens
        stream = client.chat_completion(TURN, max_tokens=500, stream=True, **GREEDY)
        text = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
    assert text == expected.text


def test_by_the_openai_names_of_its_methods(scripted, expected):
    with InferenceClient(api_key=TOKEN, base_url=f"{scripted.url}/v1") as client:
        answer = client.chat.completions.create(
            TURN, model="scripted", logprobs=True, top_logprobs=2, seed=1, stop=["\0"], **GREEDY
        )
    assert answer.choices[0].message.content == expected.text
    assert answer.choices[0].logprobs.content[0].top_logprobs


def test_awaiting(scripted, expected):
    async def main():
        async with AsyncInferenceClient(api_key=TOKEN, base_url=f"{scripted.url}/v1") as client:
            whole = await client.chat_completion(TURN, max_tokens=500, **GREEDY)
            stream = await client.chat_completion(TURN, max_tokens=500, stream=True, **GREEDY)
            pieces = [chunk.choices[0].delta.content or "" async for chunk in stream]
        return {whole.choices[0].message.content, "".join(pieces)}

    assert asyncio.run(main()) == {expected.text}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"temperature": -1.0}, "temperature"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
    ],
)
def test_refusals_name_the_field(scripted, fields, words):
    with (
        InferenceClient(api_key=TOKEN, base_url=f"{scripted.url}/v1") as client,
        pytest.raises(HfHubHTTPError, match=words) as refused,
    ):
        client.chat_completion(TURN, **fields)
    assert refused.value.response.status_code == 400
