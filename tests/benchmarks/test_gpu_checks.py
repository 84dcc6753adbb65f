"""What the checks on a GPU make of what they find."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import gpu_checks

FINE = {
    "tests": {"run": 9, "skipped": 1, "failed": []},
    "accuracy": {"inexact": []},
    "demo_equal": [4, 4],
}


def test_tests_are_counted_and_failures_named(tmp_path):
    (tmp_path / "test_some.py").write_text(
        "import pytest\n"
        "def test_good(): pass\n"
        "def test_bad(): assert False\n"
        "@pytest.fixture\ndef broken(): raise ValueError\n"
        "def test_worse(broken): pass\n"
        "@pytest.mark.skip\ndef test_later(): pass\n"
    )
    found = gpu_checks.check_tests([str(tmp_path / "test_some.py")])["tests"]
    assert (found["run"], found["skipped"]) == (3, 1)
    assert [name.rpartition("::")[2] for name in found["failed"]] == ["test_bad", "test_worse"]


def test_who_counts_the_whole_gpu_has_it_alone(tmp_path, monkeypatch):
    (tmp_path / "test_some.py").write_text(
        "import os, pytest\n"
        "def test_beside(): assert 'PYTEST_XDIST_WORKER' in os.environ\n"
        "@pytest.mark.alone\ndef test_alone(): assert 'PYTEST_XDIST_WORKER' not in os.environ\n"
    )
    monkeypatch.setattr(gpu_checks, "_side_by_side", lambda: ["-n", "2"])
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)  # this one's own
    found = gpu_checks.check_tests([str(tmp_path / "test_some.py")])
    assert found == {"tests": {"run": 2, "skipped": 0, "failed": []}}


def test_nothing_is_wrong_with_what_is_fine_or_was_not_asked_for():
    assert gpu_checks.problems(FINE) == []
    assert gpu_checks.problems({}) == []


def test_everything_that_is_wrong_is_told():
    report = FINE | {
        "tests": {"run": 0, "skipped": 10, "failed": ["a::b"]},
        "accuracy": {"inexact": ["gemma2"]},
        "demo_equal": [3, 4],
    }
    assert len(gpu_checks.problems(report)) == 4
    assert "gemma2" in " ".join(gpu_checks.problems(report))


def test_every_test_that_it_runs_is_there():
    assert all((gpu_checks._ROOT / path).exists() for path in gpu_checks.TESTS)


def test_every_test_that_needs_a_gpu_is_run():
    tests = gpu_checks._ROOT / "tests"
    ran = [gpu_checks._ROOT / path for path in gpu_checks.TESTS]
    needing = [path for path in tests.rglob("test_*.py") if "mark.gpu" in path.read_text()]
    needing.remove(Path(__file__))
    assert len(needing) > 8
    assert [path for path in needing if not any(path.is_relative_to(one) for one in ran)] == []


@pytest.mark.parametrize(
    ("gibibytes", "processors", "expected"),
    [
        ([141], 16, ["-n", "12"]),
        ([80], 4, ["-n", "4"]),
        ([24, 80], 16, ["-n", "2"]),
        ([8], 16, []),
        ([], 16, []),
    ],
)
def test_tests_run_side_by_side_where_there_is_room(gibibytes, processors, expected, monkeypatch):
    rows = [{"memory_bytes": size * 2**30} for size in gibibytes]
    monkeypatch.setattr(gpu_checks.gpu, "described", lambda: rows)
    monkeypatch.setattr(gpu_checks.os, "cpu_count", lambda: processors)
    assert gpu_checks._side_by_side() == expected
