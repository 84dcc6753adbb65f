"""What a generation looks like: answers, the quiet line under them, log-probabilities."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

import msgspec

from llmkernel.client.generation import Generation
from llmkernel.notebook import hypertext
from llmkernel.notebook.columns import Column, columns
from llmkernel.notebook.heat_map import chance, heat_map
from llmkernel.notebook.inline import escape
from llmkernel.notebook.markdown import code_blocks, fence, safe
from llmkernel.notebook.tables import HTML, MARKDOWN, PLAIN, Bundle, Marked, stack, table
from llmkernel.notebook.untrusted import plain, whole
from llmkernel.protocol import TokenLogprob
from llmkernel.units import count

MAX_LOGPROB_ROWS = 200
_ENDS = {"length": "stopped at max_tokens", "cancelled": "interrupted", "error": "broken off"}


class NotJson(ValueError):
    """The model's answer is no JSON; it is shown above the error as it came."""

    def _render_traceback_(self) -> list[str]:
        return [f"NotJson: {self}", "Ask for JSON alone, allow more tokens, or try another seed."]


def answers(
    texts: Sequence[str],
    form: str,
    logprobs: Sequence[Sequence[TokenLogprob] | None] = (),
    stopped: Sequence[bool] = (),
) -> Bundle:
    """The answers in their format, side by side where there are several. Any text will do.

    With `logprobs`, one entry for each text, the tokens are shown by their probability;
    `stopped` says of each text whether a stop text ended it.
    """
    tokens = logprobs or [None] * len(texts)
    stops = stopped or [False] * len(texts)
    bodies = [
        _body(text, form, its, stop) for text, its, stop in zip(texts, tokens, stops, strict=True)
    ]
    if len(bodies) == 1:
        return bodies[0]
    return columns(Column(str(number), body) for number, body in enumerate(bodies, 1))


class Shown(NamedTuple):
    """All there is to see of a generation that ended: the answers, and what stands under them."""

    body: Bundle
    notes: Bundle
    metadata: dict[str, Any]

    @property
    def bundle(self) -> Bundle:
        """Both together, in the forms that the answers have."""
        whole = hypertext.stack(self.body, self.notes)
        return {kind: whole[kind] for kind in (HTML, MARKDOWN, PLAIN) if kind in self.body}


def notes(answer: Generation, *, timed: bool, ended: str = "", remark: str = "") -> Bundle:
    """What stands under an answer: log-probabilities where asked for, and the quiet line.

    In HTML the colours of the answer say the former. Without `timed` nothing in it depends on the speed of the machine. `ended` says why it
    is not whole where the answer itself does not.
    """
    tables = [logprob_table(sample.logprobs) for sample in answer.samples if sample.logprobs]
    if len(tables) > 1:
        tables = _numbered(tables)
    line = quiet_line(answer, timed=timed, ended=ended, remark=remark)
    return stack(*tables, line) | {HTML: hypertext.of(line)}


def quiet_line(answer: Generation, *, timed: bool, ended: str = "", remark: str = "") -> Bundle:
    """Tokens, speed, how it ended where it did not end by itself, and a remark."""
    tokens, timings = answer.usage.completion_tokens, answer.timings
    facts = [count(tokens, "token")]
    later = tokens - len(answer.samples)  # the first token of each comes out of the prefill
    if timed and timings.decode > 0 and later > 0:
        facts.append(f"{later / timings.decode:.1f} tokens/s")
    if timed and timings.prefill > 0:
        facts.append(f"first after {timings.time_to_first_token:.2f} s")
    facts += [ended] if ended else _endings(answer.samples)
    facts += [plain(remark)] * bool(remark)
    line = " · ".join(facts)
    return {MARKDOWN: f"<small>{escape(line)}</small>", PLAIN: f"({line})"}


def _endings(samples: Sequence[Generation]) -> list[str]:
    """How answers ended that did not end by themselves, and where only some did so, how many."""
    counts = Counter(_ENDS.get(each.finish_reason, "") for each in samples)
    counts.pop("", None)
    return [
        words if number == len(samples) else f"{number} of {len(samples)} {words}"
        for words, number in counts.items()
    ]


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
    except RecursionError:
        raise NotJson("The answer is no JSON: it is nested too deeply.") from None
    except ValueError as error:
        raise NotJson(f"The answer is no JSON: {error}.") from None


def code_of(text: str) -> str:
    """The code in an answer: its code blocks, or all of it where there are none."""
    blocks = code_blocks(text)
    return "\n".join(blocks).strip("\n") if blocks else text.strip("\n")


def no_code(texts: Iterable[str]) -> bool:
    """Whether answers that were to be code have something in them, and no code block."""
    return any(text.strip() and not code_blocks(text) for text in texts)


def _numbered(bundles: Iterable[Bundle]) -> list[Bundle]:
    numbered = []
    for number, bundle in enumerate(bundles, 1):
        numbered += [{MARKDOWN: f"**{number}**", PLAIN: f"[{number}]"}, bundle]
    return numbered


def _body(text: str, form: str, tokens: Sequence[TokenLogprob] | None, stopped: bool) -> Bundle:
    body = _answer(text, form)
    if not tokens:
        return body
    colours = heat_map(tokens, logprob_table(tokens), text, stopped=stopped)
    # the tokens are the text; code and JSON are made of it, so they stand above
    above = f"{hypertext.of(body)}\n" if form in ("code", "json") else ""
    return body | {HTML: above + colours}


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
    except (NotJson, RecursionError):
        # still growing, or wrong: whoever asked for JSON raises; or too deep to be indented
        shown = text
    shown = plain(whole(shown))  # an escape may be half of a pair, which cannot be sent to a page
    return {MARKDOWN: fence(shown, "json"), PLAIN: shown}


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
    return f"{round(logprob, 3) + 0.0:.3f}", chance(logprob)  # + 0.0: no minus zero


def _token(text: str) -> Marked:
    # as JSON: blanks show, and control characters cannot do anything
    return Marked.code(plain(json.dumps(text, ensure_ascii=False)))


def _all_fields(part: msgspec.Struct) -> dict[str, Any]:
    return {name: getattr(part, name) for name in part.__struct_fields__}


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON value")
