"""The options of `%%generate`, and how a line becomes the values of a click command.

The sampling options are those of the command line, made from SamplingParams, so a notebook
and a terminal know the same names, help and ranges.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import click

from llmkernel.errors import InvalidRequest
from llmkernel.notebook.prompt import fill
from llmkernel.notebook.words import split
from llmkernel.options.once import Once
from llmkernel.options.sampling import sampling_options, sampling_values

FORMATS = ("markdown", "text", "code", "json")
_LEFT_OUT = frozenset({"prompt_logprobs", "logprobs"})
_OPTIONAL_K = "[K]"
_OF_IPYTHON = re.compile(
    r"get_ipython|In|Out|exit|quit|display|_{1,3}|_i{1,3}|_i?\d+|_[iod]h|_exit_code|__\w+__"
)
"""Names without which magics and the history do not work, or which the next cell takes back."""
_ESCAPES = {"\\n": "\n", "\\t": "\t"}

logprobs_option = click.option(
    "--logprobs",
    is_flag=False,
    flag_value="5",
    type=int,
    metavar=_OPTIONAL_K,
    help="Colour the tokens by their probability, and show K alternatives for each, 5 where K is "
    "left out.",
)
system_option = click.option(
    "--system", metavar="TEXT", help="What the model is told before the prompt."
)
raw_option = click.option(
    "--raw/--no-raw",
    default=None,
    help="Send the text as it is, without the chat template, for the model to continue.",
)
format_option = click.option(
    "--format",
    "format_",
    type=click.Choice(FORMATS),
    help="How the answer is shown: markdown; text as it is; code, put into a new cell; "
    "json, checked and indented.  [default: markdown]",
)
worker_option = click.option(
    "-m", "--worker", metavar="NAME", help="The worker to ask; `%llm use` chooses one for all."
)
output_option = click.option(
    "-o", "--output", metavar="VAR", help="The variable that gets the answer."
)
literal_option = click.option(
    "--literal", is_flag=True, default=None, help="Send double braces as they are."
)
quiet_option = click.option(
    "--quiet", is_flag=True, default=None, help="Show nothing; the answer is in VAR alone."
)


class Parsed(NamedTuple):
    """What a line asked for: values that were given, and the text after the options."""

    values: dict[str, Any]
    rest: str

    @property
    def sampling(self) -> dict[str, Any]:
        """The given values that are names of SamplingParams."""
        return sampling_values(self.values)


def shared_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options that one answer can have and that a session can have as defaults."""
    for option in (format_option, raw_option, system_option, logprobs_option):
        function = option(function)
    return sampling_options()(function)


def trim(command: click.Command) -> click.Command:
    """Take the sampling options off that no cell can show, and logprobs with a fixed argument."""
    command.params = [
        param
        for param in command.params
        if param.name not in _LEFT_OUT or param.metavar == _OPTIONAL_K
    ]
    return command


@click.command("generate", cls=Once, add_help_option=False)
@worker_option
@shared_options
@output_option
@click.option(
    "--for",
    "loop",
    nargs=2,
    metavar="NAME in EXPR",
    help="One answer for each item, all in one batch: NAME has the item inside {{ }}.",
)
@click.option("--background", is_flag=True, default=None, help="Go on at once; VAR gets a handle.")
@literal_option
@quiet_option
def _generate(**_: Any) -> None:
    """Generate text from the prompt.

    The prompt is the body of a `%%generate` cell, or the rest of a `%generate` line. It is
    a user's turn in a conversation unless --raw is given. `{{ expression }}` stands for a
    value of the notebook.
    """


GENERATE = trim(_generate)


def parse(command: click.Command, title: str, line: str, namespace: Mapping[str, Any]) -> Parsed:
    """Read a line: options first, filled in from `namespace`, then the rest.

    Only what was given is in `values`. Raises InvalidRequest that names the option and,
    where one is near, the one that was meant.
    """
    options, rest = split(line, command)
    filled = [fill(word, namespace) for word in options]
    return Parsed(values_of(command, title, filled), rest)


def values_of(command: click.Command, title: str, words: list[str]) -> dict[str, Any]:
    """The values that `words` give to a command's options. Raises InvalidRequest."""
    try:
        context = command.make_context(title, list(words))
    except click.UsageError as error:
        raise refusal(error, title) from None
    return given(context.params)


def given(params: Mapping[str, Any]) -> dict[str, Any]:
    """The values among the parameters of a command that were given. Raises InvalidRequest."""
    values = {name: value for name, value in params.items() if value not in (None, ())}
    if "stop" in values:
        values["stop"] = tuple(_ESCAPES.get(text, text) for text in values["stop"])
    if "output" in values:
        variable(values["output"])
    if "loop" in values:
        _identifier(values["loop"][0])
    return values


def refusal(error: click.UsageError, title: str) -> InvalidRequest:
    """A click error as one of ours, with the place where the options are listed."""
    message = error.format_message()
    end = "" if message.endswith((".", "?")) else "."
    topic = title.rsplit(maxsplit=1)[-1].strip("%").removeprefix("llm")
    help_line = f"%llm help {topic}".strip()
    return InvalidRequest(f"{title}: {message}{end} `{help_line}` lists the options.")


def variable(name: str) -> str:
    """Check that a value can be stored under `name`. Raises InvalidRequest."""
    if is_ipythons(_identifier(name)):
        raise InvalidRequest(
            f"{name!r} is IPython's own; every later cell may need it. Take another name.",
            field="output",
        )
    return name


def is_ipythons(name: str) -> bool:
    """Whether a name is IPython's own, so that no answer can be stored under it."""
    return _OF_IPYTHON.fullmatch(name) is not None


def _identifier(name: str) -> str:
    if not name.isidentifier() or keyword.iskeyword(name):
        raise InvalidRequest(f"{name!r} is no name of a variable.", field="output")
    return name
