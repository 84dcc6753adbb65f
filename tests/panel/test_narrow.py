"""The panel where a page of 400 pixels leaves it fewer than 300."""

from __future__ import annotations

import pytest

from tests.panel.scripts import TOO_WIDE

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

LINES = """(facts) => new Set([...facts.children].map(each =>
    Math.round(each.getBoundingClientRect().top))).size"""


def test_the_figures_of_an_answer_are_no_tower(book):
    panel = book.panel("panel = llmkernel.ChatPanel('slow', max_tokens=30, temperature=0)\npanel")
    panel.root.evaluate("(root) => { root.parentElement.style.width = '285px'; }")
    panel.send("One")
    panel.send("Two")
    facts = panel.answers.last.locator(".llmk-facts")
    assert facts.locator("span").count() >= 4
    assert facts.evaluate(LINES) <= 3
    assert panel.root.evaluate(TOO_WIDE) == []
