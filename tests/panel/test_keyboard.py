"""The panel without a pointer, in a real JupyterLab: where the keys go."""

from __future__ import annotations

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

FOCUSED = "document.activeElement.getAttribute('aria-label')"
PANEL = "panel = llmkernel.ChatPanel('slow', max_tokens=8, temperature=0)\npanel"


def test_enter_in_a_menu_presses_nothing_that_is_behind_it(book):
    panel = book.panel("number = 5\n" + PANEL)
    panel.press("Conversation: Conversation 1")
    panel.root.get_by_label("Name of this conversation").fill("New name")
    book.page.keyboard.press("Enter")
    panel.until(lambda: panel.root.locator(".llmk-pill").first.inner_text() == "New name")
    assert not panel.root.locator(".llmk-header-menu").is_visible()
    panel.press("Attach a variable or a file")
    book.page.keyboard.type("number")
    book.page.keyboard.press("Enter")
    panel.until(lambda: panel.root.locator(".llmk-chip").count() == 1)
    assert panel.box.input_value() == ""


def test_the_focus_stays_while_turns_are_drawn_anew(book):
    panel = book.panel(PANEL)
    panel.send("A question")
    panel.answers.last.get_by_role("button", name="Regenerate").focus()
    book.page.keyboard.press("Enter")
    panel.until(lambda: panel.answers.last.locator(".llmk-place").count() == 1)
    panel.rest()
    assert book.page.evaluate(FOCUSED) == "Conversation"
    panel.answers.last.get_by_role("button", name="Branch before").focus()
    book.page.keyboard.press("Enter")
    place = panel.answers.last.locator(".llmk-place")
    panel.until(lambda: place.inner_text() == "1/2")
    book.page.keyboard.press("Enter")
    panel.until(lambda: place.inner_text() == "2/2")
    panel.answers.last.get_by_role("button", name="Edit").focus()
    book.page.keyboard.press("Enter")
    book.page.keyboard.press("Escape")
    assert book.page.evaluate(FOCUSED) == "Edit"
