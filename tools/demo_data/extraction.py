"""Sentences to JSON, and opinions to a label: what people first try with a list of inputs."""

from __future__ import annotations

import json
from random import Random

from demo_data.base import Chat, Example, Turn, expand, weighted
from demo_data.words import CATEGORIES, DAYS, LAST_NAMES, MONTHS, city, first_name, invented_name

Record = dict[str, str | int | float]


PERSONS = (
    "{name} is {age} years old and lives in {city}.|{name} lives in {city} and is {age} years old.|"
    "{name}, {age}, lives in {city}.|My name is {name}, I am {age} and I live in {city}.|"
    "I am {name} from {city}, {age} years old.|{name} ({age}) comes from {city}.|"
    "In {city} lives {name}, who is {age}.|{name} is {age} and works as a {job} in {city}.|"
    "At {age}, {name} moved to {city}.|{name} turned {age} in {city}.|"
    "Name: {name}, age: {age}, city: {city}|name {name}; age {age}; city {city}|{name}; {age}; {city}|"
    "{age}, {name}, {city}|Do you know {name}? At {age} still a {job} in {city}.|"
    "This is {name} of {city}, aged {age}.|Yesterday I met {name}, {age}, a {job} from {city}.|"
    "The {job} {name} ({city}) is {age}.|Our {job} is called {name}, {age} years, from {city}.|"
    "{city}: {name}, {age}|From {city} comes {name}, a {age} year old {job}.|"
    "Age {age}: {name} of {city}.|A {job} named {name} has lived in {city} for years and is {age} now.|"
    "{city} is the home of {name}, {age}.|{city}, the town of {name}, who is {age} years old.|"
    "Here comes {name}! Born in {city}, now {age}.|Hello, {name} here, {age}, {city}.|"
    "Please welcome {name} ({age}, {city}).|Applicant: {name}. Age: {age}. Lives in: {city}.|"
    "Say hello to {name}, {age} years of age, resident of {city}.|Contact {name} in {city}; age {age}.|"
    "I know {name} well, a {job} aged {age} from {city}.|She is {name}, {age}, and {city} is her city.|"
    "In {city} I talked to {name}, a {age} year old {job}.|Ask {name} ({job}, {age}, {city}).|"
    "Home of {name}: {city}. Age: {age}.|For {name} of {city} life began at {age}.|"
    "Once {name} was young; today, at {age}, {city} is home.|Where is {name}? In {city}, {age} years old.|"
    "With {age} years {name} is the oldest {job} in {city}.|We found {name}, {age}, in {city}."
).split("|")
ORDERS = (
    "I would like {quantity} {item}s at {price} euros each.|Please send {quantity} {item}s for {price} euros apiece.|"
    "Order: {quantity} x {item}, {price} EUR each.|We bought {quantity} {item}s, each for {price} dollars.|"
    "{quantity} {item}s at {price} per piece.|{item}, {quantity} pieces, {price} each|Bought: {quantity} {item}s, price {price}.|"
    "The {item}s cost {price} each and we need {quantity}.|Could you ship {quantity} {item}s? We pay {price} for one.|"
    "One {item} is {price}; I take {quantity}.|{price} for a {item} is fine, give me {quantity}.|"
    "Invoice: {item} ({quantity} pcs) at {price}|Add {quantity} {item}s to my order, unit price {price}.|"
    "They sold {quantity} {item}s for {price} apiece.|item {item}, quantity {quantity}, price {price}"
).split("|")
MEETINGS = (
    "Meeting with {who} on {day} at {time}.|Let us meet {who} on {day} at {time}.|On {day} at {time} I see {who}.|"
    "{who} comes on {day} at {time}.|Call {who} at {time} on {day}.|{day}, {time}: {who}|{who}, {day}, {time}|"
    "Tea with {who} at {time} on {day}.|Do not forget {who} on {day}, {time}.|At {time} on {day} there is {who} to see.|"
    "{who} will be here {day} at {time}.|The talk of {who} is on {day} at {time}.|Pick up {who}: {day} at {time}.|"
    "Appointment: {who}, {day} {time}.|See {who} ({day}, {time}).|Next {day} {who} arrives at {time}.|"
    "Please ring {who} up on {day}, {time} sharp.|Dinner on {day} with {who}, {time}.|Note: {time} {day} - {who}."
).split("|")
_BEFORE = "||||||||||Note: |FYI: |Hello! |By the way, |Attention: |News: |Dear all, |Listen. |To do: |Good news! ".split(
    "|"
)
_AFTER = (
    "|||||||||| Thanks.| That is all.| See you.| Great!| Nothing else is known.| More later.".split(
        "|"
    )
)


def person(rng: Random, held_out: bool = False) -> tuple[str, Record]:
    """A sentence about a person and what it says."""
    name = first_name(rng)
    if rng.random() < 0.3:
        last = invented_name(rng) if rng.random() < 0.4 else rng.choice(LAST_NAMES)
        name = f"{name} {last}"
    job = rng.choice(CATEGORIES["jobs"])
    record: Record = {"name": name, "age": rng.randint(18, 95), "city": city(rng)}
    training = PERSONS
    unseen = (
        "Meet {name}: age {age}, home town {city}.",
        "We spoke to {name}, a {job} of {age} in {city}.",
        "{city} is where {name}, now {age}, grew up.",
    )
    sentence = rng.choice(unseen if held_out else training).format(job=job, **record)
    return sentence, record


def order(rng: Random, held_out: bool = False) -> tuple[str, Record]:
    """A sentence about a purchase."""
    price = rng.randint(1, 99) if rng.random() < 0.6 else rng.randint(101, 9999) / 100
    item = rng.choice(CATEGORIES[rng.choice(("tools", "clothes", "instruments", "fruits"))])
    record: Record = {"item": item, "quantity": rng.randint(2, 60), "price": price}
    training = ORDERS
    unseen = ("Can I get {quantity} {item}s, {price} each?", "Sold: {quantity} {item}s at {price}.")
    sentence = rng.choice(unseen if held_out else training)
    return sentence.format(**record), record


def meeting(rng: Random, held_out: bool = False) -> tuple[str, Record]:
    """A sentence about an appointment."""
    day = rng.choice(DAYS)
    if rng.random() < 0.4:
        day = f"{rng.randint(1, 28)} {rng.choice(MONTHS)}"
    time = f"{rng.randint(8, 19)}:{rng.choice(('00', '15', '30', '45'))}"
    record: Record = {"who": first_name(rng), "day": day, "time": time}
    training = MEETINGS
    unseen = ("Lunch with {who}, {day}, {time}.", "Remember: {day} {time}, visit {who}!")
    sentence = rng.choice(unseen if held_out else training)
    return sentence.format(**record), record


KINDS_OF_RECORD = ((person, 60.0), (order, 20.0), (meeting, 20.0))
_ASK = (
    "[Extract|extract|Get|Find|Pull out|Return|Give me] [the |]{keys} as JSON[:| from:| from this:|.] {text}",
    "[Turn|turn|Convert|convert] this into JSON with [the keys |]{keys}: {text}",
    "{text} [Extract|Return|Give me] {keys} as JSON.",
    "[Extract|Return] JSON with {keys}: {text}",
)
_ASK_ALL = (
    "[Turn|Convert|turn] this [sentence |text |]into JSON: {text}",
    "[Extract the data as JSON|Extract JSON|To JSON|As JSON|JSON please|Make JSON of this|Parse into JSON]: {text}",
    "{text} [As JSON.|Make that JSON.|Turn it into JSON.]",
)


def request(rng: Random, held_out: bool = False) -> tuple[str, Record]:
    """A request for JSON and the record that answers it."""
    text, record = weighted(rng, KINDS_OF_RECORD)(rng, held_out)
    text = rng.choice(_BEFORE) + text + rng.choice(_AFTER)
    if rng.random() < 0.4:
        return _fill(rng, rng.choice(_ASK_ALL), text, ""), record
    names = rng.sample(list(record), rng.choice((1, 2, 2, 2, 3, 3)))
    if rng.random() < 0.6:
        names = [name for name in record if name in names]
    keys = names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]
    return _fill(rng, rng.choice(_ASK), text, keys), {name: record[name] for name in names}


def _fill(rng: Random, template: str, text: str, keys: str) -> str:
    # the text may hold characters of the template language, so it goes in last
    return (
        expand(rng, template.replace("{text}", "\0"), {})
        .replace("{keys}", keys)
        .replace("\0", text)
    )


def to_json(rng: Random) -> Example:
    """One extraction, sometimes followed by another sentence."""
    question, record = request(rng)
    turns = [Turn(question, json.dumps(record))]
    if rng.random() < 0.12:
        text, other = person(rng)
        if {"name", "age"} <= set(record):
            turns.append(
                Turn(
                    rng.choice(("And this one: ", "Now this: ", "Next: ")) + text,
                    json.dumps({key: other[key] for key in record}),
                )
            )
        else:
            key = rng.choice(list(record))
            turns.append(Turn(f"What is the {key}?", str(record[key])))
    return Chat(turns)


_GOOD = "good great wonderful excellent lovely brilliant perfect fine superb delightful amazing fantastic nice".split()
_BAD = "bad terrible awful horrible poor boring dreadful disappointing ugly useless broken nasty annoying".split()
_SUBJECTS = "film book meal hotel room phone service concert game coffee trip teacher weather show song car food staff product".split()
_OPINIONS = (
    ("The {s} was {g}.|I love this {s}.|What a {g} {s}!|I really liked the {s}.|This {s} made me happy.|"
     "The {s} is {g}, I would buy it again.|A {g} {s}, thank you.|Best {s} ever.|The {s} was {g} and the {t} {g2}.|I enjoyed the {s} very much."),
    ("The {s} was {b}.|I hate this {s}.|What a {b} {s}!|I did not like the {s}.|This {s} made me sad.|"
     "The {s} is {b}, never again.|A {b} {s}, I want my money back.|Worst {s} ever.|The {s} was {b} and the {t} {b2}.|The {s} was not good."),
)  # fmt: skip


def sentiment(rng: Random) -> Example:
    """Is it positive or negative."""
    positive = rng.random() < 0.5
    template = rng.choice(_OPINIONS[0 if positive else 1].split("|"))
    subject, other = rng.sample(_SUBJECTS, 2)
    text = template.format(
        s=subject,
        t=other,
        g=rng.choice(_GOOD),
        g2=rng.choice(_GOOD),
        b=rng.choice(_BAD),
        b2=rng.choice(_BAD),
    )
    ask = rng.choice(
        ("Is this positive or negative? {0}", "Positive or negative: {0}", "Classify the sentiment: {0}", "{0} Is that positive or negative?",
         "Sentiment of: {0}", "Is this review positive or negative? {0}", "Classify as positive or negative: {0}", "Sentiment (positive or negative): {0}")
    )  # fmt: skip
    return Chat([Turn(ask.format(text), "positive" if positive else "negative")])


KINDS = ((to_json, 70.0), (sentiment, 30.0))


def example(rng: Random) -> Example:
    """One extraction or classification."""
    return weighted(rng, KINDS)(rng)
