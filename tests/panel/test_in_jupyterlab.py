"""The panel in a real JupyterLab: what a person does, and what they see."""

from __future__ import annotations

import json
import statistics

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(200)]

CLICK_STOP = """(root) => new Promise(resolve => {
    const began = performance.now();
    const over = () => !root.querySelector('.llmk-running') && root.querySelector('.llmk-stopped');
    const observer = new MutationObserver(() => {
      if (over()) { observer.disconnect(); resolve(performance.now() - began); }
    });
    observer.observe(root, { subtree: true, childList: true, attributes: true });
    root.querySelector('.llmk-stop').click();
})"""


def test_an_answer_streams_while_a_cell_runs_and_stop_acts_at_once(book):
    panel = book.panel()
    latencies = []
    busy = book.run("import time; time.sleep(12)", wait=False)
    for number in range(3):
        panel.send(f"Question {number}", wait=False)
        body = panel.answers.last.locator(".llmk-body")
        panel.until(lambda body=body: len(body.inner_text()) > 40)
        latencies.append(panel.root.evaluate(CLICK_STOP))
    assert "[*]" in busy.locator(".jp-InputPrompt").inner_text(), "the cell had ended before"
    print("stop under a busy kernel:", *(f"{ms:.0f} ms" for ms in latencies))
    assert statistics.median(latencies) <= 100
    assert panel.answers.count() == 3
    assert panel.root.locator(".llmk-stopped").count() == 3


def test_escape_stops_too(book):
    panel = book.panel()
    panel.send("A long story", wait=False)
    panel.until(lambda: panel.answers.last.locator(".llmk-body").inner_text())
    panel.box.press("Escape")
    panel.rest()
    assert panel.root.locator(".llmk-stopped").count() == 1


def test_python_and_the_page_hold_the_same_conversation(book):
    panel = book.panel("panel = llmkernel.ChatPanel('slow', max_tokens=20, temperature=0)\npanel")
    panel.send("Hello")
    messages = json.loads(book.value("__import__('json').dumps(panel.conversation)"))
    assert [message["role"] for message in messages] == ["user", "assistant"]
    assert messages[0]["content"] == "Hello"
    assert messages[1]["content"].strip() == panel.answers.first.locator(".llmk-body").inner_text()
    book.run("panel.conversation = [{'role': 'user', 'content': 'from Python'}]")
    panel.until(lambda: panel.questions.count() == 1 and panel.answers.count() == 0)
    assert panel.questions.first.locator(".llmk-body").inner_text() == "from Python"
