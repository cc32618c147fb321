"""Conditional: an answer decides what is asked next; answered as the card of the right person says, all is revealed.

Off the right path other questions open, of which the card says nothing. Answers are kept on the server; a changed one
shuts all that it had opened. Difficulty 1 asks two questions for one card, 2 three for two cards, 3 four for three.
Held out of training. Used by envs/gauntlet/visit.py. Imports the base only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from dpo_driver.envs.gauntlet.puzzles.base import SKINS, Event, Json, Phrases, Puzzle, Setup

TITLE: Phrases = (
    ("One thing leads to another", "It depends", "A form with forks", "Ask and ask again"),
    ("The branching sheet", "If so, then what?", "A clerk with questions"),
)
TEXT: Phrases = (
    (
        'Answer as the card of {who} says. Each answer opens a further question; at the end press "{done}".',
        'Fill this in for {who}; see the card. What is asked next depends on your answer. Then press "{done}".',
        'The card of {who} has all answers. More questions follow as you go. When none is left, press "{done}".',
        'Choose what is true of {who}, question by question, and press "{done}" when all are answered.',
    ),
    (
        "Reply on behalf of {who}, following the notes. Every reply leads to another question. Close with “{done}”.",
        "Speak for {who}, whose notes lie beside this. One reply brings up the next question; “{done}” ends it.",
        "Be {who} for a moment: reply from the notes until nothing more is asked, and finish by “{done}”.",
    ),
)
DONE: Phrases = (
    ("Done", "Send", "That is all", "Complete", "Hand it over"),
    ("Finish", "Stamp it", "File it", "Conclude"),
)
CARD: Phrases = (
    ("Card of {who}", "{who}: card", "{who}'s card", "About {who}"),
    ("Notes on {who}", "{who}, in notes", "Notes: {who}"),
)
ROW: Phrases = (
    ("{what}: {value}", "{what} - {value}", "{what} = {value}", "{what}... {value}"),
    ("{what} is {value}", "{what} ({value})", "{value} as {what}"),
)
ASK: Phrases = (
    ("Which {what}?", "What about the {what}?", "Choose: {what}", "{what}?"),
    ("And the {what}?", "Tell us the {what}.", "What {what} is it?"),
)
WRONG: Phrases = (
    ("That does not agree with the card.", "Something is not as on the card. Once more.", "Not quite; all is cleared."),
    ("The notes say otherwise.", "This is somebody else. From the top.", "Not according to the notes."),
)
PEOPLE: Phrases = (
    tuple("Ada Ben Clara David Emma Felix Grace Hugo Iris Jonas Kira Liam Mona Nora Oscar Paula Rosa Simon".split()),
    tuple("Anouk Bjorn Chidi Dalia Esra Farid Gudrun Hiro Imani Jorge Keiko Lars Mei Noor Olga Pedro".split()),
)
# What may be asked, with its answers; no answer stands under two of them.
ASKED: Phrases = (
    (
        "transport: train, ferry, bicycle, bus, scooter, tram",
        "lodging: tent, hotel, cabin, hostel, houseboat, castle",
        "drink: tea, coffee, cocoa, cider, water, lemonade",
        "meal: soup, pancakes, salad, noodles, curry, stew",
        "pet: cat, dog, rabbit, canary, tortoise, hamster",
        "instrument: flute, violin, drum, harp, trumpet, piano",
        "flower: rose, tulip, daisy, lily, poppy, violet",
        "game: chess, darts, marbles, dominoes, croquet, bingo",
        "season: spring, summer, autumn, winter",
        "weather: rain, snow, fog, sunshine, storm, hail",
        "fruit: apple, pear, plum, cherry, banana, melon",
        "tool: hammer, saw, chisel, pliers, spade, rake",
        "hat: beret, bonnet, helmet, turban, top hat, cap",
        "sport: tennis, rowing, fencing, judo, skating, archery",
        "day: Monday, Tuesday, Wednesday, Thursday, Friday, Sunday",
        "room: attic, cellar, kitchen, library, hall, study",
    ),
    (
        "fabric: wool, linen, silk, cotton, velvet, felt",
        "metal: gold, copper, iron, tin, zinc, lead",
        "tree: oak, birch, maple, willow, cedar, pine",
        "bird: heron, owl, finch, swallow, magpie, crane",
        "spice: ginger, pepper, saffron, nutmeg, thyme, anise",
        "bread: rye, barley, oat, spelt, pumpernickel, bagel",
        "dance: waltz, tango, polka, samba, foxtrot, jig",
        "colour: crimson, azure, ochre, ivory, emerald, mauve",
        "vessel: canoe, raft, yacht, barge, kayak, steamer",
        "shoe: sandal, boot, clog, slipper, moccasin, loafer",
        "cheese: brie, cheddar, feta, gouda, edam, ricotta",
        "trade: baker, weaver, cooper, smith, potter, tailor",
        "subject: algebra, botany, history, music, physics, latin",
        "month: March, April, June, July, October, May",
    ),
)
DEPTH = {1: 2, 2: 3, 3: 4}
OPTIONS = {1: 3, 2: 4, 3: 4}


class Conditional(Puzzle):
    """Solved by trusted clicks on the right answers, each opened by the one before, and on the button at the end."""

    name: ClassVar[str] = "conditional"
    held_out: ClassVar[bool] = True

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        rng, skin, hard = setup.rng, SKINS.index(setup.skin), setup.difficulty
        self._depth = DEPTH[hard]
        asked = rng.sample(list(ASKED[skin]), 2 * self._depth - 1)
        topics = {what: values.split(", ") for what, _, values in (line.partition(": ") for line in asked)}
        # At each level the right question and, below the first, one that wrong answers lead to.
        self._path = list(topics)[: self._depth]
        self._astray = ["", *list(topics)[self._depth :]]
        self._options = {what: rng.sample(values, OPTIONS[hard]) for what, values in topics.items()}
        self._right = {what: rng.choice(self._options[what]) for what in self._path}
        people = rng.sample(list(PEOPLE[skin]), hard)
        row = setup.say(ROW, what="{what}", value="{value}")
        title = setup.say(CARD, who="{who}")
        facts = [self._right, *(self._other() for _ in people[1:])]
        self._cards = [self._card(title.format(who=who), row, fact) for who, fact in zip(people, facts, strict=True)]
        rng.shuffle(self._cards)
        ask = setup.say(ASK, what="{what}")
        self._ask = {what: ask.format(what=what) for what in topics}
        self._done, self._title, self._wrong = setup.say(DONE), setup.say(TITLE), setup.say(WRONG)
        self._text = setup.say(TEXT, who=people[0], done=self._done)
        self._answers: list[str] = []
        self._note = ""

    def _other(self) -> dict[str, str]:
        """Somebody else's answers: all different ones."""
        return {
            what: self.setup.rng.choice([value for value in self._options[what] if value != right])
            for what, right in self._right.items()
        }

    def _card(self, title: str, row: str, facts: dict[str, str]) -> dict[str, Json]:
        lines = [row.format(what=what, value=value) for what, value in facts.items()]
        self.setup.rng.shuffle(lines)
        return {"title": title, "lines": [line[0].upper() + line[1:] for line in lines]}

    def _questions(self) -> list[str]:
        """What is asked so far: the right question as long as all answers before were right."""
        asked, right = [], True
        for level in range(min(len(self._answers) + 1, self._depth)):
            asked.append(self._path[level] if right else self._astray[level])
            right = right and level < len(self._answers) and self._right.get(asked[-1]) == self._answers[level]
        return asked

    @property
    def parts(self) -> Sequence[str]:
        both = [(level, what) for level in range(self._depth) for what in (self._path[level], self._astray[level])]
        options = [f"{level}/{what}/{value}" for level, what in both if what for value in self._options[what]]
        return [*options, "done"]

    def view(self) -> dict[str, Json]:
        return {
            "title": self._title,
            "text": self._text,
            "cards": self._cards,
            "questions": [self._drawn(level, what) for level, what in enumerate(self._questions())],
            "done": self.setup.control("done", self._done),
            "note": self._note,
            "reveal": self.revealed(),
        }

    def _drawn(self, level: int, what: str) -> dict[str, Json]:
        chosen = self._answers[level] if level < len(self._answers) else None
        options = [
            {**self.setup.control(f"{level}/{what}/{value}", value), "on": value == chosen}
            for value in self._options[what]
        ]
        text = self._ask[what]
        return {"text": text[0].upper() + text[1:], "options": options}

    def on(self, event: Event) -> None:
        if self.solved or event.kind != "click":
            return
        if event.part == "done":
            if self._answers == [self._right[what] for what in self._path]:
                self._note = ""
                self.solve()
            else:
                self.mistakes += 1
                self._answers, self._note = [], self._wrong
        elif event.part.count("/") == 2:
            level, what, value = event.part.split("/")
            asked = self._questions()
            at = int(level)
            if at < len(asked) and asked[at] == what:
                self._answers, self._note = [*self._answers[:at], value], ""
