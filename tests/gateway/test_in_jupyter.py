"""The gateway inside a real Jupyter Server: Jupyter's own guard on each of our routes."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from llmkernel.errors import InvalidRequest
from llmkernel.gateway.table import all_routes
from tests.conftest import wait_until

TOKEN = "the token of a Jupyter Server"
BASE = "/user/somebody"
ROUTES = [(route.method, route.path) for route in all_routes()]
NOBODY = """
from jupyter_server.auth import Authorizer
class Nobody(Authorizer):
    def is_authorized(self, handler, user, action, resource):
        return (resource, action) == ("llmkernel", "read")
c.ServerApp.authorizer_class = Nobody
"""
SHIPPED = Path(__file__).parents[2] / "jupyter-config" / "llmkernel.json"


class Jupyter:
    """A running Jupyter Server."""

    def __init__(self, port: int, log: Path) -> None:
        self.url = f"http://127.0.0.1:{port}{BASE}"
        self.log = log
        self.http = httpx.Client(
            base_url=self.url, headers={"Authorization": f"token {TOKEN}"}, timeout=30
        )

    def stranger(self, method: str, path: str, **more: object) -> httpx.Response:
        """A request of somebody who keeps no cookie; Jupyter gives one to whoever has its token."""
        return httpx.request(method, self.url + path, timeout=30, **more)


def serve(folder: Path, config: str = "") -> Iterator[Jupyter]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shipped = folder / "etc" / "jupyter_server_config.d"
    shipped.mkdir(parents=True)
    (shipped / "llmkernel.json").write_text(SHIPPED.read_text())
    settings = folder / "config.py"
    settings.write_text(
        f"c.ServerApp.port = {port}\nc.ServerApp.port_retries = 0\nc.ServerApp.base_url = {BASE!r}\n"
        f"c.ServerApp.open_browser = False\nc.ServerApp.root_dir = {str(folder)!r}\n"
        f"c.IdentityProvider.token = {TOKEN!r}\nc.ServerApp.allow_root = True\n"
        # the last one asks the network before a server is up
        "c.ServerApp.jpserver_extensions = {'jupyterlab': False, 'jupyter_lsp': False, "
        f"'jupyter_ai_litellm': False}}\n{config}"
    )
    log = folder / "log"
    environment = os.environ | {
        "JUPYTER_CONFIG_PATH": str(folder / "etc"),
        "JUPYTER_CONFIG_DIR": str(folder / "none"),
        "JUPYTER_PREFER_ENV_PATH": "0",
    }
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "jupyter_server", f"--config={settings}"],
            stdout=file,
            stderr=file,
            env=environment,
        )
    jupyter = Jupyter(port, log)
    try:
        wait_until(lambda: up(jupyter, process), seconds=60, what="Jupyter Server")
        yield jupyter
    finally:
        jupyter.http.close()
        process.kill()
        process.wait(10)


def up(jupyter: Jupyter, process: subprocess.Popen[bytes]) -> bool:
    assert process.poll() is None, jupyter.log.read_text()
    try:
        return jupyter.http.get("/api/status").status_code in (200, 403)
    except httpx.TransportError:
        return False


@pytest.fixture(scope="module")
def jupyter(shared_dir, worker, tmp_path_factory) -> Iterator[Jupyter]:
    worker("scripted")
    yield from serve(tmp_path_factory.mktemp("jupyter"))


@pytest.fixture(scope="module")
def guarded(shared_dir, worker, tmp_path_factory) -> Iterator[Jupyter]:
    """One whose Authorizer lets users read and nothing else."""
    worker("scripted")
    yield from serve(tmp_path_factory.mktemp("guarded"), NOBODY)


@contextmanager
def logged_in(jupyter: Jupyter) -> Iterator[httpx.Client]:
    """A browser of somebody who has logged in: Jupyter gives each their own name."""
    with httpx.Client(base_url=jupyter.url, timeout=30, follow_redirects=True) as browser:
        browser.get("/login")
        browser.post("/login", data={"password": TOKEN, "_xsrf": browser.cookies["_xsrf"]})
        browser.headers["X-XSRFToken"] = browser.cookies["_xsrf"]
        yield browser


def test_two_users_share_no_cached_tokens(jupyter):
    body = {"messages": [{"role": "user", "content": "Ann and Bob ask the same, " * 5}]}
    with logged_in(jupyter) as ann, logged_in(jupyter) as bob:

        def cached(who: httpx.Client) -> int:
            answer = who.post("/llmkernel/v1/chat/completions", json=body | {"max_tokens": 2})
            assert answer.status_code == 200, answer.text
            return answer.json()["usage"]["prompt_tokens_details"]["cached_tokens"]

        assert [cached(ann), cached(bob)] == [0, 0]
        assert cached(ann) > 0
        assert cached(jupyter.http) == 0


def test_scripts_with_the_token_are_one_user(jupyter):
    headers = {"Authorization": f"token {TOKEN}"}
    body = {"input": "Hello", "max_output_tokens": 2}
    made = jupyter.stranger("POST", "/llmkernel/v1/responses", json=body, headers=headers)
    body |= {"previous_response_id": made.json()["id"]}
    went_on = jupyter.stranger("POST", "/llmkernel/v1/responses", json=body, headers=headers)
    assert went_on.status_code == 200, went_on.text
    with logged_in(jupyter) as other:
        assert other.get(f"/llmkernel/v1/responses/{made.json()['id']}").status_code == 404


def below(path: str) -> str:
    return "/llmkernel" + re.sub(r"[{}*]", "", path)


def test_the_shipped_file_enables_the_extension(jupyter):
    assert (
        "llmkernel.gateway.extension | extension was successfully loaded" in jupyter.log.read_text()
    )


def test_a_script_with_the_token_of_jupyter_generates(jupyter):
    body = {"inputs": "How do I", "parameters": {"max_new_tokens": 6, "details": True}}
    answer = jupyter.http.post("/llmkernel/generate", json=body)
    assert answer.status_code == 200
    assert answer.json()["details"]["generated_tokens"] == 6
    with jupyter.http.stream("POST", "/llmkernel/generate_stream", json=body) as stream:
        events = [json.loads(line[5:]) for line in stream.iter_lines() if line.startswith("data:")]
    assert events[-1]["generated_text"] == answer.json()["generated_text"]
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    assert (
        jupyter.stranger("GET", "/llmkernel/info", headers=bearer).json()["model_id"] == "scripted"
    )


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_every_route_refuses_who_is_not_logged_in(jupyter, method, path):
    for headers in ({}, {"Authorization": f"token {TOKEN}x"}, {"X-Api-Key": TOKEN}):
        answer = jupyter.stranger(
            method, below(path), json={} if method == "POST" else None, headers=headers
        )
        assert answer.status_code in (401, 403)
        assert "scripted" not in answer.text


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_every_route_asks_the_authorizer(guarded, method, path):
    answer = guarded.http.request(method, below(path), json={} if method == "POST" else None)
    assert (answer.status_code == 403) == (method != "GET")


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_every_route_refuses_a_foreign_host_and_origin(jupyter, method, path):
    body = {} if method == "POST" else None
    for headers in ({"Host": "evil.example"}, {"Origin": "https://evil.example"}):
        answer = jupyter.http.request(method, below(path), json=body, headers=headers)
        assert answer.status_code in (403, 404)
        assert "Access-Control-Allow-Origin" not in answer.headers


def test_what_is_no_route_is_told_in_the_words_of_its_client(jupyter):
    said = jupyter.http.get("/llmkernel/models").json()["error"]["message"]
    assert said.endswith(
        "OpenAI's routes are under /v1, which belongs to the base URL of their clients."
    )
    assert jupyter.http.get("/llmkernel/v1/messages/nope").json()["type"] == "error"
    assert jupyter.http.get("/llmkernel/nope").json()["error_type"] == "not_found"
    for headers in ({}, {"Authorization": f"token {TOKEN}x"}):
        assert jupyter.stranger("GET", "/llmkernel/nope", headers=headers).status_code == 401
    assert jupyter.http.get("/llmkernel").headers["Location"] == f"{BASE}/llmkernel/"


def test_who_forgets_the_token_is_told_what_is_missing(jupyter):
    answer = jupyter.stranger("POST", "/llmkernel/generate", json={"inputs": "x"})
    assert answer.status_code == 403
    assert "It wants its token, as `Authorization: Bearer TOKEN`" in answer.json()["error"]


def test_a_method_that_is_none_is_looked_at_as_any_other(jupyter):
    assert jupyter.stranger("BREW", "/llmkernel/generate").status_code in (401, 403)
    answer = jupyter.http.request("BREW", "/llmkernel/generate")
    assert (answer.status_code, answer.headers["Allow"]) == (405, "POST")


def test_a_page_with_a_cookie_needs_xsrf(jupyter):
    page = httpx.Client(base_url=jupyter.url, timeout=30)
    page.get("/login", params={"token": TOKEN}, follow_redirects=True)
    assert page.get("/llmkernel/info").status_code == 200
    body = {"inputs": "x", "parameters": {"max_new_tokens": 1}}
    assert page.post("/llmkernel/generate", json=body).status_code == 403
    xsrf = next(value for name, value in page.cookies.items() if name == "_xsrf")
    answer = page.post("/llmkernel/generate", json=body, headers={"X-XSRFToken": xsrf})
    assert answer.status_code == 200
    page.close()


def test_a_browser_is_sent_to_the_login_page(jupyter):
    answer = jupyter.stranger("GET", "/llmkernel/", headers={"Accept": "text/html"})
    assert answer.status_code == 302
    assert "/login" in answer.headers["Location"]
    page = jupyter.http.get("/llmkernel/", headers={"Accept": "text/html"})
    assert "Recent requests" in page.text


def test_settings_are_jupyters_and_a_wrong_one_is_named():
    from llmkernel.gateway.extension import settings_of

    assert settings_of({}).allow_models == ("demo",)
    chosen = settings_of(
        {"allow_models": ["a/b"], "unload_after": 600, "limits": {"max_best_of": 1}}
    )
    assert (chosen.allow_models, chosen.unload_after, chosen.limits.max_best_of) == (
        ("a/b",),
        600,
        1,
    )
    with pytest.raises(InvalidRequest, match="alow_models"):
        settings_of({"alow_models": []})


def test_jupyter_writes_no_token_and_no_prompt(jupyter):
    jupyter.http.post("/llmkernel/generate", json={"inputs": "a secret prompt"})
    text = jupyter.log.read_text()
    assert "secret prompt" not in text
    assert "Traceback" not in text
