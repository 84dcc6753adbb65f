"""Tab in `%llm` and `%%generate`: options and their values, workers, models, names in `{{ }}`.

`candidates` is plain text in and names out; `matcher` is the part that IPython calls.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import click

from llmkernel.config import DEMO_MODEL
from llmkernel.errors import LLMKernelError
from llmkernel.notebook.arguments import GENERATE, is_ipythons
from llmkernel.notebook.chats import DEFAULT
from llmkernel.notebook.chatting import CHAT
from llmkernel.notebook.prompt import BUILTINS

_MAGIC = re.compile(
    r"^\s*(?:[\w, ]+=\s*)?(?P<magic>%%?(?:generate|chat|llm))\s+(?P<line>.*)$", re.DOTALL
)
_EQUALS = re.compile(r"(?<!\S)(--[\w-]+)=(\S*)$")
_LOOP = re.compile(r"--for\s+([A-Za-z_]\w*)\s")
_CELLS = ("%%generate", "%%chat", "%%llm")
_PATH = re.compile(r"(?:[A-Za-z_]\w*\.)*(?:[A-Za-z_]\w*)?$")
_IN_TEMPLATE = re.compile(r"\{\{(?:(?!\}\}).)*$", re.DOTALL)

Workers = Callable[[], Iterable[str]]


class Found(NamedTuple):
    """What may stand in the place of `fragment`, the text right before the cursor."""

    fragment: str
    names: list[str]


def candidates(
    before: str,
    namespace: Mapping[str, Any],
    workers: Workers,
    llm: click.Group,
    chats: Iterable[str] = (),
) -> Found | None:
    """What can be completed at the end of `before`, the cell up to the cursor.

    None where the cell is not ours or the cursor is in plain text. `workers` is asked for
    names only where one can stand.
    """
    first, _, body = before.partition("\n")
    in_cell = first.startswith(_CELLS)
    line = first if in_cell else before.rpartition("\n")[2]
    match = _MAGIC.match(line)
    if not match and not in_cell:
        return None
    if _IN_TEMPLATE.search(body if "\n" in before and in_cell else line):
        return _names(before, namespace)
    if not match or (in_cell and "\n" in before):
        return None
    words = _EQUALS.sub(r"\1 \2", match["line"])
    if match["magic"].endswith("llm"):
        return _llm(words, namespace, workers, llm, chats)
    if match["magic"] == "%%chat":
        fragment = words.rpartition(" ")[2]
        if fragment.startswith("-") or _valued_option(words, CHAT):
            return _option(words, CHAT, namespace, workers)
        return _starting(fragment, [DEFAULT, *chats])
    return _option(words, GENERATE, namespace, workers)


def _llm(
    line: str,
    namespace: Mapping[str, Any],
    workers: Workers,
    llm: click.Group,
    chats: Iterable[str],
) -> Found | None:
    name, blank, rest = line.partition(" ")
    if not blank:
        return _starting(name, llm.commands)
    command = llm.commands.get(name)
    if command is None:
        return None
    fragment = rest.rpartition(" ")[2]
    if fragment.startswith("-") or _valued_option(rest, command):
        return _option(rest, command, namespace, workers)
    arguments = [param.name for param in command.params if isinstance(param, click.Argument)]
    if name == "chats":
        return _starting(fragment, chats)
    if "name" in arguments:
        return _starting(fragment, workers())
    if "model" in arguments:
        found = _starting(fragment, [DEMO_MODEL, *downloaded_models()])
        return found if found.names else None  # a path, for which IPython has its own
    if "topic" in arguments:
        return _starting(fragment, ["generate", "chat", *llm.commands])
    return None


def _option(
    line: str, command: click.Command, namespace: Mapping[str, Any], workers: Workers
) -> Found | None:
    """An option of a command, or the value of the one before the cursor."""
    fragment = line.rpartition(" ")[2]
    option = _valued_option(line, command)
    if option is not None:
        return _value(option, fragment, namespace, workers)
    if not fragment.startswith("-"):
        return None
    options = [param for param in command.params if isinstance(param, click.Option)]
    flags = (flag for option in options for flag in (*option.opts, *option.secondary_opts))
    return _starting(fragment, flags)


def _valued_option(line: str, command: click.Command) -> click.Option | None:
    """The option whose value the cursor is in."""
    flag = line.rpartition(" ")[0].rpartition(" ")[2]
    for param in command.params:
        if isinstance(param, click.Option) and flag in param.opts and not param.is_flag:
            return param
    return None


def _value(
    option: click.Option, fragment: str, namespace: Mapping[str, Any], workers: Workers
) -> Found | None:
    if isinstance(option.type, click.Choice):
        return _starting(fragment, map(str, option.type.choices))
    if option.name in ("worker", "workers", "name"):
        return _starting(fragment, workers())
    if option.name == "output":
        mine = (name for name in namespace if not is_ipythons(name) and not name.startswith("_"))
        return _starting(fragment, mine)
    return None


def _names(before: str, namespace: Mapping[str, Any]) -> Found:
    """Names of the namespace and attributes of what they stand for."""
    match = _PATH.search(before)
    path = match[0] if match else ""
    *owners, _ = path.split(".")
    if not owners:
        loop = _LOOP.search(before.partition("\n")[0])
        known = [*namespace, *(builtin.__name__ for builtin in BUILTINS)]
        return _starting(path, [*known, *([loop[1]] if loop else [])])
    inside = _members(_follow(owners, namespace))
    return _starting(path, (".".join((*owners, name)) for name in inside))


def _follow(owners: list[str], namespace: Mapping[str, Any]) -> Any:
    """The object at the end of a path, found without running anything; None where none is."""
    value: Any = namespace
    for name in owners:
        if isinstance(value, Mapping):
            value = value.get(name)
        else:
            value = inspect.getattr_static(value, name, None)
            if inspect.isdatadescriptor(value):
                return None
    return value


def _members(value: Any) -> list[str]:
    if value is None:
        return []
    if isinstance(value, Mapping):
        keys = (key for key in value if isinstance(key, str))
        return [key for key in keys if key.isidentifier()]
    return [name for name in dir(value) if not name.startswith("_")]


def _starting(fragment: str, names: Iterable[str]) -> Found:
    last = fragment.rpartition(".")[2]
    hidden = () if last.startswith("_") else ("_",)
    found = {name for name in names if name.startswith(fragment)}
    return Found(fragment, sorted(n for n in found if not n.rpartition(".")[2].startswith(hidden)))


def matcher(
    shell: Any, llm: click.Group, chats: Callable[[], Iterable[str]] = tuple
) -> Callable[[Any], Any]:
    """The function that IPython asks on Tab (its matchers' API, version 2)."""
    from IPython.core.completer import SimpleCompletion, context_matcher

    @context_matcher(identifier="llmkernel", priority=100)  # type: ignore[untyped-decorator]
    def complete(context: Any) -> Any:
        lines = context.full_text.split("\n")[: context.cursor_line]
        before = "\n".join([*lines, context.text_until_cursor])
        found = candidates(before, shell.user_ns, running_workers, llm, chats())
        if found is None:
            return {"completions": [], "suppress": False}
        return {
            "completions": [SimpleCompletion(text=name, type="llmkernel") for name in found.names],
            "matched_fragment": found.fragment,
            "suppress": True,
        }

    matching: Callable[[Any], Any] = complete
    return matching


def downloaded_models() -> list[str]:
    """Hub ids of the models in the cache of this machine."""
    from llmkernel.doctor import model_cache

    folders = (folder.name.split("--", 2) for folder in model_cache().glob("models--*"))
    return ["/".join(parts) for _, *parts in folders]


def running_workers() -> list[str]:
    """Names of the workers that run; none where they cannot be listed."""
    from llmkernel import connection

    try:
        return [worker.name for worker in connection.list_workers()]
    except (LLMKernelError, OSError):
        return []  # completion is no place for an error
