"""What a generation looks like: answers, the quiet line under them, log-probabilities."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

import msgspec

from llmkernel.client.generation import Generation
from llmkernel.notebook.inline import escape
from llmkernel.notebook.markdown import code_blocks, fence, safe
from llmkernel.notebook.tables import MARKDOWN, PLAIN, Bundle, Marked, stack, table
from llmkernel.notebook.untrusted import plain
from llmkernel.protocol import TokenLogprob

MAX_LOGPROB_ROWS = 200
_ENDS = {"length": "stopped at max_tokens", "cancelled": "interrupted", "error": "broken off"}


class NotJson(ValueError):
    """The model's answer is no JSON; it is shown above the error as it came."""

    def _render_traceback_(self) -> list[str]:
        return [f"NotJson: {self}", "Ask for JSON alone, allow more tokens, or try another seed."]


def answers(texts: Sequence[str], form: str) -> Bundle:
    """The answers in their format, numbered where there are several. Any text will do."""
    if len(texts) == 1:
        return _answer(texts[0], form)
    whole = stack(*_numbered([_answer(text, form) for text in texts]))
    # front ends prefer Markdown where both are there
    return {PLAIN: whole[PLAIN]} if form == "text" else whole


class Shown(NamedTuple):
    """All there is to see of a generation that ended: the answers, and what stands under them."""

    body: Bundle
    notes: Bundle
    metadata: dict[str, Any]

    @property
    def bundle(self) -> Bundle:
        """Both together; text alone where the answers are text alone."""
        whole = stack(self.body, self.notes)
        return whole if MARKDOWN in self.body else {PLAIN: whole[PLAIN]}


def notes(answer: Generation, *, timed: bool, ended: str = "") -> Bundle:
    """What stands under an answer: log-probabilities where asked for, and the quiet line.

    Without `timed` nothing in it depends on the speed of the machine. `ended` says why it
    is not whole where the answer itself does not.
    """
    tables = [logprob_table(sample.logprobs) for sample in answer.samples if sample.logprobs]
    if len(tables) > 1:
        tables = _numbered(tables)
    return stack(*tables, quiet_line(answer, timed=timed, ended=ended))


def quiet_line(answer: Generation, *, timed: bool, ended: str = "") -> Bundle:
    """Tokens, speed, and how it ended where it did not end by itself."""
    tokens, timings = answer.usage.completion_tokens, answer.timings
    facts = [_count(tokens, "token")]
    later = tokens - len(answer.samples)  # the first token of each comes out of the prefill
    if timed and timings.decode > 0 and later > 0:
        facts.append(f"{later / timings.decode:.1f} tokens/s")
    if timed and timings.prefill > 0:
        facts.append(f"first after {timings.time_to_first_token:.2f} s")
    reasons = [ended] if ended else [_ENDS.get(each.finish_reason) for each in answer.samples]
    facts += dict.fromkeys(reason for reason in reasons if reason)
    line = " · ".join(facts)
    return {MARKDOWN: f"<small>{escape(line)}</small>", PLAIN: f"({line})"}


def metadata(worker: str, parameters: Mapping[str, Any], answer: Generation) -> dict[str, Any]:
    """What the output's metadata say under "llmkernel": plain values, seconds and tokens."""
    given = {key: list(v) if isinstance(v, tuple) else v for key, v in parameters.items()}
    return {
        "llmkernel": {
            "worker": worker,
            "parameters": given,
            "finish_reasons": [sample.finish_reason for sample in answer.samples],
            "usage": _all_fields(answer.usage),
            "timings": _all_fields(answer.timings),
        }
    }


def logprob_table(tokens: Sequence[TokenLogprob]) -> Bundle:
    """One row for each token: its log-probability and what else was likely."""
    others = any(token.top for token in tokens)
    headings = ("token", "log-probability", "probability", *(["likeliest"] if others else []))
    rows = [_logprob_row(token, others) for token in tokens[:MAX_LOGPROB_ROWS]]
    left = len(tokens) - len(rows)
    if left:
        rows.append([f"… {left} more in .logprobs", *[""] * (len(headings) - 1)])
    return table(headings, rows)


def parse_json(text: str) -> Any:
    """The value of an answer that is JSON, by itself or in one code block.

    Raises NotJson saying where it goes wrong.
    """
    blocks = code_blocks(text)
    source = blocks[0] if len(blocks) == 1 else text
    try:
        return json.loads(source, parse_constant=_no_constant)
    except ValueError as error:
        raise NotJson(f"The answer is no JSON: {error}.") from None


def code_of(text: str) -> str:
    """The code in an answer: its code blocks, or all of it where there are none."""
    blocks = code_blocks(text)
    return "\n".join(blocks).strip("\n") if blocks else text.strip("\n")


def _numbered(bundles: Iterable[Bundle]) -> list[Bundle]:
    numbered = []
    for number, bundle in enumerate(bundles, 1):
        numbered += [{MARKDOWN: f"**{number}**", PLAIN: f"[{number}]"}, bundle]
    return numbered


def _answer(text: str, form: str) -> Bundle:
    if form == "text":
        return {PLAIN: plain(text)}
    if form == "code":
        return {MARKDOWN: fence(plain(code_of(text)), "python"), PLAIN: plain(code_of(text))}
    if form == "json":
        return _json(text)
    return {MARKDOWN: safe(text), PLAIN: plain(text)}


def _json(text: str) -> Bundle:
    try:
        shown = json.dumps(parse_json(text), indent=2, ensure_ascii=False)
    except NotJson:
        shown = text  # still growing, or wrong: whoever asked for JSON raises
    return {MARKDOWN: fence(plain(shown), "json"), PLAIN: plain(shown)}


def _logprob_row(token: TokenLogprob, others: bool) -> list[str]:
    row = [_token(token.text), *_chance(token.logprob)]
    return [*row, _likeliest(token)] if others else row


def _likeliest(token: TokenLogprob) -> str:
    parts = [(_token(top.text), _chance(top.logprob)[1]) for top in token.top]
    return Marked.of(
        ", ".join(f"{text} {chance}" for text, chance in parts),
        ", ".join(f"{text.markdown} {chance}" for text, chance in parts),
    )


def _chance(logprob: float | None) -> tuple[str, str]:
    if logprob is None:
        return "", ""
    return f"{round(logprob, 3) + 0.0:.3f}", f"{math.exp(logprob):.1%}"  # + 0.0: no minus zero


def _token(text: str) -> Marked:
    # as JSON: blanks show, and control characters cannot do anything
    return Marked.code(plain(json.dumps(text, ensure_ascii=False)))


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _all_fields(part: msgspec.Struct) -> dict[str, Any]:
    return {name: getattr(part, name) for name in part.__struct_fields__}


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON value")
