"""LlamaIndex's OpenAI-like against the gateway; it wants an older openai than the others."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.gateway.clients.own_packages import INSTALL_SECONDS, Python, own_python
from tests.gateway.clients.recipes import BEGINNING, LISTENS, LLAMA_INDEX
from tests.gateway.serving import TOKEN

pytestmark = [pytest.mark.slow, pytest.mark.timeout(INSTALL_SECONDS + 120)]
CODE = """
import asyncio, json, sys
from llama_index.core.llms import ChatMessage
from llama_index.llms.openai_like import OpenAILike

asked = {"model": "tgi", "api_base": sys.argv[1] + "/v1", "api_key": sys.argv[2], "temperature": 0}
chat = OpenAILike(is_chat_model=True, **asked)
plain = OpenAILike(is_chat_model=False, max_tokens=60, **asked)
turns = [ChatMessage(role="user", content="What is a worker?")]

async def awaiting():
    pieces = [piece.delta async for piece in await chat.astream_chat(turns)]
    whole = await chat.achat(turns)
    return [whole.message.content, "".join(pieces)]

print(json.dumps({
    "chat": [
        chat.chat(turns).message.content,
        "".join(piece.delta for piece in chat.stream_chat(turns)),
        chat.complete("What is a worker?").text,
        *asyncio.run(awaiting()),
    ],
    "plain": [
        plain.complete("What is").text,
        "".join(piece.delta for piece in plain.stream_complete("What is")),
    ],
}))
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory) -> Iterator[Python]:
    folder = tmp_path_factory.mktemp("llama-index")
    with own_python(folder, "llama-index-llms-openai-like==0.8.1") as found:
        yield found


def test_whole_and_streamed_are_the_tokens_of_the_client(scripted, python):
    llm = scripted.worker()
    turns = [{"role": "user", "content": "What is a worker?"}]
    chat = llm.chat(turns, temperature=0).text
    plain = llm.generate("What is", temperature=0, max_tokens=60).text
    found = json.loads(python.run(CODE, scripted.url, TOKEN))
    assert found == {"chat": [chat] * 5, "plain": [plain] * 2}


def test_the_recipe_answers(scripted, python):
    code = (BEGINNING + LLAMA_INDEX).replace(LISTENS, scripted.url)
    assert python.run(code, LLMKERNEL_GATEWAY_TOKEN=TOKEN).strip()
