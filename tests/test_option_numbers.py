"""What no option takes for a number, in the magics and on the command line."""

from __future__ import annotations

from collections.abc import Iterator

import click
import pytest

from llmkernel.cli import program
from llmkernel.errors import InvalidRequest
from llmkernel.notebook.arguments import GENERATE
from llmkernel.notebook.chatting import CHAT
from llmkernel.notebook.commands import LLM
from llmkernel.params import SamplingParams


def options(command: click.Command) -> Iterator[click.Parameter]:
    yield from command.params
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            yield from options(inner)


FLOATS = [
    param
    for command in (program, LLM, GENERATE, CHAT)
    for param in options(command)
    if isinstance(param.type, (click.FloatRange, click.types.FloatParamType))
]


@pytest.mark.parametrize("text", ["nan", "inf", "-inf"])
def test_no_float_is_endless_or_no_number(text: str) -> None:
    names = {param.name for param in FLOATS}
    assert {"temperature", "watch", "timeout", "idle_timeout", "drain_seconds"} <= names
    for param in FLOATS:
        if param.name in SamplingParams.__struct_fields__:
            with pytest.raises(InvalidRequest):  # by its bounds, which the message says
                SamplingParams.build(**{param.name: float(text)})
        else:
            with pytest.raises(click.BadParameter):
                param.type.convert(text, param, None)
