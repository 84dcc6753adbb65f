"""litellm against a live gateway, by each of its providers that has a dialect here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.gateway.serving import TOKEN

pytestmark = pytest.mark.timeout(120)

PROGRAM = Path(__file__).with_name("litellm_calls.py")
TURN = [{"role": "user", "content": "What is a worker?"}]
PROVIDERS = ("openai", "hosted_vllm", "anthropic")


@pytest.fixture(scope="module")
def found(scripted):
    """What the program that calls litellm has printed."""
    done = subprocess.run(
        [sys.executable, PROGRAM, scripted.url],
        env=os.environ | {"LLMKERNEL_GATEWAY_TOKEN": TOKEN},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture
def llm(scripted):
    return scripted.worker()


@pytest.mark.parametrize("provider", PROVIDERS)
def test_chat(found, llm, provider):
    expected = llm.chat(TURN, temperature=0)
    assert found["whole"][provider] == [expected.text, "stop", expected.usage.completion_tokens]
    assert found["streamed"][provider] == expected.text


def test_awaiting_and_the_recipe(found, llm):
    text = llm.chat(TURN, temperature=0).text
    assert found["awaited"] == text
    assert found["recipe"].strip()


def test_the_magics_of_jupyter_ai(found):
    assert found["magics"].strip()
    assert "rror" not in found["magics"]


def test_completions(found, llm):
    assert found["completed"] == llm.generate("once", temperature=0, max_tokens=9).text


def test_errors_are_its_own_classes(found):
    assert found["errors"] == {
        "temperature": "BadRequestError",
        "model": "NotFoundError",
        "key": "AuthenticationError",
        "context": "ContextWindowExceededError",
    }
