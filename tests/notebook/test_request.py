"""Options of a cell over the defaults of the notebook."""

from __future__ import annotations

import pytest

from llmkernel.errors import InvalidRequest
from llmkernel.notebook.request import read


def cell(line, body="Hi\n", **defaults):
    return read("%%generate", line, body, defaults, {"limit": 7})


def test_an_option_goes_before_a_default():
    request = cell("-n 5", max_tokens=3, temperature=0.5)
    assert (request.params.max_tokens, request.params.temperature) == (5, 0.5)
    assert request.given == {"max_tokens": 5, "temperature": 0.5}


def test_a_default_that_contradicts_steps_back():
    assert "system" not in cell("--raw", system="be brief").options
    assert "raw" not in cell("--system brief", raw=True).options
    assert cell("--no-raw", raw=True).options["raw"] is False


def test_a_prompt_is_a_turn_after_the_system_text():
    request = cell("--system brief")
    assert request.prompt("Hi", chat=True) == [
        {"role": "system", "content": "brief"},
        {"role": "user", "content": "Hi"},
    ]
    assert request.prompt("Hi", chat=False) == "Hi"


def test_one_newline_at_the_end_is_the_cells_and_not_the_prompts():
    assert cell("", "one\n\ntwo\n\n").text == "one\n\ntwo\n"


def test_the_prompt_of_a_line_is_the_rest_of_it():
    assert read("%generate", "-n 3 What's up?", None, {}, {}).text == "What's up?"


def test_braces_are_sent_as_they_are_where_asked_for():
    names = {"x": 1}
    assert cell("", "{{ x }}\n").filled(names) == "1"
    assert cell("--literal", "{{ x }}\n").filled(names) == "{{ x }}"


@pytest.mark.parametrize(
    ("line", "body", "named"),
    [
        ("", "\n", "empty"),
        ("", " \t\n", "empty"),
        ("Tell me", "Hi\n", "lines below"),
        ("--raw --system brief", "Hi\n", "--system"),
        ("--quiet", "Hi\n", "-o VAR"),
        ("--for x in xs --background", "Hi\n", "--background"),
        ("--format code --samples 2", "Hi\n", "one answer"),
        ("--format code --for x in xs", "Hi\n", "one answer"),
        ("--for x in xs --logprobs", "Hi\n", "-o VAR"),
        ("--samples 2 -t 0", "Hi\n", "temperature above 0"),
        ("-t 200", "Hi\n", "from 0 to 100"),
        ("--top-p 0", "Hi\n", "above 0 to 1"),
        ("--logit-bias x", "Hi\n", "ID=BIAS"),
    ],
)
def test_what_does_not_go_together_is_refused(line, body, named):
    with pytest.raises(InvalidRequest) as refused:
        cell(line, body)
    assert named in str(refused.value)
