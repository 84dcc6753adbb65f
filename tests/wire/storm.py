"""A client process with many streams at once: `python -m tests.wire.storm FIRST COUNT`.

Prints a JSON object: for each stream its text as far as it was read, and whether it was
left early.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys

import llmkernel


async def one(llm: llmkernel.Client, number: int) -> tuple[int, str, bool]:
    """Read a stream with a prompt of its own; leave three of ten early."""
    draw = random.Random(number)
    leave_at = draw.randrange(1, 60) if draw.random() < 0.3 else None
    parts: list[str] = []
    stream = llm.aio.stream(prompt(number), temperature=0, max_tokens=64, ignore_eos=True)
    async for delta in stream:
        parts.append(delta.text)
        if leave_at is not None and len(parts) >= leave_at:
            stream.close()
            return number, "".join(parts), True
    return number, "".join(parts), False


def prompt(number: int) -> str:
    """No two streams share one."""
    return f"nonce {number * 7919}"


async def main(first: int, count: int) -> None:
    """Run all at once."""
    llm = llmkernel.connect()
    done = await asyncio.gather(*(one(llm, first + number) for number in range(count)))
    print(json.dumps(done))


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
