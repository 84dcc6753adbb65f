"""Asking workers how they are, with an end to the waiting."""

from __future__ import annotations

import asyncio

from llmkernel.errors import LLMKernelError
from llmkernel.gateway.replica import AGAIN_SECONDS, REPORT_SECONDS, Replica


async def ask(replica: Replica, seconds: float = REPORT_SECONDS) -> None:
    """Ask one; without an answer in time it is silent."""
    try:
        async with asyncio.timeout(seconds):
            await replica.ask()
    except (LLMKernelError, TimeoutError):
        replica.silent = True


async def until_ready(replicas: list[Replica]) -> None:
    """Ask them how they are, until one takes requests or all have been asked.

    One that did not answer in time before gets less of it now, since a request waits.
    """
    asking = [
        asyncio.create_task(ask(each, AGAIN_SECONDS if each.silent else REPORT_SECONDS))
        for each in replicas
    ]
    try:
        for answered in asyncio.as_completed(asking):
            await answered
            if any(replica.ready for replica in replicas):
                return
    finally:
        for task in asking:
            task.cancel()
