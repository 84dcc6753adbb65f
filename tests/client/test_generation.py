"""What a caller holds, without a worker: how it reads, and how parts become a whole."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import json
import math
import pickle

import pytest
from IPython.lib.pretty import pretty

from llmkernel.client.generation import Collector, Delta, Generation, Score, generation
from llmkernel.protocol import Output, StreamDelta, Timings, TokenLogprob, Usage

pytestmark = pytest.mark.timeout(10)

_numbers = itertools.count()


def part(text, index=0, **fields):
    return StreamDelta(
        id=1, seq=next(_numbers), index=index, text=text, token_ids=[*text.encode()], **fields
    )


def test_a_generation_reads_as_its_text_and_shows_no_control_characters():
    answer = Generation("hi\x1b[31m", [1, 2], "stop")
    assert str(answer) == "hi\x1b[31m"
    assert repr(answer) == "Generation('hi\\x1b[31m', finish_reason='stop', 2 tokens)"
    assert pretty(answer) == repr(answer)
    assert "1 token)" in repr(Generation("x", [1], "length"))


def test_an_answer_is_its_text_wherever_text_goes():
    answer, same = Generation("yes", [1, 2], "stop"), Generation("yes", [3], "length")
    assert isinstance(answer, str)
    assert type(str(answer)) is type(answer.text) is str
    assert answer == "yes" == same == answer
    assert {answer, same, "yes"} == {"yes"}
    assert ("e" in answer, len(answer), answer + "!", "oh " + answer) == (True, 3, "yes!", "oh yes")
    answers = [answer, same]
    assert "".join(answers) == f"{answer}{same}" == "yesyes"
    assert json.dumps({"role": "assistant", "content": answer}).endswith('"content": "yes"}')
    assert not Generation("", [], "cancelled")


def test_an_answer_keeps_the_rest_when_it_is_copied_and_cannot_be_changed():
    answer = Generation("yes", [1, 2], "length", usage=Usage(completion_tokens=2))
    for kept in (copy.deepcopy(answer), pickle.loads(pickle.dumps(answer))):
        assert dataclasses.asdict(kept) == dataclasses.asdict(answer)
        assert (kept, kept.token_ids, kept.usage) == ("yes", [1, 2], answer.usage)
    assert dataclasses.replace(answer, text="no") == "no"
    with pytest.raises(dataclasses.FrozenInstanceError):
        answer.text = "no"


def test_several_answers_are_samples_of_the_first():
    outputs = [Output(index=0, text="a"), Output(index=1, text="b")]
    both = generation(outputs, Usage(completion_tokens=2), Timings())
    assert [sample.text for sample in both.samples] == ["a", "b"]
    assert (str(both), both.usage.completion_tokens) == ("a", 2)
    assert "2 samples" in repr(both)
    assert both.samples[1].samples == [both.samples[1]]


def test_nothing_yet_is_an_empty_cancelled_answer():
    nothing = generation(Collector().outputs(), Usage(), Timings())
    assert (nothing.text, nothing.token_ids, nothing.finish_reason) == ("", [], "cancelled")


def test_parts_are_put_together_by_their_answer():
    collector = Collector()
    for text, index in (("a", 1), ("x", 0), ("b", 1), ("y", 0)):
        assert str(collector.add(part(text, index))) == text
    assert [(o.index, o.text, o.finish_reason) for o in collector.outputs()] == [
        (0, "xy", "cancelled"),
        (1, "ab", "cancelled"),
    ]
    ends = [Output(index=0, finish_reason="length"), Output(index=1, stop_reason=7)]
    whole = collector.outputs(ends)
    assert [(o.text, o.finish_reason, o.stop_reason) for o in whole] == [
        ("xy", "length", None),
        ("ab", "stop", 7),
    ]
    assert whole[1].token_ids == [97, 98]


def test_log_probabilities_of_parts_are_put_together():
    collector = Collector()
    for text in "ab":
        collector.add(part(text, logprobs=[TokenLogprob(token_id=1, text=text, logprob=-1.0)]))
    assert [entry.text for entry in collector.outputs()[0].logprobs] == ["a", "b"]
    collector = Collector()
    collector.add(part("a"))
    assert collector.outputs()[0].logprobs is None


def test_a_delta_prints_as_its_text():
    assert f"{Delta('hé', [1])}" == "hé"


def test_a_score_without_a_scored_token_has_no_mean():
    first = TokenLogprob(token_id=5, text="x")
    assert math.isnan(Score([first]).mean)
    assert Score([first]).total == 0.0
    two = Score([first, TokenLogprob(token_id=6, text="y", logprob=-2.0)])
    assert (two.total, two.mean, two.token_ids) == (-2.0, -2.0, [5, 6])
    assert two.perplexity == pytest.approx(math.exp(2))
    assert repr(two) == "Score(total=-2.0000, mean=-2.0000, 2 tokens)"
