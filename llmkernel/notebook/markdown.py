"""Markdown of a model, made safe: parsed, and printed again in a form that leaves no choice.

A notebook runs what Markdown output holds: raw HTML, scripts, links to `javascript:`. To
patch the source would mean to agree with every front end's parser about what is code and what
is not. So the text is parsed once, here, and its tree is printed in the plainest Markdown
there is: all text escaped, only destinations of known schemes, pictures as links, fences
longer than what is in them. A text that is still growing comes out well-formed too.

`safe` is for the body of an answer; `plain` in `untrusted` for its text form.
"""

from __future__ import annotations

import functools
import re

from markdown_it import MarkdownIt
from markdown_it.token import Token
from markdown_it.tree import SyntaxTreeNode

from llmkernel.notebook import inline, mathematics
from llmkernel.notebook.untrusted import plain

_MAX_NESTING = 40
_MOST_OPEN, _OPEN_IN_TEXT = 1000, 10
"""Brackets that are open at once, in all paragraphs that have more than text ever has."""
_BRACKET = re.compile(r"[\[\]]")
_LANGUAGE = re.compile(r"[a-zA-Z0-9][\w+#.-]{0,39}", re.ASCII)
_TASK = re.compile(r"\[[ xX]\] ")
_SIMPLE = {"paragraph", "bullet_list", "ordered_list"}


def safe(text: str) -> str:
    """Markdown that shows `text`, or what there is of it so far, and does nothing else."""
    text = plain(text)
    blocks = _block_parser().parse(text)
    if sum(_unclosed(token.content) for token in blocks if token.type == "inline") > _MOST_OPEN:
        return fence(text)  # for each of them the parser looks for its end, and for each inside
    tokens = _parser().parse(text)
    if any(_depth(token) >= _MAX_NESTING - 1 for token in tokens):
        return fence(text)  # beyond its limit the parser leaves text out, and trees recurse
    return _blocks(SyntaxTreeNode(tokens).children)


def fence(content: str, info: str = "") -> str:
    """A code block that nothing inside can close. `info` is the language, if it is a name."""
    longest = max(map(len, re.findall("`+", content)), default=0)
    ticks = "`" * max(3, longest + 1)
    language = _LANGUAGE.match(info.strip())
    body = content if content.endswith("\n") or not content else content + "\n"
    return f"{ticks}{language[0] if language else ''}\n{body}{ticks}"


def code_blocks(text: str) -> list[str]:
    """The contents of the fenced code blocks of `text`, in order."""
    return [token.content for token in _block_parser().parse(text) if token.type == "fence"]


@functools.cache
def _parser() -> MarkdownIt:
    return _make_parser()


def _make_parser() -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"html": False, "maxNesting": _MAX_NESTING})
    parser.enable(["table", "strikethrough"])
    mathematics.install(parser)
    return parser


@functools.cache
def _block_parser() -> MarkdownIt:
    """The same, without what is inside paragraphs, which takes nearly all of the time."""
    return _make_parser().disable("inline")


def _unclosed(content: str) -> int:
    """How many brackets are open at once, where that is more than text ever has."""
    most = depth = 0
    for bracket in _BRACKET.findall(content):
        depth = depth + 1 if bracket == "[" else max(0, depth - 1)
        most = max(most, depth)
    return most if most > _OPEN_IN_TEXT else 0


def _depth(token: Token) -> int:
    """How deep a token lies, or what is in it: emphasis nests without the parser's limit."""
    return max([token.level, *(child.level for child in token.children or ())])


def _blocks(nodes: list[SyntaxTreeNode], *, quoted: bool = False, tight: bool = False) -> str:
    printed = [_block(node, quoted) for node in nodes]
    return ("\n" if tight else "\n\n").join(text for text in printed if text)


def _block(node: SyntaxTreeNode, quoted: bool) -> str:
    match node.type:
        case "paragraph":
            return _inline(node)
        case "heading":
            return f"{'#' * int(node.tag[1:])} {_inline(node, one_line=True)}".rstrip()
        case "fence" | "code_block":
            return _code(node, quoted)
        case "math_block":
            return f"$$\n{mathematics.source(node.content)}\n$$"
        case "blockquote":
            return _indent(_blocks(node.children, quoted=True) or " ", "> ", "> ")
        case "bullet_list" | "ordered_list":
            return _list(node, quoted)
        case "table":
            return _table(node)
        case "hr":
            return "---"
        case _:
            return inline.escape(node.content)


def _inline(node: SyntaxTreeNode, *, one_line: bool = False) -> str:
    tokens = [child.token for child in node.children if child.token]
    return "\n".join(inline.render(token.children or [], one_line=one_line) for token in tokens)


def _code(node: SyntaxTreeNode, quoted: bool) -> str:
    if quoted:
        # Without a truly blank line around it, a dollar sign in a fence could pair with one
        # outside and take the end of the fence with it.
        return f"<pre><code>{inline.entities(node.content)}</code></pre>"
    return fence(node.content, node.info)


def _list(node: SyntaxTreeNode, quoted: bool) -> str:
    tight = all(_is_tight(item) for item in node.children)
    number = int(node.attrs.get("start", 1))
    items = []
    for item in node.children:
        marker = f"{number}{node.markup}" if node.type == "ordered_list" else node.markup
        text = _take_task(item) + _blocks(item.children, quoted=quoted, tight=tight)
        items.append(_indent(text, f"{marker} ", " " * (len(marker) + 1)).rstrip(" "))
        number += 1
    return ("\n" if tight else "\n\n").join(items)


def _is_tight(item: SyntaxTreeNode) -> bool:
    """Whether an item is free of blank lines and of everything that needs them around it."""
    for child in item.children:
        if child.type not in _SIMPLE or (child.type == "paragraph" and not child.hidden):
            return False
        if child.type != "paragraph" and not all(_is_tight(inner) for inner in child.children):
            return False
    return [child.type for child in item.children].count("paragraph") <= 1


def _take_task(item: SyntaxTreeNode) -> str:
    """The box of a task at the beginning of an item, cut out of its text; "" where none is."""
    first = item.children[0] if item.children else None
    inside = first.children[0].token if first and first.type == "paragraph" else None
    tokens = inside.children if inside else None
    box = _TASK.match(tokens[0].content) if tokens and tokens[0].type == "text" else None
    if not tokens or not box:
        return ""
    tokens[0].content = tokens[0].content[box.end() :]
    return box[0]


def _table(node: SyntaxTreeNode) -> str:
    head, *body = (row for part in node.children for row in part.children)
    rule = [_alignment(cell) for cell in head.children]
    rows = [[_inline(cell, one_line=True) for cell in row.children] for row in (head, *body)]
    rows.insert(1, rule)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)


def _alignment(cell: SyntaxTreeNode) -> str:
    style = str(cell.attrs.get("style", ""))
    left, right = "left" in style or "center" in style, "right" in style or "center" in style
    return f"{':' if left else '-'}--{':' if right else '-'}"


def _indent(text: str, first: str, rest: str) -> str:
    lines = text.split("\n")
    return "\n".join(
        [first + lines[0], *((rest + line if line else rest.rstrip(" ")) for line in lines[1:])]
    )
