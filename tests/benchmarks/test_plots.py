"""docs/performance.md is what the kept results say, and says it the same each time."""

from __future__ import annotations

import json
from xml.etree import ElementTree

import pytest

from benchmarks import plots, results, tables
from benchmarks.step_profile import Span, by_kernel
from benchmarks.svg_plot import Axis, Line, drawn
from tests.benchmarks.shown import EMPTY, GPU, on_a_gpu, shown

BASE = {
    "date": "2026-01-02",
    "machine": {"gpus": []},
    "versions": {"torch": "2.11.0", "transformers": "5.17.0", "bitsandbytes": "0.50.2"},
    "switches": {"LLMKERNEL_KERNELS": "1"},
    "shape": "tiny",
}


def decoded(speed: float = 500.0, **changes: object) -> dict:
    row = {
        "batch": 1,
        "tokens_per_second": speed,
        "whole_per_second": 400.0,
        "transformers_per_second": 25.0,
        "ratio": speed / 25,
        "share_of_floor": speed / 1000,
    }
    two = {**row, "batch": 2, "transformers_per_second": None, "ratio": None}
    return {
        **BASE,
        "benchmark": "decode",
        "rows": [row, two],
        "floor": {"bytes": 4e9, "bytes_per_second": 4e12},
        "peers": {"another": {"1": 293}},
        **changes,
    }


def test_the_page_is_what_the_results_say():
    assert plots.main(["--check"]) == 0


def test_a_page_that_is_not_is_noticed_and_written(tmp_path, monkeypatch, capsys):
    (tmp_path / "images").mkdir()
    (tmp_path / "performance.md").write_text(shown().text)
    monkeypatch.setattr(plots, "DOCS", tmp_path)
    monkeypatch.setattr(results, "newest", lambda: [on_a_gpu(decoded())])
    assert plots.main(["--check"]) == 1
    assert "make docs" in capsys.readouterr().err
    assert plots.main([]) == 0
    assert plots.main(["--check"]) == 0
    (tmp_path / "images" / "decode-tiny-h200.svg").write_text("another")
    assert plots.main(["--check"]) == 1


def test_widths_stand_in_a_table_and_in_a_plot():
    page = shown(decoded())
    assert "**tiny**, NVIDIA H200 (driver 580.1), torch 2.11.0" in page.text
    assert "2026-01-02, LLMKERNEL_KERNELS=1" in page.text
    one, two = (line for line in page.text.splitlines() if line.startswith(("| 1", "| 2")))
    cells = [cell.strip() for cell in one.strip("|").split("|")]
    assert cells == ["1", "500", "400", "25", "20", "50%", "293"]
    assert [cell.strip() for cell in two.strip("|").split("|")][3:] == ["-", "-", "50%", "-"]
    (image,) = page.images.values()
    words = [text.text for text in ElementTree.fromstring(image).iter() if text.text]
    assert {"llmkernel", "transformers + bitsandbytes", "another", "memory floor"} <= set(words)
    assert shown(decoded()) == page


def test_what_was_said_before_is_gone():
    assert "old" not in shown(decoded()).text
    assert "Nothing is kept yet: `python -m benchmarks.decode --save`." in shown().text
    assert shown().text == plots.page(shown(decoded()).text, []).text


def test_a_page_without_a_place_for_a_section_is_refused():
    with pytest.raises(AssertionError, match="no place for decode"):
        plots.page("Nothing here.", [])


def test_the_newest_on_each_gpu_counts_and_without_one_what_is_of_the_processor(tmp_path):
    other = {"gpus": [{**GPU, "name": "NVIDIA L4"}]}
    kept = {
        "b": on_a_gpu(decoded(date="2026-02-01")),
        "c": on_a_gpu(decoded(date="2026-01-01")),
        "d": decoded(date="2026-03-01"),
        "e": decoded(machine=other),
        "f": ["a list"],
        "h": {**BASE, "benchmark": "batching", "date": "2026-01-05"},
        "i": {**BASE, "benchmark": "batching", "machine": {"gpus": [GPU]}},
        "g": {"date": "2025-01-01", "shape": "of another kind"},
    }
    for name, record in kept.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(record))
    assert results.newest(tmp_path) == [kept["h"], kept["b"], kept["e"]]


def test_memory_is_shown_in_gib():
    seconds = {"import": 0.1, "start": 2.0, "first token": 0.5}
    start = {"seconds": seconds, "first_token": 2.6}
    took = {
        "used_bytes": 12 * 2**30,
        "weights_bytes": 6 * 2**30,
        "kv_cache_bytes": 4 * 2**30,
        "beyond_bytes": 2 * 2**30,
        "share_beyond": 0.2,
    }
    text = shown(
        {
            **BASE,
            "benchmark": "startup",
            "first_start": {"seconds": {**seconds, "read": 7.5}, "first_token": 10.1},
            "second_start": start,
            "attach": {"imported": 0.1, "ready": 0.3, "first_token": 0.35},
            "memory": {"after_start": took, "after_streams": took, "after_stop_bytes": 0},
        }
    ).text
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
    assert ["read", "7.5", "-", "-"] in rows
    assert ["all", "10.1", "2.6", "0.35"] in rows
    assert ["after start", "12", "6", "4", "2", "20.0%"] in rows


def test_the_budget_of_a_step_is_counted_by_kind_of_kernel():
    kernels = [
        {"kernel": "four_bit_vector", "own_us": 30.0, "us": 45.0, "runs": 4},
        {"kernel": "four_bit_join", "own_us": 10.0, "us": 10.0, "runs": 4},
        {"kernel": "_attend_part", "own_us": 5.0, "us": 5.0, "runs": 2},
        {"kernel": "void at::native::something", "own_us": 1.0, "us": 1.0, "runs": 1},
    ]
    rows = [
        {"width": 1, "step_us": 45.0, "own_us": 46.0, "profiled_us": 50.0, "kernels": kernels},
        {"width": 8, "step_us": 59.0, "own_us": 60.0, "profiled_us": 60.0, "kernels": []},
    ]
    text = shown({**BASE, "benchmark": "step_profile", "rows": rows}).text
    found = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
    for row in (["4-bit products", "40", "0"], ["rotation, KV write and attention", "5", "0"],
                ["all other kernels", "1", "0"], ["all kernels", "46", "60"],
                ["GPU busy", "92%", "100%"]):  # fmt: skip
        assert row in found


def test_kernels_that_overlap_count_their_own_time():
    spans = [
        Span("a", 0.0, 10.0),
        Span("b", 4.0, 12.0),  # waits for a
        Span("c", 5.0, 11.0),  # hidden
        Span("a", 15.0, 16.0),
    ]
    found = by_kernel(spans, 2)
    assert [(one["kernel"], one["own_us"], one["us"], one["runs"]) for one in found] == [
        ("a", 5.5, 5.5, 1.0),
        ("b", 1.0, 4.0, 0.5),
        ("c", 0.0, 3.0, 0.5),
    ]
    row = {"width": 1, "step_us": 8.5, "busy_us": 12.5, "own_us": 6.5, "profiled_us": 8.0}
    record = {**BASE, "benchmark": "step_profile", "rows": [{**row, "kernels": found}]}
    text = shown(record).text
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
    assert ["all kernels", "6.5"] in cells
    assert ["GPU busy", "81%"] in cells
    assert "to its own end." in text


def test_what_is_of_the_processor_says_which():
    machine = {"gpus": [], "processor": "Abacus", "cores": 2}
    width = {
        "streams": 8,
        "zeromq_tokens_per_second": 400.0,
        "http_tokens_per_second": 380.0,
        "share": 0.95,
        "zeromq_first_token_ms": 40.0,
        "http_first_token_ms": 50.0,
        "longest_block_ms": 12.5,
    }
    record = {**BASE, "benchmark": "gateway", "machine": machine, "step_ms": 20.0}
    text = plots.page(EMPTY, [{**record, "widths": [width]}]).text
    assert "Abacus, 2 cores, torch 2.11.0" in text
    cells = [cell.strip() for line in text.splitlines() for cell in line.strip("|").split("|")]
    assert cells[-8:-1] == ["8", "400", "380", "0.95", "40", "50", "12.5"]


def test_a_plot_is_the_same_each_time_and_in_its_frame():
    lines = [Line("a < b", [(1, 10.0), (64, 9000.0)]), Line("c", [(8, 20.0)], dashed=True)]
    image = drawn("t", "x", "y", lines)
    assert image == drawn("t", "x", "y", lines)
    circles = ElementTree.fromstring(image).findall("{http://www.w3.org/2000/svg}circle")
    assert len(circles) == 3
    assert all(70 <= float(one.attrib["cx"]) <= 540 for one in circles)
    assert all(40 <= float(one.attrib["cy"]) <= 370 for one in circles)


def test_an_axis_has_a_tick_at_one_two_and_five():
    assert Axis(0.9, 60.0, 0, 1).ticks() == [1, 2, 5, 10, 20, 50]


def test_a_plot_of_one_width_is_a_plot():
    assert "polyline" in drawn("t", "x", "y", [Line("one", [(1, 5.0)])])


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), ("so", "so"), (8, "8"), (1234.5, "1,234"), (0.01234, "0.0123"), (5.0, "5"),
     (99.96, "100"), (0.0, "0")],
)  # fmt: skip
def test_numbers_are_as_long_as_they_matter(value, text):
    assert tables.cell(value) == text


def test_a_table_is_as_wide_in_each_row():
    assert tables.markdown(("name", "n"), [("a long one", 5), ("b", None)]) == [
        "| name       |   n |",
        "| ---------- | --: |",
        "| a long one |   5 |",
        "| b          |   - |",
    ]
