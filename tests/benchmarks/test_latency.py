"""`benchmarks.latency`: everything that is waited for is there, whatever the speed."""

from __future__ import annotations

import pytest

from benchmarks import latency
from tests.benchmarks.shown import shown

SMALL = ("--prompt-tokens", "16,64", "--streams", "2", "--arriving", "600", "--longest", "800",
         "--repeated", "256", "--repeats", "2")  # fmt: skip


@pytest.mark.slow
def test_each_wait_is_measured(measured):
    found, printed = measured("latency", *SMALL)
    assert [one["prompt_tokens"] for one in found["first_token"]] == [16, 64]
    assert all(0 < one["median_s"] <= one["worst_s"] for one in found["first_token"])
    gaps = found["gaps"]
    assert gaps["quiet"]["gaps"] >= 2 * 2 * 60  # two streams, two windows of 64 tokens each
    assert gaps["arriving"]["gaps"] > 0
    assert gaps["p99_over_quiet_p50"] == pytest.approx(
        gaps["arriving"]["p99_ms"] / gaps["quiet"]["p50_ms"]
    )
    assert found["repeated"]["first_s"] > 0
    assert "600 tokens arrive" in printed
    assert "2 streams while 600 tokens arrive" in shown(found).text


def test_a_gap_belongs_to_the_window_in_which_it_ends():
    rows = [[0.0, 1.0, 2.0, 4.0, 4.5], [0.0, 3.0, 5.0]]
    inside = latency._gaps(rows, [latency.Window(1.5, 4.2)])
    assert inside == latency.Gaps(2, 1000.0, 2000.0)  # those that end at 2 and at 4
    outside = latency._gaps(rows, [latency.Window(4.2, 5.0)])
    assert outside == latency.Gaps(2, 500.0, 2000.0)
