"""Hidden text: the code is in the document but not at sight. Reading is the task; whoever looks finds it.

Four kinds: a line in the colour of its paper, a line far to the right in a box that scrolls, a line in folded sections,
a line behind "read more". The view holds all of it from the start, on this step only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from dpo_driver.envs.gauntlet.puzzles.base import Event, Json, Phrases, Puzzle, Setup
from dpo_driver.envs.gauntlet.puzzles.wordlists import prose, some

TITLE: Phrases = (
    ("Not at first sight", "Hidden in the text", "Look twice", "More than meets the eye", "Out of sight"),
    ("What the page conceals", "A secret in plain paper", "Unseen words", "Look closer"),
)
INK_TEXT: Phrases = (
    (
        "There is more on this sheet than meets the eye: a line has the colour of the paper. Select the text to see.",
        "The code is hidden here in letters of the same colour as the background. Mark the text and it appears.",
        "Some words are invisible, because ink and paper have one colour. Select everything to read the code.",
        "Between the lines stands a hidden line with the code. It can be seen once the text is selected.",
    ),
    (
        "This paper conceals a line: white upon white. Drag over the words and the key shows.",
        "One sentence is written in invisible ink. Mark the whole sheet to make it out; it names the key.",
        "The key is unseen, not absent: its letters share the colour of the sheet. Select them.",
    ),
)
WIDE_TEXT: Phrases = (
    (
        "The code is hidden far to the right in this box. Scroll it sideways.",
        "This box is much wider than it looks. Scroll to its right end to find the hidden code.",
        "Out of sight, but there: scroll the box to the right until the code appears.",
        "Follow the line in the box to its far end on the right; the hidden code stands there.",
    ),
    (
        "The scroll is longer than its frame. Unroll it to the right: the key is concealed at its end.",
        "Read on to the right, beyond the edge of the frame; there the key lies unseen.",
        "What this frame conceals lies far to the right. Push the text along to see the key.",
    ),
)
FOLDED_TEXT: Phrases = (
    (
        "The code is hidden in one of these folded sections. Open them and look.",
        "These sections are folded up. One of them holds the hidden code.",
        "Unfold the sections below: somewhere inside stands the code, out of sight for now.",
        "The code is out of sight in a closed section. Expand the right one to read it.",
    ),
    (
        "The key is concealed in a fold. Open the folds one by one.",
        "Each flap conceals something; one conceals the key. Lift the flaps and look beneath.",
        "Unfold what is folded: the key lies unseen in one of the chapters.",
    ),
)
FOLDED_HINT: Phrases = (
    (
        'Look under "{label}".',
        'The section "{label}" is the one.',
        'It is about "{label}".',
        'You want the section called "{label}".',
    ),
    ('"{label}" is the place.', 'Begin with "{label}".', 'It concerns "{label}".'),
)
MORE_TEXT: Phrases = (
    (
        "These texts are cut short. The hidden code stands in the part that is not shown yet.",
        "The code is hidden in the rest of a text. Show the rest to read it.",
        "What you see is only the beginning; read more to find the hidden code.",
        "Out of sight below the first lines: the code. Let the texts be shown in full.",
    ),
    (
        "Only the opening lines can be seen. The key is concealed in what follows; read on.",
        "These tales break off. Their unseen ends are a press away, and one conceals the key.",
        "Read the tales to their end: the key is concealed there.",
    ),
)
MORE_LABEL: Phrases = (
    ("Read more", "Show the rest", "Continue reading", "Show all"),
    ("Read on", "The whole tale", "Unroll the rest"),
)
LESS_LABEL: Phrases = (("Show less", "Read less", "Fold up"), ("Roll up", "Shorter again", "Hide the rest"))
FOUND: Phrases = (
    ("The code is {code}.", "Here it is: {code}", "You have found it: {code}", "Enter {code} below.", "Code: {code}"),
    ("This one opens: {code}", "The key you want is {code}.", "Take {code}.", "Here lies the key: {code}"),
)
NOT_IT: Phrases = (
    ("{code} is an old code.", "Expired: {code}", "{code} is only a sample.", "Last year's code: {code}"),
    ("{code} is a former key.", "Key of yesterday: {code}", "{code} no longer opens.", "For practice: {code}"),
)
HEADS: Phrases = (
    (
        "Deliveries,Opening hours,Lost property,House rules,Repairs,Parking,Visitors,Waste and recycling,Heating,"
        "Membership,Fees,Fire drill,Noise,Bicycles"
    ).split(","),
    (
        "The ferryman,The long winter,A market day,The stone circle,The night watch,The lost ring,Bees and honey,"
        "The journey home,The clockmaker,Rain at last,The fox's advice"
    ).split(","),
)
KINDS = ("ink", "wide", "folded", "more")
BLOCKS = {"ink": (1, 2, 3), "wide": (1, 1, 2), "folded": (3, 4, 4), "more": (1, 2, 3)}
TEXTS = {"ink": INK_TEXT, "wide": WIDE_TEXT, "folded": FOLDED_TEXT, "more": MORE_TEXT}

Block = dict[str, Any]


class HiddenText(Puzzle):
    """Solved by reading: there is no evidence but the right code. What is folded up is folded by the browser."""

    name: ClassVar[str] = "hidden-text"
    reads: ClassVar[bool] = True

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self._kind = kind = setup.rng.choice(KINDS)
        self._title, self._text = setup.say(TITLE), setup.say(TEXTS[kind])
        count = BLOCKS[kind][setup.difficulty - 1]
        nested = kind == "folded" and setup.difficulty == 3
        heads = some(setup, HEADS, 2 * count if nested else count)
        right = setup.rng.randrange(count)
        self._blocks = [self._block(heads[i], heads[count + i] if nested else "", i == right) for i in range(count)]
        if kind == "folded" and setup.difficulty < 3:
            self._text += " " + setup.say(FOLDED_HINT, label=heads[right])
        self._more, self._less = setup.say(MORE_LABEL), setup.say(LESS_LABEL)

    def _block(self, head: str, inner: str, right: bool) -> Block:
        """One sheet: what is seen of it, what is not, and, with ``inner``, a fold within the fold."""
        setup = self.setup
        # A box that scrolls must say more than 80 characters: an observer takes less for a thing to click.
        lines = prose(setup, 3)
        if setup.difficulty > 1 and setup.rng.random() < 0.6:
            lines.insert(1, setup.say(NOT_IT, code=setup.decoy()))
        rest = prose(setup, 1)
        if right:
            rest = [setup.say(FOUND, code=setup.code)]
        elif setup.rng.random() < 0.7:
            rest.append(setup.say(NOT_IT, code=setup.decoy()))
        block: Block = {"head": head, "lines": lines, "rest": rest, "inner": None}
        if inner:
            return {"head": head, "lines": [], "rest": [], "inner": {**block, "head": inner}}
        return block

    @property
    def parts(self) -> Sequence[str]:
        return ()

    def view(self) -> dict[str, Json]:
        return {
            "title": self._title,
            "text": self._text,
            "kind": self._kind,
            "blocks": self._blocks,
            "more": self._more,
            "less": self._less,
            "reveal": None,
        }

    def on(self, event: Event) -> None:
        """Nothing to do but read."""
