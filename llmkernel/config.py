"""What a worker is started with: one frozen object from the CLI, the magics and the API alike."""

from __future__ import annotations

import difflib
import math
import re
from typing import Any, Literal, get_args

import msgspec

from llmkernel.errors import InvalidRequest
from llmkernel.params import has_lone_surrogate

DEMO_MODEL = "demo"
"""Stands for the model inside the package, where a model is left out."""

Quantization = Literal["auto", "nf4", "fp4", "int8", "none"]
Dtype = Literal["auto", "float32", "bfloat16", "float16"]

_CHOICES: dict[str, Any] = {"quantization": Quantization, "dtype": Dtype}
_UNITS = {"": 1, "b": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_UNITS |= {"ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?i?)b?\s*", re.IGNORECASE)
_SHARE = re.compile(r"\s*(\d*\.\d+|[01]|\d+(?=\s*%))\s*(%?)\s*")
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


class WorkerConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The settings of one worker. "auto" and None are resolved by the loader.

    Build it with `WorkerConfig.build`, which checks every value.
    """

    name: str = ""
    """Name of the worker and of its connection file; empty derives it from the model."""
    model: str = DEMO_MODEL
    """Hub id, local folder, or "demo"."""
    revision: str | None = None
    quantization: Quantization = "auto"
    """auto: nf4 on a GPU, none on the CPU, and what the checkpoint says where it is quantised."""
    dtype: Dtype = "auto"
    """auto: bfloat16 on a GPU that has it (else float16), float32 on the CPU."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    context_length: int | None = None
    """Tokens of prompt and answer together; None is what the model was made for."""
    kv_cache: int | None = None
    """Bytes for keys and values; None takes a modest share of what is free."""
    gpu_memory: int | float | None = None
    """The most that all of the worker takes on its GPU: bytes, or as a float a share of the GPU."""
    max_concurrent: int = 64
    """Sequences that decode in one batch."""
    queue: int = 512
    """Requests that may wait; more are refused at once."""
    max_batch_tokens: int = 512
    """Tokens of prompts in one step: bounds how long a prompt can hold up running streams."""
    max_prefill_tokens: int | None = None
    """The same while no stream runs; None is 2048 on a GPU where it has the memory, no more on the CPU."""
    prefix_cache: bool = True
    weight_cache: bool = True
    """Keep packed weights on disk for the next start."""
    idle_timeout: float | None = None
    """Seconds without work after which the worker leaves; None is never."""
    trust_remote_code: bool = False
    transport: Literal["ipc", "tcp"] = "ipc"

    @classmethod
    def build(cls, **values: Any) -> WorkerConfig:
        """Make and check a configuration from plain values; None stands for the default.

        Sizes may be text such as "2GiB". Raises InvalidRequest naming the setting.
        """
        for name in values:
            if name not in cls.__struct_fields__:
                near = difflib.get_close_matches(name, cls.__struct_fields__, n=1)
                hint = f" Did you mean {near[0]!r}?" if near else ""
                raise InvalidRequest(f"There is no setting {name!r}.{hint}", field=name)
        plain = {name: value for name, value in values.items() if value is not None}
        if isinstance(plain.get("kv_cache"), str):
            plain["kv_cache"] = parse_size(plain["kv_cache"])
        if "gpu_memory" in plain:
            plain["gpu_memory"] = parse_share(plain["gpu_memory"])
        plain["model"] = str(plain.get("model", DEMO_MODEL))
        _check_text(plain)
        plain["name"] = plain.get("name") or default_name(plain["model"])
        try:
            config = msgspec.convert(plain, cls)
        except msgspec.ValidationError as error:
            raise _bad_setting(error) from None
        config._check()
        return config

    def _check(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise InvalidRequest(
                f"{self.name!r} cannot name a worker: use up to 64 of a-z, 0-9, '.', '_' and '-', starting with a letter or digit.",
                field="name",
            )
        if self.device not in ("auto", "cpu", "cuda") and not re.fullmatch(
            r"cuda:\d+", self.device
        ):
            raise InvalidRequest(
                f"device must be auto, cpu, cuda or cuda:N, and was {self.device!r}.",
                field="device",
            )
        least = {
            "context_length": 16,
            "kv_cache": 1,
            "gpu_memory": 0,
            "max_concurrent": 1,
            "queue": 1,
            "max_batch_tokens": 16,
            "max_prefill_tokens": self.max_batch_tokens,
            "idle_timeout": 1,
        }
        for name, low in least.items():
            value = getattr(self, name)
            if value is not None and not low <= value < 2**50:
                raise InvalidRequest(
                    f"{name} must be from {low} to below 2^50, and was {value}.", field=name
                )


def _check_text(values: dict[str, Any]) -> None:
    """Refuse names that cannot be handed on, and no model: that is how an unset variable arrives."""
    for name, value in values.items():  # what may name a worker is looked at elsewhere
        if name != "name" and isinstance(value, str) and has_lone_surrogate(value):
            raise InvalidRequest(f"{name} must be text in UTF-8, and was {value!r}.", field=name)
    if not values["model"].strip():
        raise InvalidRequest(
            "model is empty. Name one, or leave it out for the embedded model.", field="model"
        )


def _bad_setting(error: msgspec.ValidationError) -> InvalidRequest:
    """In words what msgspec says, with the values that a setting may have."""
    what, _, place = str(error).partition(" - at ")
    name = place.strip("`").removeprefix("$.")
    choices = get_args(_CHOICES.get(name))
    if choices:
        return InvalidRequest(f"{name} must be one of {', '.join(choices)}.", field=name)
    return InvalidRequest(f"Bad setting {name}: {what.replace('`', '')}.", field=name)


def parse_size(text: str, field: str = "kv_cache") -> int:
    """Bytes from text such as "512MB" (10^6) or "2GiB" (2^30); a bare number is bytes.

    Raises InvalidRequest, naming the setting `field`, for anything else.
    """
    match = _SIZE.fullmatch(text)
    size = float(match[1]) * _UNITS[match[2].lower()] if match else math.inf
    if size == math.inf:  # also for more digits than a float can hold
        raise InvalidRequest(f"{text!r} is no size. Write for example 512MB or 2GiB.", field=field)
    return int(size)


def parse_share(given: Any) -> Any:
    """Bytes as an int, or a share of something as a float: from "20GiB", "40%", 0.4 or "0.4".

    A number up to 1 without a unit is a share. Raises InvalidRequest for text that is neither,
    and for a share that is none; what is no text and no number comes back as it is.
    """
    if isinstance(given, str):
        found = _SHARE.fullmatch(given)
        if found is None:
            return parse_size(given, "gpu_memory")
        given = float(found[1]) / (100 if found[2] else 1)
    if isinstance(given, bool) or not isinstance(given, (int, float)):
        return given
    if isinstance(given, int) and given > 1:
        return given
    if not 0 < given <= 1:
        raise InvalidRequest(
            f"gpu_memory={given} is neither a share above 0 and up to 1 nor a size. Write for "
            "example 0.4, 40% or 20GiB.",
            field="gpu_memory",
        )
    return float(given)


def default_name(model: str) -> str:
    """The worker name that a model gets where none is given: its last path part, in plain letters."""
    last = model.rstrip("/").rsplit("/", 1)[-1].lower()
    return re.sub(r"[^a-z0-9._-]+", "-", last).strip("-._")[:64] or "model"
