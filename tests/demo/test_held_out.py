"""What is measured was never taught."""

from itertools import islice
from random import Random

from demo_data import arithmetic, corpus
from demo_data.base import Chat, held_out_template
from demo_data.held_out import PHRASINGS
from demo_data.topics import TOPICS, question


def _drawn(count):
    return list(islice(corpus.examples(seed=5), count))


def test_no_held_out_addition_is_taught():
    pairs = {f"{a} + {b}" for a, b in arithmetic.held_out_pairs()}
    taught = " ".join(text for example in _drawn(4000) for text, _ in corpus.segments(example))
    assert [pair for pair in pairs if f" {pair} = " in taught] == []


def test_a_fifth_of_the_pairs_is_held_out_in_both_orders():
    pairs = set(arithmetic.held_out_pairs())
    assert 0.15 < len(pairs) / 8100 < 0.25
    assert all((b, a) in pairs for a, b in pairs)


def test_no_hand_written_question_is_drawn():
    rng = Random(3)
    drawn = {question(rng, TOPICS["interrupt"]).lower().rstrip("?.!") for _ in range(4000)}
    assert "how do i stop a running cell" not in drawn


def test_every_hand_written_question_names_known_topics():
    assert len(PHRASINGS) >= 100
    assert [p for p in PHRASINGS if not set(p.topics) <= TOPICS.keys()] == []


def test_a_topic_answers_with_its_own_facts_and_has_templates_to_learn_from():
    for topic in TOPICS.values():
        assert len(topic.training) >= 5
        assert not any(held_out_template(template) for template in topic.training)
        for fact in topic.facts:
            assert any(word.lower() in topic.answer.lower() for word in fact.split("|")), topic.key


def test_the_same_seed_gives_the_same_examples():
    assert _drawn(200) == _drawn(200)
    assert any(isinstance(example, Chat) and len(example.turns) > 1 for example in _drawn(200))
