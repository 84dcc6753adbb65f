"""langchain-openai against a live gateway."""

from __future__ import annotations

import asyncio

import openai
import pytest
from langchain_openai import ChatOpenAI, OpenAI

from tests.gateway.serving import TOKEN

pytestmark = pytest.mark.timeout(60)

QUESTION = "What is a worker?"
TURN = [{"role": "user", "content": QUESTION}]


def model(gate, kind=ChatOpenAI, **fields):
    place = {"base_url": f"{gate.url}/v1", "api_key": TOKEN, "model": "scripted"}
    return kind(**{**place, "temperature": 0, "max_retries": 0, **fields})


@pytest.fixture
def llm(scripted):
    return scripted.worker()


def test_chat(scripted, llm):
    expected = llm.chat(TURN, temperature=0)
    answer = model(scripted).invoke(QUESTION)
    assert answer.content == expected.text
    assert answer.usage_metadata["output_tokens"] == expected.usage.completion_tokens
    assert answer.response_metadata["finish_reason"] == "stop"
    turns = [("system", "Be brief."), ("human", QUESTION), answer, ("human", "And?")]
    assert model(scripted).invoke(turns).content


def test_a_streamed_chat(scripted, llm):
    chunks = list(model(scripted, stream_usage=True).stream(QUESTION))
    assert "".join(chunk.content for chunk in chunks) == llm.chat(TURN, temperature=0).text
    assert any(chunk.usage_metadata for chunk in chunks)


def test_awaiting_and_batches(scripted, llm):
    async def main():
        chat = model(scripted)
        pieces = [chunk.content async for chunk in chat.astream(QUESTION)]
        answers = await chat.abatch([QUESTION] * 4)
        return {"".join(pieces), (await chat.ainvoke(QUESTION)).content} | {
            answer.content for answer in answers
        }

    assert asyncio.run(main()) == {llm.chat(TURN, temperature=0).text}


def test_log_probabilities(scripted):
    answer = model(scripted).bind(logprobs=True, top_logprobs=1).invoke(QUESTION)
    assert answer.response_metadata["logprobs"]["content"]


def test_the_responses_api(scripted, llm):
    answer = model(scripted, use_responses_api=True).invoke(QUESTION)
    assert answer.text == llm.chat(TURN, temperature=0).text


def test_completions(scripted, llm):
    writer = model(scripted, OpenAI, max_tokens=9)
    expected = llm.generate("once", temperature=0, max_tokens=9).text
    assert writer.invoke("once") == expected
    assert "".join(writer.stream("once")) == expected


@pytest.mark.parametrize("method", ["json_schema", "function_calling", "json_mode"])
def test_structured_answers_are_refused_by_name(scripted, method):
    schema = {"title": "x", "type": "object", "properties": {"a": {"type": "string"}}}
    field = "tools" if method == "function_calling" else "response_format"
    with pytest.raises(openai.BadRequestError, match=field):
        model(scripted).with_structured_output(schema, method=method).invoke("Answer in JSON")
