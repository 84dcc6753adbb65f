"""What one `%%generate` asks for: its options over the notebook's defaults, checked together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from llmkernel.errors import InvalidRequest
from llmkernel.notebook.arguments import GENERATE, parse
from llmkernel.notebook.prompt import Template
from llmkernel.options.sampling import sampling_values
from llmkernel.params import SamplingParams

Turns = list[dict[str, str]]

_TOGETHER = (
    ("raw", "system", "--raw sends no conversation, so --system has no place in it."),
    ("loop", "background", "--for runs in the foreground; leave --background out."),
)


class Request(NamedTuple):
    """A generation, ready to be asked for. `given` are the sampling parameters that were named.

    `history` are the turns before, None where there is no conversation; `remark` stands
    under the answer, `remark_of_failure` under one that broke off.
    """

    text: str
    params: SamplingParams
    given: dict[str, Any]
    options: Mapping[str, Any]
    history: Turns | None = None
    remark: str = ""
    remark_of_failure: str = ""

    @property
    def form(self) -> str:
        """How the answer is shown."""
        return str(self.options.get("format_", "markdown"))

    @property
    def worker(self) -> str | None:
        """The worker that was named."""
        return self.options.get("worker")

    @property
    def output(self) -> str | None:
        """The variable that gets the answer."""
        return self.options.get("output")

    def filled(self, namespace: Mapping[str, Any]) -> str:
        """The prompt with its expressions evaluated. Raises InvalidRequest naming the one at fault."""
        if self.options.get("literal"):
            return self.text
        return Template(self.text).fill(namespace)

    def prompt(self, text: str, *, chat: bool) -> str | Turns:
        """What is sent for a filled text: the next turn of a conversation, or the text as it is."""
        if not chat:
            return text
        system = self.options.get("system")
        first = [{"role": "system", "content": system}] if system is not None else []
        return [*first, *(self.history or []), {"role": "user", "content": text}]


def read(
    title: str, line: str, cell: str | None, defaults: Mapping[str, Any], names: Mapping[str, Any]
) -> Request:
    """The request of a magic. `cell` is the body of a cell, None for a line magic.

    Raises InvalidRequest for an option, a combination or an empty prompt.
    """
    parsed = parse(GENERATE, title, line, names)
    check_together(parsed.values)
    options = over(defaults, parsed.values)
    given = sampling_values(options)
    return Request(
        prompt_text(title, parsed.rest, cell), SamplingParams.build(**given), given, options
    )


def over(defaults: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Values over defaults; a default that contradicts a value steps back."""
    without = {"raw": "system", "system": "raw"}
    stale = {without[name] for name in without if values.get(name)}
    return {name: value for name, value in defaults.items() if name not in stale} | dict(values)


def check_together(values: Mapping[str, Any]) -> None:
    """Raise InvalidRequest for options that do not go together."""
    for one, other, why in _TOGETHER:
        if values.get(one) and values.get(other):
            raise InvalidRequest(why)
    if values.get("quiet") and "output" not in values:
        raise InvalidRequest("--quiet shows nothing, so the answer needs a variable: -o VAR.")
    several = values.get("n", 1) > 1 or "loop" in values
    if values.get("format_") == "code" and several:
        raise InvalidRequest("--format code puts one answer into a cell; several do not fit.")
    if "loop" in values and "logprobs" in values and "output" not in values:
        raise InvalidRequest("--for shows no log-probabilities; take them from a variable: -o VAR.")


def prompt_text(title: str, rest: str, cell: str | None) -> str:
    """The prompt of a line or of a cell. Raises InvalidRequest where there is none."""
    if cell is None:
        text = rest
    elif rest:
        raise InvalidRequest(f"{title}: {rest!r} is no option. The prompt goes in the lines below.")
    else:
        text = cell.removesuffix("\n")
    if not text.strip():
        raise InvalidRequest(f"The prompt is empty. Write it in the lines under {_as_cell(title)}.")
    return text


def _as_cell(title: str) -> str:
    return f"%%{title.lstrip('%')}"
