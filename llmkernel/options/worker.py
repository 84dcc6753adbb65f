"""The settings of a worker as command line options, for `llmkernel start` and the worker itself.

Every field of WorkerConfig has one, its default is said by the class, and its value is
checked by `WorkerConfig.build`: nothing is decided here.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from llmkernel.config import WorkerConfig
from llmkernel.options.numbers import FINITE

Command = TypeVar("Command", bound=Callable[..., Any])

HELP = {
    "name": "Name of the worker; the last part of the model's name where it is left out.",
    "revision": "Branch, tag or commit on the hub.",
    "quantization": "auto is nf4 on a GPU, none on the CPU, and what a quantised checkpoint says.",
    "dtype": "auto is bfloat16 on a GPU that has it, else float16, and float32 on the CPU.",
    "device": "auto, cpu, cuda or cuda:N.",
    "context_length": "Tokens of prompt and answer together; as long as the model allows.",
    "kv_cache": "Memory for keys and values, such as 512MB or 2GiB; a modest share of what is free.",
    "gpu_memory": "The most that all of it takes on the GPU, such as 20GiB, or 0.4 of what it has.",
    "max_concurrent": "Sequences that decode in one batch.",
    "queue": "Requests that may wait; more are refused at once.",
    "max_batch_tokens": "Prompt tokens in a step: bounds how long a prompt holds up running streams.",
    "max_prefill_tokens": "The same while no stream runs; 2048 on a GPU, as max_batch_tokens elsewhere.",
    "prefix_cache": "Keep the keys and values of prompts for requests that begin the same.",
    "weight_cache": "Keep packed 4-bit weights on disk, so that the next start is quick.",
    "idle_timeout": "Leave after this many seconds without work; never where it is left out.",
    "trust_remote_code": "Run Python code that the model's repository brings. It can do anything.",
    "transport": "Where clients connect: a socket file, or a port of this machine alone.",
}
_METAVAR = {
    "kv_cache": "SIZE",
    "gpu_memory": "SIZE|SHARE",
    "idle_timeout": "SECONDS",
    "device": "DEVICE",
}
_KIND = {int: ("N", int), float: ("X", FINITE), str: ("TEXT", str)}


def worker_options(command: Command) -> Command:
    """Give a click command the argument MODEL and one option for each other setting.

    What is not given is None, so `build_config` can tell it from what is.
    """
    hints = typing.get_type_hints(WorkerConfig)
    for name in reversed(WorkerConfig.__struct_fields__):
        if name != "model":
            command = _option(name, hints[name])(command)
    return click.argument("model", required=False)(command)


def build_config(values: Mapping[str, Any]) -> WorkerConfig:
    """The WorkerConfig for a command's values; others than settings are left alone.

    Raises InvalidRequest naming the setting.
    """
    fields = WorkerConfig.__struct_fields__
    return WorkerConfig.build(**{name: values.get(name) for name in fields})


def _option(name: str, hint: Any) -> Callable[[Command], Command]:
    flag = "--" + name.replace("_", "-")
    text = HELP[name] + _default(name)
    kind = _without_none(hint)
    if kind is bool:
        both = flag if name == "trust_remote_code" else f"{flag}/--no-{flag[2:]}"
        return click.option(both, name, is_flag=True, default=None, help=text)
    if typing.get_origin(kind) is typing.Literal:
        return click.option(flag, name, type=click.Choice(typing.get_args(kind)), help=text)
    # a size may be text with a unit, whatever type the field has
    metavar, made = ("SIZE", str) if name in ("kv_cache", "gpu_memory") else _KIND[kind]
    return click.option(flag, name, type=made, metavar=_METAVAR.get(name, metavar), help=text)


def _default(name: str) -> str:
    default = WorkerConfig.__struct_defaults__[WorkerConfig.__struct_fields__.index(name)]
    if default is None or default == "" or default is False:
        return ""
    return f" [default: {default if default is not True else 'on'}]"


def _without_none(hint: Any) -> Any:
    if isinstance(hint, types.UnionType):
        return next(part for part in typing.get_args(hint) if part is not type(None))
    return hint
