"""What a machine without a browser, or with an old Node, is told; what continuous integration does."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(120)

ROOT = Path(__file__).parent.parent.parent
IN_A_BROWSER = "tests/panel/test_in_notebook_7.py"


def run_without_browser(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """The tests of a file that needs a browser, where neither the system nor playwright has one."""
    command = [sys.executable, "-m", "pytest", "-q", "-rs", "-n", "0", "-p", "no:cacheprovider"]
    kept = {name: value for name, value in os.environ.items() if name != "CI"}
    kept |= {"PATH": str(folder), "PLAYWRIGHT_BROWSERS_PATH": str(folder), **environment}
    return subprocess.run(
        [*command, IN_A_BROWSER], cwd=ROOT, env=kept, capture_output=True, text=True, check=False,
        timeout=100,
    )  # fmt: skip


def test_without_a_browser_its_tests_are_skipped_and_say_what_installs_one(tmp_path):
    ran = run_without_browser(tmp_path)
    assert ran.returncode == 0, ran.stdout
    assert "skipped" in ran.stdout.splitlines()[-1]
    assert "passed" not in ran.stdout.splitlines()[-1]
    assert "apt-get install chromium (or: python -m playwright install chromium)" in ran.stdout


def test_in_continuous_integration_that_is_a_failure(tmp_path):
    ran = run_without_browser(tmp_path, CI="true")
    assert ran.returncode == 1, ran.stdout
    assert "skipped" not in ran.stdout.splitlines()[-1]
    assert "There is no Chromium here" in ran.stdout


@pytest.fixture
def tools(tmp_path):
    """A folder that is the whole PATH; `add` puts a program into it that writes a text."""
    for name in ("dirname", "sh", "touch"):
        (tmp_path / name).symlink_to(shutil.which(name) or name)

    def add(name, says):
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\necho {says}\ntouch {tmp_path}/{name}.ran\n")
        program.chmod(0o755)

    add("npm", "10.0.0")
    return tmp_path, add


def check_panel(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/sh", "tools/panel.sh", "--check"], cwd=ROOT, env={"PATH": str(folder)},
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


@pytest.mark.parametrize("version", ["v18.19.0", "v8.1", "nonsense", ""])
def test_an_old_node_is_named_before_npm_is_run(tools, version):
    folder, add = tools
    add("node", version)
    ran = check_panel(folder)
    assert ran.returncode == 1
    assert f"Node 20 or newer is needed, and here is {version}" in ran.stderr
    assert not (folder / "npm.ran").exists()


@pytest.mark.parametrize("missing", ["npm", "node"])
def test_a_missing_tool_is_named(tools, missing):
    folder, add = tools
    if missing == "npm":
        (folder / "npm").unlink()
        add("node", "v22.0.0")
    ran = check_panel(folder)
    assert ran.returncode == 1
    assert ("npm is missing" if missing == "npm" else "here is none") in ran.stderr
    assert not (folder / "npm.ran").exists()


@pytest.mark.parametrize("version", ["v20.0.0", "v22.12.1", "v100.1.0"])
def test_a_new_node_is_taken(tools, version):
    folder, add = tools
    add("node", version)
    assert "Node 20" not in check_panel(folder).stderr
    assert (folder / "npm.ran").exists()
