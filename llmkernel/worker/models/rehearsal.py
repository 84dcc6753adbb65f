"""Attention tried out on nothing while weights are read: Triton takes a second to compile each kernel of it.

A worker's first steps launch the same kernels, and find them; after an earlier start they are on
disk, and found in milliseconds.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import torch

from llmkernel.worker.kernels.paged_attention import Chunks, DecodeRows, Options, Pool
from llmkernel.worker.models.attention import prefill_attention_for
from llmkernel.worker.models.families import kv_shape

_CHUNK = 16
"""Tokens of the chunk, and of what is before it."""
_PARTS = (2, 1)
"""Of the keys: two are as good as more, and one is another kernel."""
_log = logging.getLogger(__name__)


def begin(
    config: Any, *, block_size: int, dtype: torch.dtype, device: torch.device
) -> Callable[[], None]:
    """Try attention of a model of `config` on a thread; what comes back waits for its end.

    Does nothing where attention is torch's. What goes wrong only the log tells: the first step
    that needs it will say so.
    """
    if prefill_attention_for(device) is None:
        return lambda: None

    def work() -> None:
        try:
            rehearse(config, block_size=block_size, dtype=dtype, device=device)
        except Exception as error:  # noqa: BLE001 - of Triton's compiler or the driver
            _log.info("attention could not be tried beforehand: %s", error)

    thread = threading.Thread(target=work, name="llmkernel-rehearsal", daemon=True)
    thread.start()
    return thread.join


@torch.inference_mode()
def rehearse(config: Any, *, block_size: int, dtype: torch.dtype, device: torch.device) -> None:
    """Run a decode row and a chunk through Triton's kernels for each kind of layer, whole and in parts."""
    from llmkernel.worker.kernels.split_attention import split_decode_attention
    from llmkernel.worker.kernels.tiled_attention import tiled_prefill_attention

    if device.type == "cuda":
        torch.cuda.set_device(device)
    _, kv_heads, head_dim = kv_shape(config)
    heads, tokens = config.num_attention_heads, 2 * _CHUNK
    blocks = -(-tokens // block_size)
    shape = (blocks, block_size, kv_heads, head_dim)
    pool = Pool(*(torch.zeros(shape, dtype=dtype, device=device) for _ in range(2)))
    tables = torch.arange(blocks, device=device)[None]
    slot, length = tables[0, :1], torch.tensor([tokens], device=device)
    row = DecodeRows(tables, slot, length, blocks)
    begins = torch.tensor([0, _CHUNK], device=device)
    chunk = Chunks(tables, slot, length, begins, longest=_CHUNK, furthest=tokens)
    query = torch.zeros(_CHUNK, heads, head_dim, dtype=dtype, device=device)
    sinks = query[0, :, 0].contiguous() if config.model_type == "gpt_oss" else None
    softcap = getattr(config, "attn_logit_softcapping", None)
    for window in windows(config):
        options = Options(1.0, window, softcap, sinks)
        for parts in _PARTS:
            split_decode_attention(query[:1], pool, row, options, parts)
            tiled_prefill_attention(query, pool, chunk, options, parts=parts)


def windows(config: Any) -> Iterator[int | None]:
    """The windows that layers of a model have; None is that of a layer that sees everything."""
    # any configuration keeps what it is given; only some families declare a window and read it
    window = config.sliding_window if hasattr(type(config), "sliding_window") else None
    kinds = getattr(config, "layer_types", None)
    if kinds is None:
        yield window
        return
    if "full_attention" in kinds:
        yield None
    if "sliding_attention" in kinds:
        yield window
