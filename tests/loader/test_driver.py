"""Waking the driver: which GPU gets a context before torch is there."""

from __future__ import annotations

import ctypes
from typing import Any

import pytest

from llmkernel.worker import driver


class Driver:
    """A driver of `count` GPUs that writes down what it was asked."""

    def __init__(self, count: int, works: bool = True) -> None:
        self.count, self.works = count, works
        self.contexts: list[int] = []
        self.initialised = 0

    def cuInit(self, flags: int) -> int:  # noqa: N802 - the driver's names
        self.initialised += 1
        return 0 if self.works else 100

    def cuDeviceGetCount(self, count: Any) -> int:  # noqa: N802
        count._obj.value = self.count
        return 0

    def cuDeviceGet(self, found: Any, index: int) -> int:  # noqa: N802
        found._obj.value = 10 + index
        return 0

    def cuDevicePrimaryCtxRetain(self, context: Any, device: Any) -> int:  # noqa: N802
        self.contexts.append(device.value)
        return 0


def begun(
    monkeypatch: pytest.MonkeyPatch, made: Any, device: str, version: str = "2.13.0+cu129"
) -> None:
    def load(_: str) -> Any:
        if isinstance(made, OSError):
            raise made
        return made

    monkeypatch.setattr(ctypes, "CDLL", load)
    monkeypatch.setattr(driver.metadata, "version", lambda _: version)
    thread = driver.begin(device)
    if thread is not None:
        thread.join(10)
        assert not thread.is_alive()


@pytest.mark.parametrize(
    ("device", "count", "contexts"),
    [
        ("auto", 1, [10]),
        ("cuda", 1, [10]),
        ("auto", 2, []),
        ("cuda:1", 2, [11]),
        ("cuda:2", 2, []),
        ("auto", 0, []),
    ],
)
def test_a_context_is_made_where_it_is_clear_on_which_gpu(
    monkeypatch: pytest.MonkeyPatch, device: str, count: int, contexts: list[int]
) -> None:
    made = Driver(count)
    begun(monkeypatch, made, device)
    assert (made.initialised, made.contexts) == (1, contexts)


def test_on_the_cpu_nothing_is_woken(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Driver(1)
    begun(monkeypatch, made, "cpu")
    begun(monkeypatch, made, "auto", version="2.13.0+cpu")
    assert made.initialised == 0


def test_without_a_driver_that_works_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    begun(monkeypatch, OSError("no such file"), "auto")
    made = Driver(1, works=False)
    begun(monkeypatch, made, "auto")
    assert made.contexts == []
