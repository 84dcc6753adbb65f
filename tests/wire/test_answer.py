"""One answer, one window of credit, without a socket or an engine."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmkernel.params import SamplingParams
from llmkernel.worker.answer import Answer
from llmkernel.worker.scripted import EOS, ByteTokenizer
from llmkernel.worker.sequence import Candidate, EndEvent, Request, Sampled, TokenEvent
from llmkernel.worker.stream import Window

pytestmark = pytest.mark.timeout(30)


def request_of(params):
    return Request(key=1, client="c", prompt=(97,), params=params, max_tokens=100)


def feed(chunks, reason="length", *, eager=True, **params):
    """An answer that got `chunks` of ids, a look after each, and then its end."""
    params = SamplingParams(**params)
    request = request_of(params)
    answer = Answer(0, params, ByteTokenizer(), eager=eager)
    added = []
    for chunk in chunks:
        for token in chunk:
            answer.take(TokenEvent(request, 0, Sampled(token, -0.5, (Candidate(token, -0.5),))))
        added.append(answer.advance())
    if not answer.over:
        answer.take(EndEvent(request, 0, reason))
        added.append(answer.advance())
    return answer, added


def shown(added):
    return "".join(new.text for new in added)


texts = st.text(st.sampled_from("abé€🙂 "), max_size=30)


@settings(max_examples=300, deadline=None)
@given(text=texts, cuts=st.lists(st.integers(1, 4), min_size=1), eager=st.booleans())
def test_however_tokens_come_the_text_is_the_same(text, cuts, eager):
    ids = iter(text.encode())
    chunks = [list(itertools.islice(ids, size)) for size in cuts] + [list(ids)]
    answer, added = feed(chunks, eager=eager)
    assert shown(added) == text
    assert answer.output(content=True).text == text
    assert answer.output(content=True).token_ids == list(text.encode())


@settings(max_examples=300, deadline=None)
@given(text=texts, stop=st.text(st.sampled_from("abé "), min_size=1, max_size=3), one=st.booleans())
def test_a_stop_text_is_never_shown_and_nothing_before_it_is_lost(text, stop, one):
    ids = list(text.encode())
    chunks = [[token] for token in ids] if one else [ids]
    answer, added = feed(chunks, stop=[stop])
    expected = text.partition(stop)[0]
    assert shown(added) == expected
    output = answer.output(content=True)
    assert (output.finish_reason, output.stop_reason) == (
        ("stop", stop) if stop in text else ("length", None)
    )
    kept = expected + stop if stop in text else text
    assert output.token_ids == list(kept.encode())


def test_the_token_that_ended_it_is_in_the_ids_and_not_in_the_text():
    answer, added = feed([[*b"hi", EOS]], "stop", skip_special_tokens=False)
    # the end came after its token was looked at: nothing can be taken back
    assert shown(added) == "hi<eos>"
    params = SamplingParams(skip_special_tokens=False)
    answer = Answer(0, params, ByteTokenizer(), eager=True)
    request = request_of(params)
    for token in (*b"hi", EOS):
        answer.take(TokenEvent(request, 0, Sampled(token)))
    answer.take(EndEvent(request, 0, "stop"))
    assert answer.advance().text == "hi"
    assert answer.output(content=True).token_ids == [*b"hi", EOS]


def test_tokens_after_the_end_are_ignored():
    answer, _ = feed([b"ab.cd"], stop=["."])
    answer.take(TokenEvent(request_of(SamplingParams()), 0, Sampled(120)))
    assert answer.advance().token_ids == []
    assert answer.output(content=True).token_ids == list(b"ab.")


def test_a_cancelled_answer_stays_cancelled_though_its_rest_holds_a_stop():
    answer, added = feed([b"ab."], "cancelled", eager=False, stop=["."])
    assert answer.finish_reason == "cancelled"
    assert shown(added) == "ab"


def test_log_probabilities_are_summed_and_shown_where_asked_for():
    answer, added = feed([b"ab", b"c"], logprobs=1)
    assert answer.mean_logprob == pytest.approx(-0.5)
    entries = answer.output(content=True).logprobs
    assert [(entry.text, entry.logprob) for entry in entries] == [
        ("a", -0.5),
        ("b", -0.5),
        ("c", -0.5),
    ]
    assert entries[0].top[0].text == "a"
    assert sum(len(new.logprobs or ()) for new in added) == 3
    silent, _ = feed([b"ab"], best_of=2, temperature=1.0)
    assert silent.output(content=True).logprobs is None
    assert silent.mean_logprob == pytest.approx(-0.5)


def test_a_window_tells_once_when_it_is_empty_and_once_when_it_is_not():
    window = Window(3)
    assert [window.take(1) for _ in range(5)] == [False, False, True, False, False]
    assert window.empty_since
    assert [window.give(1), window.give(1), window.give(1)] == [False, False, True]
    assert not window.empty_since
    assert not window.give(5)


def test_a_window_never_holds_more_than_its_most():
    window = Window(10**9, most=4)
    assert window.room == 4
    window.give(10**9)
    assert window.room == 4
    assert Window(-5).room == 0
    window.give(-10)
    assert window.room == 4
