"""Two views of one panel in a real JupyterLab, and what each of them does to the other."""

from __future__ import annotations

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


def test_both_typed_in_at_once_keep_what_both_typed(book):
    book.panel("panel = llmkernel.ChatPanel('slow', max_tokens=15, temperature=0)\npanel")
    book.run("panel")
    one, other = book.view(0), book.view(-1)
    for keys in zip("abcdefgh", "ABCDEFGH", strict=True):
        for view, key in zip((one, other), keys, strict=True):
            view.box.type(key)
    one.until(lambda: sorted(one.box.input_value()) == sorted("abcdefghABCDEFGH"))
    one.until(lambda: one.box.input_value() == other.box.input_value())


def test_an_edit_of_a_turn_that_the_other_view_deletes_is_still_there(book):
    book.panel("panel = llmkernel.ChatPanel('slow', max_tokens=15, temperature=0)\npanel")
    book.run("panel")
    one, other = book.view(0), book.view(-1)
    one.send("A question")
    one.questions.first.get_by_role("button", name="Edit", exact=True).click()
    one.root.locator(".llmk-edit").fill("words that took long")
    other.questions.first.get_by_role("button", name="Delete with all that follows").click()
    one.until(lambda: "deleted" in one.root.locator(".llmk-edit-actions").inner_text())
    assert one.root.locator(".llmk-edit").input_value() == "words that took long"
    save = one.root.get_by_role("button", name="Save only", exact=True)
    assert save.is_disabled()
    assert float(save.evaluate("each => getComputedStyle(each).opacity")) < 0.6, "and looks so"
    one.root.get_by_role("button", name="Cancel", exact=True).click()
    one.until(lambda: one.root.locator(".llmk-edit").count() == 0)
