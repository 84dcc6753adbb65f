"""Greedy answers of the runner against transformers' own, for every family.

`python -m benchmarks.equality` does the same through the engine, at length.
"""

from __future__ import annotations

import pytest

from benchmarks import tiny_models
from tests.model.driving import Driver, make_prompt, make_runner

LENGTHS = (5, 6, 17, 40, 75)
TOKENS = 12


@pytest.fixture(scope="module", params=tiny_models.VARIANTS)
def family(request):
    model = tiny_models.build(request.param)
    prompts = [make_prompt(length, length) for length in LENGTHS]
    return request.param, [tiny_models.generate(model, prompt, TOKENS)[0] for prompt in prompts]


@pytest.mark.parametrize(("depth", "chunk"), [(0, 1000), (1, 7)])
def test_a_batch_answers_as_each_would_alone(family, depth, chunk):
    name, expected = family
    driver = Driver(make_runner(name), depth=depth, chunk=chunk)
    sequences = []
    for length in LENGTHS:
        sequences.append(driver.add(make_prompt(length, length), TOKENS))
        driver.step()
    driver.run()
    assert [list(sequence.output_ids) for sequence in sequences] == expected
