"""Names and values for synthetic pages: mostly invented strings, so that a model must copy rather than recall."""

from __future__ import annotations

import random
import string

ENGLISH = """anchor apricot archive arrow autumn awning badge bakery balance bamboo barrel basket battery beacon bicycle
blanket blossom bottle breeze brick bridge bronze bubble bucket budget butter cabin cable cactus camera candle
canvas carbon castle cedar ceiling cellar chapter chimney circuit citrus clover cobalt coffee comet compass
copper cradle crater cricket curtain cushion delta desert diamond dolphin dragon drawer driver eagle ember
engine feather fender fiddle filter flame flannel flask flour forest fossil fountain galaxy garden garlic
gazette glacier goblet granite gravel gravy guitar hammer harbor harvest hedge helmet hinge horizon hornet
igloo indigo island jacket jigsaw jungle kernel kettle kitchen ladder ladle lagoon lamppost lantern lemon
library lizard locket lumber magnet mango marble meadow melon meteor mirror mitten monsoon mosaic mountain
napkin nectar needle nickel nutmeg oasis oatmeal ocean onyx orbit orchard otter oyster paddle panther paper
parcel pebble pelican pepper pewter piano pigeon pillow pinecone pirate planet plateau plaza pocket pollen
prairie puzzle quarry quartz quill rabbit radar ribbon river rocket saddle saffron sandbar satin scarf shadow
shelter shovel sketch spider spruce stable statue summit sunset teapot temple thistle thunder ticket timber
topaz trowel tugboat tunnel turtle umbrella valley vapor violin walnut whistle window winter zephyr zipper""".split()

FINISH = "Save Send Confirm Apply Done Proceed Finish Store Continue Record Ready Commit Deliver Process Upload".split()
FIELDS = """Street Colour Nickname Employer Title Reference Account Code Alias Remark Motto District Postcode
Department Project Keyword Model Serial Size Amount Passphrase Pin Token Email Phone Fax Room""".split()
SECTIONS = """Overview Details History Pricing Gallery Reviews Credits Extras Billing Shipping Archive Metrics Notes
Team Safety Privacy Updates Charts Rules Summary""".split()
ORDINALS = ("first", "second", "third", "fourth", "fifth")
SHORT_ORDINALS = ("1st", "2nd", "3rd", "4th", "5th")

_ONSETS = "b c d f g h j k l m n p r s t v w z br cl dr fl gr pl st tr".split()
_VOWELS = "a e i o u ai ea oo".split()
_CODAS = ["", "", "n", "r", "s", "l", "x", "nd", "rk", "m"]


def letters(rng: random.Random, low: int = 1, high: int = 8) -> str:
    """A random string of letters, now and then with digits."""
    alphabet = string.ascii_lowercase if rng.random() < 0.6 else string.ascii_letters
    if rng.random() < 0.2:
        alphabet += string.digits
    return "".join(rng.choice(alphabet) for _ in range(rng.randint(low, high)))


def invented(rng: random.Random) -> str:
    """A word that can be spoken: one to three syllables."""
    return "".join(
        rng.choice(_ONSETS) + rng.choice(_VOWELS) + rng.choice(_CODAS) for _ in range(rng.choice((1, 2, 2, 3)))
    )


def cased(rng: random.Random, word: str) -> str:
    """The word as it is, capitalised, or in capitals."""
    draw = rng.random()
    return word if draw < 0.5 else word.capitalize() if draw < 0.9 else word.upper()


def word(rng: random.Random) -> str:
    draw = rng.random()
    if draw < 0.35:
        return cased(rng, rng.choice(ENGLISH))
    if draw < 0.7:
        return cased(rng, invented(rng))
    return letters(rng)


def phrase(rng: random.Random, low: int = 1, high: int = 3) -> str:
    return " ".join(word(rng) for _ in range(rng.randint(low, high)))


def name(rng: random.Random) -> str:
    """What an element is called."""
    draw = rng.random()
    if draw < 0.72:
        return word(rng)
    if draw < 0.92:
        return phrase(rng, 2, 3)
    return number(rng)


def number(rng: random.Random) -> str:
    return str(rng.randint(-20, 99) if rng.random() < 0.7 else rng.randint(100, 9999))


def value(rng: random.Random) -> str:
    """What is typed into a field."""
    draw = rng.random()
    if draw < 0.4:
        return letters(rng, 1, 8)
    if draw < 0.65:
        return word(rng)
    if draw < 0.8:
        return number(rng)
    if draw < 0.92:
        return phrase(rng, 2, 3)
    return f"{letters(rng, 2, 5)}@{invented(rng)}.{rng.choice(('com', 'net', 'org'))}"


def look_alike(rng: random.Random, text: str) -> str:
    """A string that is easily taken for ``text``: another case, one letter changed, longer or shorter."""
    draw = rng.random()
    if draw < 0.3:
        return text.swapcase() if rng.random() < 0.3 else (text.lower() if text != text.lower() else text.capitalize())
    if draw < 0.6 and text:
        spot = rng.randrange(len(text))
        return text[:spot] + rng.choice(string.ascii_lowercase) + text[spot + 1 :]
    if draw < 0.8 and len(text) > 2:
        return text[:-1]
    return text + (rng.choice(string.ascii_lowercase) if rng.random() < 0.5 else " " + word(rng))
