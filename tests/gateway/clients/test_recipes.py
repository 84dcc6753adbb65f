"""The recipes of the page about dialects answer; litellm's and LlamaIndex's run with the rest of theirs."""

from __future__ import annotations

import pytest

from tests.gateway.clients.recipes import RECIPES, client_of, run
from tests.gateway.serving import TOKEN

pytestmark = pytest.mark.timeout(60)

HERE = [r for r in RECIPES if client_of(r) not in ("litellm", "llama_index")]


@pytest.mark.parametrize("recipe", HERE, ids=client_of)
def test_a_recipe_answers(scripted, monkeypatch, capsys, recipe):
    monkeypatch.setenv("LLMKERNEL_GATEWAY_TOKEN", TOKEN)
    run(recipe, scripted.url)
    assert capsys.readouterr().out.strip()


def test_there_is_a_recipe_for_each_client():
    assert {client_of(recipe) for recipe in RECIPES} >= {
        "openai",
        "anthropic",
        "ollama",
        "langchain_openai",
        "litellm",
        "huggingface_hub",
        "llama_index",
    }
