"""The x-* headers that tell where a request's time went: on TGI's routes, of OpenAI's API too."""

from __future__ import annotations

import time

from llmkernel.gateway.record import Record
from llmkernel.gateway.replica import Replica


def begun(replica: Replica, characters: int) -> dict[str, str]:
    """What is known before the first token. `characters` are those that the client sent."""
    return {
        "x-compute-type": f"1-{replica.info.device}",
        "x-compute-characters": str(characters),
    }


def ended(record: Record, replica: Replica, characters: int) -> dict[str, str]:
    """What is known after the last: whole milliseconds, and seconds for x-compute-time.

    Where a request has several prompts, the worker's times and the tokens are those of all.
    """
    total = time.monotonic() - record.began
    milliseconds = {
        "x-total-time": total,
        "x-validation-time": record.validation,
        "x-queue-time": record.queue,
        "x-inference-time": record.inference,
        "x-time-per-token": record.inference / max(record.generated_tokens, 1),
    }
    return {
        **begun(replica, characters),
        "x-compute-time": f"{total:.6f}",
        **{name: str(round(seconds * 1000)) for name, seconds in milliseconds.items()},
        "x-prompt-tokens": str(record.prompt_tokens),
        "x-generated-tokens": str(record.generated_tokens),
    }
