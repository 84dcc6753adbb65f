"""What a step of rows begins and ends with: the kernels against torch, run by the processor or a GPU."""

from __future__ import annotations

import pytest
import torch

from llmkernel.worker.greedy import greedy_tokens
from llmkernel.worker.kernels import launch, rows
from llmkernel.worker.newest import NewestTokens
from tests.model import on_host

pytestmark = pytest.mark.timeout(120)
BF16, F16 = torch.bfloat16, torch.float16
ON_GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if ON_GPU else "cpu")
NAN, INF = float("nan"), float("inf")


@pytest.fixture(autouse=True, params=range(1 if ON_GPU else 3))
def order(request, monkeypatch):
    """On the processor threads run in one order after the other."""
    rows._arrived.cache_clear()
    if not ON_GPU:
        on_host.need_a_compiler()
        monkeypatch.setattr(launch, "kernel", on_host.kernel)
        monkeypatch.setattr(on_host.Kernel, "seed", request.param)


def random_logits(count: int, width: int, dtype: torch.dtype = BF16) -> torch.Tensor:
    generator = torch.Generator().manual_seed(width)
    return torch.randn(count, width, generator=generator).to(DEVICE, dtype)


@pytest.mark.parametrize("dtype", [BF16, F16])
@pytest.mark.parametrize("width", [8, 256, 2056, 10_000, 128_256])
def test_the_likeliest_token_is_that_of_torch(width, dtype):
    count = 2 if width > 2056 and not ON_GPU else 7
    logits = random_logits(count, width, dtype)
    logits[-1] -= 100  # no number above zero
    expected = greedy_tokens(logits.float().cpu())  # the first of those that are equal
    for _ in range(2):  # the counters are as they were
        assert rows.likeliest_on_gpu(logits).tolist() == expected.tolist()


def test_of_equal_logits_the_first_is_taken():
    logits = torch.full((3, 4096), -1.0, device=DEVICE, dtype=BF16)
    logits[0, [700, 4000]] = 2.0
    logits[1, [5, 6]] = torch.tensor([-0.0, 0.0], device=DEVICE, dtype=BF16)
    assert rows.likeliest_on_gpu(logits).tolist() == [700, 5, 0]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1.0, NAN, 2.0], -1),
        ([1.0, -NAN], -1),
        ([INF, 1.0], -1),
        ([-INF, -INF], -1),
        ([-INF, -3.0], 1),
        ([3e38, -3e38], 0),
    ],
)
def test_a_row_without_a_finite_largest_has_no_token(values, expected):
    logits = torch.full((2, 64), -INF, device=DEVICE, dtype=BF16)
    logits[0, : len(values)] = torch.tensor(values, dtype=BF16)
    logits[1, 9] = 0.5
    slots = torch.tensor([3, 1], device=DEVICE)
    newest = torch.full((5,), -7, device=DEVICE)
    assert rows.likeliest_on_gpu(logits, slots, newest).tolist() == [expected, 9]
    assert newest.tolist() == [-7, 9, -7, max(expected, 0), -7]


def test_a_step_begins_from_the_newest_tokens():
    ids = torch.tensor([10, -1, 12, -1], device=DEVICE)
    sources = torch.tensor([-1, 2, -1, 0], device=DEVICE)
    newest = torch.tensor([5, 6, 7], device=DEVICE)
    assert rows.input_ids_on_gpu(ids, sources, newest).tolist() == [10, 7, 12, 5]


def test_newest_tokens_are_kept_by_slot():
    kept = NewestTokens(3, DEVICE)
    slots = torch.tensor([2, 0], device=DEVICE)
    logits = random_logits(2, 64)
    tokens = kept.keep_likeliest(logits, slots)
    assert tokens.tolist() == greedy_tokens(logits.float().cpu()).tolist()
    ids = torch.tensor([-1, -1, 4], device=DEVICE)
    assert kept.fill_in(ids, torch.tensor([0, 2, -1], device=DEVICE)).tolist() == [
        *tokens.flip(0).tolist(),
        4,
    ]
    kept.keep(slots, torch.tensor([-1, 8], device=DEVICE))
    assert kept.fill_in(ids, torch.tensor([0, 2, -1], device=DEVICE)).tolist() == [8, 0, 4]


@pytest.mark.gpu
@pytest.mark.skipif(not ON_GPU, reason="needs a CUDA device")
def test_what_kernels_cannot_take_torch_does():
    odd = torch.tensor([[1.0, 3.0, 2.0]], device=DEVICE, dtype=BF16)
    assert not rows.finds_likeliest(odd)
    assert not rows.finds_likeliest(random_logits(2, 64, torch.float32))
    assert rows.finds_likeliest(random_logits(2, 64))
    assert greedy_tokens(odd).tolist() == [1]
