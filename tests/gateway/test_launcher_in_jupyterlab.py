"""The link in a real JupyterLab's launcher: there once it is installed, and to the status page.

Needs playwright and a Chromium, which are no dependencies of the project.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

pytest.importorskip("playwright")
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
ROOT = Path(__file__).parents[2]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(200),
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here"),
]


def test_the_launcher_opens_the_status_page(scripted_worker, tmp_path, monkeypatch):
    from tools.screenshot import browser_page, jupyter_lab

    share, etc = tmp_path / "share", tmp_path / "etc" / "jupyter_server_config.d"
    shutil.copytree(ROOT / "labextension", share / "labextensions" / "llmkernel")
    etc.mkdir(parents=True)
    shutil.copy(ROOT / "jupyter-config" / "llmkernel.json", etc)
    monkeypatch.setenv("JUPYTER_PATH", str(share))
    monkeypatch.setenv("JUPYTER_CONFIG_PATH", str(etc.parent))
    home = tmp_path / "home"
    home.mkdir()
    with jupyter_lab(home) as url, browser_page(CHROMIUM, 1000, 800) as page:
        page.goto(url.format(path="/lab"))
        page.wait_for_selector(".jp-LauncherCard:has-text('Language models')", timeout=60_000)
        with page.context.expect_page() as opened:
            page.click(".jp-LauncherCard:has-text('Language models')")
        status = opened.value
        status.wait_for_selector("section.card", timeout=30_000)
        assert status.url.endswith("/llmkernel/")
        assert status.inner_text("h3") == "scripted"
