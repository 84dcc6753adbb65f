"""Where a model goes and how much of it is used: device, dtype, context length."""

from __future__ import annotations

from typing import Any

import torch

from llmkernel.errors import InvalidRequest, StartFailed

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def choose_device(setting: str) -> torch.device:
    """The device of a setting. "auto" and "cuda" take the GPU with most free memory.

    Raises StartFailed where there is no such device.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if setting == "cpu" or (setting == "auto" and not count):
        return torch.device("cpu")
    if not count:
        raise StartFailed(
            f"device={setting} was asked for, and torch finds no CUDA device. "
            "`llmkernel doctor` says what it sees."
        )
    if setting in ("auto", "cuda"):
        best = max(range(count), key=lambda index: torch.cuda.mem_get_info(index)[0])
        return torch.device("cuda", best)
    device = torch.device(setting)
    if device.index >= count:
        raise StartFailed(f"There is no {setting}: the devices are cuda:0 to cuda:{count - 1}.")
    return device


def choose_dtype(setting: str, device: torch.device) -> torch.dtype:
    """The dtype of a setting: "auto" is bfloat16 on a GPU that has it, else float16; float32 on the CPU."""
    if setting != "auto":
        return _DTYPES[setting]
    if device.type == "cpu":
        return torch.float32
    # from compute capability 8.0 on; below it, torch emulates
    return torch.bfloat16 if torch.cuda.get_device_capability(device)[0] >= 8 else torch.float16


def choose_context(asked: int | None, settings: Any) -> int:
    """Tokens of prompt and answer: what was asked for, or what the model was made for.

    Raises InvalidRequest above the positions that the model, with its rope scaling, has.
    """
    from llmkernel.worker import models  # imports transformers, and the device is chosen before

    if asked is None:
        return models.natural_context(settings)
    most = longest_context(settings)
    if asked > most:
        raise InvalidRequest(
            f"context_length={asked} is more than this model's {most} positions. "
            f"Give {most} or less, or leave it out.",
            field="context_length",
        )
    return asked


def longest_context(settings: Any) -> int:
    """Positions of a configuration; a rope scaling may give more than max_position_embeddings."""
    most = int(settings.max_position_embeddings)
    parameters = getattr(settings, "rope_parameters", None) or {}
    nested = [part for part in parameters.values() if isinstance(part, dict)]
    for part in nested or [parameters]:
        factor, original = part.get("factor"), part.get("original_max_position_embeddings")
        if factor and original:
            most = max(most, int(factor * original))
    return most
