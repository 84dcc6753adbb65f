"""Where something went wrong, for the log, without what was being worked on."""

from __future__ import annotations

import traceback


def where(error: BaseException) -> str:
    """Type and stack of an exception. Not its message: it may repeat a prompt."""
    stack = "".join(traceback.format_tb(error.__traceback__))
    return f"{type(error).__name__} at\n{stack}"
