"""What a new process waits for: it starts a worker or attaches to one, and asks it something.

    python -m benchmarks.opening JSON

`benchmarks.startup` runs this. JSON holds `settings` for `llmkernel.start` and a `prompt`;
printed are the seconds from the first line of this file, as one JSON object.
"""

from __future__ import annotations

import time

BEGAN = time.perf_counter()

import json  # noqa: E402 - the clock is first
import sys  # noqa: E402
from typing import Any  # noqa: E402


def opened(settings: dict[str, Any], prompt: list[int]) -> dict[str, Any]:
    """Seconds from the beginning until each thing had happened, and when each stage of loading began."""
    import llmkernel

    imported = _now()
    stages: dict[str, float] = {}

    def note(progress: llmkernel.protocol.Progress) -> None:
        stages.setdefault(progress.stage, _now())

    client = llmkernel.start(**settings, on_progress=note)
    client.status()
    ready = _now()
    with client, client.stream(prompt, max_tokens=2, temperature=0, ignore_eos=True) as stream:
        next(iter(stream))
        first = _now()
    return {"imported": imported, "stages": stages, "ready": ready, "first_token": first}


def _now() -> float:
    return time.perf_counter() - BEGAN


if __name__ == "__main__":
    try:
        sys.stdout.write(json.dumps(opened(**json.loads(sys.argv[1]))) + "\n")
    except Exception as error:
        from llmkernel.errors import LLMKernelError  # here, as imports are on the clock

        if not isinstance(error, LLMKernelError):
            raise
        sys.exit(f"Error: {error}")
