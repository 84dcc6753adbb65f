"""`{{ expression }}` in a prompt: evaluated once, in the namespace of the notebook, by Jinja2.

Only double braces are template syntax. Single braces, `{% … %}` and `{# … #}` stay as they
are, and so does a `{{` whose braces close one at a time, as in code: `{{1, 2}, {3, 4}}`. What
an expression gives is put in as text and never looked at again.

An expression is Jinja2's: names, attributes, indexing, calls, arithmetic, comparisons,
`x if y else z`, filters such as `| join(", ")`. Comprehensions, lambdas and f-strings are
not; compute such a value in a cell before. Names with a leading underscore are out of reach.
"""

from __future__ import annotations

import builtins
import difflib
import functools
import itertools
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from llmkernel.errors import InvalidRequest
from llmkernel.notebook.scanning import template_end

if TYPE_CHECKING:
    from jinja2.sandbox import SandboxedEnvironment

_SHELL = frozenset({"In", "Out", "exit", "quit", "get_ipython"})
_FIELDS = 10
"""Of so many fields of a row an error tells."""
_UNDEFINED = re.compile(r"'(\w+)' is undefined")
BUILTINS: tuple[Callable[..., Any], ...] = (
    abs,
    all,
    any,
    bool,
    dict,
    enumerate,
    float,
    int,
    len,
    list,
    max,
    min,
    range,
    repr,
)
BUILTINS += (reversed, round, set, sorted, str, sum, tuple, zip)


class Expression(NamedTuple):
    """One `{{ … }}`: its source and what evaluates it."""

    source: str
    evaluate: Callable[[Mapping[str, Any]], Any]


class Template:
    """Text with expressions in it, compiled.

    Raises InvalidRequest for an expression that cannot be read.
    """

    def __init__(self, text: str) -> None:
        self.parts: list[str | Expression] = []
        end = 0
        for start, inside, closing in _found(text):
            self.parts += [text[end:start], _compile(text[inside:closing].strip())]
            end = closing + 2
        self.parts.append(text[end:])

    def fill(self, namespace: Mapping[str, Any]) -> str:
        """The text with each expression's value in its place.

        Raises InvalidRequest naming the expression that has no value, and why.
        """
        return "".join(
            part if isinstance(part, str) else _value(part, namespace) for part in self.parts
        )


def fill(text: str, namespace: Mapping[str, Any]) -> str:
    """`text` with its expressions evaluated once. Raises InvalidRequest as Template does."""
    return Template(text).fill(namespace) if "{{" in text else text


def _found(text: str) -> list[tuple[int, int, int]]:
    """For each expression: where its braces open, where its inside begins and where it ends."""
    found, position = [], text.find("{{")
    while position >= 0:
        closing = template_end(text, position + 2)
        if closing is not None and text[position + 2 : closing].strip():
            found.append((position, position + 2, closing))
            position = text.find("{{", closing + 2)
        else:
            position = text.find("{{", position + 1)
    return found


@functools.cache
def _environment() -> SandboxedEnvironment:
    from jinja2 import StrictUndefined
    from jinja2.sandbox import SandboxedEnvironment

    class Environment(SandboxedEnvironment):
        """`row.items` is what a row has under that name, and only then a method of dict."""

        def getattr(self, obj: Any, attribute: str) -> Any:
            if isinstance(obj, Mapping) and attribute in obj:
                return obj[attribute]
            return super().getattr(obj, attribute)

    class Missing(StrictUndefined):
        """What is not there; of a row it says what is."""

        @property
        def _undefined_message(self) -> str:
            if not isinstance(self._undefined_obj, Mapping):
                return str(super()._undefined_message)
            return _no_such_field(self._undefined_obj, str(self._undefined_name))

    environment = Environment(undefined=Missing, autoescape=False)  # a prompt is no HTML
    environment.globals.clear()
    environment.globals.update({builtin.__name__: builtin for builtin in BUILTINS})
    return environment


def _compile(source: str) -> Expression:
    from jinja2 import TemplateSyntaxError

    try:
        compiled = _environment().compile_expression(source, undefined_to_none=False)
    except TemplateSyntaxError as error:
        raise InvalidRequest(
            f"{{{{ {source} }}}} cannot be read: {str(error.message).removesuffix('.')}. "
            "Use --literal to send double braces as they are."
        ) from None
    return Expression(source, compiled)


def _value(expression: Expression, namespace: Mapping[str, Any]) -> str:
    from jinja2 import UndefinedError

    try:
        return str(expression.evaluate(namespace))
    except UndefinedError as error:
        raise _undefined(expression, str(error.message), namespace) from None
    except Exception as error:  # whatever the user's own objects raise
        raise InvalidRequest(
            f"{{{{ {expression.source} }}}} raised {type(error).__name__}: {error}"
        ) from error


def _no_such_field(row: Mapping[Any, Any], name: str) -> str:
    known = [str(key) for key in itertools.islice(row, _FIELDS)]
    known += ["…"] * (len(row) > _FIELDS)
    return f"it has no attribute {name!r}, but {', '.join(known) or 'nothing'}"


def _of_the_shell(name: str) -> bool:
    """Whether a name is IPython's or Python's own, so that nobody can have meant it."""
    return name.startswith("_") or name in _SHELL or hasattr(builtins, name)


def _undefined(
    expression: Expression, message: str, namespace: Mapping[str, Any]
) -> InvalidRequest:
    name = _UNDEFINED.search(message)
    known = [key for key in namespace if isinstance(key, str) and not _of_the_shell(key)]
    near = difflib.get_close_matches(name[1], known, n=1) if name else []
    hint = f" Did you mean {near[0]!r}?" if near else ""
    todo = "Define it in a cell, or use" if name else "Use"
    return InvalidRequest(
        f"{{{{ {expression.source} }}}}: {message}.{hint} "
        f"{todo} --literal to send double braces as they are."
    )
