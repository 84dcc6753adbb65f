"""`benchmarks.decode`: a row for each width, ours and transformers', whatever the speed."""

from __future__ import annotations

import argparse
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks import command, decode
from tests.benchmarks.shown import shown

SHORT = ("--prompt-tokens", "24", "--new-tokens", "12", "--baseline-new-tokens", "6")


@pytest.mark.slow
def test_each_width_is_measured_beside_transformers(measured, runtime_dir):
    found, printed = measured("decode", *SHORT, "--batch", "1,4", "--baseline-batch", "4")
    assert found["benchmark"] == "decode"
    assert found["shape"] == "tiny"
    assert found["model"]["quantization"] == "nf4"
    one, four = found["rows"]
    assert (one["batch"], one["transformers_per_second"], one["ratio"]) == (1, None, None)
    assert four["ratio"] == pytest.approx(
        four["tokens_per_second"] / four["transformers_per_second"]
    )
    assert list(runtime_dir.glob("llmkernel-*.log")) == []
    assert "6 new tokens instead of 12" in printed
    assert printed.splitlines()[-2].startswith("| 4 ")
    assert "| 4 " in shown(found).text


def test_streams_that_cannot_run_at_the_same_time_are_refused():
    model = SimpleNamespace(block_size=16, kv_blocks=100, kv_cache_bytes=100 * 2**20)
    client: Any = SimpleNamespace(status=lambda: SimpleNamespace(model=model))
    asked = argparse.Namespace(batch=[1, 4], prompt_tokens=128, new_tokens=257)
    decode.check_room(client, asked)  # 4 streams of 24 blocks
    asked.new_tokens = 258
    with pytest.raises(command.Refused, match=r"4 streams of 386 tokens .* --kv-cache 102MiB"):
        decode.check_room(client, asked)


def test_a_share_of_the_floor_needs_a_bandwidth():
    rates = decode.Rates(500.0, 400.0, 0.1, 2.0, 3.0)
    (row,) = decode.table({1: rates}, {}, {"bytes": 1e9, "bytes_per_second": 1e12}, {})
    assert row["share_of_floor"] == pytest.approx(0.5)  # 1 ms of reading in a step of 2 ms
    (row,) = decode.table({1: rates}, {}, {"bytes": 1e9, "bytes_per_second": 0.0}, {})
    assert row["share_of_floor"] is None


def test_the_floor_of_the_8b_shape_is_what_its_weights_take():
    from benchmarks.shapes import SHAPES

    # 6.979e9 weights at 0.5625 bytes, and 128256 x 4096 of two bytes
    assert decode.floor(SHAPES["llama-3.1-8b"])["bytes"] == pytest.approx(4.977e9, rel=1e-3)


@pytest.mark.parametrize("width", [1, 8, 64, 128])
def test_a_warm_round_lasts_until_all_its_streams_decode(width):
    # each stream that decodes takes a token of a step's budget from the prompts
    decoding, left, steps = 0, width * 128, 0
    while left > 0:
        left -= decode.STEP_TOKENS - decoding
        decoding = width - max(left, 0) // 128
        steps += 1
    assert decode.warm_tokens(width, 128) > steps
