"""Command line options made from the fields of a Struct, so that none is ever missing.

A field's help is the text under it in the class. `build` of the class checks the values;
here they are only turned from text into numbers.
"""

from __future__ import annotations

import ast
import functools
import inspect
import textwrap
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any

import click
import msgspec

from llmkernel.errors import InvalidRequest
from llmkernel.params import BOUNDS, SamplingParams

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

_SHORT = {"max_tokens": "-n", "temperature": "-t"}
_FLAGS = {"n": "--samples", "stop_token_ids": "--stop-token-id"}
_HELP = {
    "temperature": "How adventurous the draw is; 0 always takes the likeliest token.",
    "presence_penalty": "Subtracted from the logits of tokens that the answer has already.",
    "frequency_penalty": "The same, once for each time that the token is there.",
    "stop_token_ids": "Generation ends at this token id; may be given many times.",
    "ignore_eos": "Go on after the model's own end of sequence.",
    "skip_special_tokens": "Leave special tokens out of the text.",
    "stop": "Generation ends before this text; may be given many times.",
    "logit_bias": "Added to the logit of a token id, as ID=BIAS; may be given many times.",
}


def sampling_options() -> Decorator:
    """One option for each field of SamplingParams; each defaults to None, which is the default."""
    docs = field_docs(SamplingParams)
    hints = typing.get_type_hints(SamplingParams)
    made = [_option(name, hints[name], docs) for name in SamplingParams.__struct_fields__]
    return _together(made)


def sampling_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """The keyword values for SamplingParams.build out of a command's values: those given."""
    given = {
        name: values[name]
        for name in SamplingParams.__struct_fields__
        if values.get(name) not in (None, ())
    }
    if "logit_bias" in given:
        given["logit_bias"] = dict(_bias(text) for text in given["logit_bias"])
    return given


@functools.cache
def field_docs(cls: type[msgspec.Struct]) -> dict[str, str]:
    """The text under each field in the source of `cls`, joined to one line."""
    body = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
    assert isinstance(body, ast.ClassDef)
    docs: dict[str, str] = {}
    for field, text in zip(body.body, body.body[1:], strict=False):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(text, ast.Expr)
            and isinstance(text.value, ast.Constant)
        ):
            docs[field.target.id] = " ".join(str(text.value.value).split())
    return docs


def _option(name: str, hint: Any, docs: dict[str, str]) -> Decorator:
    flag = _FLAGS.get(name, "--" + name.replace("_", "-"))
    text = _HELP.get(name) or docs.get(name, "")
    kind, many = _kind(hint)
    if kind is bool:
        both = f"{flag}/--no-{flag.removeprefix('--')}"
        return click.option(both, name, default=None, help=text)
    if name in BOUNDS:
        text = f"{text} {_range(name)}".strip()
    names = [_SHORT[name], flag, name] if name in _SHORT else [flag, name]
    metavar = {"logit_bias": "ID=BIAS"}.get(name) or {int: "N", float: "X", str: "TEXT"}[kind]
    return click.option(*names, type=kind, multiple=many, default=None, metavar=metavar, help=text)


def _range(name: str) -> str:
    return f"[{BOUNDS[name]}]"


def _kind(hint: Any) -> tuple[type, bool]:
    if isinstance(hint, types.UnionType):
        hint = next(part for part in typing.get_args(hint) if part is not type(None))
    origin = typing.get_origin(hint)
    if origin is list:
        return typing.get_args(hint)[0], True
    if origin is dict:
        return str, True
    return hint, False


def _bias(text: str) -> tuple[int, float]:
    token, _, bias = text.partition("=")
    try:
        return int(token), float(bias)
    except ValueError:
        raise InvalidRequest(
            f"{text!r} is no logit bias. Write ID=BIAS, for example 42=-5.", field="logit_bias"
        ) from None


def _together(options: list[Decorator]) -> Decorator:
    def decorate(callback: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            callback = option(callback)
        return callback

    return decorate
