"""What a generation looks like once its text is there."""

from __future__ import annotations

import pytest

from llmkernel.client.generation import Generation, generation
from llmkernel.notebook.rendering import (
    NotJson,
    Shown,
    answers,
    code_of,
    logprob_table,
    metadata,
    notes,
    parse_json,
    quiet_line,
)
from llmkernel.notebook.tables import HTML, MARKDOWN, PLAIN
from llmkernel.protocol import Output, Timings, TokenLogprob, TopToken, Usage
from tests.notebook.page import as_commonmark

USAGE = Usage(prompt_tokens=12, cached_tokens=8, completion_tokens=20)
TIMINGS = Timings(queue=0.01, prefill=0.09, decode=0.5, first_step=3, last_step=9)


def answer(*outputs: Output, timings: Timings = TIMINGS) -> Generation:
    return generation(outputs or [Output(text="x")], USAGE, timings)


def test_markdown_comes_with_its_text():
    shown = answers(["**hi** <b>\x1b[31m"], "markdown")
    assert shown == {MARKDOWN: "**hi** &lt;b&gt;", PLAIN: "**hi** <b>"}


def test_text_is_not_taken_for_markdown():
    assert answers(["**hi**"], "text") == {PLAIN: "**hi**"}
    several = answers(["**a**", "b"], "text")
    assert several[PLAIN] == "[1]\n\n**a**\n\n[2]\n\nb"
    assert "**a**" in several[HTML]
    assert MARKDOWN not in several  # which front ends would prefer to text


def test_several_answers_are_numbered():
    shown = answers(["one", "two"], "markdown")
    assert shown[MARKDOWN] == "**1**\n\none\n\n**2**\n\ntwo"
    assert shown[PLAIN] == "[1]\n\none\n\n[2]\n\ntwo"


def test_code_is_taken_out_of_its_fence():
    text = "Sure:\n\n```python\nprint(1)\n```\n\nand\n\n```\nprint(2)\n```\nDone."
    assert code_of(text) == "print(1)\n\nprint(2)"
    assert code_of("print(3)\n") == "print(3)"
    assert answers([text], "code")[MARKDOWN] == "```python\nprint(1)\n\nprint(2)\n```"


def test_json_is_checked_and_indented():
    assert answers(['{"a":[1,"é"]}'], "json")[PLAIN] == '{\n  "a": [\n    1,\n    "é"\n  ]\n}'
    assert parse_json('```json\n{"a": 1}\n```') == {"a": 1}
    assert parse_json(" [1] \n") == [1]


@pytest.mark.parametrize("text", ["", "no", '{"a": 1', "{'a': 1}", "NaN", '{"a": 1} trailing'])
def test_what_is_no_json_is_shown_as_it_came_and_refused(text):
    assert answers([text], "json")[PLAIN] == text
    with pytest.raises(NotJson, match="no JSON"):
        parse_json(text)


@pytest.mark.parametrize("text", ["[" * 5000, "[" * 5000 + "]" * 5000, '{"a":' * 5000])
def test_json_without_end_is_no_json(text):
    assert answers([text], "json")[PLAIN] == text
    with pytest.raises(NotJson, match="nested too deeply"):
        parse_json(text)


def test_half_of_a_pair_in_json_can_be_sent_to_a_page():
    shown = answers([r'["\ud800", "\ud83d\ude00"]'], "json")
    assert "\U0001f600" in shown[PLAIN].encode().decode()
    assert shown[MARKDOWN].encode()


def test_the_quiet_line_has_tokens_and_speed():
    line = quiet_line(answer(), timed=True)
    assert line[MARKDOWN] == "<small>20 tokens · 38.0 tokens/s · first after 0.10 s</small>"
    assert line[PLAIN] == "(20 tokens · 38.0 tokens/s · first after 0.10 s)"


def test_an_output_that_is_compared_has_no_times_in_it():
    one = quiet_line(answer(), timed=False)
    other = quiet_line(answer(timings=Timings(decode=9.0)), timed=False)
    assert one == other == {MARKDOWN: "<small>20 tokens</small>", PLAIN: "(20 tokens)"}


@pytest.mark.parametrize(
    ("reason", "words"),
    [("length", "stopped at max_tokens"), ("cancelled", "interrupted"), ("error", "broken off")],
)
def test_the_quiet_line_says_when_an_answer_did_not_end_by_itself(reason, words):
    line = quiet_line(answer(Output(finish_reason=reason)), timed=False)
    assert line[PLAIN] == f"(20 tokens · {words})"


def test_the_quiet_line_says_how_many_of_several_answers_did_not_end_by_themselves():
    reasons = ("stop", "length", "length")
    outputs = [Output(index=n, finish_reason=reason) for n, reason in enumerate(reasons)]
    some = quiet_line(answer(*outputs), timed=False)
    assert some[PLAIN] == "(20 tokens · 2 of 3 stopped at max_tokens)"
    both = quiet_line(answer(*outputs[1:]), timed=False)
    assert both[PLAIN] == "(20 tokens · stopped at max_tokens)"


def test_the_metadata_have_the_whole_statistics():
    facts = metadata("demo", {"stop": ("a",), "n": 1}, answer())["llmkernel"]
    assert facts["worker"] == "demo"
    assert facts["parameters"] == {"stop": ["a"], "n": 1}
    assert facts["finish_reasons"] == ["stop"]
    assert facts["usage"] == {"prompt_tokens": 12, "cached_tokens": 8, "completion_tokens": 20}
    seconds = {"queue": 0.01, "prefill": 0.09, "decode": 0.5}
    assert facts["timings"] == seconds | {"first_step": 3, "last_step": 9}


def test_log_probabilities_are_a_table():
    tokens = [
        TokenLogprob(
            token_id=1,
            text="a|b",
            logprob=-0.5,
            top=[TopToken(token_id=2, text=" <x>", logprob=-1.0)],
        ),
        TokenLogprob(token_id=3, text="\n", logprob=-2.0),
    ]
    shown = logprob_table(tokens)
    page = as_commonmark(shown[MARKDOWN])
    assert page.dangers == []
    assert '"a|b"-0.50060.7%"<x>"36.8%' in page.text
    assert r'"\n"' in shown[PLAIN]
    assert [line.split()[0] for line in shown[PLAIN].splitlines()] == ["token", '"a|b"', r'"\n"']


def test_with_log_probabilities_the_tokens_are_coloured_and_their_table_unfolds():
    tokens = [TokenLogprob(token_id=1, text="*a*", logprob=-0.1)]
    both = answers(["*a*"], "markdown", [tokens])
    assert both[MARKDOWN] == "*a*"
    assert "<em>" not in both[HTML]  # the tokens stand in for the answer
    assert "Table of the tokens" in both[HTML]
    shown = Shown(both, notes(answer(Output(text="*a*", logprobs=tokens)), timed=False), {}).bundle
    assert shown[HTML].count("-0.100") == 1
    assert "-0.100" in shown[MARKDOWN]
    assert "-0.100" in shown[PLAIN]


def test_code_and_json_stand_above_their_tokens():
    tokens = [TokenLogprob(token_id=1, text="[1]", logprob=-0.1)]
    shown = answers(["[1]"], "json", [tokens])[HTML]
    assert shown.index("language-json") < shown.index("llmk-heat")


def test_a_long_table_says_how_much_it_left_out():
    tokens = [TokenLogprob(token_id=1, text="a", logprob=-1.0)] * 250
    assert "… 50 more in .logprobs" in logprob_table(tokens)[PLAIN]


def test_the_tables_of_several_answers_are_numbered_too():
    token = TokenLogprob(token_id=1, text="a", logprob=-1e-9)
    both = answer(*(Output(index=i, text="a", logprobs=[token]) for i in range(2)))
    under = notes(both, timed=False)[PLAIN]
    assert under.startswith("[1]\n\ntoken")
    assert "[2]\n\ntoken" in under
    assert "-0.000" not in under


def test_what_stands_under_text_is_text():
    shown = Shown(answers(["x"], "text"), notes(answer(), timed=False), {})
    assert shown.bundle == {PLAIN: "x\n\n(20 tokens)"}
