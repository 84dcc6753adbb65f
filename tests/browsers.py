"""The browser of the tests in one: the system's Chromium, or the one that playwright brought."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.needs import skip_or_fail

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
"""None means the one of playwright."""
INSTALL = "apt-get install chromium (or: python -m playwright install chromium)"


def need_a_browser() -> None:
    """Skip the test where there is none, saying what installs one; in CI that is a failure."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        skip_or_fail("playwright is missing. Install it with: pip install '.[dev]'")
    if CHROMIUM is not None:
        return
    with sync_playwright() as playwright:
        there = Path(playwright.chromium.executable_path).exists()
    if not there:
        skip_or_fail(f"There is no Chromium here. Install one with: {INSTALL}")
