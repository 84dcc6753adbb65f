"""huggingface_hub's own client against the gateway: every call of it that has a route here."""

from __future__ import annotations

import asyncio

import pytest

huggingface_hub = pytest.importorskip("huggingface_hub")
from huggingface_hub import AsyncInferenceClient, InferenceClient  # noqa: E402
from huggingface_hub.errors import (  # noqa: E402
    HfHubHTTPError,
    OverloadedError,
    ValidationError,
)

from tests.gateway.serving import TOKEN  # noqa: E402

PROMPT = "How do I"


@pytest.fixture(scope="module")
def hub(scripted) -> InferenceClient:
    return InferenceClient(model=scripted.url, token=TOKEN)


@pytest.fixture(scope="module")
def expected(scripted) -> str:
    client = scripted.worker()
    return client.generate(PROMPT, temperature=0, max_tokens=60).text


def test_a_text(hub, expected):
    text = hub.text_generation(PROMPT, max_new_tokens=60, return_full_text=False)
    assert text == expected
    assert hub.text_generation(PROMPT, max_new_tokens=60) == PROMPT + expected


def test_details(hub, expected):
    answer = hub.text_generation(
        PROMPT, max_new_tokens=60, details=True, decoder_input_details=True, return_full_text=False
    )
    assert answer.generated_text == expected
    assert answer.details.finish_reason == "eos_token"
    assert len(answer.details.prefill) == len(PROMPT) + 1
    assert "".join(token.text for token in answer.details.tokens if not token.special) == expected


def test_a_stream(hub, expected):
    parts = list(hub.text_generation(PROMPT, max_new_tokens=60, stream=True))
    assert "".join(parts).startswith(expected)
    events = list(hub.text_generation(PROMPT, max_new_tokens=60, stream=True, details=True))
    assert events[-1].details.finish_reason == "eos_token"
    assert events[-1].generated_text == PROMPT + expected


def test_every_parameter(hub):
    text = hub.text_generation(
        PROMPT,
        best_of=1,
        do_sample=True,
        frequency_penalty=0.1,
        max_new_tokens=8,
        repetition_penalty=1.1,
        return_full_text=False,
        seed=3,
        stop=["zzz"],
        temperature=0.8,
        top_k=20,
        top_n_tokens=2,
        top_p=0.9,
        truncate=100,
        typical_p=0.9,
    )
    assert text


def test_errors_have_their_types(hub, scripted):
    with pytest.raises(ValidationError, match="top_p"):
        hub.text_generation(PROMPT, top_p=1.0)
    with pytest.raises(ValidationError, match="top_p"):
        list(hub.text_generation(PROMPT, top_p=1.0, stream=True))
    with pytest.raises(ValidationError, match="adapter_id"):
        hub.text_generation(PROMPT, adapter_id="mine")
    permits = scripted.server.gateway.permits
    with (
        permits.take(permits.most),
        pytest.raises((OverloadedError, HfHubHTTPError), match=r"429|overloaded"),
    ):
        hub.text_generation(PROMPT)
    with pytest.raises(HfHubHTTPError, match=r"(?s)401.*is not this gateway's"):
        InferenceClient(model=scripted.url, token="not the token").text_generation(PROMPT)


def test_async(scripted, expected):
    async def all_of_it() -> tuple[str, str]:
        async with AsyncInferenceClient(model=scripted.url, token=TOKEN) as hub:
            text = await hub.text_generation(PROMPT, max_new_tokens=60, return_full_text=False)
            stream = await hub.text_generation(PROMPT, max_new_tokens=60, stream=True)
            return text, "".join([part async for part in stream])

    text, streamed = asyncio.run(all_of_it())
    assert text == expected
    assert streamed.startswith(expected)
