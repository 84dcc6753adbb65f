"""Draws: the right distribution, every parameter, and nothing from the neighbours."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sampler_rows import advance, attached, decode_row, draw, draw_details
from transformers import generation as hf

from llmkernel.params import SamplingParams
from llmkernel.worker.greedy import greedy_tokens
from llmkernel.worker.sampler import TOP_LOGPROBS
from llmkernel.worker.sequence import NO_TOKEN
from llmkernel.worker.step import Row

WIDTH = 64


def logits(rows: int, width: int = WIDTH, seed: int = 0, scale: float = 3.0) -> torch.Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed)) * scale


def many_draws(row_logits: torch.Tensor, count: int, **params: object) -> torch.Tensor:
    """How often each token came in `count` draws that differ in the seed alone."""
    rows = [decode_row(slot, seed=slot, **params) for slot in range(count)]
    sampler = attached(row_logits.shape[-1], rows, count)
    tokens = sampler.sample(row_logits.expand(count, -1), rows).tokens
    return torch.bincount(tokens, minlength=row_logits.shape[-1]).float()


def assert_follows(counts: torch.Tensor, probabilities: torch.Tensor) -> None:
    """Chi-square within five standard deviations, and nothing where the probability is 0."""
    possible = probabilities > 0
    assert counts[~possible].sum() == 0
    expected = probabilities[possible] * counts.sum()
    statistic = ((counts[possible] - expected) ** 2 / expected).sum().item()
    freedom = int(possible.sum()) - 1
    assert abs(statistic - freedom) < 5 * (2 * max(freedom, 1)) ** 0.5


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_draws_follow_the_softmax(temperature: float) -> None:
    row = logits(1, 30, scale=1.0)
    counts = many_draws(row, 20_000, temperature=temperature)
    assert_follows(counts, (row[0] / temperature).softmax(-1))


def test_draws_after_truncation_follow_the_rest() -> None:
    row = torch.tensor([[3.0, 2.0, 1.0, 0.0, -1.0, -2.0]])
    counts = many_draws(row, 20_000, top_k=4, top_p=0.95)
    kept = torch.tensor([3.0, 2.0, 1.0, float("-inf"), float("-inf"), float("-inf")])
    assert_follows(counts, kept.softmax(-1))


@pytest.mark.parametrize(
    ("name", "value", "warper"),
    [
        ("top_k", 3, hf.TopKLogitsWarper),
        ("top_p", 0.7, hf.TopPLogitsWarper),
        ("min_p", 0.2, hf.MinPLogitsWarper),
        ("typical_p", 0.5, hf.TypicalLogitsWarper),
    ],
)
def test_each_truncation_takes_part_in_the_draw(name: str, value: float, warper: Any) -> None:
    row = logits(1, 20, scale=1.0)
    kept = warper(value)(None, row.clone())[0].softmax(-1)
    assert 1 < (kept > 0).sum() < 20
    assert_follows(many_draws(row, 4_000, **{name: value}), kept)


def test_draws_along_one_sequence_follow_the_softmax() -> None:
    row = logits(1, 10, scale=1.0)
    sequence = decode_row(seed=9).sequence
    rows = [Row(sequence, position, 1, samples=True) for position in range(20_000)]
    tokens = attached(10, rows[:1]).sample(row.expand(len(rows), -1), rows).tokens
    assert_follows(torch.bincount(tokens, minlength=10).float(), row[0].softmax(-1))


def test_temperature_zero_takes_the_largest_logit() -> None:
    values = logits(5)
    assert draw(values, *(decode_row(i, temperature=0) for i in range(5))) == (
        values.argmax(-1).tolist()
    )


def test_greedy_rows_and_drawing_rows_share_a_step() -> None:
    values = logits(6)
    rows = [decode_row(i, temperature=i % 2, seed=i) for i in range(6)]
    alone = [draw(values[i : i + 1], row)[0] for i, row in enumerate(rows)]
    assert draw(values, *rows) == alone
    assert alone[::2] == values[::2].argmax(-1).tolist()


@pytest.mark.parametrize("temperature", [5e-324, 1e-38, 1e-10])
def test_the_smallest_temperatures_are_greedy(temperature: float) -> None:
    values = logits(3)
    assert draw(values, *(decode_row(i, temperature=temperature) for i in range(3))) == (
        values.argmax(-1).tolist()
    )


def test_the_smallest_repetition_penalty_is_no_overflow() -> None:
    row = decode_row(prompt=(1, 2), repetition_penalty=5e-324)
    assert draw(torch.tensor([[0.0, 3.0, -3.0, 0.0]]), row) == [1]


def test_a_seed_names_the_draw() -> None:
    values = logits(1, scale=0.1)
    tokens = {(seed, i): draw(values, decode_row(seed=seed, index=i))[0]
              for seed in range(20) for i in range(4)}  # fmt: skip
    assert tokens == {
        (seed, i): draw(values, decode_row(seed=seed, index=i))[0] for seed, i in tokens
    }
    assert len(set(tokens.values())) > 20


PARAMETERS = st.fixed_dictionaries(
    {},
    optional={
        "temperature": st.sampled_from([0, 0.3, 1.0, 3.0]),
        "top_k": st.integers(0, 2 * WIDTH),
        "top_p": st.sampled_from([0.05, 0.5, 0.9, 1.0]),
        "min_p": st.sampled_from([0.0, 0.05, 1.0]),
        "typical_p": st.sampled_from([0.1, 0.9, 1.0]),
        "repetition_penalty": st.sampled_from([0.5, 1.0, 1.7]),
        "presence_penalty": st.sampled_from([-2.0, 0.0, 1.5]),
        "frequency_penalty": st.sampled_from([-0.5, 0.0, 2.0]),
        "logit_bias": st.dictionaries(st.integers(0, WIDTH + 5), st.floats(-5, 5), max_size=6),
        "min_tokens": st.integers(0, 4),
        "stop_token_ids": st.lists(st.integers(0, WIDTH + 5), max_size=3),
        "logprobs": st.none() | st.integers(0, 5),
        "max_tokens": st.just(50),
    },
)


@settings(max_examples=150, deadline=None)
@given(batch=st.lists(PARAMETERS, min_size=1, max_size=7), seed=st.integers(0, 2**31))
def test_what_a_row_gets_does_not_depend_on_its_batch(
    batch: list[dict[str, object]], seed: int
) -> None:
    values = logits(len(batch), seed=seed)
    choice = random.Random(seed)
    rows = [
        decode_row(
            slot=i,
            prompt=tuple(choice.choices(range(WIDTH), k=5)),
            output=tuple(choice.choices(range(WIDTH), k=choice.randrange(4))),
            seed=choice.randrange(2**63),
            index=choice.randrange(3),
            eos=frozenset({0, WIDTH - 1}),
            **params,
        )
        for i, params in enumerate(batch)
    ]
    together = draw_details(values, *rows)
    alone = [draw_details(values[i : i + 1], row)[0] for i, row in enumerate(rows)]
    assert together == alone
    assert all(0 <= sampled.token_id < WIDTH for sampled in together)


def test_a_broken_row_fails_alone() -> None:
    values = logits(6)
    values[1, 3] = float("nan")
    values[2] = float("-inf")
    values[3, 0] = float("inf")
    for params in ({}, {"temperature": 0}, {"top_p": 0.5, "repetition_penalty": 2.0, "top_k": 3}):
        rows = [decode_row(i, seed=i, logprobs=2, **params) for i in range(6)]
        tokens = draw(values, *rows)
        assert tokens[1:4] == [NO_TOKEN] * 3
        whole = [0, 4, 5]
        assert [tokens[i] for i in whole] == draw(values[whole], *(rows[i] for i in whole))


@pytest.mark.parametrize(
    "asked", [{}, {"temperature": 0}, {"temperature": 0, "repetition_penalty": 2.0}]
)
def test_greedy_tokens_that_are_known_change_nothing(asked: dict[str, float]) -> None:
    values = logits(6)
    values[1, 3] = float("nan")
    values[2] = float("-inf")
    known = greedy_tokens(values)
    kept = known.clone()
    rows = [decode_row(i, seed=i, **(asked if i % 2 else {"temperature": 0})) for i in range(6)]
    sampler = attached(WIDTH, rows)
    drawn = sampler.sample(values, rows, known).tokens
    assert drawn.tolist() == draw(values, *rows)
    assert drawn[[0, 4]].tolist() == known[[0, 4]].tolist()
    assert known.equal(kept), "a graph's tensor is not written to"
    assert (drawn is known) == (asked == {"temperature": 0})


def test_a_broken_row_has_no_logprob() -> None:
    broken, whole = draw_details(
        torch.tensor([[float("nan"), 1.0], [0.0, 1.0]]),
        *(decode_row(i, logprobs=1) for i in (0, 1)),
    )
    assert broken == (NO_TOKEN, None, ())
    assert whole.top[0].token_id == 1


def test_logit_bias_is_added() -> None:
    values = torch.tensor([[5.0, 0.0, 0.0, 0.0]])
    assert draw(values, decode_row(temperature=0, logit_bias={2: 5.5})) == [2]
    assert draw(values, decode_row(temperature=0, logit_bias={0: -6, 3: 1.0})) == [3]
    assert draw(values, decode_row(temperature=0, logit_bias={9: 100.0})) == [0]


def test_a_slot_forgets_the_bias_of_its_last_sequence() -> None:
    values = torch.tensor([[5.0, 0.0, 0.0, 0.0]])
    first = decode_row(temperature=0, logit_bias={1: 50.0, 2: 1.0, 3: 1.0})
    sampler = attached(4, [first])
    assert sampler.sample(values, [first]).tokens.tolist() == [1]
    sampler.release(0)
    second = decode_row(temperature=0, logit_bias={2: 50.0})
    sampler.attach(0, second.sequence)
    assert sampler.sample(values, [second]).tokens.tolist() == [2]


def test_min_tokens_keeps_every_ending_away_and_no_longer() -> None:
    values = torch.tensor([[9.0, 8.0, 7.0, 1.0]])
    row = decode_row(eos=frozenset({0}), stop_token_ids=[1], temperature=0, min_tokens=2)
    sampler = attached(4, [row])
    tokens = []
    for _ in range(4):
        tokens += sampler.sample(values, [row]).tokens.tolist()
        row = advance(row)
    assert tokens == [2, 2, 0, 0]


def test_min_tokens_counts_again_after_a_preemption() -> None:
    values = torch.tensor([[9.0, 8.0, 7.0, 1.0]])
    row = decode_row(output=(2, 2), eos=frozenset({0}), temperature=0, min_tokens=3)
    assert draw(values, row) == [1]
    row = decode_row(output=(2, 2, 2), eos=frozenset({0}), temperature=0, min_tokens=3)
    assert draw(values, row) == [0]


def test_a_vocabulary_of_endings_only_gives_no_token() -> None:
    row = decode_row(eos=frozenset({0, 1}), min_tokens=1)
    assert draw(torch.zeros(1, 2), row) == [NO_TOKEN]


def test_penalties_count_tokens_the_host_has_not_read() -> None:
    values = torch.tensor([[4.0, 3.5, 3.0, 0.0]])
    row = decode_row(prompt=(3,), temperature=0, frequency_penalty=1.0)
    sampler = attached(4, [row])
    tokens = []
    for _ in range(6):
        tokens += sampler.sample(values, [row]).tokens.tolist()
        row = advance(row)
    assert tokens == [0, 1, 0, 2, 1, 0]


def test_penalties_after_a_preemption_are_those_without_one() -> None:
    values = logits(40, 12)
    params = {"presence_penalty": 1.0, "frequency_penalty": 0.7, "repetition_penalty": 1.3}
    row = decode_row(prompt=(1, 2), seed=5, **params)
    sampler = attached(12, [row])
    tokens: list[int] = []
    for i in range(40):
        (expected,) = sampler.sample(values[i : i + 1], [row]).tokens.tolist()
        again = decode_row(slot=3, prompt=(1, 2), output=tuple(tokens), seed=5, **params)
        assert draw(values[i : i + 1], again) == [expected]
        tokens.append(expected)
        row = advance(row)


def test_a_slot_forgets_the_tokens_of_its_last_sequence() -> None:
    row = decode_row(prompt=(0, 0), temperature=0, repetition_penalty=2.0)
    sampler = attached(4, [row])
    assert sampler.sample(torch.tensor([[4.0, 3.5, 3.0, 0.0]]), [row]).tokens.tolist() == [1]
    for values, token in (([4.0, 3.5, 3.0, 0.0], 0), ([3.5, 4.0, 3.0, 0.0], 1)):
        fresh = decode_row(prompt=(3,), temperature=0, repetition_penalty=2.0)
        sampler.attach(0, fresh.sequence)
        assert sampler.sample(torch.tensor([values]), [fresh]).tokens.tolist() == [token]


def test_seen_tokens_take_no_memory_until_a_request_needs_them() -> None:
    row = decode_row(top_p=0.9)
    sampler = attached(WIDTH, [row])
    sampler.sample(logits(1), [row])
    assert sampler._seen is None


def test_logprobs_are_those_of_the_raw_logits() -> None:
    values = logits(2, 40).bfloat16()
    exact = values.float().log_softmax(-1)
    rows = [
        decode_row(0, logprobs=3, temperature=0.1, top_k=1, logit_bias={7: 100.0}),
        decode_row(1, logprobs=0),
    ]
    first, second = draw_details(values, *rows)
    assert first.token_id == 7
    assert first.logprob == exact[0, 7].item()
    likeliest = exact[0].topk(3)
    assert [c.token_id for c in first.top] == likeliest.indices.tolist()
    assert [c.logprob for c in first.top] == likeliest.values.tolist()
    assert second.logprob == exact[1, second.token_id].item()
    assert second.top == ()


def test_only_rows_that_ask_get_logprobs() -> None:
    rows = [decode_row(0), decode_row(1, logprobs=20), decode_row(2, n=1, best_of=2)]
    plain, full, ranked = draw_details(logits(3), *rows)
    assert plain.logprob is None
    assert len(full.top) == TOP_LOGPROBS
    assert ranked.logprob is not None
    assert ranked.top == ()


def test_a_vocabulary_smaller_than_the_alternatives_gives_all_of_it() -> None:
    (sampled,) = draw_details(logits(1, 5), decode_row(logprobs=20))
    assert len(sampled.top) == 5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_logits_are_left_as_they_are(dtype: torch.dtype) -> None:
    values = logits(4).to(dtype)
    kept = values.clone()
    rows = [
        decode_row(i, top_p=0.5, logit_bias={1: 2.0}, logprobs=1, repetition_penalty=1.5)
        for i in range(4)
    ]
    draw(values, *rows)
    draw(values, *(decode_row(i) for i in range(4)))
    assert torch.equal(values, kept)


def test_a_step_without_rows_gives_no_tokens() -> None:
    assert draw(torch.zeros(0, WIDTH)) == []


def test_sampling_from_a_free_slot_is_a_bug_and_says_so() -> None:
    row = decode_row()
    sampler = attached(WIDTH, [row])
    sampler.release(0)
    with pytest.raises(AssertionError, match="no sequence is attached"):
        sampler.sample(logits(1), [row])


def test_every_sampling_parameter_is_known_to_a_test_here() -> None:
    elsewhere = {"max_tokens", "seed", "stop", "ignore_eos", "n", "best_of", "prompt_logprobs",
                 "skip_special_tokens"}  # fmt: skip
    covered = {"temperature", "top_k", "top_p", "min_p", "typical_p", "repetition_penalty",
               "presence_penalty", "frequency_penalty", "logit_bias", "min_tokens",
               "stop_token_ids", "logprobs"}  # fmt: skip
    assert set(SamplingParams.__struct_fields__) == elsewhere | covered


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cpu_and_gpu_draw_the_same_tokens() -> None:
    values = logits(64, 50_000)
    kinds = ({}, {"top_k": 50, "top_p": 0.9}, {"typical_p": 0.8, "min_p": 0.01},
             {"repetition_penalty": 1.4, "logit_bias": {5: 3.0}, "temperature": 0.6})  # fmt: skip
    rows = [decode_row(i, seed=i, **kinds[i % 4]) for i in range(64)]
    drawn = []
    for device in ("cpu", "cuda"):
        sampler = attached(50_000, rows, device=device)
        drawn.append(sampler.sample(values.to(device), rows).tokens.tolist())
    assert drawn[0] == drawn[1]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
def test_no_step_waits_for_the_gpu() -> None:
    values = logits(8, 50_000).cuda()
    rows = [
        decode_row(i, top_p=0.9, top_k=40, repetition_penalty=1.2, logit_bias={1: 1.0}, logprobs=5,
                   temperature=i % 3, min_tokens=9)
        for i in range(8)
    ]  # fmt: skip
    sampler = attached(50_000, rows, device="cuda")
    sampler.sample(values, rows)
    torch.cuda.set_sync_debug_mode("error")
    try:
        sampler.attach(0, rows[0].sequence)
        sampler.sample(values, rows)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("params", [{"temperature": 0}, {"temperature": 0, "logit_bias": {0: 0.5}}])
def test_of_equal_scores_the_first_is_taken(dtype: torch.dtype, params: dict[str, Any]) -> None:
    values = torch.full((3, WIDTH), -1.0, dtype=dtype)
    values[0, [9, 11]] = 2.0
    values[1, [0, 63]] = -float("inf")
    values[1, [7, 8]] = -0.0
    values[1, 6] = 0.0
    values[2, [3, 5]] = float("nan")
    rows = [decode_row(slot, **params) for slot in range(3)]
    sampler = attached(WIDTH, rows, 3)
    assert sampler.sample(values.t().contiguous().t(), rows).tokens.tolist() == [9, 6, NO_TOKEN]
