"""A resident language model for notebooks: one worker, one batch, every client on the machine.

    import llmkernel
    llm = llmkernel.start()             # a worker with the demo model; attaches if it runs
    print(llm.chat("How do I stop a running cell?"))

Names are loaded when they are first used, so that importing the package costs nothing.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING, Any

from llmkernel._version import __version__

if TYPE_CHECKING:
    from llmkernel import errors
    from llmkernel.client import Client
    from llmkernel.client.generation import Delta, Generation
    from llmkernel.client.starting import connect, start
    from llmkernel.connection import list_workers
    from llmkernel.notebook.panel.panel import ChatPanel
    from llmkernel.params import SamplingParams

__all__ = [
    "ChatPanel",
    "Client",
    "Delta",
    "Generation",
    "SamplingParams",
    "__version__",
    "connect",
    "errors",
    "list_workers",
    "load_ipython_extension",
    "start",
    "unload_ipython_extension",
]

_HOMES = {
    "ChatPanel": "notebook.panel.panel",
    "Client": "client",
    "Delta": "client.generation",
    "Generation": "client.generation",
    "SamplingParams": "params",
    "connect": "client.starting",
    "list_workers": "connection",
    "start": "client.starting",
}


def load_ipython_extension(shell: Any) -> None:
    """`%load_ext llmkernel`: the magics `%llm`, `%generate`, `%%generate` and `%%chat`."""
    _of_notebooks("notebook.magics").load(shell)


def unload_ipython_extension(shell: Any) -> None:
    """`%unload_ext llmkernel`: the magics are taken back, workers stay."""
    from llmkernel.notebook.magics import unload

    unload(shell)


def __getattr__(name: str) -> Any:
    if name == "errors":
        return importlib.import_module("llmkernel.errors")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = _HOMES[name]
    load = _of_notebooks if home.startswith("notebook.") else _module
    value = getattr(load(home), name)
    globals()[name] = value
    return value


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"llmkernel.{name}")


def _of_notebooks(name: str) -> ModuleType:
    """A module that needs the extra `notebook`. Raises MissingDependency where that is absent."""
    try:
        return _module(name)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("llmkernel"):
            raise
        from llmkernel.errors import missing
        from llmkernel.notebook import failures

        failures.install()  # whoever loads the magics reads it as any other error of theirs
        raise missing(error.name.partition(".")[0], "notebook") from None


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
