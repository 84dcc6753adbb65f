"""The tokens of an answer, coloured by how likely each was, with what else was likely.

The colour is one hue by its opacity: readable on a light and on a dark page, and in order of
lightness for every eye; the unlikeliest are underlined too. What else was likely shows where
the pointer is, or at the token that the arrow keys have reached: the tokens are one group of
radio buttons, so a page of them is one stop for Tab. Where a front end takes the `<style>` out,
the pointer still finds titles, and a table that unfolds has the same for the keyboard.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections.abc import Sequence

from llmkernel.notebook import hypertext
from llmkernel.notebook.hypertext import element, literal
from llmkernel.notebook.tables import Bundle
from llmkernel.notebook.untrusted import plain
from llmkernel.protocol import TokenLogprob

MAX_TOKENS = 1000
"""Tokens that are coloured; after them the text goes on as it is."""
_MOST_OTHERS = 10
_STEPS = (
    (0.9, "0"),
    (0.5, "0.14"),
    (0.2, "0.28"),
    (0.05, "0.42"),
    (0.01, "0.56"),
    (0.0, "0.7"),
)
"""From this probability on: the opacity of the colour behind a token."""
_UNDERLINED_BELOW = 0.05
_END = "∎"
"""Stands for the model's own sign for the end, such as `<|end|>`, which is named where one points."""
_HUE = "230,97,0"
_TEXT = "line-height:1.9;white-space:pre-wrap;padding-bottom:0.4em"
_ONE = "border-radius:2px;cursor:default;"
_OUT_OF_SIGHT = "position:absolute;opacity:0;width:0;height:0;margin:0"
_ARROW_KEYS = 'data-lm-suppress-shortcuts="true"'
"""JupyterLab leaves the keys to such an element; elsewhere they would go from cell to cell."""
_LEGEND = "font-size:0.85em;opacity:0.85;margin:0.2em 0"
_STYLE = """\
<style>
.llmk-heat{position:relative;padding-bottom:2.6em}
.llmk-heat::after{content:"Point at a token, or go there with Tab and the arrow keys.";
position:absolute;left:0;right:0;bottom:.4em;font-size:.85em;opacity:.7;white-space:nowrap;
overflow:hidden;text-overflow:ellipsis}
.llmk-heat label:hover{outline:2px solid currentColor}
.llmk-heat label:focus-within{outline:3px solid #0072b2}
.llmk-heat label>i{display:none}
.llmk-heat label:focus-within>i,.llmk-heat label:hover>i{display:block!important;position:absolute;
left:0;right:0;bottom:0;padding:.15em .6em;border-radius:4px;background:#1f2328;color:#fff;
font-style:normal;font-size:.9em;line-height:1.9;white-space:normal}
.llmk-heat label:hover>i{z-index:1}
</style>"""


def heat_map(
    tokens: Sequence[TokenLogprob], table: Bundle, text: str | None = None, *, stopped: bool = False
) -> str:
    """The HTML of tokens; `table` is what unfolds under them.

    `text` is the answer: a last token that is no part of it is the model's sign for the end,
    or with `stopped` what a stop text has left out.
    """
    group = _name(tokens)
    texts = [token.text for token in tokens]
    ended = not stopped and _has_end(texts, text)
    if stopped and text is not None:
        texts = _cut(texts, text)
    seen = [_visible(part) for part in texts]
    if ended:
        seen[-1] = _END
    shown = "".join(
        _token(token, group, part) for token, part in zip(tokens[:MAX_TOKENS], seen, strict=False)
    )
    rest = "".join(texts[MAX_TOKENS:])
    colours = element("div", shown + (literal(rest) if rest else ""), style=_TEXT)
    return "\n".join((_STYLE, _area(colours), _legend(), _unfolding(table)))


def _has_end(texts: Sequence[str], text: str | None) -> bool:
    *before, last = texts
    return bool(last) and text is not None and "".join(before) == text


def _cut(texts: Sequence[str], text: str) -> list[str]:
    """What `text` has of them; all of it where they are not what it is made of."""
    if not "".join(texts).startswith(text):
        return list(texts)
    starts = itertools.accumulate(map(len, texts), initial=0)
    return [
        part[: len(text) - start]
        for part, start in zip(texts, starts, strict=False)
        if start < len(text)
    ]


def _area(text: str) -> str:
    return element("div", text, classes="llmk-heat tex2jax_ignore mathjax_ignore")


def _token(token: TokenLogprob, group: str, seen: str) -> str:
    facts = _facts(token)
    style = _ONE + _colour(token.logprob)
    button = f'<input type="radio" name="{group}" {_ARROW_KEYS} style="{_OUT_OF_SIGHT}">'
    more = element("i", hypertext.text(" · ".join(facts)), style="display:none")
    inside = f"{button}{hypertext.text(seen).replace('&#10;', '<br>')}{more}"
    return element("label", inside, style=style, title="\n".join(facts))


def _facts(token: TokenLogprob) -> list[str]:
    """The token with its probability, then the others that were likely."""
    others = [top for top in token.top if top.token_id != token.token_id][:_MOST_OTHERS]
    named = [(token.text, token.logprob), *((other.text, other.logprob) for other in others)]
    return [_named(*each) for each in named]


def _named(text: str, logprob: float | None) -> str:
    name = plain(json.dumps(text, ensure_ascii=False))
    return name if logprob is None else f"{name} {chance(logprob)}"


def chance(logprob: float) -> str:
    """A probability for people."""
    return f"{math.exp(logprob):.1%}"


def _visible(text: str) -> str:
    """A token as it stands in the text; one that would not be seen at all as a sign for it."""
    shown = plain(text)
    if not shown:
        return "∅"
    return shown.replace("\n", "↵\n") if not shown.strip() else shown


def _colour(logprob: float | None) -> str:
    if logprob is None:
        return ""
    likely = math.exp(logprob)
    opacity = next(opacity for least, opacity in _STEPS if likely >= least)
    style = f"background-color:rgba({_HUE},{opacity})" if opacity != "0" else ""
    if likely < _UNDERLINED_BELOW:
        style += ";border-bottom:2px solid rgba(128,128,128,0.9)"
    return style


def _legend() -> str:
    words = ["90% and more", "50%", "20%", "5%", "1%", "less"]
    swatches = []
    for (least, _), word in zip(_STEPS, words, strict=True):
        style = f"padding:0 0.5em;{_colour(math.log(least or 0.001))}"
        swatches.append(element("span", word, style=style))
    return element("div", f"probability: {' '.join(swatches)}", style=_LEGEND)


def _unfolding(table: Bundle) -> str:
    title = element("summary", "Table of the tokens", style="cursor:pointer;font-size:0.85em")
    return element("details", title + hypertext.of(table))


def _name(tokens: Sequence[TokenLogprob]) -> str:
    """A name for the group of these tokens: the same for the same, in any run on any machine."""
    text = json.dumps([token.text for token in tokens])
    return f"llmk-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
