"""What is said of 4-bit models on a GPU, said of one on the CPU, where both sides are exact."""

from __future__ import annotations

import math

import pytest
import torch

from benchmarks import gpu_accuracy, tiny_models
from benchmarks.gpu_accuracy import Accuracy

pytestmark = [
    # bitsandbytes brings torch's deprecated script methods
    pytest.mark.filterwarnings("ignore:.*script_method:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*:FutureWarning"),
]
GOOD = Accuracy("llama", 2e-3, 3e-3, 1.0, 1.0, 1.0, "kernels")


@pytest.mark.slow
def test_in_float32_both_answer_alike():
    (case,) = gpu_accuracy.cases(["llama"], None)
    found = gpu_accuracy.measure(case, torch.device("cpu"), torch.float32, new_tokens=6)
    assert found.name == "llama"
    assert found.kernels == "bitsandbytes' products"
    assert 0 < found.error < 1e-5
    assert found.bitsandbytes_error < 1e-5
    assert (found.equal, found.until_parting, found.choices) == (1.0, 1.0, 1.0)


def test_weights_of_four_bits_are_numbers_again():
    from tests.model.quantised import quantise

    model = quantise(tiny_models.build("llama"), torch.float32, "cpu")
    expected = gpu_accuracy.logits_of(model, [5, 6, 7], [8, 9])
    gpu_accuracy.dequantise(model)
    assert not [m for m in model.modules() if type(m).__name__ == "Linear4bit"]
    found = gpu_accuracy.logits_of(model, [5, 6, 7], [8, 9])
    assert found.shape == (2, tiny_models.VOCABULARY)
    assert gpu_accuracy.relative_error([found], [expected]) < 1e-5


def test_tokens_count_until_the_first_difference():
    assert gpu_accuracy.together([1, 2, 3, 4], [1, 2, 9, 4]) == [True, True, False, False]
    assert gpu_accuracy.share([True, True, False, False]) == 0.5


def test_errors_are_relative_and_over_all_prompts():
    exact = [torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, 4.0]])]
    found = [torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, 3.5]])]
    assert gpu_accuracy.relative_error(found, exact) == pytest.approx(0.1)


def test_an_error_that_is_large_or_no_number_is_told():
    odd = [GOOD._replace(name="wrong", error=0.7), GOOD._replace(name="nan", error=math.nan)]
    rough = GOOD._replace(name="as rough as bitsandbytes", error=0.05, bitsandbytes_error=0.04)
    assert gpu_accuracy.inexact([GOOD, *odd, rough]) == ["wrong", "nan"]
    assert gpu_accuracy.figures([GOOD, *odd], torch.bfloat16)["inexact"] == ["wrong", "nan"]


def test_the_table_has_a_line_a_model():
    head, _rule, line = gpu_accuracy.table([GOOD])
    assert "relative error" in head
    assert line.startswith("| llama ")
    assert "0.002" in line
