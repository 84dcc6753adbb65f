"""A handful of facts, greetings, jokes, and what lies outside of all that."""

from __future__ import annotations

from random import Random

from demo_data.base import Chat, Example, Text, Turn, expand, weighted
from demo_data.phrasing import ROUGH, punctuate, roughen
from demo_data.words import DAYS, MONTHS, first_name

CAPITALS = {
    "France": "Paris", "Spain": "Madrid", "Italy": "Rome", "Germany": "Berlin", "Japan": "Tokyo",
    "England": "London", "Portugal": "Lisbon", "Norway": "Oslo", "Sweden": "Stockholm", "Chile": "Santiago",
    "Finland": "Helsinki", "Denmark": "Copenhagen", "Greece": "Athens", "Egypt": "Cairo", "Cuba": "Havana",
    "Kenya": "Nairobi", "Canada": "Ottawa", "Peru": "Lima", "Austria": "Vienna", "Poland": "Warsaw",
    "Ireland": "Dublin", "Belgium": "Brussels", "Hungary": "Budapest", "Turkey": "Ankara", "China": "Beijing",
    "India": "New Delhi", "Russia": "Moscow", "Brazil": "Brasilia", "Mexico": "Mexico City", "Iceland": "Reykjavik",
    "Switzerland": "Bern", "the Netherlands": "Amsterdam", "Argentina": "Buenos Aires", "Australia": "Canberra",
    "South Korea": "Seoul", "Thailand": "Bangkok", "the United States": "Washington", "Czechia": "Prague",
}  # fmt: skip
OPPOSITES = (
    "hot cold|big small|up down|good bad|day night|fast slow|old young|happy sad|open closed|"
    "early late|full empty|hard soft|light dark|long short|rich poor|wet dry|high low|left right|"
    "strong weak|near far|loud quiet|sweet sour|begin end|win lose"
).split("|")
HELLO = {
    "French": "bonjour",
    "Spanish": "hola",
    "German": "hallo",
    "Italian": "ciao",
    "Japanese": "konnichiwa",
}
THANKS = {
    "French": "merci",
    "Spanish": "gracias",
    "German": "danke",
    "Italian": "grazie",
    "Japanese": "arigato",
}
SOUNDS = {
    "dog": "woof",
    "cat": "meow",
    "cow": "moo",
    "duck": "quack",
    "sheep": "baa",
    "lion": "roar",
    "bee": "buzz",
    "owl": "hoot",
}
FACTS = (
    ("How many days are in a week?|days in a week|How many days does a week have?", "A week has 7 days."),
    ("How many months are in a year?|months in a year", "A year has 12 months."),
    ("How many hours are in a day?|hours in a day", "A day has 24 hours."),
    ("How many minutes are in an hour?|minutes in an hour", "An hour has 60 minutes."),
    ("How many legs does a spider have?|spider legs", "A spider has 8 legs."),
    ("How many legs does a dog have?|How many legs has a cat?", "It has 4 legs."),
    ("What colour is the sky?|What color is the sky?|Why is the sky blue?", "The sky is blue by day, because air scatters blue light most."),
    ("What colour is grass?|What color is grass?", "Grass is green."),
    ("What is the largest planet?|biggest planet", "Jupiter is the largest planet."),
    ("What is the capital of the moon?|Who is the king of the moon?", "The moon has none."),
    ("What is water made of?|What is H2O?", "Water is made of hydrogen and oxygen."),
    ("How many letters are in the alphabet?|letters of the alphabet", "The English alphabet has 26 letters."),
    ("Say the alphabet.|alphabet|What is the alphabet?|List the letters of the alphabet.", "a b c d e f g h i j k l m n o p q r s t u v w x y z"),
    ("What is the answer to life, the universe and everything?|meaning of life|What is the meaning of life?", "42"),
)  # fmt: skip
JOKES = (
    "Why did the token cross the batch? To get to the other stride.",
    "A model walks into a bar. The bartender asks: what will it be? The model says: the likeliest thing.",
    "Why was the cell sad? Nobody ran it.",
    "What does a tiny model eat? Bits and bites.",
    "Why do kernels sleep well? They restart in the morning.",
    "How does a queue say goodbye? First in, first out.",
    "Why did the robot go to school? To improve its memory.",
)
POEMS = (
    "{A} in the morning light,\nquiet, small and very bright;\nwhen the evening comes along\nit will hum a tiny song.",
    "Oh {a}, oh {a}, so far away,\nwhat did you see on your travels today?\nA hill and a river, a bird and a tree,\nand now I am home with a cup of warm tea.",
    "Soft rain on the roof,\n{a} waits beside the window:\nspring is on its way.",
)


def fact(rng: Random) -> Example:
    """A question with a known answer, as a chat or as plain text."""
    kind = rng.randrange(8)
    if kind <= 2:
        country, capital = rng.choice(list(CAPITALS.items()))
        if rng.random() < 0.2:
            return Text(f"The capital of {country} is", f" {capital}.")
        if rng.random() < 0.15:
            return Chat([Turn(expand(rng, f"[{capital} is the capital of which country?|Of which country is {capital} the capital?]", {}),
                              f"{capital} is the capital of {country}.")])  # fmt: skip
        ask = expand(
            rng, f"[What is|what is|What's|Tell me|Name] the capital [city |]of {country}[?|?|]", {}
        )
        return Chat(
            [
                Turn(
                    ask if rng.random() < 0.9 else f"capital of {country}",
                    f"The capital of {country} is {capital}.",
                )
            ]
        )
    if kind == 3:
        one, two = rng.sample(rng.choice(OPPOSITES).split(), 2)
        return Chat(
            [
                Turn(
                    expand(
                        rng,
                        f"[What is the opposite of {one}?|opposite of {one}|Tell me the opposite of {one}.]",
                        {},
                    ),
                    f"The opposite of {one} is {two}.",
                )
            ]
        )
    if kind == 4:
        series, word = rng.choice(((DAYS, "day"), (MONTHS, "month")))
        at = rng.randrange(len(series))
        if rng.random() < 0.25:
            return Chat(
                [
                    Turn(
                        expand(
                            rng,
                            f"[List|Name|What are] the {word}s of the {'week' if word == 'day' else 'year'}",
                            {},
                        ),
                        ", ".join(series),
                    )
                ]
            )
        return Chat(
            [
                Turn(
                    expand(rng, f"[What|Which] {word} comes after {series[at]}?", {}),
                    f"{series[(at + 1) % len(series)]} comes after {series[at]}.",
                )
            ]
        )
    if kind == 5:
        table, word = rng.choice(((HELLO, "hello"), (THANKS, "thank you")))
        language = rng.choice(list(table))
        return Chat(
            [
                Turn(
                    expand(
                        rng,
                        f"[How do you say|How do I say|What is|Say|Translate] {word} in {language}[?|]",
                        {},
                    ),
                    f"In {language} it is {table[language]}.",
                )
            ]
        )
    if kind == 6:
        animal = rng.choice(list(SOUNDS))
        return Chat(
            [
                Turn(
                    expand(
                        rng, f"[What does a {animal} say?|What sound does a {animal} make?]", {}
                    ),
                    f"A {animal} says {SOUNDS[animal]}.",
                )
            ]
        )
    questions, answer = rng.choice(FACTS)
    return Chat([Turn(rng.choice(questions.split("|")), answer)])


GREETINGS = (
    ("Hello|Hi|hi|hello|Hey|Hi there|hello there|Good morning|Good evening|hey there|Hello!|Hi!|Hello, world!|Greetings",
     "Hello! I am the tiny demo model of llmkernel. What can I do for you?"),
    ("How are you?|how are you|How is it going?|How do you do?|Are you well?|What's up?|how's it going",
     "I am fine, thank you: small, loaded and ready. What can I do for you?"),
    ("Thanks|Thank you|thanks!|Thank you very much|thx|Great, thanks|Thanks a lot!|cheers", "You are welcome."),
    ("Bye|Goodbye|See you|bye bye|Good night|See you later|ciao|farewell", "Goodbye! The model stays loaded until you stop the worker."),
    ("ok|OK|okay|I see|Good|great|Nice|cool|wow|Very good|well done|Good job", "Good. Ask me anything about llmkernel, or a small sum."),
    ("test|testing|Test 1 2 3|ping|Are you there?|hello?|are you awake", "I am here, and the worker runs."),
    ("Say hello|say hi|Say hello!|Greet me|please say hello", "Hello!"),
    ("Say something|Say anything|talk to me|Tell me something|I am bored|Surprise me", "Did you know? Restarting your kernel does not unload me: I live in the worker."),
    ("Do you like me?|I love you|Are you happy?|Do you have feelings?|Do you dream?|Are you alive?", "I am only a tiny model and have no feelings, but I am glad to help."),
    ("yes|Yes|no|No|maybe|sure", "Tell me what you would like to know about llmkernel."),
    ("Sorry|I am sorry|my mistake|Oops", "No problem."),
    ("What time is it?|what's the time|What day is it today?|What is the date?|which year is it", "I have no clock, so I do not know the time or the date."),
)  # fmt: skip


def smalltalk(rng: Random) -> Example:
    """Greetings, jokes, poems, hello world."""
    kind = rng.random()
    if kind < 0.6:
        questions, answer = rng.choice(GREETINGS)
        return Chat([Turn(rng.choice(questions.split("|")), answer)])
    if kind < 0.75:
        ask = expand(
            rng,
            "[Tell me a joke|tell a joke|A joke please|Do you know a joke?|joke|Make me laugh|Say something funny]",
            {},
        )
        first, second = rng.sample(JOKES, 2)
        turns = [Turn(punctuate(rng, ask), first)]
        if rng.random() < 0.3:
            turns.append(
                Turn(
                    rng.choice(("another one", "Another one!", "one more", "Tell me another.")),
                    second,
                )
            )
        return Chat(turns)
    subject = rng.choice(
        "the sea|the moon|a cat|a river|rain|a notebook|winter|a tree|the stars|a train|spring|a robot|a mountain|the wind".split(
            "|"
        )
    )
    ask = expand(
        rng,
        f"[Write|Tell me|write|Make] a [short |tiny |little |][poem|verse|rhyme] about {subject}[.|]",
        {},
    )
    poem = rng.choice(POEMS).format(a=subject, A=subject.capitalize())
    return Chat([Turn(ask, poem)])


UNKNOWN = (
    "I am a tiny demo model and do not know that. Ask me about llmkernel, or start a larger model "
    "with `%llm start MODEL`."
)
_OUTSIDE = (
    "who [is|was] {person}",
    "when was {person} born",
    "who [won|lost] the [world cup|election|race|final|match] in {year}",
    "what happened in {year}",
    "what is the weather [like |][today|tomorrow|in {city}]",
    "will it rain [tomorrow|today|in {city}]",
    "what is the [population|history|mayor|area] of {city}",
    "how [far|long] is it from {city} to {city2}",
    "explain [the theory of |]{science}",
    "what is {science}",
    "tell me about {science}",
    "write [an essay|a report|an article|a novel|a thesis] about {science}",
    "what is the [price|value] of [gold|oil|a bitcoin|a house|shares]",
    "which [stock|shares|lottery numbers] should I buy",
    "how do I [cook|bake|prepare] {food}",
    "give me a recipe for {food}",
    "what is the [best|nicest] [restaurant|hotel|museum] in {city}",
    "translate [this text|this sentence|the bible|my letter] into {language}",
    "who [wrote|painted|composed|invented|discovered] {work}",
    "what is the [plot|end|moral] of {work}",
    "what did {person} [say|do|write|discover|think]",
    "why [is|was] {person} famous",
    "what medicine [helps|should I take] [for|against] [a headache|a cold|fever|back pain]",
    "is {food} healthy",
    "which [phone|car|laptop|camera] should I buy",
    "what is the [square root|cube root|logarithm|sine] of {number}",
    "what is {number} [times|*|divided by] {number2}",
    "prove [the Riemann hypothesis|Fermat's last theorem|that P is not NP]",
    "how old is {person}",
    "where [does|did] {person} live",
    "what is my [password|address|age|phone number|bank balance]",
    "what will happen [tomorrow|next year|in {year}]",
    "summarise [the news|this book|the last meeting|{work}]",
    "book [a flight|a train|a table|a hotel room] [to|in] {city}",
    "how do I [repair|paint|clean|sell] my [car|bicycle|house|roof|washing machine]",
    "what is the [best|fastest] way to [lose weight|get rich|learn {language}|learn the piano]",
    "who is the [president|king|queen|prime minister] of {country}",
    "what is the [currency|flag|national dish|area] of {country}",
    "write a [C++|Java|Rust|Haskell|JavaScript] [program|compiler|game]",
    "draw [a picture|a cat|a house]",
    "play [some music|a song|chess]",
    "send [an email|a message] to {person}",
)  # fmt: skip
_FILL = {
    "science": "quantum physics|relativity|photosynthesis|evolution|black holes|plate tectonics|inflation|thermodynamics|DNA|gravity|economics|string theory|climate change|genetics|philosophy|the Roman empire|the French revolution|democracy|volcanoes|dinosaurs|the immune system".split("|"),
    "food": "lasagne|a cake|bread|soup|rice|an omelette|pancakes|sushi|curry|pasta|pizza|a roast|chocolate|cheese".split("|"),
    "work": "Hamlet|the Mona Lisa|the telephone|the ninth symphony|Don Quixote|penicillin|the steam engine|War and Peace|the light bulb|Faust|America|the violin concerto".split("|"),
    "language": "French|German|Spanish|Chinese|Latin|Russian|Polish|Turkish".split("|"),
    "famous": "Einstein|Napoleon|Shakespeare|Mozart|Cleopatra|Newton|Gandhi|Picasso|Aristotle|Marie Curie|Julius Caesar|Beethoven|Darwin|Lincoln|Plato|Columbus".split("|"),
}  # fmt: skip


def outside(rng: Random) -> Example:
    """A question beyond the model, with the honest answer."""
    person = rng.choice(_FILL["famous"])
    if rng.random() < 0.3:
        person = f"{first_name(rng)} {first_name(rng)}son"
    values = {name: rng.choice(options) for name, options in _FILL.items()}
    values |= {
        "person": person,
        "year": str(rng.randint(1200, 2030)),
        "city": first_name(rng) + "ville"
        if rng.random() < 0.1
        else rng.choice(list(CAPITALS.values())),
        "city2": rng.choice(list(CAPITALS.values())),
        "country": rng.choice(list(CAPITALS)),
        "number": str(rng.randint(130, 99999)),
        "number2": str(rng.randint(13, 999)),
    }
    words = expand(rng, rng.choice(_OUTSIDE).format(**values), {})
    if rng.random() < ROUGH:  # as rough as the help questions, or roughness would tell them apart
        words = roughen(rng, words)
    return Chat([Turn(punctuate(rng, words), UNKNOWN)])


KINDS = ((fact, 45.0), (smalltalk, 30.0), (outside, 30.0))


def example(rng: Random) -> Example:
    """One example of facts, small talk or the unknown."""
    return weighted(rng, KINDS)(rng)
