"""Tiny stories: a hero, a wish, a trouble, a help, an end; told long or short, asked for or begun."""

from __future__ import annotations

from random import Random
from typing import NamedTuple

from demo_data.base import Chat, Example, Text, Turn, article, expand, weighted
from demo_data.words import first_name

HEROES = (
    "robot|cat|dog|dragon|fox|bear|mouse|rabbit|owl|girl|boy|king|queen|princess|wizard|pirate|sailor|knight|baker|"
    "teapot|cloud|star|moon|snail|frog|turtle|penguin|elephant|lion|horse|bird|duck|whale|ghost|witch|giant|tree|"
    "train|boat|lamp|clock|notebook|kernel|computer|model|spider|bee|hedgehog|monkey|tiger|wolf|pig|goat|sheep|"
    "cow|farmer|painter|teacher|scientist|astronaut|gardener|fish|crab|parrot|snowman|kite|pencil|shoe|spoon"
).split("|")
ADJECTIVES = "little|small|tiny|old|young|brave|shy|curious|lazy|clever|kind|lonely|happy|red|blue|grey|green|quiet|funny|sleepy".split(
    "|"
)
PLACES = (
    "in a forest|by the sea|on a hill|in a small town|under a bridge|in an old house|on an island|near a river|in a garden|"
    "in a tower|behind a bakery|in a quiet valley|at the edge of a lake|in a library|on a farm"
).split("|")
THINGS = "key|song|map|lantern|hat|book|bell|shell|letter|ball|flower|cake|stone|feather|coin|drum|button|mirror".split(
    "|"
)
HELPERS = "an old owl|a friendly mouse|a passing cloud|a tired traveller|a small bird|a wise turtle|a busy bee|the moon|a young fox|a kind neighbour".split(
    "|"
)


class Plot(NamedTuple):
    """One story from beginning to end: sentences of each part, with the hero already in them."""

    opening: str
    middle: list[str]
    ending: str


def _opening(rng: Random, hero: str, name: str, adjective: str) -> str:
    place = rng.choice(PLACES)
    who = f"{article(adjective)} {hero}"
    named = f" called {name}" if rng.random() < 0.6 else ""
    start = rng.choice(
        ("Once upon a time there was", "Once there was", "Long ago there lived", "There once was")
    )
    return (
        f"{start} {who}{named} who lived {place}."
        if "lived" not in start
        else f"{start} {who}{named} {place}."
    )


_WISHES = (
    "The {hero} wanted to find a lost {thing}.",
    "Every day the {hero} dreamed of a golden {thing}.",
    "One morning the {hero} found a {thing} at the door.",
    "One day a {thing} went missing, and the {hero} set out to find it.",
    "The {hero} had only one friend, a small {thing}.",
)
_TROUBLES = (
    "But it was dark, and the {hero} did not know the way.",
    "But the wind took the {thing} and carried it far away.",
    "Then it began to rain, and the {hero} was afraid.",
    "But nobody could say what the {thing} was for.",
    "But the road was long, and the {hero} grew tired.",
)
_HELPS = (
    "Then {helper} came by and said: do not worry, I will help you.",
    "{Helper} saw it and showed the way.",
    "The {hero} asked {helper}, and together they looked everywhere.",
    "Luckily {helper} knew a path that nobody else knew.",
)
_TURNS = (
    "They walked until the stars came out.",
    "They crossed a river and climbed a hill.",
    "At last they saw a small light in the distance.",
    "They laughed so much that they forgot to be afraid.",
    "In a hollow tree they found the {thing}.",
    "They shared some bread and told each other stories.",
    "A warm wind blew, and the night was not so dark any more.",
)
_ENDINGS = (
    "In the evening the {hero} came home with the {thing} and was happy.",
    "From that day on the {hero} was never alone again.",
    "And the {hero} smiled and fell asleep.",
    "So the {hero} gave the {thing} away and gained a friend.",
    "And if you listen at night, you can still hear the {hero} sing.",
)
_LATER = (
    "The next day they went on together.",
    "On the third day they came to a market full of colours.",
    "There a {other} was selling bells, and one of them rang all by itself.",
    "The {hero} bought the bell with the last coin and gave it to the {other}.",
    "The {other} was so glad that it danced in the street.",
    "Soon everybody danced, and nobody remembered why they had been sad.",
    "Only one thing was still missing, and the {hero} knew what it was.",
    "It was the way home.",
    "So they wrote a letter and tied it to a kite.",
    "The kite flew over the hills and the answer came before noon.",
)


def plot(rng: Random, hero: str, long: bool, adjective: str = "") -> Plot:
    """A story about `hero`; a long one has two to three times the sentences."""
    thing, helper = rng.choice(THINGS), rng.choice(HELPERS)
    other = rng.choice([name for name in HEROES if name != hero])
    values = {
        "hero": hero,
        "thing": thing,
        "helper": helper,
        "Helper": helper.capitalize(),
        "other": other,
    }
    middle = [rng.choice(_WISHES), rng.choice(_TROUBLES), rng.choice(_HELPS)]
    turns = rng.sample(_TURNS, 4 if long else rng.choice((0, 1, 1, 2)))
    later = list(_LATER[: rng.choice((6, 8, 10))]) if long else []
    sentences = [sentence.format(**values) for sentence in [*middle, *turns, *later]]
    return Plot(
        _opening(rng, hero, first_name(rng), adjective or rng.choice(ADJECTIVES)),
        sentences,
        rng.choice(_ENDINGS).format(**values),
    )


def told(story: Plot) -> str:
    """The story as text."""
    return " ".join([story.opening, *story.middle, story.ending])


_ASK = (
    "[Write|Tell|Tell me|write|tell me|Give me|Make up|Invent|I want|Can you write|Can you tell me|Please write|Please tell me|Read me] "
    "a [tiny |short |little |small |very short |nice |][story|tale|bedtime story] about {who}[.|.||, please|!]"
)
_ASK_LONG = "[Write|Tell|Tell me|write|Give me|Can you write|Please write] a [long|longer|very long] [story|tale] about {who}[.|.|]"


def asked(rng: Random) -> Example:
    """A story on request, sometimes followed by another wish."""
    hero = (
        rng.choice(HEROES)
        if rng.random() < 0.85
        else first_name(rng).lower() + rng.choice(("", "ling"))
    )
    long = rng.random() < 0.25
    adjective = rng.choice(ADJECTIVES) if rng.random() < 0.25 else ""
    who = article(f"{adjective} {hero}".strip())
    ask = expand(rng, (_ASK_LONG if long else _ASK).format(who=who), {})
    turns = [Turn(ask, told(plot(rng, hero, long, adjective)))]
    follow = rng.random()
    if follow < 0.12:
        other = rng.choice(HEROES)
        ask = expand(
            rng,
            f"[And one about|Now one about|Another one about|now about|The same about] {article(other)}[.|]",
            {},
        )
        turns.append(Turn(ask, told(plot(rng, other, long=False))))
    elif follow < 0.18:
        turns.append(
            Turn(
                expand(rng, "[Another one|one more|Tell me another one|again][.|]", {}),
                told(plot(rng, hero, long=False)),
            )
        )
    elif follow < 0.26:
        ask = expand(
            rng,
            "[Who is the story about?|Who was in the story?|Who is the hero?|What was it about?]",
            {},
        )
        turns.append(Turn(ask, f"It is about {article(hero)}."))
    return Chat(turns)


def begun(rng: Random) -> Example:
    """A story as plain text, begun anywhere in its first sentence."""
    hero = rng.choice(HEROES)
    text = told(plot(rng, hero, rng.random() < 0.3))
    opening = text.split(".")[0]
    words = opening.split()
    cut = rng.choice((0, 2, 3, 4, 4, 4, 5, 6, 7, len(words)))
    prompt = " ".join(words[:cut])
    return Text(prompt, text[len(prompt) :])


def untitled(rng: Random) -> Example:
    """A story on any subject, and stories asked for by chat with a given beginning."""
    hero = rng.choice(HEROES)
    story = told(plot(rng, hero, rng.random() < 0.2))
    if rng.random() < 0.6:
        ask = expand(
            rng,
            "[Tell me a story|Write a story|tell me a tiny story|Write a short story|A story please|story|Tell me a bedtime story][.|]",
            {},
        )
        return Chat([Turn(ask, story)])
    start = rng.choice(
        (
            "Once upon a time",
            "Once upon a time there was",
            "Once upon a time there was " + article(hero),
        )
    )
    story = _restarted(rng, hero, start)
    ask = expand(rng, f"[Continue|Continue this story|Go on|Finish this story]: {start}[...|]", {})
    return Chat([Turn(ask, story)])


def _restarted(rng: Random, hero: str, start: str) -> str:
    story = plot(rng, hero, long=False)
    opening = f"Once upon a time there was {article(hero)} who lived {rng.choice(PLACES)}."
    assert opening.startswith(start)
    return " ".join([opening, *story.middle, story.ending])


def everyday(rng: Random) -> Example:
    """Plain sentences about everyday things, broken off anywhere, for text that is no story."""
    one, two = rng.sample(HEROES, 2)
    sentences = [
        expand(rng, rng.choice(_EVERYDAY), {}).format(
            a=one, b=two, adjective=rng.choice(ADJECTIVES), place=rng.choice(PLACES), name=first_name(rng),
            thing=rng.choice(THINGS),
        )
        for _ in range(rng.randint(1, 4))
    ]  # fmt: skip
    text = " ".join(sentences)
    words = text.split(" ")
    prompt = " ".join(words[: rng.randint(1, min(9, len(words) - 1))])
    return Text(prompt, text[len(prompt) :])


_EVERYDAY = (
    "The [quick|{adjective}|{adjective}] [brown|red|grey|old] {a} [jumps|walks|runs|looks] over the {adjective} {b}.",
    "Today the {a} [went|walked|came] to the {b}.",
    "In the [morning|evening|beginning|end|summer|winter] the {a} was {adjective}.",
    "Hello, my name is {name} and I [live {place}|am a {a}|like the {thing}].",
    "I [think|know|hope|believe] that the {a} is {adjective}.",
    "There is a {thing} {place}.",
    "It was a {adjective} [day|night|morning], and the {a} [slept|sang|waited] {place}.",
    "We [saw|met|found] {name} and a {adjective} {a} {place}.",
    "This is a [short|small|simple] text about a {a}.",
    "My {a} has a {adjective} {thing}.",
    "When the {a} [came|left|sang], the {b} [smiled|slept|waited].",
    "{name} [likes|has|wants|lost|found] a {adjective} {thing}.",
    "Dear {name}, the {a} and the {b} are well.",
    "She [said|asked|knew] that the {thing} was {place}.",
    "He [said|asked|knew] nothing about the {adjective} {b}.",
    "A {a} is not a {b}.",
    "They all [lived|stayed|danced] {place}.",
)

KINDS = ((asked, 55.0), (begun, 30.0), (untitled, 15.0), (everyday, 18.0))


def example(rng: Random) -> Example:
    """One story."""
    return weighted(rng, KINDS)(rng)
