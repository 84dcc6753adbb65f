"""The README's pictures of the chat panel, from a real JupyterLab with the embedded model.

    python tools/panel_pictures.py            # docs/images/panel-light.png and panel-dark.png

Needs playwright and a Chromium, as tools/screenshot.py does.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import nbformat

from tools.screenshot import browser_page, jupyter_lab, run_all

IMAGES = Path(__file__).parent.parent / "docs" / "images"
CELLS = [
    """import llmkernel, pandas as pd
llm = llmkernel.start(progress=False)
sales = pd.DataFrame({"city": ["Oslo", "Rome", "Bern"], "sum": [310, 290, 120]})""",
    "panel = llmkernel.ChatPanel(temperature=0)\npanel",
]
QUESTIONS = ["How do I stop a running cell?", "Write a Python function that adds two numbers."]


def talk(page: Any) -> None:
    """Ask, and attach a variable to the next question."""
    page.wait_for_selector(".llmk-dot-ready", timeout=60_000)
    for number, question in enumerate(QUESTIONS, 1):
        page.fill(".llmk-box", question)
        page.keyboard.press("Enter")
        page.wait_for_function(
            "(n) => document.querySelectorAll('.llmk-assistant.llmk-done').length === n",
            arg=number,
            timeout=60_000,
        )
    page.click("button[aria-label='Attach a variable or a file']")
    page.click(".llmk-entry[data-name=sales]")
    page.wait_for_function("() => /tokens/.test(document.querySelector('.llmk-pending').innerText)")
    page.fill(".llmk-box", "Which city has the largest sum?")
    page.wait_for_timeout(1000)  # figures of the worker come once in a while


def pictures(page: Any) -> None:
    """One in each theme."""
    page.screenshot(path=str(IMAGES / "panel-light.png"))
    theme = "(theme) => window.jupyterapp.commands.execute('apputils:change-theme', { theme })"
    page.evaluate(theme, "JupyterLab Dark")
    page.wait_for_function("() => document.body.dataset.jpThemeLight === 'false'")
    page.click("button[aria-label='Controls']")
    page.wait_for_timeout(1000)
    page.screenshot(path=str(IMAGES / "panel-dark.png"))


def main() -> None:
    """Make both."""
    with tempfile.TemporaryDirectory(prefix="lk-") as temporary:
        os.environ |= {"JUPYTER_RUNTIME_DIR": temporary, "XDG_RUNTIME_DIR": temporary}
        folder = Path(temporary) / "work"
        folder.mkdir()
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in CELLS])
        kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
        notebook.metadata.kernelspec = kernel
        nbformat.write(notebook, folder / "chat.ipynb")
        with (
            jupyter_lab(folder) as url,
            browser_page(shutil.which("chromium"), 1040, 900) as page,
        ):
            run_all(page, url.format(path="/doc/tree/chat.ipynb"), 120)
            talk(page)
            pictures(page)
        import llmkernel

        llmkernel.connect().stop(drain=False)


if __name__ == "__main__":
    main()
