"""A model without a model: the real engine, front and client over tokens made by a rule.

`ScriptedRunner` keeps, block by block, a hash of everything that led to each token,
and reads it back through the block tables. Its answers therefore depend on every
token of the context, as a model's do: a wrong block, a lost token or a stale cache
changes them. No torch. Started as `--model scripted` or
`scripted:key=value,key=value`; it can be slow and can fail on command.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import msgspec

from llmkernel.config import WorkerConfig
from llmkernel.errors import TABLE, DeviceOutOfMemory, EngineDied, InvalidRequest, from_code
from llmkernel.params import unknown_name
from llmkernel.protocol import ModelInfo, Progress
from llmkernel.worker.pieces import Pieces
from llmkernel.worker.sequence import NO_TOKEN, Candidate, Sampled
from llmkernel.worker.step import Row, StepBatch, StepResult

EOS, BOS, USER, ASSISTANT, SYSTEM = range(256, 261)
_TURNS = {"user": USER, "assistant": ASSISTANT, "system": SYSTEM}
_SPECIAL = {
    EOS: "<eos>",
    BOS: "<bos>",
    USER: "<user>",
    ASSISTANT: "<assistant>",
    SYSTEM: "<system>",
}
_WORDS = (
    "a and are as at be but by can do each for from give has have here how in is it its keep "
    "know last like long make many more new not now of on one open or our out over small so "
    "some step such take than that the then there they this time to two use very was way well "
    "what when which will with word work you"
).split()
_MASK = 2**64 - 1


_AtLeast0 = Annotated[float, msgspec.Meta(ge=0)]
_Count = Annotated[int, msgspec.Meta(ge=0)]


class Script(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a scripted model does besides answering; numbers of steps count from 1, 0 is never."""

    step_ms: _AtLeast0 = 0.0
    """Time of a step."""
    prefill_us_per_token: _AtLeast0 = 0.0
    """Time of each prompt token on top."""
    load_ms: _AtLeast0 = 0.0
    fail_load: str = ""
    """Error code with which loading fails."""
    context_length: Annotated[int, msgspec.Meta(ge=2)] = 2048
    blocks: Annotated[int, msgspec.Meta(ge=2)] = 4096
    eos_after: _Count = 0
    """Generated tokens after which it ends; 0 is by the words."""
    fail_at_step: _Count = 0
    oom_at_step: _Count = 0
    die_at_step: _Count = 0
    late: bool = False
    """A step fails when it is collected, as on a device, and not when it is launched."""
    nan_for: str = ""
    """A prompt with this text gets NaN logits."""
    depth: Annotated[int, msgspec.Meta(ge=0, le=1)] = 0

    @classmethod
    def parse(cls, model: str) -> Script:
        """The script of "scripted" or "scripted:key=value,…".

        Raises InvalidRequest for what is no key, no value or given twice.
        """
        values: dict[str, str] = {}
        for part in filter(None, model.partition(":")[2].split(",")):
            name, equals, value = part.partition("=")
            if name not in cls.__struct_fields__:
                raise unknown_name(name, cls.__struct_fields__)
            if not equals or name in values:
                raise InvalidRequest(f"Bad script: give {name}=value, once.", field=name)
            values[name] = value
        try:
            script = msgspec.convert(values, cls, strict=False)
        except msgspec.ValidationError as error:
            raise InvalidRequest(f"Bad script: {error}") from None
        if script.fail_load and script.fail_load not in TABLE:
            raise InvalidRequest(f"Bad script: fail_load is one of {', '.join(TABLE)}.")
        return script


class ByteTokenizer:
    """One token a byte of UTF-8, and five special ones."""

    eos_token_ids = frozenset({EOS})
    special_ids = frozenset(_SPECIAL)
    vocab_size = 256 + len(_SPECIAL)
    has_chat_template = True
    pieces = Pieces(lambda token: bytes((token,)) if token < 256 else _SPECIAL[token].encode())

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """Bytes of `text`, after a BOS where special tokens are asked for."""
        return [BOS] * add_special_tokens + list(text.encode())

    def decode(self, token_ids: Sequence[int], skip_special_tokens: bool) -> str:
        """Text of bytes and, unless skipped, names of special tokens."""
        return self.pieces.text([t for t in token_ids if t < 256 or not skip_special_tokens])

    def token_text(self, token_id: int) -> str:
        """Text of one byte by itself."""
        return self.decode([token_id], skip_special_tokens=False)

    def render_chat(self, messages: Sequence[Mapping[str, str]], continue_final: bool) -> str:
        """Turns as "role: content" lines, open at the end."""
        for message in messages:
            if message["role"] not in _TURNS:
                roles = ", ".join(_TURNS)
                raise InvalidRequest(
                    f"The role {message['role']!r} is unknown here; there are {roles}."
                )
        lines = [f"{message['role']}: {message['content']}" for message in messages]
        if continue_final:
            return "\n".join(lines)
        return "\n".join([*lines, "assistant: "])


@dataclass(slots=True)
class _Launched:
    result: StepResult | Exception
    ready: float


@dataclass(slots=True)
class ScriptedRunner:
    """A runner whose "keys and values" are the token and a hash of all up to it.

    Steps are done one after the other, each in its time, as on a device.
    """

    script: Script
    block_size: int
    max_concurrent: int
    vocab_size: int = ByteTokenizer.vocab_size
    steps: int = 0
    _cells: dict[int, list[tuple[int, int]]] = field(default_factory=dict)
    _last: list[int] = field(init=False)
    _nan_marker: bytes = field(init=False)
    _busy_until: float = 0.0

    def __post_init__(self) -> None:
        self._last = [0] * self.max_concurrent
        self._nan_marker = self.script.nan_for.encode()

    def launch(self, batch: StepBatch) -> _Launched:
        """Compute a step at once; it counts as done when its time has passed."""
        self.steps += 1
        failure = self._failure()
        if failure is not None and not self.script.late:
            raise failure
        result = self._compute(batch)
        prefill = sum(row.count for row in batch.rows if row.count > 1)
        seconds = self.script.step_ms / 1e3 + prefill * self.script.prefill_us_per_token / 1e6
        self._busy_until = max(self._busy_until, time.monotonic()) + seconds
        return _Launched(failure or result, self._busy_until)

    def collect(self, launched: _Launched) -> StepResult:
        """Wait until the step's time has passed."""
        if (left := launched.ready - time.monotonic()) > 0:
            time.sleep(left)
        if isinstance(launched.result, Exception):
            raise launched.result
        return launched.result

    def release(self, slot: int) -> None:
        """Nobody may read the last token of this slot any more."""
        self._last[slot] = NO_TOKEN

    def warm_up(self) -> None:
        """There is nothing to warm up."""

    def _failure(self) -> Exception | None:
        if self.steps == self.script.fail_at_step:
            return ValueError("scripted failure")
        if self.steps == self.script.oom_at_step:
            return DeviceOutOfMemory("The scripted device has no memory for this step.")
        if self.steps == self.script.die_at_step:
            return EngineDied("The scripted device is lost.")
        return None

    def _compute(self, batch: StepBatch) -> StepResult:
        for row in batch.rows:
            self._write(row)
        sampled = [self._sample(row) if row.samples else None for row in batch.rows]
        for row, one in zip(batch.rows, sampled, strict=True):
            if one is not None:
                self._last[row.sequence.slot] = one.token_id
        return StepResult(sampled, [self._scores(row) for row in batch.rows])

    def _write(self, row: Row) -> None:
        sequence = row.sequence
        for position in range(row.start, row.start + row.count):
            known = position < len(sequence.token_ids)
            token = sequence.token_ids[position] if known else self._last[sequence.slot]
            before = self._read(row, position - 1)[1] if position else 0
            block, offset = divmod(position, self.block_size)
            cells = self._cells.setdefault(sequence.blocks[block], [(0, 0)] * self.block_size)
            cells[offset] = (token, _mix(before * 31 + token + 1))

    def _read(self, row: Row, position: int) -> tuple[int, int]:
        block, offset = divmod(position, self.block_size)
        return self._cells[row.sequence.blocks[block]][offset]

    def _sample(self, row: Row) -> Sampled:
        sequence, params = row.sequence, row.sequence.request.params
        if self._is_poisoned(row):
            return Sampled(NO_TOKEN)
        end = row.start + row.count
        token = self._next(row, end)
        generated = end - sequence.output_start
        if token == EOS and generated < params.min_tokens:
            token = ord(".")
        wants = params.logprobs is not None or params.width > params.n
        if not wants:
            return Sampled(token)
        return Sampled(token, *_logprobs(token, self._read(row, end - 1)[1], params.logprobs or 0))

    def _next(self, row: Row, end: int) -> int:
        """The byte after position `end` - 1, or EOS: the next of the word begun at the last blank."""
        sequence, script = row.sequence, self.script
        generated = end - sequence.output_start
        if script.eos_after:
            if generated >= script.eos_after:
                return EOS
        elif generated and self._read(row, end - 1)[0] == ord("."):
            return EOS
        begin, typed = end, b""
        while begin > sequence.output_start and (token := self._read(row, begin - 1)[0]) != ord(
            " "
        ):
            begin, typed = begin - 1, bytes((token & 255,)) + typed
        choice = self._read(row, begin - 1)[1] if begin else 0
        if not sequence.request.params.greedy:
            choice = _mix(choice ^ _mix(sequence.request.seed * 1000003 + sequence.index))
        word = _WORDS[choice % len(_WORDS)].encode()
        last = not script.eos_after and begin > sequence.output_start and choice >> 32 & 7 == 0
        word += b"." if last else b" "
        return word[len(typed)] if len(typed) < len(word) else ord(" ")

    def _is_poisoned(self, row: Row) -> bool:
        if not self._nan_marker:
            return False
        return self._nan_marker in bytes(t for t in row.sequence.request.prompt if t < 256)

    def _scores(self, row: Row) -> list[Sampled]:
        sequence, count = row.sequence, row.sequence.request.params.prompt_logprobs
        if count is None:
            return []
        last = min(row.start + row.count, sequence.output_start - 1)
        scores = []
        for position in range(row.start, last):
            token, state = sequence.token_ids[position + 1], self._read(row, position)[1]
            scores.append(Sampled(token, *_logprobs(token, state, count)))
        return [Sampled(s.token_id, math.nan) for s in scores] if self._is_poisoned(row) else scores


@dataclass(slots=True)
class Scripted:
    """What a worker needs to serve a script."""

    script: Script
    tokenizer: ByteTokenizer
    info: ModelInfo

    def runner(self, block_size: int, max_concurrent: int) -> ScriptedRunner:
        """A runner for blocks of `block_size` tokens."""
        return ScriptedRunner(self.script, block_size, max_concurrent)


def load_scripted(config: WorkerConfig, report: Callable[[Progress], Any]) -> Scripted:
    """Pretend to load for `load_ms`, stage by stage. Raises what `fail_load` names."""
    script = Script.parse(config.model)
    report(Progress(stage="resolve", done=1, total=1))
    steps = 10
    for done in range(steps + 1):
        report(Progress(stage="read", done=done * 10, total=steps * 10, unit="tensors"))
        if done < steps:
            time.sleep(script.load_ms / 1e3 / steps)
    if script.fail_load:
        raise from_code(script.fail_load, "The scripted model was told not to load.")
    info = ModelInfo(
        model=config.model,
        architecture="scripted",
        dtype="bytes",
        device="cpu",
        context_length=min(config.context_length or script.context_length, script.context_length),
        vocab_size=ByteTokenizer.vocab_size,
        has_chat_template=True,
    )
    return Scripted(script, ByteTokenizer(), info)


def _logprobs(token: int, state: int, count: int) -> tuple[float, tuple[Candidate, ...]]:
    """Made-up log-probabilities, the same for the same context."""
    others = [(state >> (8 * i)) & 255 for i in range(count)]
    top = [Candidate(token, -0.25)]
    for other in others:
        if all(other != candidate.token_id for candidate in top):
            top.append(Candidate(other, -1.0 - len(top)))
    return -0.25, tuple(top[:count])


def _mix(value: int) -> int:
    value &= _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)
