"""The recipes of docs/gateway_dialects.md, as they stand there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.gateway.serving import TOKEN

pytestmark = [
    pytest.mark.timeout(90),
    # pydantic about litellm's own types
    pytest.mark.filterwarnings("ignore:Item 'index' on TypedDict:UserWarning"),
]

PAGE = Path(__file__).parents[3] / "docs" / "gateway_dialects.md"
BEGINNING, *RECIPES = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.M | re.S)
MESSAGES = [{"role": "user", "content": "What is a worker?"}]


def client_of(recipe: str) -> str:
    return re.search(r"(?:from|import) (\w+)", recipe)[1]


@pytest.mark.parametrize("recipe", RECIPES, ids=client_of)
def test_a_recipe_answers(scripted, monkeypatch, capsys, recipe):
    monkeypatch.setenv("LLMKERNEL_GATEWAY_TOKEN", TOKEN)
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # it would ask the network otherwise
    names = {"messages": MESSAGES}
    exec(BEGINNING, names)
    names["URL"] = scripted.url
    exec(recipe, names)
    assert len(capsys.readouterr().out.split()) > 3


def test_there_is_a_recipe_for_each_client():
    assert {client_of(recipe) for recipe in RECIPES} >= {
        "openai",
        "anthropic",
        "ollama",
        "langchain_openai",
        "litellm",
        "huggingface_hub",
    }
