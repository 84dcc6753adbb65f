"""Tokens by their probability: colours, what else was likely, and no more than that."""

from __future__ import annotations

import itertools
import math
import re

import pytest

from llmkernel.notebook.heat_map import MAX_TOKENS, heat_map
from llmkernel.notebook.rendering import logprob_table
from llmkernel.protocol import TokenLogprob, TopToken
from tests.notebook.page import OwnPage
from tests.notebook.test_markdown import ATTACKS


def token(text, likely=0.5, *others):
    top = [TopToken(token_id=2 + n, text=t, logprob=math.log(p)) for n, (t, p) in enumerate(others)]
    return TokenLogprob(token_id=1, text=text, logprob=math.log(likely), top=top)


def shown(*tokens):
    return heat_map(tokens, logprob_table(tokens))


def luminance(background, opacity):
    """The relative luminance of the colour on a page, as WCAG defines it."""
    parts = [(o * opacity + background * (1 - opacity)) / 255 for o in (230, 97, 0)]
    linear = [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def opacities(html):
    return [float(found) for found in re.findall(r"rgba\(230,97,0,([\d.]+)\)", html)]


def test_the_less_likely_a_token_the_stronger_its_colour():
    html = shown(*[token("x", likely) for likely in (0.95, 0.7, 0.3, 0.1, 0.02, 0.001)])
    found = opacities(html.split("probability:")[0])
    assert len(found) == 5  # the likeliest has none
    assert found == sorted(found)
    assert len(set(found)) == 5


def test_the_colours_differ_in_lightness_and_leave_text_readable():
    used = [
        0.0,
        *opacities(shown(*[token("x", likely) for likely in (0.7, 0.3, 0.1, 0.02, 0.001)])),
    ]
    for page, ink in ((255, 0x21), (17, 255)):
        lights = [luminance(page, opacity) for opacity in sorted(set(used))]
        steps = [abs(after - before) for before, after in itertools.pairwise(lights)]
        assert min(steps) > 0.004
        text = luminance(ink, 0)
        for light in lights:
            high, low = max(light, text), min(light, text)
            assert (high + 0.05) / (low + 0.05) > 4.5


def test_what_else_was_likely_is_in_the_title_and_at_the_button():
    html = shown(token(" cat", 0.5, (" cat", 0.5), ("dog", 0.25)))
    page = OwnPage(html)
    assert page.titles == ['" cat" 50.0%\n" cat" 50.0%\n"dog" 25.0%']
    assert html.count('type="radio"') == 1
    assert "50.0% · " in html


def test_the_token_itself_is_not_its_own_alternative():
    one = TokenLogprob(
        token_id=7, text="a", logprob=-1.0, top=[TopToken(token_id=7, text="a", logprob=-1.0)]
    )
    assert OwnPage(shown(one)).titles == ['"a" 36.8%']


def test_the_buttons_of_one_answer_are_one_group_and_those_of_another_are_not():
    def names(html):
        return set(re.findall(r'name="([^"]+)"', html))

    one, other = names(shown(token("a"), token("b"))), names(shown(token("c")))
    assert len(one) == len(other) == 1
    assert one != other
    assert one == names(shown(token("a"), token("b")))


def test_lines_stay_lines_and_what_is_not_seen_gets_a_sign():
    html = shown(token("a\n"), token("\n"), token("\x1b"), token("b"))
    text = html.split("probability:")[0]
    assert text.count("<br>") == 2
    assert "↵<br>" in text
    assert "∅" in text


def test_the_end_is_a_sign_and_its_name_is_where_one_points():
    tokens = [token("12"), token("<|end|>", 0.9)]
    ended = heat_map(tokens, logprob_table(tokens), "12")
    text = ended.split("probability:")[0]
    assert ">∎<" in text
    assert ">&lt;|end|&gt;<" not in text
    assert '"<|end|>" 90.0%' in OwnPage(ended).titles
    shown_whole = heat_map(tokens, logprob_table(tokens), "12<|end|>")  # --no-skip-special-tokens
    assert ">&lt;|end|&gt;<" in shown_whole
    assert "∎" not in shown_whole


@pytest.mark.parametrize(
    ("parts", "said", "last"),
    [
        (("12", " am", " so"), "12 ", '" am" 50.0%'),  # a stop text within a token
        (("12", "."), "12", '"12" 50.0%'),  # one that is a token: no sign of the model's
        (("12", "."), "", None),
    ],
)
def test_a_stop_text_and_what_is_after_it_is_left_out(parts, said, last):
    tokens = [token(part) for part in parts]
    html = heat_map(tokens, logprob_table(tokens), said, stopped=True)
    page = OwnPage(html.split("probability:")[0])
    assert "∎" not in html
    assert page.titles[-1:] == ([last] if last else [])
    assert "".join(re.findall(r"<input[^>]*>([^<]*)<", html)) == said


def test_of_a_long_answer_the_rest_is_plain_text():
    html = shown(*[token("x")] * MAX_TOKENS, token("the rest"))
    assert html.count('type="radio"') == MAX_TOKENS
    assert ">the rest</span>" in html


@pytest.mark.parametrize("attack", [*ATTACKS, '"><script>x</script>', "'\" onmouseover=x ", "$x$"])
def test_nothing_in_a_token_is_more_than_text(attack):
    page = OwnPage(shown(token(attack, 0.5, (attack, 0.2))))
    assert page.dangers == []
    assert page.links == []
