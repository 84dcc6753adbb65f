"""The routes of OpenAI's API."""

from __future__ import annotations

from functools import partial

from llmkernel.gateway.openai.chat import complete_chat
from llmkernel.gateway.openai.chat_answer import ChatCompletion
from llmkernel.gateway.openai.chat_request import ChatRequest
from llmkernel.gateway.openai.chat_stream import ChatChunk
from llmkernel.gateway.openai.completion_answer import Completion
from llmkernel.gateway.openai.completion_request import CompletionRequest
from llmkernel.gateway.openai.completions import complete
from llmkernel.gateway.openai.dialect import OPENAI
from llmkernel.gateway.openai.models import Model, ModelList, list_models, retrieve_model
from llmkernel.gateway.openai.response import Response
from llmkernel.gateway.openai.response_items import ItemList
from llmkernel.gateway.openai.response_request import ResponseRequest
from llmkernel.gateway.openai.response_stream import ResponseEvent
from llmkernel.gateway.openai.responses import (
    Deleted,
    InputTokens,
    cancel_response,
    count_input,
    create_response,
    delete_response,
    list_input_items,
    retrieve_response,
)
from llmkernel.gateway.openai.texts import (
    Detokenized,
    DetokenizeRequest,
    Templated,
    TemplateRequest,
    apply_template,
    detokenize,
)
from llmkernel.gateway.outflow import EVENT_STREAM
from llmkernel.gateway.routes import Route
from llmkernel.gateway.unsupported import unsupported

_route = partial(Route, dialect=OPENAI)
_TURNS = [{"role": "user", "content": "How do I stop a cell?"}]
UNSUPPORTED = {
    "/v1/responses/compact": "Conversations are not compacted here. Send a shorter input.",
    "/v1/embeddings": "Embeddings are not supported: this gateway writes text.",
}
"""Routes of OpenAI's API for text that are answered with why not."""

ROUTES = [
    _route(
        method="POST",
        path="/v1/chat/completions",
        act=complete_chat,
        summary="The next turn of a conversation",
        body=ChatRequest,
        example={"model": "tgi", "messages": _TURNS, "max_tokens": 60},
        answer=ChatCompletion,
        streams=EVENT_STREAM,
        event=ChatChunk,
        generates=True,
    ),
    _route(
        method="POST",
        path="/v1/completions",
        act=complete,
        summary="What follows after a prompt",
        body=CompletionRequest,
        example={"model": "tgi", "prompt": "How do I", "max_tokens": 60},
        answer=Completion,
        streams=EVENT_STREAM,
        event=Completion,
        generates=True,
    ),
    _route(
        method="GET",
        path="/v1/models",
        act=list_models,
        summary="The models that a request may name",
        answer=ModelList,
    ),
    _route(
        method="GET",
        path="/v1/models/{model*}",
        act=retrieve_model,
        summary="One of them",
        answer=Model,
    ),
    _route(
        method="POST",
        path="/v1/responses",
        act=create_response,
        summary="The next turn, in OpenAI's newer words; may go on after an earlier response",
        body=ResponseRequest,
        example={"model": "tgi", "input": "How do I stop a cell?", "max_output_tokens": 60},
        answer=Response,
        streams=EVENT_STREAM,
        event=ResponseEvent,
        generates=True,
    ),
    # before the route of any response, whose id these names would be
    _route(
        method="POST",
        path="/v1/responses/input_tokens",
        act=count_input,
        summary="The tokens that a response would read",
        body=ResponseRequest,
        answer=InputTokens,
        asks=True,
    ),
    *[
        _route(
            method="POST",
            path=path,
            act=unsupported(why),
            summary="Refused: not supported",
            any_content_type=True,
        )
        for path, why in UNSUPPORTED.items()
    ],
    _route(
        method="GET",
        path="/v1/responses/{response}",
        act=retrieve_response,
        summary="A response that is still kept",
        answer=Response,
    ),
    _route(
        method="DELETE",
        path="/v1/responses/{response}",
        act=delete_response,
        summary="Let a response go",
        answer=Deleted,
    ),
    _route(
        method="GET",
        path="/v1/responses/{response}/input_items",
        act=list_input_items,
        summary="What a response answered, turn by turn",
        answer=ItemList,
    ),
    _route(
        method="POST",
        path="/v1/responses/{response}/cancel",
        act=cancel_response,
        summary="Refused: none is made in the background",
        any_content_type=True,
    ),
    _route(
        method="POST",
        path="/detokenize",
        act=detokenize,
        summary="The text of token ids",
        body=DetokenizeRequest,
        answer=Detokenized,
        asks=True,
    ),
    _route(
        method="POST",
        path="/apply-template",
        act=apply_template,
        summary="The prompt that a conversation becomes",
        body=TemplateRequest,
        answer=Templated,
        asks=True,
    ),
]
