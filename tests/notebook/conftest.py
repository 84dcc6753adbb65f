"""A real kernel with the magics, driven over its own protocol."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from jupyter_client.manager import KernelManager


class Cell:
    """What running one cell sent to the front end."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self.times: list[float] = []
        self.reply: dict[str, Any] = {}

    def of(self, kind: str) -> list[dict[str, Any]]:
        """The contents of all messages of one type."""
        return [each["content"] for each in self.messages if each["msg_type"] == kind]

    @property
    def displays(self) -> list[dict[str, Any]]:
        """First displays and updates, in order."""
        return [
            each["content"] for each in self.messages if each["msg_type"].endswith("display_data")
        ]

    @property
    def text(self) -> str:
        """The plain text of the last display."""
        return self.displays[-1]["data"]["text/plain"]

    @property
    def markdown(self) -> str:
        """The Markdown of the last display."""
        return self.displays[-1]["data"]["text/markdown"]

    @property
    def printed(self) -> str:
        """Standard output."""
        return "".join(each["text"] for each in self.of("stream"))

    @property
    def value(self) -> str:
        """The representation of the cell's value."""
        return self.of("execute_result")[-1]["data"]["text/plain"]

    @property
    def error(self) -> dict[str, Any] | None:
        """The error that the cell ended with."""
        errors = self.of("error")
        return errors[-1] if errors else None


class Notebook:
    """A kernel and the front end of it."""

    def __init__(self, **environment: str) -> None:
        self.manager = KernelManager()
        self.manager.start_kernel(env=os.environ | {"LLMKERNEL_STREAM": "1"} | environment)
        self._connect()

    def _connect(self) -> None:
        self.client = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=60)

    def restart(self) -> None:
        """Restart the kernel, as the button does."""
        self.client.stop_channels()
        self.manager.restart_kernel(now=True)
        self._connect()

    def interrupt(self) -> None:
        """Press the stop button."""
        self.manager.interrupt_kernel()

    def complete(self, code: str) -> tuple[list[str], str]:
        """Press Tab at the end of `code`: what is offered, and what it would replace."""
        reply = self.client.complete(code, reply=True, timeout=30)["content"]
        return reply["matches"], code[reply["cursor_start"] : reply["cursor_end"]]

    def send(self, code: str, cell: str | None = None) -> str:
        """Run a cell without waiting; returns the id to give to `follow`.

        `cell` is what the front end calls the cell, as JupyterLab does.
        """
        content = {"code": code, "silent": False, "store_history": True, "allow_stdin": False}
        content |= {"user_expressions": {}, "stop_on_error": True}
        message = self.client.session.msg("execute_request", content)
        if cell is not None:
            message["metadata"]["cellId"] = cell
        self.client.shell_channel.send(message)
        return str(message["header"]["msg_id"])

    def follow(self, sent: str, on_message: Callable[[dict[str, Any]], None] | None = None) -> Cell:
        """Everything a cell sends until it is done."""
        cell = Cell()
        while True:
            message = self.client.get_iopub_msg(timeout=60)
            if message["parent_header"].get("msg_id") != sent:
                continue
            cell.messages.append(message)
            cell.times.append(time.monotonic())
            if on_message:
                on_message(message)
            if message["content"].get("execution_state") == "idle":
                break
        while not cell.reply:
            reply = self.client.get_shell_msg(timeout=60)
            if reply["parent_header"].get("msg_id") == sent:
                cell.reply = reply["content"]
        return cell

    def run(self, code: str, cell: str | None = None) -> Cell:
        """Run a cell to its end."""
        return self.follow(self.send(code, cell))

    def must(self, code: str, cell: str | None = None) -> Cell:
        """Run a cell that must succeed."""
        ran = self.run(code, cell)
        assert ran.error is None, "\n".join(ran.error["traceback"])
        return ran

    def close(self) -> None:
        """End the kernel."""
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)


@pytest.fixture
def open_notebook(runtime_dir) -> Iterator[Callable[..., Notebook]]:
    """Opens notebooks whose kernels see the workers of this test, with the magics loaded."""
    notebooks: list[Notebook] = []

    def open_one(*, loaded: bool = True, **environment: str) -> Notebook:
        notebooks.append(Notebook(**environment))
        if loaded:
            notebooks[-1].must("%load_ext llmkernel")
        return notebooks[-1]

    yield open_one
    for notebook in notebooks:
        with contextlib.suppress(RuntimeError):
            notebook.close()


@pytest.fixture(scope="session")
def shared_kernel() -> Iterator[Notebook]:
    """One kernel for the tests that need no fresh one: a start takes longer than most of them."""
    notebook = Notebook()
    notebook.must("import os")
    yield notebook
    notebook.close()


@pytest.fixture
def notebook(runtime_dir, shared_kernel) -> Notebook:
    """A notebook with the magics just loaded and nothing else, that sees this test's workers."""
    folders = {name: os.environ[name] for name in ("JUPYTER_RUNTIME_DIR", "XDG_RUNTIME_DIR")}
    shared_kernel.must("%reset -f")
    shared_kernel.must(f"import os; os.environ.update({folders})")
    shared_kernel.must("%reload_ext llmkernel")
    return shared_kernel
