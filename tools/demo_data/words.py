"""Word lists: things to list, name, sort and tell stories about."""

from __future__ import annotations

from random import Random

CATEGORIES: dict[str, list[str]] = {
    "fruits": "apple banana cherry grape lemon mango orange peach pear plum kiwi melon".split(),
    "vegetables": "carrot potato tomato onion pea bean cabbage spinach leek pepper".split(),
    "animals": "cat dog horse cow lion tiger elephant rabbit fox bear wolf mouse".split(),
    "birds": "eagle owl robin sparrow parrot swan duck crow penguin pigeon".split(),
    "colours": "red blue green yellow orange purple black white brown pink".split(),
    "countries": "France Spain Italy Japan Brazil Canada Kenya India Norway Chile Egypt".split(),
    "cities": "Paris Rome London Berlin Madrid Tokyo Oslo Cairo Lima Vienna".split(),
    "planets": "Mercury Venus Earth Mars Jupiter Saturn Uranus Neptune".split(),
    "languages": "English French Spanish German Italian Japanese Arabic Hindi Greek".split(),
    "programming languages": "Python C Rust Java JavaScript Go Ruby Julia Haskell".split(),
    "sports": "football tennis swimming running chess rowing cycling hockey golf".split(),
    "tools": "hammer saw drill screwdriver pliers wrench ruler axe".split(),
    "drinks": "water tea coffee milk juice lemonade cocoa soda".split(),
    "instruments": "piano violin guitar flute drum trumpet cello harp".split(),
    "trees": "oak pine birch maple willow elm beech cedar".split(),
    "flowers": "rose tulip lily daisy violet poppy orchid sunflower".split(),
    "metals": "iron copper gold silver tin lead zinc nickel".split(),
    "clothes": "shirt coat hat sock shoe glove scarf dress".split(),
    "vehicles": "car bus train bicycle ship plane tram truck".split(),
    "insects": "ant bee beetle butterfly fly wasp moth cricket".split(),
    "fish": "salmon trout tuna cod carp herring pike eel".split(),
    "jobs": "teacher nurse baker farmer pilot painter cook engineer".split(),
    "shapes": "circle square triangle rectangle oval star hexagon cube".split(),
    "rooms": "kitchen bedroom bathroom cellar attic hall office library".split(),
    "school subjects": "history biology music art physics chemistry geography mathematics".split(),
}
ALIASES = {"colors": "colours", "musical instruments": "instruments", "professions": "jobs"}
COLOURS_OF = {
    "apple": "red", "banana": "yellow", "cherry": "red", "grape": "purple", "lemon": "yellow",
    "orange": "orange", "plum": "purple", "kiwi": "green", "pear": "green", "peach": "pink",
}  # fmt: skip
NUMBER_WORDS = "zero one two three four five six seven eight nine ten".split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = (
    "January February March April May June July August September October November December".split()
)
FIRST_NAMES = (
    "Ana Ben Carla David Emma Felix Grace Hugo Ines Jonas Karin Leo Maria Nina Oscar Paula Quentin "
    "Rosa Samuel Tina Ursula Victor Wendy Xavier Yara Zoe Amir Bella Chen Dana Elias Fatima Goran "
    "Hana Ivan Julia Kofi Lena Mateo Noor Olga Pedro Ravi Sofia Tomas Uma Vera Walter Yuki Zara "
    "John Mary Peter Alice Bob Lucy Tom Sara Mark Linda James Anna Paul Laura Max Eva Sam Kim"
).split()
LAST_NAMES = (
    "Smith Jones Garcia Meyer Rossi Novak Silva Tanaka Brown Keller Dubois Larsen Okafor Patel Kim "
    "Lopez Moore Weber Costa Ivanova Young Berg Clark Diaz Evans Fischer Green Hall Ito Jensen"
).split()
CITIES = (
    "Paris Rome London Berlin Madrid Tokyo Oslo Cairo Lima Vienna Lisbon Dublin Prague Athens Boston "
    "Toronto Sydney Delhi Nairobi Geneva Hamburg Porto Milan Lyon Bergen Krakow Osaka Austin Denver"
).split()
_CONSONANTS, _VOWELS = "bcdfghjklmnprstvwz", "aeiou"


def invented_name(rng: Random) -> str:
    """A name nobody has, so that copying is learned rather than a list of names."""
    syllables = "".join(
        rng.choice(_CONSONANTS) + rng.choice(_VOWELS) for _ in range(rng.randint(2, 3))
    )
    return (syllables + rng.choice(("", "", "n", "r", "s", "l"))).capitalize()


def first_name(rng: Random) -> str:
    """A first name, one in three invented."""
    return invented_name(rng) if rng.random() < 0.45 else rng.choice(FIRST_NAMES)


def city(rng: Random) -> str:
    """A city, one in five invented."""
    return invented_name(rng) if rng.random() < 0.4 else rng.choice(CITIES)


def singular(category: str) -> str:
    """The name of one member of a category."""
    irregular = {
        "countries": "country",
        "cities": "city",
        "fish": "fish",
        "clothes": "piece of clothing",
    }
    return irregular.get(category, category.removesuffix("s"))
