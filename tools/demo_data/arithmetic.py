"""Sums on small numbers. A fifth of all two-digit additions is never shown in training."""

from __future__ import annotations

import zlib
from random import Random

from demo_data.base import Chat, Example, Text, Turn, expand, weighted

ADD = (
    "what is {a} + {b}|what is {a} + {b}?|What is {a} + {b}?|What is {a} + {b}?|{a} + {b}|{a}+{b}|"
    "{a} + {b} = ?|{a} + {b} =|{a}+{b}=|{a} plus {b}|What is {a} plus {b}?|Add {a} and {b}.|"
    "add {a} to {b}|Calculate {a} + {b}.|Compute {a} + {b}|How much is {a} + {b}?|"
    "how much is {a} plus {b}|What is the sum of {a} and {b}?|sum of {a} and {b}|"
    "Can you add {a} and {b}?|Please compute {a} + {b}.|What do {a} and {b} make?|"
    "What's {a} + {b}?|what's {a}+{b}?|Solve {a} + {b}.|Tell me {a} + {b}.|"
    "What does {a} + {b} equal?|What do you get when you add {a} and {b}?|I need {a} + {b}."
).split("|")
SUBTRACT = (
    "What is {a} - {b}?|what is {a} - {b}|{a} - {b}|{a}-{b}|{a} - {b} =|{a} minus {b}|"
    "What is {a} minus {b}?|Subtract {b} from {a}.|Calculate {a} - {b}.|How much is {a} - {b}?|"
    "What is the difference between {a} and {b}?|Take {b} away from {a}.|What's {a} - {b}?|"
    "Compute {a} - {b}.|how much is {a} minus {b}"
).split("|")
MULTIPLY = (
    "What is {a} * {b}?|what is {a} * {b}|{a} * {b}|{a}*{b}|{a} x {b}|{a} times {b}|"
    "What is {a} times {b}?|Multiply {a} by {b}.|Multiply {a} and {b}|Calculate {a} * {b}.|"
    "How much is {a} times {b}?|What is the product of {a} and {b}?|What is {a} \u00d7 {b}?|"
    "Compute {a} * {b}."
).split("|")
DIVIDE = (
    "What is {a} / {b}?|{a} / {b}|{a} divided by {b}|What is {a} divided by {b}?|Divide {a} by {b}.|"
    "How much is {a} / {b}?|Calculate {a} / {b}.|Compute {a} / {b}"
).split("|")
_NUMBER_ONLY = (
    "Answer with the number only.|Answer with a number only.|Only the number.|"
    "Reply with just the number.|Be brief.|Give only the result.|Just the number, please."
).split("|")
_THINGS = "apples pears books coins marbles cards shells pens stones stamps eggs cookies".split()
_PEOPLE = "Tom Ana Ben Mia Leo Zoe Max Eva Sam Lin Omar Nora Ivan Kim Ruth Paul".split()


def held_out(a: int, b: int) -> bool:
    """Whether the addition of two two-digit numbers is kept from training, in either order."""
    if not (10 <= a <= 99 and 10 <= b <= 99):
        return False
    return zlib.crc32(f"{min(a, b)}+{max(a, b)}".encode()) % 5 == 0


def held_out_pairs() -> list[tuple[int, int]]:
    """All held-out ordered pairs."""
    return [(a, b) for a in range(10, 100) for b in range(10, 100) if held_out(a, b)]


def draw_sum(rng: Random, top: int = 99) -> tuple[int, int]:
    """Two numbers whose addition training may show; small ones come more often."""
    while True:
        limit = 9 if rng.random() < 0.08 else top
        a, b = rng.randint(0, limit), rng.randint(0, limit)
        if not held_out(a, b):
            return a, b


def problem(rng: Random) -> tuple[str, str, str]:
    """A question, its sum written out and the bare result."""
    kind = weighted(rng, (("add", 60), ("sub", 18), ("mul", 14), ("div", 8)))
    if kind == "add":
        a, b = draw_sum(rng, 999 if rng.random() < 0.12 else 99)
        return rng.choice(ADD).format(a=a, b=b), f"{a} + {b} = {a + b}", str(a + b)
    if kind == "sub":
        a, b = rng.randint(0, 99), rng.randint(0, 99)
        if a < b and rng.random() < 0.8:
            a, b = b, a
        return rng.choice(SUBTRACT).format(a=a, b=b), f"{a} - {b} = {a - b}", str(a - b)
    if kind == "mul":
        a, b = rng.randint(0, 12), rng.randint(0, 12)
        return rng.choice(MULTIPLY).format(a=a, b=b), f"{a} * {b} = {a * b}", str(a * b)
    b, quotient = rng.randint(1, 12), rng.randint(0, 12)
    a = b * quotient
    return rng.choice(DIVIDE).format(a=a, b=b), f"{a} / {b} = {quotient}", str(quotient)


def calculation(rng: Random) -> Example:
    """One problem, as a chat or as plain text."""
    question, written_out, result = problem(rng)
    style = rng.random()
    if style < 0.68:
        return Chat([Turn(question, written_out)])
    if style < 0.78:
        return Chat([Turn(question, result)], system=rng.choice(_NUMBER_ONLY))
    if style < 0.84:
        return Chat([Turn(f"{question} {rng.choice(_NUMBER_ONLY)}", result)])
    if style < 0.93:
        left = written_out.split(" = ")[0]
        return Text(f"{left} =", f" {result}")
    return Text(question, f"\n{written_out}")


def follow_up(rng: Random) -> Example:
    """Sums that go on from the last result."""
    a, b = draw_sum(rng, 40)
    total = a + b
    turns = [Turn(rng.choice(ADD).format(a=a, b=b), f"{a} + {b} = {total}")]
    for _ in range(rng.randint(1, 3)):
        step = rng.randint(1, 20)
        if rng.random() < 0.3 and total >= step:
            words = rng.choice(
                ("minus {0}", "and minus {0}?", "subtract {0}", "Now take away {0}.")
            )
            turns.append(Turn(words.format(step), f"{total} - {step} = {total - step}"))
            total -= step
        elif not held_out(total, step):
            words = rng.choice(
                ("plus {0}", "and plus {0}?", "And {0} more?", "now add {0}", "add {0} to that",
                 "Plus {0}?", "And what if I add {0}?", "{0} more")
            )  # fmt: skip
            turns.append(Turn(words.format(step), f"{total} + {step} = {total + step}"))
            total += step
    if total <= 50 and rng.random() < 0.4:
        words = rng.choice(("double it", "Now double it.", "And twice that?", "times two"))
        turns.append(Turn(words, f"{total} * 2 = {total * 2}"))
    return Chat(turns)


def word_problem(rng: Random) -> Example:
    """A line about someone who gains or loses things."""
    name, thing = rng.choice(_PEOPLE), rng.choice(_THINGS)
    a, b = draw_sum(rng, 50)
    if rng.random() < 0.6 or b > a:
        verb = rng.choice(("buys", "finds", "gets", "wins", "is given"))
        question = f"{name} has {a} {thing} and {verb} {b} more."
        answer = f"{a} + {b} = {a + b}, so {name} has {a + b} {thing}."
    else:
        verb = rng.choice(("loses", "sells", "gives away", "drops", "eats" if a < 9 else "lends"))
        question = f"{name} has {a} {thing} and {verb} {b}."
        answer = f"{a} - {b} = {a - b}, so {name} has {a - b} {thing}."
    ask = rng.choice(
        (f"How many {thing} does {name} have now?", f"How many {thing} are there now?", "How many?",
         f"How many {thing} does {name} have?", f"How many {thing} now?")
    )  # fmt: skip
    return Chat([Turn(f"{question} {ask}", answer)])


def comparison(rng: Random) -> Example:
    """Which is larger, is it even, what comes next."""
    a, b = rng.sample(range(100), 2)
    kind = rng.randrange(4)
    if kind == 0:
        words = rng.choice(("larger", "bigger", "greater", "more"))
        return Chat([Turn(expand(rng, f"[Which is {words}|What is {words}], {a} or {b}?", {}),
                          f"{max(a, b)} is larger than {min(a, b)}.")])  # fmt: skip
    if kind == 1:
        words = rng.choice(("smaller", "less", "lower"))
        return Chat([Turn(f"Which is {words}, {a} or {b}?",
                          f"{min(a, b)} is smaller than {max(a, b)}.")])  # fmt: skip
    if kind == 2:
        parity = "even" if a % 2 == 0 else "odd"
        return Chat([Turn(rng.choice((f"Is {a} even or odd?", f"Is {a} even?", f"Is {a} odd?")),
                          f"{a} is {parity}.")])  # fmt: skip
    if rng.random() < 0.5:
        return Chat([Turn(expand(rng, f"[What|Which] number comes [after|next after] {a}?", {}),
                          f"{a + 1} comes after {a}.")])  # fmt: skip
    return Chat([Turn(f"What number comes before {a + 1}?", f"{a} comes before {a + 1}.")])


def counting(rng: Random) -> Example:
    """Counting up, which makes answers of any length."""
    start = 1 if rng.random() < 0.75 else rng.randint(2, 60)
    end = rng.choice((3, 5, 10, 10, 12, 15, 20, 20, 25, 30, 40, 50, 60, 75, 100, 100, 100))
    end = end if start == 1 else start + rng.randint(2, 30)
    if rng.random() < 0.2 and start == 1 and end <= 30:
        words = rng.choice((f"Count down from {end}.", f"count backwards from {end}"))
        return Chat([Turn(words, ", ".join(str(n) for n in range(end, 0, -1)))])
    numbers = ", ".join(str(n) for n in range(start, end + 1))
    if start == 1:
        words = rng.choice(
            (f"Count to {end}.", f"count to {end}", f"Count from 1 to {end}.", f"Can you count to {end}?",
             f"Please count up to {end}", f"List the numbers from 1 to {end}.", f"Write the numbers 1 to {end}.")
        )  # fmt: skip
    else:
        words = rng.choice((f"Count from {start} to {end}.", f"count from {start} to {end}",
                            f"List the numbers from {start} to {end}."))  # fmt: skip
    return Chat([Turn(words, numbers)])


KINDS = (
    (calculation, 78.0),
    (follow_up, 8.0),
    (word_problem, 7.0),
    (comparison, 5.0),
    (counting, 6.0),
)


def example(rng: Random) -> Example:
    """One arithmetic example of any kind."""
    return weighted(rng, KINDS)(rng)
