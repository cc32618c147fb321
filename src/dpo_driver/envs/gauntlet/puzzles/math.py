"""Math: a formula, a recipe of operations or a short story; type the number, press the button that checks it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import ClassVar

from dpo_driver.envs.gauntlet.puzzles.base import SKINS, Event, Json, Phrases, Puzzle, Setup

TITLE: Phrases = (
    ("A sum", "Do the sum", "Some arithmetic", "Number work", "Quick maths"),
    ("Reckoning", "Count it up", "A question of numbers", "With a sharp pencil"),
)
TEXT: Phrases = (
    (
        "Work out the result and type it in.",
        "Calculate this and write down the answer.",
        "Solve it, then type the answer.",
        "What does it come to? Enter the result.",
    ),
    (
        "Reckon it up and write the total here.",
        "Find the number that is asked for and note it.",
        "Figure out the outcome, then write it below.",
    ),
)
ANSWER: Phrases = (("Answer", "Result", "Your number", "Solution"), ("Total", "Number", "Outcome"))
CHECK: Phrases = (("Check", "Verify", "Test it", "Compare"), ("Is it right?", "Try it", "Weigh it"))
WRONG: Phrases = (
    ("That is not it.", "Not right. Try again.", "Wrong result.", "Check your sum once more."),
    ("It does not add up.", "Another number is true.", "Reckon again."),
)
EMPTY: Phrases = (
    ("Type a whole number.", "There is no number yet.", "A number, please.", "Write digits only."),
    ("Digits are needed.", "Write a number first.", "No number was given."),
)
SIGNS = ({"+": "+", "-": "\u2212", "*": "\u00d7", "/": "\u00f7"}, {"+": "+", "-": "-", "*": "*", "/": "/"})  # by skin
ASK: Phrases = (
    ("{sum} = ?", "{sum} =", "What is {sum}?", "{sum}"),
    ("? = {sum}", "How much is {sum}?", "{sum} makes ?"),
)

RECIPE: dict[str, Phrases] = {
    "start": (
        ("Start with {n}.", "Take the number {n}.", "Begin at {n}.", "Think of {n}."),
        ("Your first number is {n}.", "Write down {n}.", "Set out from {n}."),
    ),
    "gain": (
        ("Add {n}.", "Then add {n} to it.", "Put {n} on top.", "Go up by {n}."),
        ("Increase it by {n}.", "Make it {n} more.", "Join {n} to that."),
    ),
    "loss": (
        ("Subtract {n}.", "Take {n} away.", "Go down by {n}.", "Remove {n}."),
        ("Reduce it by {n}.", "Make it {n} less.", "Drop {n} of it."),
    ),
    "times": (
        ("Multiply by {n}.", "Take that {n} times.", "Make it {n} times as large.", "Now {n} times that."),
        ("Multiply what you have by {n}.", "Have it {n} times over.", "Turn it into {n} times as much."),
    ),
    "share": (
        (
            "Divide by {n}.",
            "Split it into {n} equal parts; keep a single part.",
            "Divide it into {n}.",
            "Now divide by {n}.",
        ),
        ("Share it out among {n}.", "Divide what you have by {n}.", "Split it evenly, {n} ways."),
    ),
    "end": (
        ("What is the number now?", "What do you get?", "Where do you end?", "What is the result?"),
        ("What remains at last?", "How much is it in the end?", "What came of it?"),
    ),
}
STORY: dict[str, Phrases] = {
    "start": (
        (
            "{who} has {n} {things}.",
            "{who} owns {n} {things}.",
            "{who} sets out with {n} {things}.",
            "{who} packs {n} {things}.",
        ),
        ("{n} {things} belong to {who}.", "{who} keeps {n} {things}.", "{who} came with {n} {things}."),
    ),
    "gain": (
        ("{who} finds {n} more.", "A friend brings {n} more.", "{who} buys another {n}.", "{who} gets {n} as a gift."),
        ("{n} are added to them.", "{who} wins {n} more.", "Next day {who} receives {n}."),
    ),
    "loss": (
        ("{who} gives {n} away.", "{who} loses {n}.", "{n} are stolen.", "{who} sells {n}."),
        ("{n} get lost.", "{who} hands {n} to a neighbour.", "{n} are used up."),
    ),
    "times": (
        (
            "Soon there are {n} times as many.",
            "The lot grows to {n} times its size.",
            "Magic makes it {n} times as many.",
            "Then there are {n} times as many.",
        ),
        (
            "By spring there are {n} times as many.",
            "The heap swells to {n} times what it was.",
            "A spell turns them into {n} times as many.",
        ),
    ),
    "share": (
        (
            "They are shared equally by {n} people, {who} among them.",
            "{who} divides them by {n} and keeps a single part.",
            "{n} friends share equally, {who} is in.",
            "Split evenly by {n}, {who} keeps a single part.",
        ),
        (
            "{who} is among {n} people who share them evenly.",
            "Divided by {n}, what is left to {who} is a single part.",
            "{n} heirs split them evenly; {who} is in.",
        ),
    ),
    "end": (
        (
            "How many {things} has {who} now?",
            "How many {things} does that leave {who}?",
            "How many {things} are there for {who}?",
            "So how many {things} has {who}?",
        ),
        (
            "How many {things} has {who} at last?",
            "What number of {things} does {who} hold?",
            "How many {things} are {who}'s in the end?",
        ),
    ),
}
WHO = (
    "Ada", "Ben", "Cleo", "Dan", "Eva", "Finn", "Gus", "Ida", "Jon", "Kai", "Lea", "Mia", "Nils", "Ole", "Pia", "Rosa",
    "Sam", "Tom", "Una", "Vera", "Yan", "Zoe",
)  # fmt: skip
THINGS = (
    "pears", "marbles", "stamps", "coins", "books", "shells", "candles", "postcards", "buttons", "nuts", "pencils",
    "plums", "stickers", "beads", "tickets", "cookies", "feathers", "pebbles", "ribbons", "tulips",
)  # fmt: skip
_ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
).split()
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
MOVES = {1: 1, 2: 2, 3: 3}
MAX_DIGITS = 9  # of an answer


def in_words(number: int) -> str:
    """A number from 0 to 99 as a word."""
    if number < 20:
        return _ONES[number]
    tens, ones = divmod(number, 10)
    return _TENS[tens - 2] + (f"-{_ONES[ones]}" if ones else "")


def formula(rng: random.Random, difficulty: int) -> tuple[str, int]:
    """A formula with + - * / and brackets, and its value, which is a whole number of at least 0."""
    if difficulty == 1:
        a, b, c, d = rng.randint(6, 40), rng.randint(3, 30), rng.randint(3, 9), rng.randint(3, 9)
        return rng.choice([(f"{a} + {b}", a + b), (f"{a + b} - {b}", a), (f"{c} * {d}", c * d)])
    a, b, c, d = rng.randint(4, 15), rng.randint(3, 9), rng.randint(2, 9), rng.randint(2, 9)
    if difficulty == 2:
        return rng.choice(
            [
                (f"({a} + {b}) * {c}", (a + b) * c),
                (f"{a} + {b} * {c}", a + b * c),
                (f"{(a + c) * b} - {c} * {b}", a * b),
                (f"{c} * ({a + b} - {b})", c * a),
            ]
        )
    return rng.choice(
        [
            (f"{a} * {b} + {c} * {d}", a * b + c * d),
            (f"({a} + {b}) * ({c + d} - {c})", (a + b) * d),
            (f"({a * b} + {c * b}) / {b}", a + c),
            (f"{a * b + c * d} - {c} * {d}", a * b),
        ]
    )


def chain(rng: random.Random, length: int, most: int) -> tuple[int, list[tuple[str, int]], int]:
    """(start, what happens to it one after another, end); whole numbers from 1 to ``most`` all the way."""
    start = value = rng.randint(8, 30)
    moves: list[tuple[str, int]] = []
    while len(moves) < length:
        kind = rng.choice(["gain", "loss", "times", "share"])
        if moves and kind == moves[-1][0]:
            continue
        by = rng.randint(2, 12) if kind in ("gain", "loss") else rng.randint(2, 6)
        after = {
            "gain": value + by,
            "loss": value - by,
            "times": value * by,
            "share": value // by if value % by == 0 else 0,
        }[kind]
        if 2 <= after <= most:
            moves.append((kind, by))
            value = after
    return start, moves, value


class Math(Puzzle):
    """Solved by a trusted click on the button that checks while the trusted text of the field is the right number."""

    name: ClassVar[str] = "math"

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self._title, self._text = setup.say(TITLE), setup.say(TEXT)
        self._field, self._check = setup.say(ANSWER), setup.say(CHECK)
        self._wrong, self._empty = setup.say(WRONG), setup.say(EMPTY)
        kind = setup.rng.choice(["formula", "recipe", "story"])
        self._lines = self._formula() if kind == "formula" else self._chain(RECIPE if kind == "recipe" else STORY)
        self._note: str | None = None

    def _formula(self) -> list[str]:
        written, self._result = formula(self.setup.rng, self.setup.difficulty)
        signs = SIGNS[SKINS.index(self.setup.skin)]
        return [self.setup.say(ASK, sum="".join(signs.get(sign, sign) for sign in written))]

    def _chain(self, phrases: dict[str, Phrases]) -> list[str]:
        """One sentence a line; at difficulty 3 numbers are words."""
        setup = self.setup
        start, moves, self._result = chain(setup.rng, MOVES[setup.difficulty], 200)
        words = {"who": setup.rng.choice(WHO), "things": setup.rng.choice(THINGS)}
        lines = [
            setup.say(phrases[kind], n=in_words(by) if setup.difficulty == 3 else by, **words)
            for kind, by in [("start", start), *moves]
        ]
        lines.append(setup.say(phrases["end"], **words))
        return [line[0].upper() + line[1:] for line in lines]

    @property
    def parts(self) -> Sequence[str]:
        return ["answer", "check"]

    def view(self) -> dict[str, Json]:
        return {
            "title": self._title,
            "text": self._text,
            "lines": self._lines,
            "field": {"name": self.setup.part("answer"), "label": self._field},
            "check": self.setup.control("check", self._check),
            "note": self._note,
            "reveal": self.revealed(),
        }

    def on(self, event: Event) -> None:
        if self.solved:
            return
        checks = event.kind == "click" and event.part == "check"
        enters = event.kind == "keydown" and event.key == "Enter" and event.part != "check"
        if (checks or enters) and "answer" in event.fields:  # which come with both, from inside the form
            self._judge(event.fields["answer"])

    def _judge(self, answer: str) -> None:
        answer = answer.strip()
        if not (answer.isascii() and answer.isdigit() and len(answer) <= MAX_DIGITS):
            self._note = self._empty
        elif int(answer) == self._result:
            self._note = None
            self.solve()
        else:
            self.mistakes += 1
            self._note = self._wrong
