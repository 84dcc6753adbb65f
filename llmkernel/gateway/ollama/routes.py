"""The routes of Ollama's API."""

from __future__ import annotations

from functools import partial

from llmkernel.gateway.ollama.answer import Line
from llmkernel.gateway.ollama.dialect import OLLAMA
from llmkernel.gateway.ollama.generating import chat, generate
from llmkernel.gateway.ollama.models import (
    RunningList,
    Shown,
    ShowRequest,
    Tags,
    Version,
    running,
    show,
    tags,
    version,
)
from llmkernel.gateway.ollama.pull import PullRequest, PullStatus, pull
from llmkernel.gateway.ollama.request import ChatRequest, GenerateRequest
from llmkernel.gateway.outflow import NDJSON
from llmkernel.gateway.routes import Route

_get = partial(Route, method="GET", dialect=OLLAMA)
# curl and Ollama's own program send no content type
_post = partial(Route, method="POST", dialect=OLLAMA, any_content_type=True)

ROUTES = [
    _post(
        path="/api/chat",
        act=chat,
        summary="The next turn of a conversation",
        body=ChatRequest,
        answer=Line,
        streams=NDJSON,
        event=Line,
        permit=True,
    ),
    _post(
        path="/api/generate",
        act=generate,
        summary="An answer to a prompt",
        body=GenerateRequest,
        answer=Line,
        streams=NDJSON,
        event=Line,
        permit=True,
    ),
    _get(path="/api/tags", act=tags, summary="The models that a request may name", answer=Tags),
    _get(path="/api/ps", act=running, summary="The models in memory", answer=RunningList),
    _post(path="/api/show", act=show, summary="One model", body=ShowRequest, answer=Shown),
    _get(path="/api/version", act=version, summary="The version", answer=Version),
    _post(
        path="/api/pull",
        act=pull,
        summary="Fetch a model that the gateway may load",
        body=PullRequest,
        answer=PullStatus,
        streams=NDJSON,
        event=PullStatus,
    ),
]
