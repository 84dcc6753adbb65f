r"""Mathematics inside Markdown: `$x$`, `$$x$$`, `\(x\)` and `\[x\]` as tokens of their own.

A dollar sign is money far more often than mathematics, so pandoc's rule holds: the opening
one has no blank after it, the closing one has no blank before it and no digit after it.
Notebook front ends take mathematics out before they parse Markdown and put it back into the
finished page, so what is let through here is only what cannot change the text around it:
no backtick, no dollar sign, no unbalanced brace, no command that makes links or styles, that
gives another meaning to commands elsewhere on the page, or that puts signs far from their place.
"""

from __future__ import annotations

import re

from markdown_it import MarkdownIt
from markdown_it.rules_block import StateBlock
from markdown_it.rules_inline import StateInline

_INLINE = re.compile(
    r"\$\$(?P<display>[^$]{1,1000}?)\$\$"
    r"|\$(?!\s)(?P<dollar>(?:[^$\\]|\\[^$]){1,1000}?)(?<!\s)\$(?!\d)"
    r"|\\\[(?P<square>.{1,1000}?)\\\]"
    r"|\\\((?P<round>.{1,1000}?)\\\)",
    re.DOTALL,
)
"""Bounded, because each opener is tried: a text of unclosed ones must not take for ever."""
_MOST_LINES = 60
_BLOCK = {"$$": "$$", "\\[": "\\]"}
_REFUSED = re.compile(
    r"[`$]|@@|\]\s*\(|\\(?:href|url|class|style|cssId|data|require|includegraphics|html|unicode"
    r"|def|gdef|edef|let|(?:re)?new(?!line)|declare|mathtoolsset|csname|mmlToken|bbox"
    r"|raise|lower|m?kern|[hm]skip|moveleft|moveright|(?:math)?[lrc]lap|smash|above|genfrac"
    r"|skew|leftroot|uproot)",
    re.IGNORECASE,
)
_LENGTH = (
    r"(?:-\s*[\d.,]+\s*(?:em|ex|mu|pt|px|pc|in|cm|mm)"
    r"|\d{2,}[\d.,]*\s*(?:em|ex|pc|in|cm)|\d{3,}[\d.,]*\s*(?:mu|pt|px|mm))"
)
_FAR = re.compile(rf"\\(?:[hmv]?space|rule)[^\\]*?{_LENGTH}|\[\s*{_LENGTH}\s*\]", re.IGNORECASE)
"""A length that is negative or longer than a line: typesetters know no limit, and a box may be a
thousand screens high."""


def install(parser: MarkdownIt) -> None:
    """Teach a parser the two kinds of token: `math_inline` and `math_block`."""
    parser.inline.ruler.before("escape", "math_inline", _inline)
    parser.block.ruler.before(
        "fence", "math_block", _block, {"alt": ["paragraph", "blockquote", "list"]}
    )


def source(content: str, *, in_table: bool = False) -> str | None:
    """Mathematics as it may stand between dollar signs; None where it had better be text."""
    content = " ".join(content.split())
    if not content or _REFUSED.search(content) or _FAR.search(content) or not _balanced(content):
        return None
    content = content.replace("<", r"\lt ").replace(">", r"\gt ")
    if in_table:
        content = content.replace(r"\|", r"\Vert ").replace("|", r"\vert ")
    return content


def _balanced(content: str) -> bool:
    depth = 0
    for brace in re.findall(r"(?<!\\)[{}]", content):
        depth += 1 if brace == "{" else -1
        if depth < 0:
            return False
    return depth == 0 and not content.endswith("\\")


def _inline(state: StateInline, silent: bool) -> bool:
    if state.src[state.pos] not in "$\\":
        return False
    match = _INLINE.match(state.src, state.pos, state.posMax)
    if not match or source(match[match.lastgroup or 0]) is None:
        return False
    if not silent:
        token = state.push("math_inline", "", 0)
        token.content = match[match.lastgroup or 0]
        token.markup = "$$" if match.lastgroup in ("display", "square") else "$"
    state.pos = match.end()
    return True


def _block(state: StateBlock, start: int, end: int, silent: bool) -> bool:
    first = state.src[state.bMarks[start] + state.tShift[start] : state.eMarks[start]]
    closing = _BLOCK.get(first[:2])
    if closing is None or state.is_code_block(start):
        return False
    lines, line = [first[2:]], start
    while closing not in lines[-1]:
        line += 1
        if line >= min(end, start + _MOST_LINES) or state.sCount[line] < state.blkIndent:
            return False
        lines.append(state.src[state.bMarks[line] : state.eMarks[line]])
    content, _, after = "\n".join(lines).rpartition(closing)
    if after.strip() or source(content) is None:
        return False
    if not silent:
        token = state.push("math_block", "", 0)
        token.content, token.map = content, [start, line + 1]
        state.line = line + 1
    return True
