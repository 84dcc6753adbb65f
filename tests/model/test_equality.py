"""Greedy answers against transformers' own, for every family.

`python -m benchmarks.equality` is the same at length.
"""

from __future__ import annotations

import pytest

from benchmarks import equality, tiny_models
from tests.model.driving import Driver, make_prompt, make_runner

LENGTHS = (5, 6, 17, 40, 75)
TOKENS = 12


@pytest.mark.parametrize("name", tiny_models.VARIANTS)
def test_the_runner_answers_a_mixed_batch_as_each_alone(name):
    reference = tiny_models.build(name)
    prompts = [make_prompt(length, length) for length in LENGTHS]
    expected = [tiny_models.generate(reference, prompt, TOKENS)[0] for prompt in prompts]
    for depth, chunk in ((0, 1000), (1, 7)):
        driver = Driver(make_runner(name), depth=depth, chunk=chunk)
        sequences = []
        for prompt in prompts:
            sequences.append(driver.add(prompt, TOKENS))
            driver.step()
        driver.run()
        assert [list(sequence.output_ids) for sequence in sequences] == expected


@pytest.mark.parametrize("name", tiny_models.VARIANTS)
def test_the_engine_answers_as_transformers_does(name):
    tally = equality.try_variant(name, equality.QUICK, seed=1)
    assert tally.pairs == sum(condition.prompts for condition in equality.QUICK)
    assert tally.differences == []
    assert tally.events["chunks"]
    assert tally.events["one behind"]
    assert tally.events["cached tokens"]
    assert tally.events["widest batch"] > 1


def test_another_model_is_found_out(monkeypatch, capsys):
    build = tiny_models.build
    seeds = iter((0, 1))  # the reference, then what is served
    monkeypatch.setattr(tiny_models, "build", lambda name: build(name, next(seeds)))
    assert equality.main(["--quick", "--family", "llama"]) == 1
    printed = capsys.readouterr().out
    assert "40 pairs, 40 differences" in printed
    assert "llama, alone, prompt 0: token" in printed


def test_a_condition_that_never_came_about_is_a_failure(monkeypatch, capsys):
    monkeypatch.setattr(equality, "QUICK", equality.QUICK[:1])
    assert equality.main(["--quick", "--family", "llama"]) == 1
    assert "never came about: preemptions" in capsys.readouterr().out


def test_an_answer_that_is_cut_is_no_equal_answer():
    reference = equality.Reference([5], [7, 8, 9], [0.5, 0.25, 0.125])
    assert equality.difference(reference, [7, 8, 9]) is None
    assert equality.difference(reference, [7, 8]) == "2 tokens instead of 3"
    assert equality.difference(reference, [7, 6, 9]) == "token 1, where the lead was 0.25"
