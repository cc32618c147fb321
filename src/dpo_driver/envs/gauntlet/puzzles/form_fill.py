"""Form fill: a card of facts, and a form that asks for them, in other words and another order as it gets harder.

Evidence: a trusted click on the send button, with every field's text made by trusted typing alone (``Event.fields``);
choices and ticks are parts, whose state is the server's. At difficulty 3 there are two cards, and the form is for one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import ClassVar

from dpo_driver.envs.gauntlet.puzzles.base import SKINS, Event, Json, Phrases, Puzzle, Setup
from dpo_driver.envs.gauntlet.puzzles.wordlists import some

TITLE: Phrases = (
    ("Paperwork", "Fill in the form", "From card to form", "A little bureaucracy", "Please register"),
    ("The clerk's desk", "Copy with care", "Enter it in the book", "Quill and ink"),
)
TEXT: Phrases = (
    (
        "Fill in the form with the facts on the card.",
        "Copy the details from the card into the form, and send it.",
        "The form asks for facts that stand on the card. Complete it and send it off.",
        "Transfer what the card says into the form below.",
    ),
    (
        "The clerk wants the form filled in; the card knows every answer.",
        "Write into the form what the card tells you, and hand it in.",
        "Let card and form agree, then hand the form in.",
    ),
)
TEXT_FOR: Phrases = (
    (
        'Fill in the form for "{label}"; the facts are on that card.',
        'There are two cards. Copy the details of "{label}" into the form.',
        'Complete the form with the facts about "{label}" only.',
        'The form concerns "{label}". Take what it asks for from the right card.',
    ),
    (
        'The clerk wants the form filled in for "{label}" and for nobody else.',
        'Two cards lie here. Let the form agree with the one of "{label}".',
        'Write into the form what you read of "{label}", and hand it in.',
    ),
)
SEND: Phrases = (
    ("Send form", "Send it off", "Save details", "Register", "Complete registration"),
    ("Hand in", "Hand it over", "Seal the form", "Deliver to the clerk"),
)
WRONG: Phrases = (
    ("Please check: {names}", "Not right yet: {names}", "These do not match the card: {names}"),
    ("The clerk shakes his head at: {names}", "Sent back because of: {names}", "Look again at: {names}"),
)
CARD: Phrases = (
    ("Card", "Index card", "The facts", "Known details"),
    ("The card", "Of the guest", "From the ledger", "What is known"),
)
OWNERS: tuple[tuple[tuple[str, str], ...], ...] = (
    (("Sender", "Recipient"), ("Guest", "Host"), ("Buyer", "Seller"), ("Tenant", "Landlord"), ("Patient", "Doctor")),
    (("Captain", "Cook"), ("Teacher", "Pupil"), ("Baker", "Miller"), ("Aunt", "Nephew")),
)
FIRST: Phrases = (
    "Mara Jonas Elif Tomas Ines Rafael Nora Bruno Leila Oskar Petra Samir Greta Hugo Vera Milan".split(),
    "Aldous Beatrix Cedric Dorothea Edmund Felicity Godfrey Harriet Isolde Jasper Lavinia Mortimer".split(),
)
LAST: Phrases = (
    "Lindqvist Berger Kaya Novak Duarte Moreau Halonen Costa Haddad Weber Jansen Petrov Silva Fischer Rossi".split(),
    "Ashdown Blackwood Carrow Dunmore Fairfax Greenleaf Hawthorne Kettering Larkspur Merriweather Thorne".split(),
)
TOWNS: Phrases = (
    "Oxby Lenton Marsdorf Valkenau Pinhal Riverton Kestel Brunnfeld Havnes Colmar Tarvik Eastwick".split(),
    "Whitby Dale,Nether Stowe,Ravenmoor,Millbrook,Thornbury,Foxhollow,Saltmarsh,Birchwick,Goldenhill".split(","),
)
STREETS: Phrases = (
    "Mill Lane,Station Road,Park Street,Harbour Way,Church Row,Garden Close,Bridge Street,Hill Road".split(","),
    "Cobbler's Yard,Lantern Street,Willow Walk,Candle Row,Old Wall,Ferry Steps,Orchard Lane".split(","),
)
COLOURS: Phrases = (
    "red green yellow blue orange violet".split(),
    "crimson emerald amber ivory scarlet indigo".split(),
)
PETS: Phrases = ("cat dog rabbit parrot hamster tortoise".split(), "owl ferret raven donkey goat hedgehog".split())


@dataclass(frozen=True)
class Fact:
    """One thing that a card tells: its names on cards and in forms, by skin, and how its value is drawn."""

    key: str
    on_card: tuple[str, str]
    in_form: tuple[str, str]
    value: Callable[[Random, int], str]


def _from(words: Phrases) -> Callable[[Random, int], str]:
    return lambda rng, skin: rng.choice(list(words[skin]))


def _number(pattern: str, low: int, high: int) -> Callable[[Random, int], str]:
    return lambda rng, _skin: pattern.format(rng.randint(low, high))


def _street(rng: Random, skin: int) -> str:
    return f"{rng.randint(1, 99)} {rng.choice(list(STREETS[skin]))}"


def _mail(rng: Random, skin: int) -> str:
    name = rng.choice(list(FIRST[skin])).lower()
    return f"{name}{rng.randint(1, 99)}@{rng.choice(('example.org', 'example.net', 'mail.example'))}"


def _phone(rng: Random, _skin: int) -> str:
    return f"{rng.randint(200, 989)} {rng.randint(1000, 9899)}"


# No label speaks of a code or a key: by that the field for the step's own code is known.
FACTS = (
    Fact("first", ("First name", "Given name"), ("Given name", "Forename"), _from(FIRST)),
    Fact("last", ("Surname", "Family name"), ("Last name", "Surname"), _from(LAST)),
    Fact("town", ("Town", "Place of residence"), ("City", "Town"), _from(TOWNS)),
    Fact("street", ("Street and number", "House and street"), ("Street address", "Address"), _street),
    Fact("room", ("Room", "Chamber"), ("Room number", "Number of the chamber"), _number("{}", 101, 989)),
    Fact("phone", ("Phone", "Telephone"), ("Telephone number", "Phone number"), _phone),
    Fact("mail", ("E-mail", "Electronic mail"), ("E-mail address", "Email"), _mail),
    Fact("age", ("Age", "Years of age"), ("Age in years", "Age"), _number("{}", 18, 94)),
    Fact("seat", ("Seat", "Seat number"), ("Seat number", "Your seat"), _number("{}C", 1, 48)),
    Fact(
        "member", ("Member number", "Membership"), ("Membership no.", "Number of membership"), _number("M-{}", 100, 989)
    ),
    Fact("pet", ("Pet", "Animal"), ("Kind of pet", "Kind of animal"), _from(PETS)),
    Fact("colour", ("Favourite colour", "Colour"), ("Preferred colour", "Favourite colour"), _from(COLOURS)),
)
# Choices: label, and options of which the card names one.
CHOICES: tuple[tuple[tuple[str, tuple[str, ...]], ...], ...] = (
    (
        ("Delivery", ("in the morning", "at noon", "in the evening")),
        ("Payment", ("by card", "in cash", "by invoice")),
        ("Class", ("economy", "business", "sleeper")),
        ("Size", ("small", "medium", "large")),
    ),
    (
        ("Lodging", ("in the attic", "by the river", "over the stable")),
        ("Supper", ("soup", "pie", "porridge")),
        ("Journey", ("on foot", "by boat", "on horseback")),
    ),
)
TICKS: Phrases = (
    ("Gift wrapping", "Newsletter", "Insurance", "Receipt by post", "Breakfast"),
    ("Travels with a dog", "Needs a lantern", "Has signed the book", "Keeps the window open"),
)
YES_NO = (("yes", "no"), ("yes", "no"))
ASKED = (3, 4, 5)  # text fields, by difficulty
SPARE = (0, 2, 2)  # facts on the card that the form does not ask for


def _plain(text: str) -> str:
    return " ".join(text.split()).casefold()


class FormFill(Puzzle):
    """Solved by sending the form with every entry right."""

    name: ClassVar[str] = "form-fill"

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        rng, level = setup.rng, setup.difficulty
        self._skin = SKINS.index(setup.skin)
        facts = rng.sample(FACTS, ASKED[level - 1] + SPARE[level - 1])
        asked = sorted(facts[: ASKED[level - 1]], key=lambda _fact: rng.random())
        self._choice = rng.choice(CHOICES[self._skin]) if level > 1 else None
        self._tick = setup.say(TICKS) if level > 2 else None
        self._title = setup.say(TITLE)
        owners = list(rng.choice(OWNERS[self._skin]) if level > 2 else some(setup, CARD, 1))
        right = rng.randrange(len(owners))
        self._text = setup.say(TEXT_FOR if level > 2 else TEXT, label=owners[right])
        drawn = [self._card(facts) for _ in owners]
        self._cards = list(zip(owners, (lines for lines, _ in drawn), strict=True))
        self._truth = drawn[right][1]
        self._fields = [
            (fact.key, fact.on_card[self._skin] if level == 1 else fact.in_form[self._skin]) for fact in asked
        ]
        self._send = setup.say(SEND)
        self._wrong: str = rng.choice(list(WRONG[self._skin]))
        self._layout = rng.choice(("lines", "table"))
        self._chosen: int | None = None
        self._ticked = False
        self._note: str | None = None

    def _card(self, facts: Sequence[Fact]) -> tuple[list[tuple[str, str]], dict[str, str]]:
        """Lines of a card, and key -> value of what they tell."""
        rng, skin = self.setup.rng, self._skin
        truth = {fact.key: fact.value(rng, skin) for fact in facts}
        lines = [(fact.on_card[skin], truth[fact.key]) for fact in facts]
        if self._choice is not None:
            label, options = self._choice
            truth["choice"] = rng.choice(options)
            lines.append((label, truth["choice"]))
        if self._tick is not None:
            truth["tick"] = rng.choice(YES_NO[skin])
            lines.append((self._tick, truth["tick"]))
        rng.shuffle(lines)
        return lines, truth

    @property
    def parts(self) -> Sequence[str]:
        names = [key for key, _ in self._fields]
        if self._choice is not None:
            names += [f"choice/{i}" for i in range(len(self._choice[1]))]
        if self._tick is not None:
            names.append("tick")
        return [*names, "send"]

    def view(self) -> dict[str, Json]:
        control = self.setup.control
        choice = tick = None
        if self._choice is not None:
            label, options = self._choice
            choice = {
                "label": label,
                "options": [{**control(f"choice/{i}", o), "on": i == self._chosen} for i, o in enumerate(options)],
            }
        if self._tick is not None:
            tick = {**control("tick", self._tick), "on": self._ticked}
        return {
            "title": self._title,
            "text": self._text,
            "layout": self._layout,
            "cards": [{"title": owner, "lines": [list(line) for line in lines]} for owner, lines in self._cards],
            "fields": [{"name": self.setup.part(key), "label": label} for key, label in self._fields],
            "choice": choice,
            "tick": tick,
            "send": control("send", self._send),
            "note": self._note,
            "reveal": self.revealed(),
        }

    def on(self, event: Event) -> None:
        if self.solved:
            return
        if event.kind == "keydown" and event.key == "Enter" and event.part in {key for key, _ in self._fields}:
            self._check(event)  # Enter in a field sends a form, as everywhere
        if event.kind != "click":
            return
        if event.part.startswith("choice/"):
            self._chosen = int(event.part.partition("/")[2])
        elif event.part == "tick":
            self._ticked = not self._ticked
        elif event.part == "send":
            self._check(event)

    def _check(self, event: Event) -> None:
        wrong = [label for key, label in self._fields if _plain(event.fields.get(key, "")) != _plain(self._truth[key])]
        if self._choice is not None:
            label, options = self._choice
            if self._chosen is None or options[self._chosen] != self._truth["choice"]:
                wrong.append(label)
        if self._tick is not None and self._ticked != (self._truth["tick"] == YES_NO[self._skin][0]):
            wrong.append(self._tick)
        if wrong:
            self.mistakes += 1
            self._note = self._wrong.format(names=", ".join(wrong))
        else:
            self.solve()
            self._note = None
