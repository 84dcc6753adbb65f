"""litellm against a live gateway, by each of its providers that has a dialect here."""

from __future__ import annotations

import asyncio

import pytest

from tests.gateway.serving import TOKEN

pytestmark = [
    pytest.mark.timeout(90),
    # pydantic about litellm's own types
    pytest.mark.filterwarnings("ignore:Item 'index' on TypedDict:UserWarning"),
]

TURN = [{"role": "user", "content": "What is a worker?"}]


@pytest.fixture(scope="module")
def litellm():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # it would ask the network otherwise
        import litellm

        yield litellm
        # it keeps its clients, and their connections, until the process ends
        for client in litellm.in_memory_llm_clients_cache.cache_dict.values():
            if hasattr(client, "close") and not asyncio.iscoroutinefunction(client.close):
                client.close()
        litellm.module_level_client.close()


@pytest.fixture
def expected(scripted):
    llm = scripted.server.gateway.models.replicas["scripted"]._client
    return llm.chat(TURN, temperature=0)


def place(gate, provider):
    root = "" if provider == "anthropic" else "/v1"
    return {
        "model": f"{provider}/scripted",
        "api_base": gate.url + root,
        "api_key": TOKEN,
        "messages": TURN,
        "temperature": 0,
        "max_tokens": 500,
    }


@pytest.mark.parametrize("provider", ["openai", "hosted_vllm", "anthropic"])
def test_chat(litellm, scripted, expected, provider):
    answer = litellm.completion(**place(scripted, provider))
    assert answer.choices[0].message.content == expected.text
    assert answer.usage.completion_tokens == expected.usage.completion_tokens
    assert answer.choices[0].finish_reason == "stop"


@pytest.mark.parametrize("provider", ["openai", "hosted_vllm", "anthropic"])
def test_a_streamed_chat(litellm, scripted, expected, provider):
    stream = litellm.completion(**place(scripted, provider), stream=True)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
    assert text == expected.text


def test_awaiting(litellm, scripted, expected):
    async def main():
        answer = await litellm.acompletion(**place(scripted, "openai"))
        await litellm.close_litellm_async_clients()
        return answer.choices[0].message.content

    assert asyncio.run(main()) == expected.text


def test_completions(litellm, scripted):
    llm = scripted.server.gateway.models.replicas["scripted"]._client
    fields = place(scripted, "text-completion-openai") | {"max_tokens": 9, "prompt": "once"}
    del fields["messages"]
    answer = litellm.text_completion(**fields)
    assert answer.choices[0].text == llm.generate("once", temperature=0, max_tokens=9).text


def test_errors_are_its_own_classes(litellm, scripted):
    with pytest.raises(litellm.BadRequestError, match="temperature"):
        litellm.completion(**place(scripted, "openai") | {"temperature": -1})
    with pytest.raises(litellm.NotFoundError):
        litellm.completion(**place(scripted, "openai") | {"model": "openai/other"})
    with pytest.raises(litellm.AuthenticationError):
        litellm.completion(**place(scripted, "openai") | {"api_key": "wrong"})
    with pytest.raises(litellm.ContextWindowExceededError):
        litellm.completion(**place(scripted, "openai") | {"max_tokens": 5000})
