"""What a puzzle of the gauntlet is: a state machine on the server that sees trusted input and hands out a code.

One file a type: a subclass of :class:`Puzzle` here, and a React component of the same name under
``gauntlet/src/puzzles`` that draws what ``view`` gives. The server owns the state; a page never reports that something
was done, only which trusted input (``Event.isTrusted``) fell on which part of the puzzle. All wording, labels and
content come from here, varied by the seed; the component holds none. Used by envs/gauntlet/visit.py. Imports nothing of
ours.
"""

from __future__ import annotations

import hashlib
import hmac
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

ALPHABET = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"  # no I, O, 0, 1: they are mistaken for each other
CODE_LENGTH = 6
SKINS = ("a", "b")  # "b" is held out for evaluation

Json = Any
# Phrases by skin: (those of "a", those of "b"). One is drawn by the seed.
Phrases = tuple[Sequence[str], Sequence[str]]


@dataclass(frozen=True)
class Event:
    """One trusted input, as the sealed script of the page saw it.

    Kinds: ``click``, ``dblclick``, ``contextmenu``, ``pointerdown``, ``pointerup``, ``pointermove`` (only over parts
    that are drawn with ``data-track``), ``keydown``, ``keyup``, ``wheel``, ``input`` (a field's content changed by
    typing), ``drop`` (a native drag ended over this part).
    """

    kind: str
    part: str = ""  # the puzzle's own name of what was hit, "reveal" or "item/3"; "" where it was no part
    at: float = 0.0  # when it arrived: the server's clock, seconds
    x: float = 0.0  # place within the part, CSS pixels from its left and top edge
    y: float = 0.0
    width: float = 0.0  # size of the part, CSS pixels
    height: float = 0.0
    button: int = 0
    key: str = ""  # keydown, keyup: KeyboardEvent.key
    value: str = ""  # input: the field's text after it, made by trusted input only
    source: str = ""  # drop: the part that was dragged; pointerup: the part that the pointer went down on
    delta: float = 0.0  # wheel: pixels down
    scroll: float = 0.0  # how far down the page was, pixels
    fields: Mapping[str, str] = field(default_factory=dict)  # click inside a form: name -> text made by trusted input


@dataclass(frozen=True)
class Asset:
    """Bytes that a puzzle serves at ``Setup.asset(name)``: a sound, a film, the page of a frame or of a second tab."""

    content: bytes
    media_type: str
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Setup:
    """What a puzzle is made from.

    Args:
        rng: for content, labels and order: the same seed and step give the same puzzle.
        code: what it hands out once it is solved; known to nobody else.
        difficulty: 1 (few parts, no decoys), 2 or 3 (many parts, decoys, longer).
        skin: wording and layout, "a" or "b".
        clock: seconds, monotonic; the server's, so a page cannot turn it.
        secret: of this visit and step; makes names of parts and assets that cannot be guessed.
        base: path under which assets are served.
    """

    rng: random.Random
    code: str
    difficulty: int = 1
    skin: str = "a"
    clock: Callable[[], float] = lambda: 0.0
    secret: bytes = b"secret"
    base: str = "/asset"

    def say(self, phrases: Phrases, **values: object) -> str:
        """One of the phrases of this skin, by the seed, with values filled in."""
        return self.rng.choice(list(phrases[SKINS.index(self.skin)])).format(**values)

    def part(self, name: str) -> str:
        """The name under which the page knows a part: ``data-part`` (or ``data-field``) in its markup."""
        return "p" + hmac.new(self.secret, f"part/{name}".encode(), hashlib.sha256).hexdigest()[:10]

    def control(self, name: str, label: str) -> dict[str, str]:
        """A part with its label, as the components want it: ``{"part": ..., "label": ...}``."""
        return {"part": self.part(name), "label": label}

    def asset(self, name: str) -> str:
        """The address of an asset; ``Puzzle.asset`` is asked for ``name``."""
        token = hmac.new(self.secret, f"asset/{name}".encode(), hashlib.sha256).hexdigest()[:12]
        return f"{self.base}/{token}/{name}"

    def decoy(self) -> str:
        """Something that looks like a code and is none."""
        return "".join(self.rng.choice(ALPHABET) for _ in range(CODE_LENGTH))


class Puzzle(ABC):
    """One step's puzzle. ``__init__`` draws everything from ``setup.rng``; ``view`` must not draw.

    ``parts`` lists the names of all parts and fields that may ever be drawn, so that the server knows them when the
    page reports one. A subclass sets ``name`` (its file's, with dashes) and calls ``self.solve()`` when the evidence is
    complete; the code is in no view before that, unless reading it is the task.
    """

    name: ClassVar[str]
    held_out: ClassVar[bool] = False  # of training: evaluation only
    reads: ClassVar[bool] = False  # the task is to read: what gives the code is on the page from the beginning

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.solved = False
        self.mistakes = 0

    @property
    @abstractmethod
    def parts(self) -> Sequence[str]:
        """Names of all parts and fields."""

    @abstractmethod
    def view(self) -> dict[str, Json]:
        """What the page shows now, as JSON. ``title`` and ``text`` (the instruction) are always there; ``reveal`` is
        the sentence with the code, or None: see :meth:`revealed`. Changes with state and clock only."""

    @abstractmethod
    def on(self, event: Event) -> None:
        """Trusted input arrived."""

    def wakes(self) -> float | None:
        """When the view changes by itself next, by the clock; None: only when something arrives."""
        return None

    def asset(self, name: str) -> Asset | None:
        """What stands at ``setup.asset(name)`` now; None: nothing (yet). Hand out content only when it is earned."""
        return None

    def feed(self, connected: bool) -> Sequence[tuple[float, str]]:
        """Messages for the puzzle's own WebSocket (``setup.asset("feed")``): (seconds from now, text). Called once when
        it connects. Only the type that has one needs it."""
        return ()

    def solve(self) -> None:
        """The evidence is complete."""
        self.solved = True

    @property
    def earned(self) -> bool:
        """Whether the code counts when it is entered: one that was known beforehand, or guessed, does not."""
        return self.solved or self.reads

    _REVEAL: ClassVar[Phrases] = (
        ("The code is {code}.", "Your code: {code}", "Well done. Code: {code}", "Use {code} to go on."),
        ("Take {code} with you.", "Key for the next door: {code}", "Enter {code} here.", "This opens it: {code}"),
    )

    def revealed(self) -> str | None:
        """The sentence that gives the code away, once solved."""
        if not self.solved:
            return None
        pick = random.Random(self.setup.part("reveal sentence"))
        return pick.choice(list(self._REVEAL[SKINS.index(self.setup.skin)])).format(code=self.setup.code)
