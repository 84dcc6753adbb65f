"""The Triton kernel for decode attention against its plain reference.

On a GPU it is compiled; elsewhere Triton's interpreter runs it, which shows everything but speed.
"""

from __future__ import annotations

import functools
import itertools

import pytest
import torch

from llmkernel.worker.kernels.paged_attention import (
    DecodeRows,
    Options,
    Pool,
    decode_attention,
    write_kv,
)
from tests.model.test_paged_attention import Paged

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
pytestmark = pytest.mark.timeout(120)


PARTS = 0 if DEVICE == "cuda" else 4
"""Of each row; the interpreter takes milliseconds for each."""


@pytest.fixture(scope="module", params=[1, PARTS], ids=["whole", "in-parts"])
def attend(request):
    """The kernel; Triton's interpreter runs it where there is no GPU (tests/conftest.py)."""
    pytest.importorskip("triton", reason="pip install 'llmkernel[dev]' brings Triton")
    from llmkernel.worker.kernels.split_attention import split_decode_attention

    return functools.partial(split_decode_attention, parts=request.param)


def on_device(paged: Paged, dtype: torch.dtype) -> tuple[torch.Tensor, Pool, DecodeRows]:
    """The queries, the pool with all keys written, and the rows."""
    step = paged.step()
    write_kv(paged.new(paged.keys), paged.new(paged.values), paged.pool, step.slot_mapping)
    rows = step.decode
    assert rows is not None
    pool = Pool(*(tensor.to(DEVICE, dtype) for tensor in paged.pool))
    moved = (tensor.to(DEVICE) for tensor in (rows.tables, rows.slots, rows.context_lens))
    return torch.cat(paged.queries).to(DEVICE, dtype), pool, DecodeRows(*moved, rows.width)


@pytest.mark.parametrize(
    ("head_dim", "window", "softcap", "sinks"),
    [
        *itertools.product([20], [None, 5, 40], [None, 2.0], [False, True]),
        *((head_dim, None, None, False) for head_dim in (8, 64, 80, 96, 128, 256)),
    ],
)
def test_it_is_the_reference(attend, head_dim, window, softcap, sinks):
    paged = Paged(
        [37, 3, 0, 90], [1] * 4, heads=6, kv_heads=2, head_dim=head_dim, block_size=16, seed=1
    )
    sink = torch.randn(6).to(DEVICE) if sinks else None
    query, pool, rows = on_device(paged, torch.float32)
    options = Options(0.2, window, softcap, sink)
    expected = decode_attention(query, pool, rows, options)
    torch.testing.assert_close(attend(query, pool, rows, options), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("heads", "kv_heads"), [(1, 1), (71, 1), (4, 4), (16, 2)])
@pytest.mark.parametrize("rows", [1, 5])
def test_every_sharing_of_key_heads(attend, heads, kv_heads, rows):
    contexts = [70, 15, 16, 17, 300][:rows]
    paged = Paged(
        contexts, [1] * rows, heads=heads, kv_heads=kv_heads, head_dim=16, block_size=16, seed=2
    )
    query, pool, decode = on_device(paged, torch.float32)
    options = Options(0.25)
    expected = decode_attention(query, pool, decode, options)
    torch.testing.assert_close(attend(query, pool, decode, options), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("softcap", [None, 5.0])
@pytest.mark.parametrize("head_dim", [64, 256])
def test_half_precision_is_near(attend, dtype, softcap, head_dim):
    if DEVICE == "cpu" and dtype == torch.bfloat16:
        pytest.skip("Triton's interpreter multiplies bfloat16 as integers; needs a CUDA device")
    paged = Paged([200, 31], [1] * 2, heads=8, kv_heads=2, head_dim=head_dim, block_size=16, seed=3)
    query, pool, rows = on_device(paged, dtype)
    exact = Pool(*(tensor.float() for tensor in pool))
    options = Options(0.125, softcap=softcap)
    expected = decode_attention(query.float(), exact, rows, options)
    output = attend(query, pool, rows, options)
    assert output.dtype == dtype
    assert ((output.float() - expected).norm() / expected.norm()).item() < 1e-2


def test_what_lies_beyond_a_row_is_not_read(attend):
    # free places of the pool hold NaN, and the table's rest the ids of others
    paged = Paged([20, 7], [1, 1], heads=2, kv_heads=1, head_dim=16, block_size=4, seed=5)
    query, pool, rows = on_device(paged, torch.float32)
    rows.tables[1, 2:] = int(rows.tables[0, 0])
    assert attend(query, pool, rows, Options(0.3)).isfinite().all()


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_nan_in_a_row_stays_in_it(attend):
    paged = Paged([20, 7], [1, 1], heads=2, kv_heads=1, head_dim=16, block_size=4, seed=6)
    query, pool, rows = on_device(paged, torch.float32)
    query[0] = torch.nan
    output = attend(query, pool, rows, Options(0.3))
    assert output[0].isnan().all()
    assert output[1].isfinite().all()
