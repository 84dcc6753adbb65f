"""Short Python: functions on request, and as plain text to go on from."""

from __future__ import annotations

from random import Random
from typing import NamedTuple

from demo_data.base import Chat, Example, Text, Turn, expand


class Snippet(NamedTuple):
    """A task in words (alternatives separated by `|`) and the code for it."""

    task: str
    code: str


SNIPPETS = (
    Snippet("adds two numbers|returns the sum of two numbers|sums two values", "def add(a, b):\n    return a + b"),
    Snippet("subtracts two numbers|returns the difference of two numbers", "def subtract(a, b):\n    return a - b"),
    Snippet("multiplies two numbers|returns the product of two numbers", "def multiply(a, b):\n    return a * b"),
    Snippet("squares a number|returns the square of a number", "def square(x):\n    return x * x"),
    Snippet("doubles a number|returns twice a number", "def double(x):\n    return 2 * x"),
    Snippet("checks whether a number is even|tests if a number is even|says if a number is even", "def is_even(n):\n    return n % 2 == 0"),
    Snippet("checks whether a number is odd|tests if a number is odd", "def is_odd(n):\n    return n % 2 == 1"),
    Snippet("computes the factorial|computes the factorial of n|returns n factorial|calculates a factorial", "def factorial(n):\n    return 1 if n <= 1 else n * factorial(n - 1)"),
    Snippet("computes Fibonacci numbers|returns the n-th Fibonacci number|computes the fibonacci sequence", "def fibonacci(n):\n    a, b = 0, 1\n    for _ in range(n):\n        a, b = b, a + b\n    return a"),
    Snippet("checks whether a number is prime|tests if a number is prime|finds out if n is a prime", "def is_prime(n):\n    if n < 2:\n        return False\n    for d in range(2, int(n**0.5) + 1):\n        if n % d == 0:\n            return False\n    return True"),
    Snippet("reverses a string|turns a string around|reverses a text", "def reverse(text):\n    return text[::-1]"),
    Snippet("checks for a palindrome|tests if a word is a palindrome|checks whether a text is a palindrome", "def is_palindrome(text):\n    return text == text[::-1]"),
    Snippet("counts the words in a text|counts words|returns the number of words", "def count_words(text):\n    return len(text.split())"),
    Snippet("counts the vowels in a string|counts vowels", "def count_vowels(text):\n    return sum(letter in \"aeiou\" for letter in text.lower())"),
    Snippet("finds the largest number in a list|returns the maximum of a list|finds the maximum", "def largest(numbers):\n    return max(numbers)"),
    Snippet("finds the smallest number in a list|returns the minimum of a list", "def smallest(numbers):\n    return min(numbers)"),
    Snippet("computes the mean of a list|computes the average|returns the average of numbers", "def mean(numbers):\n    return sum(numbers) / len(numbers)"),
    Snippet("sums a list|adds up a list of numbers|returns the total of a list", "def total(numbers):\n    return sum(numbers)"),
    Snippet("sorts a list|returns a sorted list", "def sort(items):\n    return sorted(items)"),
    Snippet("removes duplicates from a list|returns the unique items of a list", "def unique(items):\n    return list(dict.fromkeys(items))"),
    Snippet("reads a file|reads a text file|returns the text of a file", "def read(path):\n    with open(path) as file:\n        return file.read()"),
    Snippet("writes a text to a file|saves a text to a file", "def write(path, text):\n    with open(path, \"w\") as file:\n        file.write(text)"),
    Snippet("greets a person|says hello to a name|prints a greeting", "def greet(name):\n    print(f\"Hello, {name}!\")"),
    Snippet("prints hello world|says hello world", "def hello():\n    print(\"Hello, world!\")"),
    Snippet("plays FizzBuzz|prints FizzBuzz|does fizzbuzz", "def fizzbuzz(n):\n    for i in range(1, n + 1):\n        print(\"Fizz\" * (i % 3 == 0) + \"Buzz\" * (i % 5 == 0) or i)"),
    Snippet("counts to n|prints the numbers from 1 to n", "def count(n):\n    for i in range(1, n + 1):\n        print(i)"),
    Snippet("computes the greatest common divisor|finds the greatest common divisor of two numbers", "def gcd(a, b):\n    while b:\n        a, b = b, a % b\n    return a"),
    Snippet("flattens a list of lists|flattens nested lists", "def flatten(lists):\n    return [item for items in lists for item in items]"),
    Snippet("counts the letters of a word|counts how often each letter occurs", "from collections import Counter\n\n\ndef letters(word):\n    return Counter(word)"),
    Snippet("swaps two values|swaps two variables", "def swap(a, b):\n    return b, a"),
    Snippet("converts Celsius to Fahrenheit|turns Celsius into Fahrenheit", "def fahrenheit(celsius):\n    return celsius * 9 / 5 + 32"),
    Snippet("computes the area of a circle|returns the area of a circle", "import math\n\n\ndef circle_area(radius):\n    return math.pi * radius**2"),
    Snippet("rolls a die|rolls a dice|returns a random number from 1 to 6", "import random\n\n\ndef roll():\n    return random.randint(1, 6)"),
    Snippet("parses JSON|reads JSON from a string", "import json\n\n\ndef parse(text):\n    return json.loads(text)"),
    Snippet("merges two dictionaries|merges two dicts", "def merge(first, second):\n    return first | second"),
    Snippet("squares every number in a list|returns the squares of a list", "def squares(numbers):\n    return [n * n for n in numbers]"),
    Snippet("streams an answer from llmkernel|asks llmkernel|uses llmkernel", "import llmkernel\n\n\ndef ask(prompt):\n    llm = llmkernel.connect()\n    for delta in llm.stream(prompt):\n        print(delta.text, end=\"\")"),
)  # fmt: skip
_SMALL = (
    ("print hello world in Python|hello world in Python|a hello world program|Python hello world", 'print("Hello, world!")'),
    ("write a for loop in Python|a Python for loop|loop from 0 to 9 in Python|show me a for loop", "for i in range(10):\n    print(i)"),
    ("write a list comprehension|a list comprehension in Python|show me a list comprehension", "squares = [n * n for n in range(10)]"),
    ("write a while loop|a Python while loop|show me a while loop", "n = 3\nwhile n > 0:\n    print(n)\n    n -= 1"),
    ("make a dictionary in Python|a Python dictionary|show me a dict in Python", 'ages = {"Ana": 34, "Ben": 28}'),
    ("write a class in Python|a small Python class|show me a Python class", "class Dog:\n    def __init__(self, name):\n        self.name = name\n\n    def bark(self):\n        return f\"{self.name} says woof\""),
    ("handle an exception in Python|a try except block|try and except in Python", "try:\n    number = int(text)\nexcept ValueError:\n    number = 0"),
    ("import numpy|how do I import numpy|make a numpy array", "import numpy as np\n\nvalues = np.arange(10)"),
    ("read a csv file with pandas|load a csv file|read a CSV in Python", 'import pandas as pd\n\ntable = pd.read_csv("file.csv")'),
    ("write an if statement in Python|show me an if statement", 'if n > 0:\n    print("positive")\nelse:\n    print("not positive")'),
)  # fmt: skip


def fenced(code: str) -> str:
    """Code in a Markdown fence."""
    return f"```python\n{code}\n```"


def _explained(rng: Random, task: str) -> Turn:
    ask = expand(
        rng,
        "[What does it do?|Explain it.|explain the code|What does this do?|and what does that do?]",
        {},
    )
    return Turn(ask, f"It {task}.")


def example(rng: Random) -> Example:
    """One snippet, asked for, explained or begun."""
    if rng.random() < 0.2:
        tasks, code = rng.choice(_SMALL)
        return Chat(
            [Turn(expand(rng, rng.choice(tasks.split("|")) + "[|.|?|, please]", {}), fenced(code))]
        )
    snippet = rng.choice(SNIPPETS)
    task = rng.choice(snippet.task.split("|"))
    style = rng.random()
    if style < 0.2 and snippet.code.startswith("def "):
        cut = snippet.code.index("\n")
        if rng.random() < 0.5:
            return Text(snippet.code[:cut], snippet.code[cut:])
        return Text(
            snippet.code[: snippet.code.index("(")], snippet.code[snippet.code.index("(") :]
        )
    if style < 0.3:
        ask = expand(
            rng, "[What does this code do|Explain this code|What does this function do]", {}
        )
        return Chat(
            [Turn(f"{ask}?\n\n{fenced(snippet.code)}", f"It {snippet.task.split('|')[0]}.")]
        )
    ask = expand(
        rng,
        f"[Write|write|Give me|Show me|Make|I need|Can you write|Please write|Define] a [Python |python |short Python |]function [that|which] {task}[.|.||, please]",
        {},
    )
    turns = [Turn(ask, fenced(snippet.code))]
    if rng.random() < 0.12:
        turns.append(_explained(rng, snippet.task.split("|")[0]))
    return Chat(turns)
