"""Each processor against transformers' own on random scores."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from transformers import generation as hf

from llmkernel.worker import processors

WIDTH = 500


def scores(rows: int = 40, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, WIDTH, generator=generator) * 4


def column(value: float, rows: int = 40) -> torch.Tensor:
    return torch.full((rows, 1), value)


Warper = Callable[[torch.Tensor | None, torch.Tensor], torch.Tensor]


@pytest.mark.parametrize("value", [1, 2, 7, 50, 499])
def test_top_k_keeps_what_transformers_keeps(value: int) -> None:
    ours = scores()
    processors.keep_top_k(ours, column(value), largest=max(value, 60))
    assert torch.equal(ours, hf.TopKLogitsWarper(value)(None, scores()))


@pytest.mark.parametrize("value", [1e-6, 0.1, 0.5, 0.9, 0.95, 0.999])
def test_top_p_keeps_what_transformers_keeps(value: float) -> None:
    ours = scores()
    processors.keep_top_p(ours, column(value))
    assert torch.equal(ours, hf.TopPLogitsWarper(value)(None, scores()))


@pytest.mark.parametrize("value", [1e-6, 0.01, 0.1, 0.5, 1.0])
def test_min_p_keeps_what_transformers_keeps(value: float) -> None:
    ours = scores()
    processors.keep_min_p(ours, column(value))
    assert torch.equal(ours, hf.MinPLogitsWarper(value)(None, scores()))


@pytest.mark.parametrize("value", [1e-6, 0.1, 0.5, 0.9, 0.99])
def test_typical_p_keeps_what_transformers_keeps(value: float) -> None:
    ours = scores()
    processors.keep_typical(ours, column(value))
    assert torch.equal(ours, hf.TypicalLogitsWarper(value)(None, scores()))


@pytest.mark.parametrize("value", [0.2, 0.9, 1.3, 5.0])
def test_repetition_penalty_is_that_of_transformers(value: float) -> None:
    generator = torch.Generator().manual_seed(1)
    prompt = torch.randint(WIDTH, (40, 30), generator=generator)
    output = torch.randint(WIDTH, (40, 30), generator=generator)
    ours = scores()
    processors.penalise(
        ours, marked(prompt).bool(), marked(output).int(), column(value), column(0), column(0)
    )
    both = torch.cat([prompt, output], 1)
    theirs = hf.RepetitionPenaltyLogitsProcessor(value)(both, scores())
    torch.testing.assert_close(ours, theirs)


def test_frequency_and_presence_count_the_answer_only() -> None:
    prompt, counts = torch.zeros(1, 4, dtype=torch.bool), torch.tensor([[0, 1, 3, 0]])
    prompt[0, 3] = True
    ours = torch.zeros(1, 4)
    processors.penalise(ours, prompt, counts.int(), column(1, 1), column(0.5, 1), column(0.25, 1))
    assert ours.tolist() == [[0.0, -0.75, -1.75, 0.0]]


def test_neutral_values_change_nothing() -> None:
    ours = scores()
    seen = torch.ones(40, WIDTH, dtype=torch.int32)
    processors.penalise(ours, seen.bool(), seen, column(1), column(0), column(0))
    processors.keep_min_p(ours, column(0))
    assert torch.equal(ours, scores())


def test_of_equal_scores_top_k_keeps_all_and_top_p_the_lower_ids() -> None:
    ours = torch.zeros(1, 8)
    processors.keep_top_k(ours, column(3, 1), largest=3)
    assert torch.equal(ours, torch.zeros(1, 8))
    processors.keep_top_p(ours, column(0.5, 1))
    assert ours.exp().tolist() == [[1, 1, 1, 1, 0, 0, 0, 0]]


def test_of_equally_typical_tokens_the_lower_ids_are_kept() -> None:
    ours = torch.zeros(3, 3000)
    processors.keep_typical(ours, column(0.5, 3))
    kept = ours.isfinite()
    assert kept[:, :1499].all()
    assert not kept[:, 1501:].any()


def test_what_was_excluded_before_stays_excluded() -> None:
    for keep in (processors.keep_typical, processors.keep_top_p, processors.keep_min_p):
        ours = scores()
        ours[:, ::2] = processors.NEVER
        keep(ours, column(0.9))
        assert (ours[:, ::2] == processors.NEVER).all()
        assert ours.isfinite().any(-1).all()


def test_top_p_is_exact_over_a_large_vocabulary() -> None:
    generator = torch.Generator().manual_seed(3)
    ours = torch.randn(2, 150_000, generator=generator)
    exact = ours.double().softmax(-1)
    processors.keep_top_p(ours, column(0.999, 2))
    kept = torch.where(ours.isfinite(), exact, 0)
    least = torch.where(ours.isfinite(), exact, 1).amin(-1)
    assert (kept.sum(-1) > 0.999 - 1e-6).all()
    assert (kept.sum(-1) - least < 0.999 + 1e-6).all()


def marked(ids: torch.Tensor) -> torch.Tensor:
    return torch.zeros(len(ids), WIDTH).scatter_(1, ids, 1.0)
