"""Text of a model as plain text."""

from __future__ import annotations

import pytest

from llmkernel.notebook.untrusted import destination, plain, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07x", "x"),
        ("\x1b]8;;http://a\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1bPq#0\x1b\\x", "x"),
        ("a\x00b\x08c\x7fd\x9be", "abcde"),
        ("one\r\ntwo\rthree", "one\ntwo\nthree"),
        ("evil\u202etxt.exe", "eviltxt.exe"),
        ("tab\tand\nline", "tab\tand\nline"),
        (
            "\u05e9\u05dc\u05d5\u05dd \U0001f600 e\u0301",
            "\u05e9\u05dc\u05d5\u05dd \U0001f600 e\u0301",
        ),
    ],
)
def test_what_a_terminal_would_obey_is_gone(text, shown):
    assert plain(text) == shown


def test_pieces_of_a_sequence_are_harmless_one_by_one():
    assert "".join(printable(piece) for piece in ("a\x1b", "[31mb")) == "a[31mb"


@pytest.mark.parametrize(
    "href",
    ["javascript:x", "data:x", "/lab", "x.html", "//a/b", "file:///x", "http:x", "", "ftp://a"],
)
def test_a_link_leads_nowhere_but_to_the_web(href):
    assert destination(href) is None


@pytest.mark.parametrize(
    ("href", "clean"),
    [
        ("https://a.example/x?y=1&z=2#f", "https://a.example/x?y=1&amp;z=2#f"),
        ("http://a/%zz%20", "http://a/%25zz%20"),
        ("mailto:me@a.example", "mailto:me@a.example"),
        ('http://a/"$\\`(){}<>', "http://a/%22%24%5C%60%28%29%7B%7D%3C%3E"),
    ],
)
def test_an_address_is_written_so_that_no_parser_finds_more_in_it(href, clean):
    assert destination(href) == clean
