"""Which format a checkpoint's configuration speaks of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmkernel.worker.formats.awq import Awq
from llmkernel.worker.formats.format import Format
from llmkernel.worker.formats.gptq import Gptq


def choose(stored: Mapping[str, Any]) -> Format | None:
    """The format of a quantization_config; None for methods that are not this project's to read.

    Raises UnsupportedModel and BrokenCheckpoint as the formats do.
    """
    method = stored.get("quant_method")
    if method == "gptq":
        return Gptq.from_config(stored)
    if method == "awq":
        return Awq.from_config(stored)
    return None
