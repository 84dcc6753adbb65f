"""A child process that is interrupted with Ctrl-C in the middle of a call: `... interrupted MODE`.

Says "begun" when the call is on its way, then, as JSON, what it raised, how soon after
the signal, and what was left in `partial`; then makes another call.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

import llmkernel

LONG = {"max_tokens": 15_000, "temperature": 0}


def generate(llm: llmkernel.Client) -> None:
    print("begun", flush=True)
    llm.generate("hello", **LONG)


def stream(llm: llmkernel.Client) -> None:
    pieces = llm.stream("hello", **LONG)
    try:
        for _ in pieces:
            print("begun", flush=True)
    except KeyboardInterrupt as stop:
        # it may have come while the body ran: then only the stream has what came
        stop.partial = getattr(stop, "partial", None) or pieces.generation
        raise


def body(llm: llmkernel.Client) -> None:
    """The interrupt comes while the loop over a stream does something else."""
    for _ in llm.stream("hello", **LONG):
        print("begun", flush=True)
        time.sleep(30)


def batch(llm: llmkernel.Client) -> None:
    print("begun", flush=True)
    llm.map(["a", "b", "c"], progress=False, **LONG)


def task(llm: llmkernel.Client) -> None:
    async def main() -> None:
        print("begun", flush=True)
        await llm.aio.generate("hello", **LONG)

    asyncio.run(main())


def main(mode: str) -> None:
    """Interrupt one call and make another."""
    llm = llmkernel.connect()
    llm.status()
    calls = {"generate": generate, "stream": stream, "body": body, "map": batch, "task": task}
    try:
        calls[mode](llm)
    except KeyboardInterrupt as stop:
        raised = time.time_ns() / 1e9
        partial = getattr(stop, "partial", None)
    text = partial.text if isinstance(partial, llmkernel.Generation) else repr(partial)
    again = llm.generate("hello", max_tokens=5, temperature=0).text
    print(json.dumps({"raised": raised, "partial": text, "again": again}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
