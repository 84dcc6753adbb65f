"""The handle on a generation in the background, whatever becomes of it."""

from __future__ import annotations

import asyncio
import math
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from llmkernel.errors import InvalidRequest
from llmkernel.notebook.jobs import Job


def job(read: Any, form: str = "markdown") -> Job:
    request = SimpleNamespace(form=form)
    return Job(SimpleNamespace(), SimpleNamespace(read=read, request=request))  # type: ignore[arg-type]


@pytest.mark.parametrize("error", [RecursionError("deep"), OSError("disk"), SystemExit(3)])
def test_whatever_ends_a_job_is_raised_by_its_result(error: BaseException) -> None:
    def read() -> None:
        raise error

    ended = job(read)
    for ask in (lambda: ended.result(timeout=10), lambda: asyncio.run(ended._wait())):
        with pytest.raises(type(error)) as raised:
            ask()
        assert raised.value is error
    assert "failed" in repr(ended)


@pytest.mark.parametrize("timeout", [math.inf, 1e10, 1e300])
def test_a_result_can_be_waited_for_without_end(timeout: float) -> None:
    go = threading.Event()
    waited = job(lambda: go.wait(10) and "read")
    threading.Timer(0.1, go.set).start()
    assert waited.result(timeout=timeout) == "read"


def test_a_time_that_is_no_number_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="nan"):
        job(lambda: threading.Event().wait(0.1)).result(timeout=math.nan)
