"""Lists, tables, other Markdown, and members of categories."""

from __future__ import annotations

from random import Random

from demo_data.base import Chat, Example, Turn, article, expand, weighted
from demo_data.words import ALIASES, CATEGORIES, COLOURS_OF, NUMBER_WORDS, singular


def numbered(items: list[str]) -> str:
    """A numbered Markdown list."""
    return "\n".join(f"{index}. {item}" for index, item in enumerate(items, 1))


def bulleted(items: list[str]) -> str:
    """A Markdown list with dashes."""
    return "\n".join(f"- {item}" for item in items)


def plain_list(rng: Random) -> Example:
    """List N things, and perhaps more of them."""
    name = rng.choice([*CATEGORIES, *ALIASES])
    members = CATEGORIES[ALIASES.get(name, name)]
    count = rng.choice((2, 3, 3, 3, 3, 4, 5, 5, 6, 7))
    drawn = rng.sample(members, len(members))
    items, rest = drawn[:count], drawn[count:]
    number = str(count) if rng.random() < 0.4 else NUMBER_WORDS[count]
    head = expand(
        rng,
        "[List|list|Name|name|Give me|Tell me|Write down|Show me|I need|Can you list|Please list|What are|Think of]",
        {},
    )
    tail = rng.choice(("", "", "", ".", ".", "."))
    form = rng.random()
    if form < 0.7:
        return _continued(rng, Turn(f"{head} {number} {name}{tail}", numbered(items)), rest)
    if form < 0.8:
        ask = rng.choice(
            ("as a bulleted list", "as bullet points", "with dashes", "as a Markdown list")
        )
        return Chat([Turn(f"{head} {number} {name} {ask}{tail}", bulleted(items))])
    if form < 0.9:
        ask = rng.choice(("separated by commas", "in one line", "with commas"))
        return Chat([Turn(f"{head} {number} {name} {ask}{tail}", ", ".join(items))])
    one = singular(name)
    ask = rng.choice(
        (
            f"Name {article(one)}.",
            f"Tell me {article(one)}.",
            f"Give me {article(one)}",
            f"name one {one}",
        )
    )
    return Chat([Turn(ask, items[0])])  # fmt: skip


def _continued(rng: Random, first: Turn, rest: list[str]) -> Example:
    turns = [first]
    items = [line.split(". ", 1)[1] for line in first.assistant.splitlines()]
    follow = rng.random()
    if follow < 0.15 and len(rest) >= 2:
        more = rest[:2] if rng.random() < 0.6 else rest[:1]
        number = NUMBER_WORDS[len(more)]
        ask = rng.choice(
            (
                f"{number} more",
                f"Give me {number} more.",
                f"And {number} more?",
                f"{number} more please",
            )
        )
        start = len(items) + 1
        turns.append(Turn(ask, "\n".join(f"{start + i}. {item}" for i, item in enumerate(more))))
    elif follow < 0.25:
        place = rng.randrange(min(3, len(items)))
        word = ("first", "second", "third")[place]
        ask = rng.choice(
            (f"What was the {word} one?", f"Which was the {word}?", f"Repeat the {word} one.")
        )
        turns.append(Turn(ask, f"The {word} one was {items[place]}."))
    elif follow < 0.35:
        ask = rng.choice(
            (
                "as one line",
                "In one line please.",
                "Write that with commas.",
                "now separated by commas",
            )
        )
        turns.append(Turn(ask, ", ".join(items)))
    elif follow < 0.43:
        ask = rng.choice(
            ("sort them", "Sort them by name.", "in alphabetical order please", "Now sorted.")
        )
        turns.append(Turn(ask, numbered(sorted(items))))
    return Chat(turns)


def table(rng: Random) -> Example:
    """A small Markdown table."""
    if rng.random() < 0.5:
        fruits = rng.sample(list(COLOURS_OF), rng.choice((2, 3, 3, 4)))
        rows = [f"| {fruit} | {COLOURS_OF[fruit]} |" for fruit in fruits]
        number = rng.choice((str(len(fruits)), NUMBER_WORDS[len(fruits)]))
        ask = expand(
            rng,
            f"[Make|Write|Show|Give me|make|I want] a [Markdown |]table of {number} fruits [and|with] their colours[.|]",
            {},
        )
        return Chat([Turn(ask, "\n".join(["| fruit | colour |", "|---|---|", *rows]))])
    name = rng.choice([category for category in CATEGORIES if " " not in category])
    items = rng.sample(CATEGORIES[name], rng.choice((2, 3, 3, 4)))
    number = rng.choice((str(len(items)), NUMBER_WORDS[len(items)]))
    ask = expand(
        rng, f"[Make|Write|Show|Give me|make] a [Markdown |]table [of|with] {number} {name}[.|]", {}
    )
    rows = [f"| {index} | {item} |" for index, item in enumerate(items, 1)]
    return Chat([Turn(ask, "\n".join([f"| number | {singular(name)} |", "|---|---|", *rows]))])


def markdown(rng: Random) -> Example:
    """A heading with a list, bold words, a checklist."""
    name = rng.choice(list(CATEGORIES))
    items = rng.sample(CATEGORIES[name], 3)
    kind = rng.randrange(4)
    if kind == 0:
        ask = rng.choice(
            (
                f"Write a Markdown heading and a list about {name}.",
                f"A short Markdown page about {name}",
                f"Write some Markdown about {name}.",
                f"Show me Markdown with a heading and a list of {name}.",
            )
        )
        body = f"Three {name} to know:\n\n{bulleted(items)}"
        return Chat([Turn(ask, f"# {name.capitalize()}\n\n{body}")])  # fmt: skip
    if kind == 1:
        ask = rng.choice(
            (f"Write a to-do list with three {name}.", f"Make a checklist of three {name}.")
        )
        return Chat([Turn(ask, "\n".join(f"- [ ] {item}" for item in items))])
    if kind == 2:
        ask = rng.choice(
            (f"Write the word {items[0]} in bold.", f"Make {items[0]} bold in Markdown.")
        )
        return Chat([Turn(ask, f"**{items[0]}**")])
    ask = rng.choice(
        (f"Write a Markdown heading about {name}.", f"a heading for a page about {name}")
    )
    return Chat([Turn(ask, f"# {name.capitalize()}")])


def membership(rng: Random) -> Example:
    """What kind of thing something is: classification as people try it with map."""
    name, other = rng.sample(
        [
            "fruits",
            "animals",
            "colours",
            "countries",
            "tools",
            "drinks",
            "instruments",
            "clothes",
            "vehicles",
            "metals",
        ],
        2,
    )
    item = rng.choice([word for word in CATEGORIES[name] if word not in CATEGORIES[other]])
    one, two = singular(name), singular(other)
    if rng.random() < 0.5:
        first, second = rng.sample([one, two], 2)
        ask = rng.choice(
            (
                f"Is {item} {article(first)} or {article(second)}?",
                f"{item}: {first} or {second}?",
                f"Classify as {first} or {second}: {item}",
                f"Is this {article(first)} or {article(second)}: {item}?",
            )
        )
        return Chat([Turn(ask, one)])  # fmt: skip
    ask = rng.choice(
        (
            f"What kind of thing is {item}?",
            f"What is {article(item)}?",
            f"Which category is {item}?",
        )
    )
    return Chat([Turn(ask, f"{item.capitalize()} is {article(one)}.")])


def echo(rng: Random) -> Example:
    """Say what you are told to, in capitals perhaps."""
    words = " ".join(
        rng.choice(CATEGORIES[rng.choice(list(CATEGORIES))]) for _ in range(rng.randint(1, 5))
    )
    kind = rng.randrange(3)
    if kind == 0:
        return Chat(
            [
                Turn(
                    expand(
                        rng,
                        f"[Repeat after me|Repeat|Say|Echo|repeat this|Write exactly]: {words}",
                        {},
                    ),
                    words,
                )
            ]
        )
    if kind == 1:
        ask = expand(
            rng,
            f"[Write this in capitals|Upper case|In capital letters|Make this upper case]: {words}",
            {},
        )
        return Chat([Turn(ask, words.upper())])
    parts = words.split()
    ask = expand(rng, f"[How many words are in|Count the words]: {words}", {})
    return Chat([Turn(ask, str(len(parts)))])


KINDS = ((plain_list, 50.0), (table, 12.0), (markdown, 12.0), (membership, 18.0), (echo, 12.0))


def example(rng: Random) -> Example:
    """One example of lists, Markdown or categories."""
    return weighted(rng, KINDS)(rng)
