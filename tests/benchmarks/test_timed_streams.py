"""What is counted of timed streams, and that prompts share nothing."""

from __future__ import annotations

import pytest

from benchmarks import streams
from benchmarks.prompts import Prompts


def test_tokens_are_counted_while_all_streams_decode():
    early = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    late = [0.0, 3.0, 4.0, 5.0, 6.0, 7.0]
    rates = streams.rates([early, late])
    assert rates.tokens_per_second == 2.0  # two each in the two seconds from 3 to 5
    assert rates.whole_per_second == pytest.approx(10 / 7)
    assert rates.first_token_s == 2.0
    assert (rates.gap_p50_ms, rates.gap_p99_ms) == (1000.0, 1000.0)


def test_what_piled_up_before_all_decode_is_not_counted():
    late = [0.0, *(float(second) for second in range(8, 17))]
    piled = [0.0, *[8.5] * 6, *(float(second) for second in range(9, 17))]
    assert streams.rates([late, piled]).tokens_per_second == 2.0


def test_streams_that_never_decode_together_count_as_a_whole():
    rates = streams.rates([[0.0, 1.0, 2.0], [0.0, 3.0, 4.0]])
    assert rates.tokens_per_second == rates.whole_per_second == 1.0


def test_a_quantile_is_one_of_the_values():
    values = [float(value) for value in range(100, 0, -1)]
    assert [streams.quantile(values, share) for share in (0.0, 0.5, 0.99, 1.0)] == [1, 50, 99, 100]


def test_every_token_of_every_stream_is_stamped(scripted_worker):
    from llmkernel.client import Client

    with Client(scripted_worker) as client:
        rows = streams.together(client, Prompts(200).several(3, 16), 5)
        assert [len(row) for row in rows] == [6, 6, 6]
        assert all(row == sorted(row) for row in rows)
        assert streams.first_token(client, [5, 6, 7]) > 0


def test_no_two_prompts_begin_alike():
    prompts = Prompts(8192).several(5000, 16)
    assert len({tuple(prompt) for prompt in prompts}) == 5000
    assert all(2 <= token < 8192 for prompt in prompts for token in prompt)
