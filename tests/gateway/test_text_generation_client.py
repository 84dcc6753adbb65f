"""TGI's own client against the gateway.

It needs huggingface-hub below 1 and so packages of its own: the test installs them into a
folder that is gone afterwards. TEXT_GENERATION_PYTHON may name an interpreter that has them.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from tests.browsers import skip_or_fail
from tests.gateway.serving import TOKEN

NEEDS = ["text-generation==0.7.0", "huggingface-hub<1"]
INSTALL_SECONDS = 90
pytestmark = pytest.mark.timeout(INSTALL_SECONDS + 60)


class Python(NamedTuple):
    """An interpreter that has the client and not our own packages."""

    command: list[str]
    environment: dict[str, str]


@pytest.fixture(scope="module")
def python(tmp_path_factory) -> Iterator[Python]:
    """Skips where there is no network; in CI that is a failure."""
    given = os.environ.get("TEXT_GENERATION_PYTHON")
    if given:
        yield Python([given], dict(os.environ))
        return
    folder = tmp_path_factory.mktemp("text-generation")
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-input", "--no-compile"]
    install += ["--retries", "1", "--disable-pip-version-check", "--target", str(folder), *NEEDS]
    try:
        done = subprocess.run(
            install, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False
        )
        why = done.stderr[-2000:] if done.returncode else ""
    except subprocess.TimeoutExpired:
        why = f"pip did not end within {INSTALL_SECONDS} s"
    if why:
        skip_or_fail(f"The text-generation client cannot be installed: {why}")
    # -S leaves our own packages out, among them a huggingface_hub that is too new for it
    yield Python([sys.executable, "-S"], os.environ | {"PYTHONPATH": str(folder)})
    shutil.rmtree(folder)


CODE = """
import asyncio, json, sys
from text_generation import AsyncClient, Client
from text_generation.errors import ValidationError

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

async def both():
    asynchronous = AsyncClient(sys.argv[1], headers=headers)
    answer = await asynchronous.generate(prompt, max_new_tokens=60)
    events = [each async for each in asynchronous.generate_stream(prompt, max_new_tokens=60)]
    return answer.generated_text, events[-1].generated_text

found["async"] = asyncio.run(both())
print(json.dumps(found))
"""


def test_every_call_that_has_a_route_here(scripted, python):
    client = scripted.server.gateway.models.replicas["scripted"]._client
    text = client.generate("How do I", temperature=0, max_tokens=60).text
    done = subprocess.run(
        [*python.command, "-c", CODE, scripted.url, TOKEN],
        env=python.environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
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
    }
