"""A served front for the tests of this room."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.wire.raw import RawClient
from tests.wire.serving import Served, serving


@pytest.fixture
def served(runtime_dir) -> Iterator[Served]:
    """A ready front and a fast scripted engine in this process."""
    with serving() as inside:
        yield inside


@pytest.fixture
def client(served: Served) -> Iterator[RawClient]:
    """A raw client of it that has said hello."""
    with RawClient(served.connection) as raw:
        yield raw
