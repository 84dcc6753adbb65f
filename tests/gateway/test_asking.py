"""Questions about text alone count against the limit of requests, and not as generation."""

from __future__ import annotations

import pytest

from llmkernel.gateway.table import all_routes
from tests.conftest import wait_until

TURNS = [{"role": "user", "content": "hello"}]
BODIES = {
    "/tokenize": {"inputs": "hello"},
    "/chat_tokenize": {"messages": TURNS},
    "/apply-template": {"messages": TURNS},
    "/detokenize": {"tokens": [72, 73]},
    "/v1/messages/count_tokens": {"model": "scripted", "messages": TURNS},
    "/v1/responses/input_tokens": {"model": "scripted", "input": "hello"},
}


def test_these_are_all():
    assert {route.path for route in all_routes() if route.asks} == set(BODIES)


@pytest.mark.parametrize("path", BODIES)
def test_a_flood_of_questions_is_refused_at_once(scripted, path):
    gateway = scripted.server.gateway
    seen = len(gateway.recent.requests)
    with gateway.permits.take(gateway.permits.most):
        refused = scripted.post(path, BODIES[path])
        assert refused.status_code == 429
        assert refused.headers["Retry-After"].isdecimal()
    assert scripted.post(path, BODIES[path]).status_code == 200
    wait_until(lambda: not gateway.permits.taken, seconds=5, what="the permit to be given back")
    assert len(gateway.recent.requests) == seen, "nothing was generated"
