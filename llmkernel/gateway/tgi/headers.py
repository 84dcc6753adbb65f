"""The x-* headers that tell where a request's time went."""

from __future__ import annotations

import time

from llmkernel.client.generation import Generation
from llmkernel.gateway.record import Record
from llmkernel.gateway.replica import Replica


def stream(replica: Replica, inputs: str) -> dict[str, str]:
    """What is known before the first token."""
    return {
        "x-compute-type": f"1-{replica.info.device}",
        "x-compute-characters": str(len(inputs)),
    }


def timings(record: Record, replica: Replica, inputs: str, answer: Generation) -> dict[str, str]:
    """What is known after the last: whole milliseconds, and seconds for x-compute-time."""
    total = time.monotonic() - record.began
    inference = answer.timings.prefill + answer.timings.decode
    tokens = answer.usage.completion_tokens
    milliseconds = {
        "x-total-time": total,
        "x-validation-time": record.validation,
        "x-queue-time": answer.timings.queue,
        "x-inference-time": inference,
        "x-time-per-token": inference / max(tokens, 1),
    }
    return {
        **stream(replica, inputs),
        "x-compute-time": f"{total:.6f}",
        **{name: str(round(seconds * 1000)) for name, seconds in milliseconds.items()},
        "x-prompt-tokens": str(answer.usage.prompt_tokens),
        "x-generated-tokens": str(tokens),
    }
