"""The counter-based generator: uniform, independent, and the same everywhere."""

from __future__ import annotations

import itertools

import torch

from llmkernel.worker.random_draws import _SCALE, draw_key, exponential_noise


def keys(count: int, seed: int = 0, answer: int = 0) -> torch.Tensor:
    return torch.tensor([draw_key(seed, answer, i) for i in range(count)], dtype=torch.int32)


def uniforms(count: int, width: int, **key: int) -> torch.Tensor:
    ids = torch.arange(width, dtype=torch.int32)
    return (-exponential_noise(ids, keys(count, **key))).exp()


def chi_square(counts: torch.Tensor, expected: float) -> float:
    """Standard deviations above the mean of a chi-square of these cells."""
    statistic = ((counts - expected) ** 2 / expected).sum().item()
    freedom = counts.numel() - 1
    return (statistic - freedom) / (2 * freedom) ** 0.5


def test_noise_is_uniform_in_every_part_of_its_range() -> None:
    values = uniforms(512, 2048).flatten()
    counts = torch.histc(values, bins=1000, min=0, max=1)
    assert abs(chi_square(counts, values.numel() / 1000)) < 5
    assert values.min() > 0
    assert values.max() <= 1


def test_small_noise_keeps_its_precision() -> None:
    ids = torch.arange(4096, dtype=torch.int32)
    noise = exponential_noise(ids, keys(2048))
    small = noise[noise < 1e-4] * 1e4
    counts = torch.histc(small, bins=20, min=0, max=1)
    assert abs(chi_square(counts, small.numel() / 20)) < 5
    assert noise.min() > 0
    assert noise.isfinite().all()


def test_the_extreme_integers_give_finite_noise_above_zero() -> None:
    zero = torch.zeros(1, dtype=torch.int32)  # token 0 under the key (0, 0) hashes to 0
    assert 0 < exponential_noise(zero, torch.zeros(1, 2, dtype=torch.int32)).item() < 1e-9
    largest = torch.tensor(2**31 - 1, dtype=torch.int32).to(torch.float32)
    assert (largest.mul(-_SCALE).sub(2.0**-32)).log1p().isfinite()


def test_neighbouring_tokens_positions_answers_and_seeds_are_independent() -> None:
    base = uniforms(1024, 256)
    others = {
        "token": base.roll(1, 1),
        "position": base.roll(1, 0),
        "answer": uniforms(1024, 256, answer=1),
        "seed": uniforms(1024, 256, seed=1),
        "negative seed": uniforms(1024, 256, seed=-1),
    }
    for name, other in others.items():
        cells = (base * 16).long().clamp(max=15) * 16 + (other * 16).long().clamp(max=15)
        counts = torch.bincount(cells.flatten(), minlength=256).float()
        assert abs(chi_square(counts, base.numel() / 256)) < 5, name


def test_keys_of_seed_answer_and_position_do_not_meet() -> None:
    seeds = (0, 1, -1, 2**63 - 1, -(2**63))
    named = [draw_key(*name) for name in itertools.product(seeds, range(8), range(200))]
    assert len(set(named)) == len(named)


def test_the_generator_never_changes() -> None:
    ids = torch.tensor([0, 1, 128255], dtype=torch.int32)
    noise = exponential_noise(ids, torch.tensor([draw_key(7, 1, 42)], dtype=torch.int32))
    assert draw_key(7, 1, 42) == KEY
    torch.testing.assert_close(noise, torch.tensor([NOISE]), rtol=1e-6, atol=0)


KEY = (-1702849985, -837812313)
NOISE = [0.6928992867469788, 1.5825786590576172, 0.6628935933113098]
