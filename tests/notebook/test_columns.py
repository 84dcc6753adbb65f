"""Answers side by side, and under one another where there are no columns."""

from __future__ import annotations

import pytest

from llmkernel.notebook import hypertext
from llmkernel.notebook.columns import Column, columns
from llmkernel.notebook.markdown import safe
from llmkernel.notebook.tables import HTML, MARKDOWN, PLAIN
from tests.notebook.page import OwnPage
from tests.notebook.test_markdown import ATTACKS


def answer(text):
    return {MARKDOWN: safe(text), PLAIN: text}


def test_each_column_has_its_heading_in_every_form():
    shown = columns([Column("one", answer("**a**")), Column("<two>", answer("b"))])
    assert shown[PLAIN] == "[one]\n\n**a**\n\n[<two>]\n\nb"
    assert shown[MARKDOWN] == "**one**\n\n**a**\n\n**&lt;two&gt;**\n\nb"
    assert "<strong>a</strong>" in shown[HTML]
    assert "&lt;two&gt;" in shown[HTML]
    assert OwnPage(shown[HTML]).dangers == []


def test_columns_wrap_where_there_is_no_room():
    assert "auto-fit" in columns([Column("1", answer("a"))])[HTML]


@pytest.mark.parametrize("attack", [*ATTACKS, "</div></div><script>x</script>"])
def test_an_answer_stays_in_its_column(attack):
    for body in (answer(attack), {PLAIN: attack}):
        page = OwnPage(columns([Column(attack, body)])[HTML])
        assert page.dangers == []


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("$x_1 * y_2 * z$", "<p>$x_1 * y_2 * z$</p>"),
        ("$a < b$", r"<p>$a \lt b$</p>"),
        ("$$\na & b\n$$", "<p>$$a &amp; b$$</p>"),
        ("costs $5 or $6", "<p>costs <span>&#36;</span>5 or <span>&#36;</span>6</p>"),
    ],
)
def test_mathematics_and_money_are_told_apart(text, html):
    shown = hypertext.of(answer(text))
    assert shown.replace("<span>$</span>", "<span>&#36;</span>") == html
