"""Text Generation Inference's rows of the table of routes."""

from __future__ import annotations

from functools import partial

from llmkernel.gateway.outflow import EVENT_STREAM
from llmkernel.gateway.routes import Route
from llmkernel.gateway.tgi import generate, hosted, info, texts
from llmkernel.gateway.tgi.dialect import TGI
from llmkernel.gateway.tgi.schemas import (
    ChatTokenizeRequest,
    ChatTokenizeResponse,
    CompatRequest,
    GenerateRequest,
    GenerateResponse,
    Info,
    SimpleToken,
    StreamEvent,
    VertexRequest,
    VertexResponse,
)

_post = partial(Route, method="POST", dialect=TGI)
_generating = partial(_post, generates=True)
_asking = partial(_post, asks=True)
_streaming = partial(_generating, streams=EVENT_STREAM, event=StreamEvent)
_EXAMPLE = {"inputs": "How do I stop a cell?", "parameters": {"max_new_tokens": 60}}

ROUTES = [
    _streaming(
        path="/",
        act=generate.compat,
        summary="Generate: a list of one answer, or a stream",
        body=CompatRequest,
        example=_EXAMPLE,
        answer=list[GenerateResponse],
    ),
    _generating(
        path="/generate",
        act=generate.generate,
        summary="Generate",
        body=GenerateRequest,
        example=_EXAMPLE,
        answer=GenerateResponse,
    ),
    _streaming(
        path="/generate_stream",
        act=generate.generate_stream,
        summary="Generate, token by token",
        body=GenerateRequest,
        example=_EXAMPLE,
    ),
    _asking(
        path="/tokenize",
        act=texts.tokenize,
        summary="The tokens of a prompt",
        body=GenerateRequest,
        example={"inputs": "How do I stop a cell?"},
        answer=list[SimpleToken],
    ),
    _asking(
        path="/chat_tokenize",
        act=texts.chat_tokenize,
        summary="The tokens of a conversation",
        body=ChatTokenizeRequest,
        answer=ChatTokenizeResponse,
    ),
    Route(
        method="GET",
        path="/info",
        act=info.info,
        summary="What is served, and within which limits",
        dialect=TGI,
        answer=Info,
    ),
    _streaming(
        path="/invocations",
        act=hosted.invocations,
        summary="Generate, chat or complete, by the shape of the body (SageMaker)",
        body=CompatRequest,
        example=_EXAMPLE,
        answer=list[GenerateResponse],
    ),
    _generating(
        path="/vertex",
        act=hosted.vertex,
        summary="Several prompts at once (Vertex)",
        body=VertexRequest,
        answer=VertexResponse,
    ),
]
