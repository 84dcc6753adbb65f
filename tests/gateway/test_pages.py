"""The two pages, whole and in a real browser."""

from __future__ import annotations

import shutil
from urllib.parse import quote

import pytest

from tests.gateway.serving import TOKEN

HTML = {"Accept": "text/html"}


def test_the_pages_name_no_other_site(scripted):
    for path in ("/", "/docs"):
        answer = scripted.get(path, headers=HTML)
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert "unsafe" not in answer.headers["content-security-policy"]
        words = answer.text.replace("http://www.w3.org/2000/svg", "")
        assert "http://" not in words
        assert "https://" not in words
        assert "scripted" not in words, "the page itself tells nothing"


def test_programs_get_tgis_health_at_the_root(scripted):
    answer = scripted.get("/", headers={"Accept": "*/*"})
    assert (answer.status_code, answer.content) == (200, b"")


def test_the_docs_show_every_route(scripted):
    text = scripted.get("/docs").text
    for path in ("/generate_stream", "/v2/repository/index", "/metrics", "max_new_tokens"):
        assert path in text


@pytest.fixture
def page(scripted):
    """A page of a browser that knows the token; what goes wrong in it is in `page.problems`."""
    pytest.importorskip("playwright")
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("needs a Chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        context = browser.new_context(http_credentials={"username": "any", "password": TOKEN})
        page = context.new_page()
        page.problems = []
        page.on("console", lambda message: page.problems.append(message.text))
        page.on("pageerror", lambda error: page.problems.append(str(error)))
        page.on(
            "request",
            lambda asked: asked.url.startswith(scripted.url) or page.problems.append(asked.url),
        )
        yield page
        browser.close()


def test_a_browser_that_has_the_token_in_its_address_shows_them_too(scripted, page):
    page.goto(scripted.url.replace("://", f"://any:{quote(TOKEN)}@") + "/")
    page.wait_for_selector("section.card")
    assert page.is_hidden("#problem")


def test_a_browser_shows_workers_and_requests(scripted, page):
    scripted.post("/generate", {"inputs": "a secret", "parameters": {"max_new_tokens": 7}})
    page.goto(scripted.url + "/")
    page.wait_for_selector("section.card")
    assert page.inner_text("h3") == "scripted"
    assert not page.query_selector("#workers p.empty")
    assert "2048 tokens" in page.inner_text("section.card")
    assert page.inner_text("#requests tr td:nth-child(6)") == "7"
    assert "secret" not in page.content()
    page.click("text=API")
    page.wait_for_selector("text=/generate_stream")
    page.click("summary:has-text('/generate_stream')")
    assert page.is_visible("text=max_new_tokens >> nth=0") or page.is_visible("details[open]")
    assert page.problems == []


def test_a_browser_shows_models_that_a_request_would_load(open_gate, scripted, page):
    gate = open_gate(allow_models=("scripted:load_ms=1", "scripted:fail_load=model_gated"))
    gate.post("/v2/repository/models/scripted:fail_load=model_gated/load")
    page.goto(gate.url + "/")
    page.wait_for_selector("section.card")
    idle, failed = page.locator("#workers p.empty").all_inner_texts()
    assert idle == "scripted:load_ms=1 is loaded by the next request for it."
    assert failed.startswith("scripted:fail_load=model_gated is loaded by the next request for it.")
    assert "Its last load failed: " in failed
