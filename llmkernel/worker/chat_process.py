"""The process that runs a model's chat template: started by file path, stdlib and Jinja2 only.

A template is a program that came with the model, and Jinja's sandbox stops what
reaches outside but not work: one expression can take all memory or never end.
So it runs here, where the kernel limits time and memory and nothing is lost when
the process dies. One line of JSON comes in, one goes out; the end of input ends it.
"""

from __future__ import annotations

import contextlib
import json
import signal
import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

MEMORY = 2**30
"""Bytes of address space: templates need a few megabytes, the interpreter some more."""
START_SECONDS = 30.0
"""For importing Jinja2 from a slow disk and compiling the template."""


def main() -> None:
    """Read the set-up, then serve conversations until the end of input."""
    setup = json.loads(sys.stdin.buffer.readline())
    sys.path[:] = setup["path"]
    _limit_memory()
    # the default action of SIGALRM ends the process, inside any single operation too
    signal.setitimer(signal.ITIMER_REAL, START_SECONDS)
    template = _Template(setup["template"])
    signal.setitimer(signal.ITIMER_REAL, 0)
    for line in sys.stdin.buffer:
        signal.setitimer(signal.ITIMER_REAL, setup["seconds"])
        reply = template.reply(json.loads(line), setup["characters"])
        signal.setitimer(signal.ITIMER_REAL, 0)
        sys.stdout.buffer.write(json.dumps(reply).encode() + b"\n")
        sys.stdout.buffer.flush()


class _Template:
    def __init__(self, source: str) -> None:
        self._compiled: Any = None
        self._failure = self._guard(lambda: self._compile(source))

    def reply(self, variables: dict[str, Any], characters: int) -> dict[str, Any]:
        """The rendered text, or what went wrong."""
        if self._compiled is None:
            return self._failure
        return self._guard(lambda: {"text": _join(self._compiled.generate(variables), characters)})

    def _compile(self, source: str) -> dict[str, Any]:
        self._compiled = _environment().from_string(source)
        return {}

    @staticmethod
    def _guard(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        from jinja2 import TemplateError

        try:
            return work()
        except _TooLarge:
            return {"failure": "large"}
        except MemoryError:
            return {"failure": "memory"}
        except TemplateError as error:
            kind = "refused" if type(error) is TemplateError else "broken"
            return {"failure": kind, "message": str(error)}
        except Exception as error:  # noqa: BLE001 - a template may do anything, and it is data here
            return {"failure": "broken", "message": f"{type(error).__name__}: {error}"}


class _TooLarge(Exception):
    pass


def _join(parts: Iterator[str], characters: int) -> str:
    texts = []
    for text in parts:
        characters -= len(text)
        if characters < 0:
            raise _TooLarge
        texts.append(text)
    return "".join(texts)


def _environment() -> Any:
    """The environment that templates on the hub are written for (that of transformers)."""
    import jinja2
    from jinja2 import nodes
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """`{% generation %}` marks what the assistant wrote, for training; here it is plain text."""

        tags = {"generation"}  # noqa: RUF012 - as Jinja declares it

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.Scope(body).set_lineno(line)

    def raise_exception(message: str) -> None:
        raise jinja2.TemplateError(message)

    def to_json(value: Any, ensure_ascii: bool = False, **options: Any) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, **options)

    def strftime_now(form: str) -> str:
        return datetime.now().strftime(form)  # noqa: DTZ005 - the model is told the local date

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,
        extensions=[Generation, loopcontrols],
    )
    environment.filters["tojson"] = to_json
    environment.globals |= {"raise_exception": raise_exception, "strftime_now": strftime_now}
    return environment


def _limit_memory() -> None:
    # where a system does not limit address space (macOS), time and size of output still are
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))


if __name__ == "__main__":
    main()
