"""Families of models: which are supported, and how transformers' code for them is made paged."""

from llmkernel.worker.models.attention import ATTENTION, PagedState
from llmkernel.worker.models.families import (
    FAMILIES,
    Family,
    KVShape,
    check_supported,
    kv_shape,
    natural_context,
    supported_names,
)
from llmkernel.worker.models.paged import LogitsHead, make_paged, split_model

__all__ = [
    "ATTENTION",
    "FAMILIES",
    "Family",
    "KVShape",
    "LogitsHead",
    "PagedState",
    "check_supported",
    "kv_shape",
    "make_paged",
    "natural_context",
    "split_model",
    "supported_names",
]
