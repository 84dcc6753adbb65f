"""A picture of a notebook as it runs in a real JupyterLab.

    python tools/screenshot.py notebooks/01_quickstart.ipynb docs/images/quickstart.png

Starts JupyterLab on the loopback with a token of its own, opens the notebook in a headless
Chromium, runs all cells and takes the picture when the last one has ended. The notebook on
disk is not touched: a copy is opened. Needs `pip install playwright` and a Chromium
(`--chromium` or `playwright install chromium`); neither is a dependency of the project.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SCROLLER = ".jp-WindowedPanel-outer"
QUIET = {
    "@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False},
    "@jupyterlab/apputils-extension:themes": {"theme": "JupyterLab Light"},
    "@jupyterlab/notebook-extension:tracker": {"autoStartDefaultKernel": True},
}
"""Settings without which a dialogue would stand in the picture."""
OTHERS_OFF = {"ServerApp": {"jpserver_extensions": {"jupyter_ai_litellm": False}}}
"""An extension that comes with a package of the tests, and asks the network before a server is up."""


@contextlib.contextmanager
def jupyter_lab(
    folder: Path, settings: dict[str, Any] | None = None, app: str = "jupyterlab"
) -> Iterator[str]:
    """A JupyterLab that serves `folder`; gives its address, with a place for the path.

    With `app` "notebook" it is Notebook 7.
    """
    token = secrets.token_hex(16)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    home = folder / ".lab"
    for plugin, values in (QUIET | (settings or {})).items():
        package, _, name = plugin.partition(":")
        target = home / "settings" / package / f"{name}.jupyterlab-settings"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps(values))
    config = home / "config" / "jupyter_server_config.json"
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text(json.dumps(OTHERS_OFF))
    kind = {"jupyterlab": "LabApp", "notebook": "JupyterNotebookApp"}[app]
    command = [sys.executable, "-m", app, "--no-browser", "--allow-root"]
    command += [f"--ServerApp.port={port}", "--ServerApp.ip=127.0.0.1", "--expose-app-in-browser"]
    command += [f"--ServerApp.root_dir={folder}", f"--{kind}.user_settings_dir={home / 'settings'}"]
    command += [f"--{kind}.workspaces_dir={home / 'workspaces'}"]
    environment = os.environ | {"JUPYTER_TOKEN": token, "JUPYTER_CONFIG_DIR": str(config.parent)}
    with (home / "lab.log").open("wb") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        _wait_until_up(server, f"http://127.0.0.1:{port}/api?token={token}", home / "lab.log")
        yield f"http://127.0.0.1:{port}{{path}}?token={token}"
    finally:
        server.terminate()
        try:
            server.wait(timeout=20)
        except subprocess.TimeoutExpired:  # a busy machine, or a kernel that hangs
            server.kill()
            server.wait(timeout=20)


def _wait_until_up(server: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + 60
    while True:
        if server.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"JupyterLab did not start:\n{log.read_text()[-2000:]}")
        with contextlib.suppress(urllib.error.URLError, OSError), urllib.request.urlopen(url):
            return
        time.sleep(0.2)


@contextlib.contextmanager
def browser_page(chromium: str | None, width: int, height: int) -> Iterator[Any]:
    """A page of a headless Chromium; what the page logs as an error is printed."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        raise SystemExit("playwright is missing. Install it with: pip install playwright") from None
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(
            viewport={"width": width, "height": height}, device_scale_factor=1.5
        )
        yield page
        browser.close()


def run_all(page: Any, url: str, seconds: float) -> None:
    """Open a notebook, run every cell and wait until the last one has ended."""
    page.goto(url)
    page.wait_for_selector(".jp-Notebook", timeout=60_000)
    page.evaluate(_READY)
    page.evaluate(_RUN)
    page.wait_for_function("() => window.lastCellHasEnded", timeout=seconds * 1000)


_READY = """async () => {
    await window.jupyterapp.restored;
    const panel = window.jupyterapp.shell.currentWidget;
    await panel.context.ready;
    await panel.sessionContext.ready;
}"""
_RUN = """() => {
    const run = window.jupyterapp.commands.execute('notebook:run-all-cells');
    run.finally(() => { window.lastCellHasEnded = true; });
}"""


def take(arguments: argparse.Namespace) -> None:
    """Run a copy of the notebook and write the picture."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        notebook = shutil.copy(arguments.notebook, folder)
        with (
            jupyter_lab(folder) as url,
            browser_page(arguments.chromium, arguments.width, arguments.height) as page,
        ):
            path = f"/doc/tree/{Path(notebook).name}"
            run_all(page, url.format(path=path), arguments.seconds)
            page.evaluate(
                f"() => document.querySelector('{SCROLLER}').scrollTo(0, {arguments.scroll})"
            )
            page.wait_for_timeout(1000)
            arguments.picture.parent.mkdir(parents=True, exist_ok=True)
            page.screenshot(path=str(arguments.picture))


def main() -> None:
    """Read the command line and take the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebook", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--width", type=int, default=1000, help="of the window, in CSS pixels")
    parser.add_argument("--height", type=int, default=900)
    parser.add_argument("--scroll", type=int, default=0, help="CSS pixels to scroll down before")
    parser.add_argument("--seconds", type=float, default=300, help="that the cells may take")
    parser.add_argument("--chromium", default=shutil.which("chromium"), help="the browser")
    take(parser.parse_args())


if __name__ == "__main__":
    main()
