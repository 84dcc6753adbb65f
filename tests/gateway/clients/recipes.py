"""The recipes of docs/gateway_dialects.md, as they stand there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[3] / "docs" / "gateway_dialects.md"
BEGINNING, *RECIPES = re.findall(
    r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL
)
LLAMA_INDEX = next(recipe for recipe in RECIPES if "llama_index" in recipe)
"""It cannot be imported beside the others."""

CELLS = re.findall(r"^```ipython\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
"""Those for the magics of jupyter-ai, cell by cell."""
LISTENS = "http://127.0.0.1:8080"
"""Where they say that the gateway is."""


def client_of(recipe: str) -> str:
    return re.search(r"(?:from|import) (\w+)", recipe)[1]


def run(recipe: str, url: str) -> None:
    """Run it for a gateway at `url`; the token is in the environment."""
    names: dict[str, Any] = {"messages": [{"role": "user", "content": "What is a worker?"}]}
    exec(BEGINNING, names)
    names["URL"] = url
    exec(recipe, names)
