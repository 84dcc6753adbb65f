"""What a request may ask for: validated once, with the same verdict on every path.

The names are vLLM's SamplingParams names. `SamplingParams.build` is the only
door: the client, the magics, the CLI and the gateway go through it, and the
worker runs `check` again on what arrives. Unknown names are refused with the
nearest known one; a value out of range is refused with the range.
"""

from __future__ import annotations

import difflib
import math
from typing import Any, NamedTuple

import msgspec

from llmkernel.errors import InvalidRequest

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1
INT31_MAX = 2**31 - 1


class Bound(NamedTuple):
    """The values a number may take: closed ends unless `open_low`."""

    low: float
    high: float
    open_low: bool = False

    def holds(self, value: float) -> bool:
        """Whether `value` is inside; NaN never is."""
        above = value > self.low if self.open_low else value >= self.low
        return above and value <= self.high

    def __str__(self) -> str:
        left = "above" if self.open_low else "from"
        return f"{left} {_plain(self.low)} to {_plain(self.high)}"


BOUNDS: dict[str, Bound] = {
    "max_tokens": Bound(0, INT31_MAX),
    "min_tokens": Bound(0, INT31_MAX),
    "temperature": Bound(0.0, 100.0),
    "top_k": Bound(0, INT31_MAX),
    "top_p": Bound(0.0, 1.0, open_low=True),
    "min_p": Bound(0.0, 1.0),
    "typical_p": Bound(0.0, 1.0, open_low=True),
    "repetition_penalty": Bound(0.0, 100.0, open_low=True),
    "presence_penalty": Bound(-2.0, 2.0),
    "frequency_penalty": Bound(-2.0, 2.0),
    "seed": Bound(INT64_MIN, INT64_MAX),
    "n": Bound(1, 64),
    "best_of": Bound(1, 64),
    "logprobs": Bound(0, 20),
    "prompt_logprobs": Bound(0, 20),
}
_CALLED = {"n": "The number of answers n"}
"""What a refusal calls a field whose name is another option's where options are typed."""
LOGIT_BIAS = Bound(-100.0, 100.0)
MAX_LOGIT_BIAS = 1024
MAX_STOPS = 16
MAX_STOP_CHARS = 1024
MAX_STOP_TOKEN_IDS = 128


class SamplingParams(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True
):
    """How to pick tokens and when to stop.

    Order of work per token: repetition, frequency and presence penalty, logit_bias,
    min_tokens, temperature, typical_p, top_k, top_p, min_p, then the draw. With
    temperature 0 the largest logit after the biases wins. Log-probabilities are
    those of the model's own logits, before any of it.
    """

    max_tokens: int | None = None
    """Tokens to generate at most; None is up to the context length. 0 only with prompt_logprobs."""
    min_tokens: int = 0
    """Tokens before which end-of-sequence and stop_token_ids cannot be picked."""
    temperature: float = 1.0
    top_k: int = 0
    """Keep the k most likely tokens; 0 keeps all."""
    top_p: float = 1.0
    """Keep the smallest set of tokens whose probability reaches p."""
    min_p: float = 0.0
    """Keep tokens at least min_p times as likely as the likeliest."""
    typical_p: float = 1.0
    """Locally typical sampling (Meister et al. 2022), keeping mass p."""
    repetition_penalty: float = 1.0
    """Divide positive and multiply negative logits of seen tokens (Keskar et al. 2019)."""
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: dict[int, float] = {}
    """Added to the logits of the given token ids."""
    seed: int | None = None
    """Same tokens again, whatever else is in the batch; None draws a fresh one."""
    stop: list[str] = []
    """Generation ends before the first of these texts."""
    stop_token_ids: list[int] = []
    ignore_eos: bool = False
    n: int = 1
    """Answers to return."""
    best_of: int | None = None
    """Answers to generate; the n with the highest mean log-probability are returned."""
    logprobs: int | None = None
    """Log-probability of each sampled token and of this many alternatives."""
    prompt_logprobs: int | None = None
    """The same for each prompt token; the first one has none."""
    skip_special_tokens: bool = True

    @classmethod
    def build(cls, **values: Any) -> SamplingParams:
        """Make and check parameters from plain keyword values.

        None stands for the default, `stop` may be one text, numpy scalars count as
        numbers. Raises InvalidRequest naming the field, the value and the range.
        """
        for name in values:
            if name not in cls.__struct_fields__:
                raise unknown_name(name, cls.__struct_fields__)
        plain = {name: _normal(name, value) for name, value in values.items() if value is not None}
        try:
            params = msgspec.convert(plain, cls)
        except msgspec.ValidationError as error:
            raise _wrong_kind(error) from None
        return params.check()

    def check(self) -> SamplingParams:
        """Return self, or raise InvalidRequest for the first value that cannot be served."""
        for name, bound in BOUNDS.items():
            value = getattr(self, name)
            if value is not None and not bound.holds(value):
                raise InvalidRequest(
                    f"{_CALLED.get(name, name)} must be {bound}, and was {_plain(value)}.",
                    field=name,
                )
        self._check_lists()
        self._check_together()
        return self

    def _check_lists(self) -> None:
        if len(self.stop) > MAX_STOPS:
            raise InvalidRequest(
                f"stop takes up to {MAX_STOPS} texts, and got {len(self.stop)}.", field="stop"
            )
        if any(not text or len(text) > MAX_STOP_CHARS for text in self.stop):
            raise InvalidRequest(
                f"Each stop text must have 1 to {MAX_STOP_CHARS} characters.", field="stop"
            )
        if any(has_lone_surrogate(text) for text in self.stop):
            raise InvalidRequest(
                "A stop text holds half of a surrogate pair, which is no text.", field="stop"
            )
        if len(self.stop_token_ids) > MAX_STOP_TOKEN_IDS:
            raise InvalidRequest(
                f"stop_token_ids takes up to {MAX_STOP_TOKEN_IDS} ids.", field="stop_token_ids"
            )
        if len(self.logit_bias) > MAX_LOGIT_BIAS:
            raise InvalidRequest(
                f"logit_bias takes up to {MAX_LOGIT_BIAS} ids.", field="logit_bias"
            )
        if any(not LOGIT_BIAS.holds(bias) for bias in self.logit_bias.values()):
            raise InvalidRequest(f"Each logit_bias must be {LOGIT_BIAS}.", field="logit_bias")
        if any(not 0 <= token <= INT31_MAX for token in (*self.stop_token_ids, *self.logit_bias)):
            raise InvalidRequest(
                "Token ids in stop_token_ids and logit_bias cannot be negative or above 2^31 - 1."
            )

    def _check_together(self) -> None:
        if self.max_tokens == 0 and self.prompt_logprobs is None:
            raise InvalidRequest(
                "max_tokens must be at least 1; 0 only scores a prompt, with prompt_logprobs.",
                field="max_tokens",
            )
        if self.max_tokens is not None and self.min_tokens > self.max_tokens:
            raise InvalidRequest(
                f"min_tokens ({self.min_tokens}) is above max_tokens ({self.max_tokens}).",
                field="min_tokens",
            )
        if self.best_of is not None and self.best_of < self.n:
            raise InvalidRequest(
                f"best_of ({self.best_of}) is below n ({self.n}), the number of answers.",
                field="best_of",
            )
        if self.width > 1 and self.max_tokens == 0:
            raise InvalidRequest(
                "Scoring a prompt gives one answer: leave n and best_of out.", field="n"
            )
        if self.greedy and self.width > 1:
            raise InvalidRequest(
                "Several answers need a temperature above 0: greedy ones are all the same.",
                field="temperature",
            )

    @property
    def wants_logprob(self) -> bool:
        """Whether its tokens have a log-probability: asked for, or to rank the answers of best_of."""
        return self.logprobs is not None or self.width > self.n

    @property
    def width(self) -> int:
        """Sequences to generate: best_of where given, else n."""
        return self.best_of if self.best_of is not None else self.n

    @property
    def greedy(self) -> bool:
        """Whether the largest logit always wins."""
        return self.temperature == 0.0


def unknown_name(name: str, known: tuple[str, ...] | list[str]) -> InvalidRequest:
    """The refusal of an unknown keyword, with the nearest known one where there is one."""
    near = difflib.get_close_matches(name, known, n=1)
    if name in _ELSEWHERE:
        hint = f"Here {_ELSEWHERE[name]}."
    else:
        hint = f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(known)}."
    return InvalidRequest(f"There is no parameter {name!r}. {hint}", field=name)


_ELSEWHERE = {
    "do_sample": "temperature=0 always takes the likeliest token, and anything above draws",
    "num_predict": "it is 'max_tokens'",
    "num_return_sequences": "it is 'n'",
    "stop_sequences": "it is 'stop'",
    "stop_strings": "it is 'stop'",
    "stream": "stream and stream_chat give an answer piece by piece",
    "system": 'it is the first turn of a conversation: {"role": "system", "content": ...}',
}
"""What libraries of others call it, where the nearest name would not be it."""


_KINDS = {
    "int": "a whole number",
    "float": "a number",
    "str": "text",
    "bool": "true or false",
    "array": "a list",
    "object": "a dict",
    "null": "None",
}
"""What msgspec calls them, in words."""


def _wrong_kind(error: msgspec.ValidationError) -> InvalidRequest:
    """In words what msgspec says as "Expected `float`, got `str` - at `$.temperature`".

    Inside a dict it says "at `key` in `$.logit_bias`" and "at `$.logit_bias[...]`".
    """
    what, _, place = str(error).partition(" - at ")
    wanted, _, got = what.removeprefix("Expected ").replace("`", "").partition(", got ")
    kinds = [_KINDS.get(kind, kind) for kind in wanted.split(" | ") if kind != "null"]
    given = "a fraction" if got == "float" and "int" in wanted else _KINDS.get(got, got)
    what = f"must be {' or '.join(kinds)}, not {given}" if got else what
    inside, _, path = place.replace("`", "").rpartition(" in ")
    name = path.removeprefix("$.")
    if inside or name.endswith("[...]"):
        field = name.removesuffix("[...]")
        return InvalidRequest(f"Each {inside or 'value'} of {field} {what}.", field=field)
    return InvalidRequest(f"{name or 'A parameter'} {what}.", **({"field": name} if name else {}))


def has_lone_surrogate(text: str) -> bool:
    """Whether `text` holds half of a surrogate pair and so cannot be encoded."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _normal(name: str, value: Any) -> Any:
    if name == "stop" and isinstance(value, str):
        return [value]
    if name in ("stop", "stop_token_ids") and isinstance(value, (tuple, set)):
        value = list(value)
    if isinstance(value, list):
        return [_number(item) for item in value]
    if isinstance(value, dict):
        return {_number(key): _number(item) for key, item in value.items()}
    return _number(value)


def _number(value: Any) -> Any:
    # numpy and torch scalars are no int or float to msgspec, but say so themselves
    if isinstance(value, (bool, int, float, str)):
        if isinstance(value, float) and type(value) is not float:
            return float(value)
        return value
    if type(value).__name__.startswith("bool"):
        return bool(value)
    if hasattr(value, "__index__"):
        return value.__index__()
    if hasattr(value, "__float__"):
        return float(value)
    return value


def _plain(value: float) -> str:
    if isinstance(value, int) and abs(value) > 10**20:
        return "a number beyond 10^20"
    if (
        isinstance(value, float)
        and math.isfinite(value)
        and value == int(value)
        and abs(value) < 1e15
    ):
        return str(int(value))
    return str(value)
