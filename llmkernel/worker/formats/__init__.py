"""Quantised checkpoints that this project reads itself, without the libraries that wrote them."""

from llmkernel.worker.formats.format import Format, label
from llmkernel.worker.formats.layers import StoredLayers, find, with_holes
from llmkernel.worker.formats.methods import choose

__all__ = ["Format", "StoredLayers", "choose", "find", "label", "with_holes"]
