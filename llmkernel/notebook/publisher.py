"""Where output goes: a display that is updated, one that is published once, or a terminal.

Tools that run a notebook from end to end and compare its outputs (nbval) know nothing of
updates, and files should not depend on timing: there an output is published once, complete.
"""

from __future__ import annotations

import sys
import uuid
from typing import Any, Literal

from llmkernel import environment
from llmkernel.notebook.tables import Bundle

Mode = Literal["live", "once", "terminal"]


def mode(shell: Any) -> Mode:
    """How output can be shown in this shell; LLMKERNEL_STREAM decides where it is set."""
    if not hasattr(shell, "kernel"):
        return "terminal"
    wanted = environment.stream()
    if wanted is None:
        wanted = not (environment.under_test() or _runs_unattended(shell))
    return "live" if wanted and not _is_captured(shell) else "once"


def _runs_unattended(shell: Any) -> bool:
    """Whether nbclient started the kernel, for nbconvert or papermill say."""
    history = getattr(shell, "history_manager", None)
    return str(getattr(history, "hist_file", "")) == ":memory:"


def _is_captured(shell: Any) -> bool:
    """Whether `%%capture` or the like collects outputs: it would collect each update."""
    return isinstance(getattr(shell.display_pub, "outputs", None), list)


class Display:
    """One output of a cell. `update` may be called again and again in live mode only."""

    def __init__(self, shell: Any) -> None:
        self._publisher = shell.display_pub
        self._id = uuid.uuid4().hex
        self._shown = False

    def publish(self, bundle: Bundle, metadata: dict[str, Any] | None = None) -> None:
        """Show `bundle`, in the place of what this display showed before."""
        self._publisher.publish(
            bundle,
            metadata or {},
            transient={"display_id": self._id},
            update=self._shown,
        )
        self._shown = True


def show(shell: Any, bundle: Bundle, metadata: dict[str, Any] | None = None) -> None:
    """Show something that does not change: as text on a terminal, else as one output."""
    if mode(shell) == "terminal":
        print(bundle["text/plain"])
    else:
        shell.display_pub.publish(bundle, metadata or {})


def write(text: str) -> None:
    """Write to the terminal at once."""
    sys.stdout.write(text)
    sys.stdout.flush()
