"""A JupyterLab in a browser with two workers, and what a person does in it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nbformat
import pytest

from tests.browsers import CHROMIUM, need_a_browser
from tests.conftest import kill_all_in, stop_worker
from tests.needs import skip_or_fail
from tools.screenshot import browser_page, jupyter_lab

SLOW = "scripted:step_ms=10,eos_after=1800,context_length=4096"
LONG_MS = 60_000


@pytest.fixture(scope="session")
def browser_or_skip() -> None:
    """Skips where there is no browser; in continuous integration that is a failure."""
    need_a_browser()


@contextmanager
def own_folders() -> Iterator[Path]:
    """A runtime folder for a whole module, in this process and its children."""
    with tempfile.TemporaryDirectory(prefix="lk-") as folder, pytest.MonkeyPatch.context() as patch:
        runtime, sockets = Path(folder) / "runtime", Path(folder) / "run"
        for each in (runtime, sockets):
            each.mkdir(mode=0o700)
        patch.setenv("JUPYTER_RUNTIME_DIR", str(runtime))
        patch.setenv("XDG_RUNTIME_DIR", str(sockets))
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        patch.setenv("LLMKERNEL_STREAM", "1")  # the kernels inherit pytest's variables
        yield Path(folder)
        kill_all_in(runtime)


def start(model: str, name: str):
    """A ready worker."""
    from llmkernel import launcher
    from llmkernel.config import WorkerConfig

    return launcher.start(WorkerConfig.build(model=model, name=name), timeout=100)


def empty_notebook(folder: Path) -> Path:
    """A folder with `talk.ipynb` in it."""
    work = folder / "work"
    work.mkdir()
    empty = nbformat.v4.new_notebook()
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    empty.metadata.kernelspec = kernel
    nbformat.write(empty, work / "talk.ipynb")
    return work


class Book:
    """A notebook in a page of JupyterLab or Notebook 7."""

    def __init__(self, page: Any, address: str) -> None:
        self.page = page
        self.address = address
        self.last = 0
        self.failures: list[str] = []
        self.requests: list[str] = []
        page.on("pageerror", lambda error: self.failures.append(error.stack or str(error)))
        page.on("dialog", lambda dialog: (self.failures.append("a dialog"), dialog.dismiss()))
        page.on("request", lambda request: self.requests.append(request.url))

    def open(self) -> None:
        """Open it, or open it again, and wait until its kernel is there."""
        self.page.goto(self.address)
        self.page.wait_for_selector(".jp-Notebook", timeout=LONG_MS)
        self.page.evaluate(READY)

    def clear(self) -> None:
        """Take all cells away."""
        self.page.evaluate(f"() => {{ {MODEL}; m.deleteCellRange(0, m.cells.length); }}")

    def run(self, code: str, *, wait: bool = True) -> Any:
        """Run code in a new cell at the end; the cell."""
        number = self.last = self.page.evaluate(RUN, code)
        if wait:
            self.page.wait_for_function(DONE, arg=number, timeout=LONG_MS)
            said = self.page.evaluate(ERRORS, number)
            assert said == [], said
        return self.page.locator(f".jp-Cell[data-windowed-list-index='{number}']")

    def panel(self, code: str = "") -> Panel:
        """A new panel in an empty notebook; the one before is let go."""
        self.run("globals().get('panel') and panel.close()")
        self.clear()
        self.run(code or "panel = llmkernel.ChatPanel('slow', temperature=0)\npanel")
        return self.view(0)

    def view(self, number: int) -> Panel:
        """One of the views on the page."""
        return Panel(self, self.page.locator(".llmk").nth(number))

    def interrupt(self) -> None:
        """Press the kernel's stop button, and wait until the last cell has ended."""
        self.page.evaluate(f"() => {KERNEL}.interrupt()")
        self.page.wait_for_function(DONE, arg=self.last, timeout=LONG_MS)

    def restart(self) -> None:
        """Restart the kernel, as the menu does."""
        self.page.evaluate(f"() => {KERNEL}.restart()")

    def theme(self, name: str) -> None:
        """Choose a theme, as the menu does, and wait until it is there."""
        self.page.evaluate(
            "(theme) => window.jupyterapp.commands.execute('apputils:change-theme', { theme })",
            name,
        )
        light = "false" if "Dark" in name else "true"
        self.page.wait_for_function(
            "(light) => document.body.dataset.jpThemeLight === light", arg=light, timeout=LONG_MS
        )
        # JupyterLab takes the cover of a change away a moment later, and breaks over a second one
        self.page.locator("#jupyterlab-splash").wait_for(state="detached", timeout=LONG_MS)

    def save(self) -> None:
        """Save the notebook."""
        self.page.evaluate("() => window.jupyterapp.shell.currentWidget.context.save()")

    def value(self, expression: str) -> str:
        """What the kernel prints for an expression."""
        cell = self.run(f"print({expression})")
        return cell.locator(".jp-OutputArea-output").last.inner_text().strip()


class Panel:
    """A view of a panel, as one sees and touches it."""

    def __init__(self, book: Book, root: Any) -> None:
        self.book, self.root, self.page = book, root, book.page
        root.wait_for(timeout=LONG_MS)
        root.locator(".llmk-dot-ready").wait_for(timeout=LONG_MS)

    @property
    def box(self) -> Any:
        return self.root.locator(".llmk-box")

    @property
    def answers(self) -> Any:
        return self.root.locator(".llmk-turn.llmk-assistant")

    @property
    def questions(self) -> Any:
        return self.root.locator(".llmk-turn.llmk-user")

    def press(self, label: str, *, inside: Any = None) -> None:
        """Click a button by what it is called."""
        (inside or self.root).get_by_role("button", name=label, exact=True).first.click()

    def send(self, text: str, *, wait: bool = True) -> None:
        """Ask, and wait for the end of the answer."""
        before = self.answers.count()
        self.box.fill(text)
        self.box.press("Enter")
        self.until(lambda: self.answers.count() > before)
        if wait:
            self.rest()

    def rest(self) -> None:
        """Wait until nothing is being written."""
        self.root.locator(".llmk-running").wait_for(state="detached", timeout=LONG_MS)

    def until(self, condition: Any) -> None:
        """Look every 20 ms for as long as a busy machine may need."""
        deadline = time.monotonic() + LONG_MS / 1000
        while not condition():
            assert time.monotonic() < deadline, "it did not come"
            self.page.wait_for_timeout(20)


KERNEL = "window.jupyterapp.shell.currentWidget.sessionContext.session.kernel"
MODEL = "const m = window.jupyterapp.shell.currentWidget.context.model.sharedModel"
READY = """async () => {
    await window.jupyterapp.restored;
    const panel = window.jupyterapp.shell.currentWidget;
    await panel.context.ready;
    await panel.sessionContext.ready;
    await panel.sessionContext.session.kernel.info;
}"""
RUN = """(source) => {
    const widget = window.jupyterapp.shell.currentWidget;
    const m = widget.context.model.sharedModel;
    const number = m.cells.length;
    m.insertCell(number, { cell_type: 'code', source });
    widget.content.activeCellIndex = number;
    window.jupyterapp.commands.execute('notebook:run-cell');
    return number;
}"""
DONE = """(number) => {
    const widget = window.jupyterapp.shell.currentWidget;
    const cell = widget.content.widgets[number];
    return cell.model.executionCount !== null && cell.model.executionState !== 'running';
}"""
ERRORS = """(number) => {
    const widget = window.jupyterapp.shell.currentWidget;
    return widget.context.model.sharedModel.getCell(number).getOutputs()
      .filter(output => output.output_type === 'error').map(output => output.evalue);
}"""


@pytest.fixture(scope="module")
def lab_folder(browser_or_skip) -> Iterator[tuple[Path, str]]:
    """A JupyterLab that is up, with an empty notebook, beside the two workers."""
    with own_folders() as folder:
        workers = [start(SLOW, "slow")]
        work = empty_notebook(folder)
        with jupyter_lab(work) as url:
            yield work, url
        for worker in workers:
            stop_worker(worker)


@pytest.fixture(scope="module")
def open_book(lab_folder) -> Iterator[Book]:
    """The notebook in a page, open for the whole module."""
    _, url = lab_folder
    with browser_page(CHROMIUM, 1000, 900) as page:
        book = Book(page, url.format(path="/doc/tree/talk.ipynb"))
        book.open()
        book.run("import llmkernel")
        yield book


@pytest.fixture(scope="session")
def axe(browser_or_skip) -> str:
    """The source of axe-core; npm brings it where it is not there yet."""
    folder = Path(__file__).parent.parent.parent / "panel-js"
    source = folder / "node_modules" / "axe-core" / "axe.min.js"
    if not source.exists() and shutil.which("npm"):
        subprocess.run(
            ["npm", "ci", "--silent", "--no-audit"], cwd=folder, check=False, timeout=100
        )
    if source.exists():
        return source.read_text()
    skip_or_fail("axe-core is missing: apt-get install nodejs npm")
    return ""


@pytest.fixture
def open_tab(open_book) -> Iterator[Any]:
    """Opens the notebook in a second tab of the browser."""
    pages = []

    def open_one() -> Book:
        pages.append(open_book.page.context.browser.new_page())
        tab = Book(pages[-1], open_book.address)
        tab.open()
        return tab

    yield open_one
    for page in pages:
        page.close()


@pytest.fixture
def book(open_book) -> Iterator[Book]:
    """The notebook; a script that broke, or one of a model that ran, fails the test."""
    open_book.failures.clear()
    open_book.requests.clear()
    yield open_book
    assert open_book.failures == []


class Mortal:
    """A worker that a test may kill; whatever has its name in the end is stopped."""

    def __init__(self) -> None:
        self.connection = start(SLOW, "mortal")

    def stop(self) -> None:
        """End it before anything happens."""
        stop_worker(self.connection)

    def kill(self) -> None:
        """As the system does when memory is out."""
        os.kill(self.connection.pid, signal.SIGKILL)


@pytest.fixture
def mortal(open_book) -> Iterator[Mortal]:
    from llmkernel import connection

    worker = Mortal()
    yield worker
    left = connection.running("mortal")
    if left is not None:
        stop_worker(left)
