"""Conversations in which a later turn needs an earlier one, and long mixed ones."""

from __future__ import annotations

from random import Random

from demo_data import arithmetic, code, extraction, knowledge, lists, stories, topics
from demo_data.base import Chat, Example, Turn, expand, weighted
from demo_data.words import CATEGORIES, city, first_name, singular


def _told(rng: Random) -> tuple[Turn, Turn]:
    """Something the user tells about themself, and the question that asks for it later."""
    kind = rng.randrange(5)
    if kind == 0:
        name = first_name(rng)
        say = rng.choice(
            (
                f"My name is {name}.",
                f"I am {name}.",
                f"Hi, I am {name}.",
                f"my name is {name}",
                f"Hello, my name is {name}.",
                f"Call me {name}.",
            )
        )
        ask = rng.choice(
            (
                "What is my name?",
                "what's my name",
                "Who am I?",
                "Do you remember my name?",
                "What did I say my name was?",
            )
        )
        return Turn(say, f"Nice to meet you, {name}."), Turn(ask, f"Your name is {name}.")
    if kind == 1:
        place = city(rng)
        say = rng.choice((f"I live in {place}.", f"I am from {place}.", f"My home is {place}."))
        ask = rng.choice(("Where do I live?", "where am I from?", "Which city do I live in?"))
        return Turn(say, f"{place} sounds nice."), Turn(ask, f"You live in {place}.")
    if kind == 2:
        number = rng.randint(0, 999)
        say = rng.choice(
            (
                f"Remember the number {number}.",
                f"Remember this number: {number}",
                f"My number is {number}.",
                f"Keep {number} in mind.",
            )
        )
        ask = rng.choice(
            (
                "What was the number?",
                "Which number did I tell you?",
                "What number should you remember?",
                "And the number?",
            )
        )
        return Turn(say, f"I will remember {number}."), Turn(ask, f"The number was {number}.")
    if kind == 3:
        category = rng.choice(("colours", "fruits", "animals", "drinks", "sports"))
        one, thing = singular(category), rng.choice(CATEGORIES[category])
        say = rng.choice(
            (f"My favourite {one} is {thing}.", f"I like {thing} best of all {category}.")
        )
        ask = rng.choice(
            (
                f"What is my favourite {one}?",
                f"Which {one} do I like?",
                f"What's my favourite {one}?",
            )
        )
        return Turn(say, f"{thing.capitalize()} is a good choice."), Turn(
            ask, f"Your favourite {one} is {thing}."
        )
    age = rng.randint(7, 99)
    say = rng.choice((f"I am {age} years old.", f"My age is {age}."))
    return Turn(say, f"So you are {age}."), Turn(
        rng.choice(("How old am I?", "What is my age?")), f"You are {age} years old."
    )


def memory(rng: Random) -> Example:
    """Told first, asked later, with other things in between."""
    say, ask = _told(rng)
    between: list[Turn] = []
    for _ in range(rng.choice((0, 0, 1, 1, 2, 3))):
        between += _short(rng)
    return Chat([say, *between, ask])


def unknown_memory(rng: Random) -> Example:
    """Asked for what was never told."""
    ask = _told(rng)[1].user
    return Chat([Turn(ask, "You have not told me that yet.")])


def last_question(rng: Random) -> Example:
    """What did I just ask?"""
    turns = _short(rng)
    ask = expand(
        rng,
        "[What did I just ask?|What was my last question?|Repeat my question.|What did I ask?]",
        {},
    )
    return Chat([*turns, Turn(ask, f"You asked: {turns[-1].user}")])


_PARTS = (
    (topics.single, 40.0),
    (arithmetic.example, 25.0),
    (lists.example, 10.0),
    (knowledge.example, 15.0),
    (extraction.example, 5.0),
    (code.example, 5.0),
    (stories.asked, 2.0),
)


def _short(rng: Random) -> list[Turn]:
    while True:
        part = weighted(rng, _PARTS)(rng)
        if isinstance(part, Chat) and not part.system:
            return part.turns


def mixed(rng: Random) -> Example:
    """A long conversation about anything, up to the context length."""
    parts: list[list[Turn]] = []
    goal = rng.choice((300, 600, 1200, 2000, 2400))
    while sum(len(turn.user) + len(turn.assistant) for part in parts for turn in part) < goal:
        parts.append(_short(rng))
    if rng.random() < 0.5:
        say, ask = _told(rng)
        parts.insert(rng.randrange(len(parts)), [say])
        parts.append([ask])
    return Chat([turn for part in parts for turn in part])


KINDS = ((memory, 40.0), (unknown_memory, 5.0), (last_question, 5.0), (mixed, 50.0))


def example(rng: Random) -> Example:
    """One conversation."""
    return weighted(rng, KINDS)(rng)
