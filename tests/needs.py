"""What some tests need of a machine and not every machine has."""

from __future__ import annotations

import os

import pytest


def skip_or_fail(why: str) -> None:
    """In continuous integration a test that cannot run is a failure."""
    if os.environ.get("CI", "").lower() in ("1", "true"):
        pytest.fail(why)
    pytest.skip(why)
