"""The panel in Notebook 7, with the embedded model: what differs from JupyterLab."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.browsers import CHROMIUM
from tests.conftest import stop_worker
from tests.panel.conftest import MODEL, Book, empty_notebook, own_folders, start
from tools.screenshot import browser_page, jupyter_lab

pytestmark = [pytest.mark.slow, pytest.mark.timeout(200)]


@pytest.fixture(scope="module")
def book(browser_or_skip) -> Iterator[Book]:
    with own_folders() as folder:
        worker = start("demo", "demo")
        with (
            jupyter_lab(empty_notebook(folder), app="notebook") as url,
            browser_page(CHROMIUM, 1000, 900) as page,
        ):
            book = Book(page, url.format(path="/notebooks/talk.ipynb"))
            book.open()
            book.run("import llmkernel")
            book.failures.clear()  # of the application itself, where settings are not its own
            yield book
            assert book.failures == []
        stop_worker(worker)


def test_the_embedded_model_answers_and_its_code_goes_into_a_cell(book):
    panel = book.panel("panel = llmkernel.ChatPanel(temperature=0)\npanel")
    panel.send("How do I stop a running cell?")
    assert "Interrupt" in panel.answers.last.locator(".llmk-body").inner_text()
    facts = panel.answers.last.locator(".llmk-facts").inner_text()
    assert "tok/s" in facts
    assert "to first" in facts
    panel.send("Write a Python function that adds two numbers.")
    code = panel.answers.last.locator("code").inner_text().strip()
    panel.press("Insert into a new cell")
    cells = f"() => {{ {MODEL}; return m.cells.map(cell => cell.source); }}"
    assert code in book.page.evaluate(cells)


def test_it_streams_beside_a_running_cell_and_stops(book):
    panel = book.panel("panel = llmkernel.ChatPanel(temperature=0, ignore_eos=True)\npanel")
    book.run("import time; time.sleep(60)", wait=False)
    panel.send("Tell me a tiny story about a robot.", wait=False)
    panel.until(lambda: len(panel.answers.last.locator(".llmk-body").inner_text()) > 40)
    panel.box.press("Escape")
    panel.rest()
    assert panel.root.locator(".llmk-stopped").count() == 1
    book.interrupt()
