"""A program that calls a gateway through litellm and jupyter-ai and prints what came, as JSON.

    python litellm_calls.py URL        # the token is in LLMKERNEL_GATEWAY_TOKEN

It is a process of its own: litellm keeps event loops and connections until it ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[3]))
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # it would ask the network otherwise

import litellm
import openai

from tests.gateway.clients.recipes import CELLS, LISTENS, RECIPES, client_of, run

URL = sys.argv[1]
PROVIDERS = ("openai", "hosted_vllm", "anthropic")
MISTAKES: dict[str, dict[str, Any]] = {
    "temperature": {"temperature": -1},
    "model": {"model": "openai/other"},
    "key": {"api_key": "wrong"},
    "context": {"max_tokens": 5000},
}


def place(provider: str, **changes: Any) -> dict[str, Any]:
    given = {
        "model": f"{provider}/scripted",
        "api_base": URL if provider == "anthropic" else f"{URL}/v1",
        "api_key": os.environ["LLMKERNEL_GATEWAY_TOKEN"],
        "messages": [{"role": "user", "content": "What is a worker?"}],
        "temperature": 0,
        "max_tokens": 500,
    }
    return given | changes


def whole(provider: str) -> list[Any]:
    answer = litellm.completion(**place(provider))
    choice = answer.choices[0]
    return [choice.message.content, choice.finish_reason, answer.usage.completion_tokens]


def streamed(provider: str) -> str:
    stream = litellm.completion(**place(provider), stream=True)
    return "".join(chunk.choices[0].delta.content or "" for chunk in stream)


async def awaited() -> str:
    answer = await litellm.acompletion(**place("openai"))
    return str(answer.choices[0].message.content)


def completed() -> str:
    fields = place("text-completion-openai", max_tokens=9, prompt="once")
    del fields["messages"]
    return str(litellm.text_completion(**fields).choices[0].text)


def error(changes: dict[str, Any]) -> str:
    try:
        litellm.completion(**place("openai", **changes))
    except openai.OpenAIError as found:  # all of its errors are
        return type(found).__name__
    return "none"


def recipe() -> str:
    said = io.StringIO()
    (text,) = (each for each in RECIPES if client_of(each) == "litellm")
    with contextlib.redirect_stdout(said):
        run(text, URL)
    return said.getvalue()


def magics() -> str:
    """What the magics of jupyter-ai answer to the last cell of their recipe."""
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell.instance()
    for cell in CELLS:
        done = shell.run_cell(cell.replace(LISTENS, URL))
        done.raise_error()
    return str(getattr(done.result, "data", done.result))


if __name__ == "__main__":
    litellm.suppress_debug_info = True
    found = {
        "whole": {provider: whole(provider) for provider in PROVIDERS},
        "streamed": {provider: streamed(provider) for provider in PROVIDERS},
        "awaited": asyncio.run(awaited()),
        "completed": completed(),
        "errors": {name: error(changes) for name, changes in MISTAKES.items()},
        "recipe": recipe(),
        "magics": magics(),
    }
    print("\n" + json.dumps(found))
