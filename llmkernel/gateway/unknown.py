"""What is said of a name that is not known: the name, the nearest known one, and all there are."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from itertools import islice
from typing import Any

import msgspec

from llmkernel import connection as files
from llmkernel.errors import WorkerNotFound

_MOST_SHOWN = 80
"""Characters of a name that somebody else chose."""
_SEGMENT = re.compile(r"\[(?:\d+|\.\.\.)\]|[^.\[\]]+")


def unknown_model(asked: str, known: Iterable[str], workers: Iterable[str] = ()) -> WorkerNotFound:
    """The refusal of a model. `known` are those that may be named, `workers` other names of them."""
    names = list(dict.fromkeys(known))
    what = f"The model {shown(asked)} does not run here." if asked else ""
    if names:
        listed = f"There are: {', '.join(names)}."
    else:
        listed = "No worker runs: `llmkernel start` starts one."
    hint = did_you_mean(asked, [*names, *workers])
    return WorkerNotFound(f"{what}{hint} {listed}".lstrip(), field="model")


def unknown_worker(name: str) -> WorkerNotFound:
    """The refusal of a worker that does not run, by the files of those that do."""
    names = [worker.name for worker in files.list_workers()]
    listed = f" Running: {', '.join(names)}." if names else " No other runs either."
    return WorkerNotFound(
        f"No worker {shown(name)} runs.{did_you_mean(name, names)}{listed}", workers=names
    )


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A sentence with the nearest other name, after a space; nothing where none is near."""
    by_lower = {each.lower(): each for each in known}
    near = difflib.get_close_matches(name[:_MOST_SHOWN].lower(), by_lower, n=1)
    return f" Did you mean {by_lower[near[0]]!r}?" if near and by_lower[near[0]] != name else ""


def shown(name: str) -> str:
    """A name as it may be repeated: in quotes, on one line, and not too long."""
    # no more of it is looked at than is shown: a name may be as long as a body
    plain = "".join(islice(filter(str.isprintable, name), _MOST_SHOWN + 1))
    return repr(plain if len(plain) <= _MOST_SHOWN else plain[:_MOST_SHOWN] + "…")


def fields_at(kind: Any, place: str) -> list[str]:
    """The fields of an object inside a body of type `kind`, at a place such as "messages[0]"."""
    found = [msgspec.inspect.type_info(kind)]
    for segment in _SEGMENT.findall(place):
        found = [inner for each in _options(found) for inner in _inside(each, segment)]
    structs = (each for each in _options(found) if isinstance(each, msgspec.inspect.StructType))
    return [field.encode_name for struct in structs for field in struct.fields]


def _options(types: Iterable[msgspec.inspect.Type]) -> list[msgspec.inspect.Type]:
    found: list[msgspec.inspect.Type] = []
    for each in types:
        found += each.types if isinstance(each, msgspec.inspect.UnionType) else [each]
    return found


def _inside(kind: msgspec.inspect.Type, segment: str) -> list[msgspec.inspect.Type]:
    match kind:
        case msgspec.inspect.StructType():
            return [field.type for field in kind.fields if field.encode_name == segment]
        case msgspec.inspect.ListType():
            return [kind.item_type]
        case msgspec.inspect.DictType():
            return [kind.value_type]
    return []
