"""TGI's own client against the gateway; it wants huggingface-hub below 1."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from llmkernel.gateway.guard import _WHERE, _WRONG
from tests.gateway.clients.own_packages import INSTALL_SECONDS, Python, own_python
from tests.gateway.serving import TOKEN

pytestmark = [pytest.mark.slow, pytest.mark.timeout(INSTALL_SECONDS + 60)]
CODE = """
import asyncio, json, sys
from text_generation import AsyncClient, Client
from text_generation.errors import UnknownError, ValidationError

headers = {"Authorization": "Bearer " + sys.argv[2]}
client, prompt, found = Client(sys.argv[1], headers=headers), "How do I", {}
whole = client.generate(prompt, max_new_tokens=60, decoder_input_details=True, top_n_tokens=2)
found["text"], found["end"] = whole.generated_text, whole.details.finish_reason.value
found["prefill"] = "".join(token.text for token in whole.details.prefill[1:])
events = list(client.generate_stream(prompt, max_new_tokens=60))
found["streamed"] = "".join(each.token.text for each in events if not each.token.special)
found["last"] = events[-1].generated_text
best = client.generate(prompt, best_of=2, do_sample=True, max_new_tokens=5)
found["others"] = len(best.details.best_of_sequences)
for name, call in (("whole", client.generate), ("stream", client.generate_stream)):
    try:
        list(call(prompt, stop_sequences=["a"] * 5))
    except ValidationError as error:
        found[name] = str(error)

try:
    Client(sys.argv[1], headers={"Authorization": "Bearer wrong"}).generate(prompt)
except UnknownError as error:
    found["wrong"] = str(error)

async def both():
    asynchronous = AsyncClient(sys.argv[1], headers=headers)
    answer = await asynchronous.generate(prompt, max_new_tokens=60)
    events = [each async for each in asynchronous.generate_stream(prompt, max_new_tokens=60)]
    return answer.generated_text, events[-1].generated_text

found["async"] = asyncio.run(both())
print(json.dumps(found))
"""
WRONG = f"{_WRONG} {_WHERE}"


@pytest.fixture(scope="module")
def python(tmp_path_factory) -> Iterator[Python]:
    folder = tmp_path_factory.mktemp("text-generation")
    with own_python(folder, "text-generation==0.7.0", "huggingface-hub<1") as found:
        yield found


def test_every_call_that_has_a_route_here(scripted, python):
    client = scripted.worker()
    text = client.generate("How do I", temperature=0, max_tokens=60).text
    found = json.loads(python.run(CODE, scripted.url, TOKEN))
    too_many = "Input validation error: `stop` supports up to 4 stop sequences. Given: 5"
    assert found == {
        "text": text,
        "end": "eos_token",
        "prefill": "How do I",
        "streamed": text,
        "last": text,
        "others": 1,
        "whole": too_many,
        "stream": too_many,
        "async": [text, text],
        "wrong": WRONG,
    }
