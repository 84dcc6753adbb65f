"""The routes of Ollama's API."""

from __future__ import annotations

from functools import partial

from llmkernel.gateway.ollama.answer import Line
from llmkernel.gateway.ollama.dialect import OLLAMA
from llmkernel.gateway.ollama.generating import chat, generate
from llmkernel.gateway.ollama.models import (
    CopyRequest,
    DeleteRequest,
    RunningList,
    Shown,
    ShowRequest,
    Tags,
    Version,
    copy,
    delete,
    running,
    show,
    tags,
    version,
)
from llmkernel.gateway.ollama.pull import PullRequest, PullStatus, pull
from llmkernel.gateway.ollama.request import ChatRequest, GenerateRequest
from llmkernel.gateway.outflow import NDJSON
from llmkernel.gateway.routes import Route
from llmkernel.gateway.unsupported import unsupported

_get = partial(Route, method="GET", dialect=OLLAMA)
# curl and Ollama's own program send no content type
_post = partial(Route, method="POST", dialect=OLLAMA, any_content_type=True)
_TURNS = [{"role": "user", "content": "How do I stop a cell?"}]

UNSUPPORTED = {
    "/api/create": "Models are not made here. Start one with `llmkernel start MODEL`.",
    "/api/push": "Models are not pushed from here.",
    "/api/embed": "Embeddings are not supported: this gateway writes text.",
    "/api/embeddings": "Embeddings are not supported: this gateway writes text.",
    "/api/blobs/{digest}": "Files are not taken in: models come from the hub, by POST /api/pull.",
}
"""Routes of Ollama's API that are answered with why not."""

ROUTES = [
    _post(
        path="/api/chat",
        act=chat,
        summary="The next turn of a conversation",
        body=ChatRequest,
        example={"model": "tgi", "messages": _TURNS, "options": {"num_predict": 60}},
        answer=Line,
        streams=NDJSON,
        event=Line,
        generates=True,
    ),
    _post(
        path="/api/generate",
        act=generate,
        summary="An answer to a prompt",
        body=GenerateRequest,
        example={"model": "tgi", "prompt": "How do I", "stream": False},
        answer=Line,
        streams=NDJSON,
        event=Line,
        generates=True,
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
    _post(
        path="/api/copy",
        act=copy,
        summary="Refused: a model has one name",
        body=CopyRequest,
    ),
    Route(
        method="DELETE",
        path="/api/delete",
        act=delete,
        summary="Refused: files are the operator's",
        dialect=OLLAMA,
        body=DeleteRequest,
        any_content_type=True,
    ),
    *[
        _post(
            path=path,
            act=unsupported(why),
            summary="Refused: not supported",
        )
        for path, why in UNSUPPORTED.items()
    ],
]
