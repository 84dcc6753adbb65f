"""The handle on a generation in the background, whatever becomes of it."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

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
