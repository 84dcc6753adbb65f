"""Stop texts: found wherever the text is cut, never shown, nothing else lost."""

from __future__ import annotations

import random

import pytest
import small_tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from llmkernel.worker.text import Piece, StopSearch, TextStream
from llmkernel.worker.tokenizer import HubTokenizer

CASES = 5_000


def naive(text: str, stops: list[str]) -> tuple[str, str | None]:
    """Read one character at a time; the longest stop that ends here wins."""
    for end in range(1, len(text) + 1):
        ending = [stop for stop in stops if text[:end].endswith(stop)]
        if ending:
            stop = max(ending, key=len)
            return text[: end - len(stop)], stop
    return text, None


def cut(text: str, choice: random.Random) -> list[str]:
    parts = []
    while text:
        size = choice.randrange(1, 6)
        parts.append(text[:size])
        text = text[size:]
    return parts


def search(parts: list[str], stops: list[str]) -> tuple[str, str | None]:
    """Run the search and check after each part that no more is held back than need be."""
    finder, shown, read = StopSearch(stops), "", ""
    for part in parts:
        read += part
        text, stop = finder.push(part)
        shown += text
        if stop is not None:
            return shown, stop
        assert read == shown + needed(read, stops)
    return shown + finder.flush(), None


def needed(read: str, stops: list[str]) -> str:
    """The longest end of `read` with which a stop begins."""
    for size in range(min(len(read), max(map(len, stops)) - 1), 0, -1):
        if any(stop.startswith(read[-size:]) and len(stop) > size for stop in stops):
            return read[-size:]
    return ""


def test_random_stops_in_random_text_cut_at_random() -> None:
    choice = random.Random(0)
    found = 0
    for _ in range(CASES):
        letters = choice.choice(["ab", "abc", "aé😀", "a\n "])
        text = "".join(choice.choices(letters, k=choice.randrange(60)))
        stops = [
            "".join(choice.choices(letters, k=choice.randrange(1, 8)))
            for _ in range(choice.randrange(1, 5))
        ]
        expected = naive(text, stops)
        assert search(cut(text, choice), stops) == expected, (text, stops)
        found += expected[1] is not None
    assert CASES // 5 < found < CASES


@settings(max_examples=300, deadline=None)
@given(
    parts=st.lists(st.text("abx", max_size=6), max_size=12),
    stops=st.lists(st.text("abx", min_size=1, max_size=9), min_size=1, max_size=6),
)
def test_the_result_does_not_depend_on_the_cuts(parts: list[str], stops: list[str]) -> None:
    text = "".join(parts)
    assert search(parts, stops) == naive(text, stops) == search([text] if text else [], stops)


@pytest.mark.parametrize(
    ("parts", "stops", "text", "stop"),
    [
        (["Hello\n", "\nUser:"], ["\n\nUser:"], "Hello", "\n\nUser:"),
        (["abcd"], ["abcd", "bc"], "a", "bc"),
        (["xabc"], ["bc", "abc", "c"], "x", "abc"),
        (["ab"], ["ab", "abc"], "", "ab"),
        (["aab"], ["ab"], "a", "ab"),
        (["a", "a", "a", "b"], ["aab"], "a", "aab"),
        (["stop", "p"], ["stopped"], "stopp", None),
        (["é"], ["e"], "é", None),
    ],
)
def test_which_stop_wins(parts: list[str], stops: list[str], text: str, stop: str | None) -> None:
    assert search(parts, stops) == (text, stop)


def test_without_stops_everything_passes_at_once() -> None:
    finder = StopSearch([])
    assert finder.push("any") == ("any", None)
    assert finder.flush() == ""


def test_a_long_stop_in_a_long_monotone_text_is_no_slow_case() -> None:
    finder, shown = StopSearch(["a" * 1023 + "b"] * 16), ""
    for _ in range(5_000):
        shown += finder.push("a")[0]
    assert len(shown) == 5_000 - 1023
    assert finder.push("b") == ("", "a" * 1023 + "b")


def hub() -> HubTokenizer:
    return HubTokenizer(small_tokenizers.fast(chat_template=None))


def test_a_stop_inside_a_run_of_tokens_leaves_the_rest_unused() -> None:
    tokenizer = hub()
    ids = tokenizer.encode("The quick brown fox jumps")
    stream = TextStream(tokenizer, ["brown"])
    piece = stream.push(ids)
    assert (piece.text, piece.stop) == ("The quick ", "brown")
    assert tokenizer.decode(ids[: piece.used]).startswith("The quick brown")
    assert "brown" not in tokenizer.decode(ids[: piece.used - 1])
    assert stream.push(ids) == Piece("", "brown", 0)
    assert stream.flush() == Piece("", "brown", 0)


def test_a_stop_that_ends_inside_a_token_cuts_the_token() -> None:
    tokenizer = hub()
    whole = tokenizer.encode(" quick")
    assert len(whole) < len(" quick")
    stream = TextStream(tokenizer, ["qu"])
    assert stream.push(whole).text + stream.flush().text == " "
    assert stream.stop == "qu"


def test_a_stop_may_be_a_character_of_several_tokens() -> None:
    tokenizer = hub()
    ids = tokenizer.encode("fine 🦊 fine")
    stream = TextStream(tokenizer, ["🦊"])
    pieces = [stream.push([token]) for token in ids]
    assert "".join(piece.text for piece in pieces) == "fine "
    assert stream.stop == "🦊"


def test_what_was_held_comes_with_the_flush() -> None:
    tokenizer = hub()
    stream = TextStream(tokenizer, ["END of text"])
    first = stream.push(tokenizer.encode("the END of"))
    assert first.text == "the "
    assert stream.flush() == Piece("END of", None, 0)


def test_a_stop_may_complete_in_the_flush() -> None:
    tokenizer = hub()
    half = tokenizer.encode("a🦊")[:-1]
    stream = TextStream(tokenizer, ["\ufffd"])
    assert stream.push(half).text == "a"
    assert stream.flush() == Piece("", "\ufffd", 0)


def test_without_stops_a_run_of_tokens_is_decoded_in_one_go() -> None:
    tokenizer = hub()
    ids = tokenizer.encode("The quick brown fox")
    assert TextStream(tokenizer).push(ids) == Piece("The quick brown fox", None, len(ids))
