"""One visitor's run: which step, its puzzle, what was entered, what the page shows. No network, no clock of its own.

server.py keeps the visits, channel.py feeds them signals and sends what ``page`` gives. A code is an HMAC of the
server's secret, the visit's key and the step: nobody else can compute it, and equal keys give equal codes.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import random
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from dpo_driver.envs.gauntlet import wording
from dpo_driver.envs.gauntlet.distractors import Distractors
from dpo_driver.envs.gauntlet.plan import Plan
from dpo_driver.envs.gauntlet.puzzles import load_puzzle
from dpo_driver.envs.gauntlet.puzzles.base import ALPHABET, CODE_LENGTH, Asset, Event, Puzzle, Setup
from dpo_driver.envs.gauntlet.signals import Signal

FREE_TRIES = 10  # wrong codes on a step that cost nothing
LOCK_S = 3.0  # what each further one costs
CODE, SUBMIT, START = "frame/code", "frame/submit", "frame/start"


@dataclass
class _Solved:
    step: int
    type: str
    seconds: float
    wrong: int
    mistakes: int


@dataclass
class _Now:
    """The step that is being played."""

    puzzle: Puzzle
    distractors: Distractors
    began: float
    wrong: int = 0
    locked_until: float = 0.0
    message: str = ""
    names: dict[str, str] = field(default_factory=dict)  # token -> part


class Visit:
    """``visit.begin(1)``, ``visit.on(signal)``, ``visit.page()``.

    Args:
        plan: what is played.
        secret: the server's.
        key: pins the codes; None: random.
        clock: seconds, monotonic.
    """

    def __init__(
        self, plan: Plan, secret: bytes, *, key: str | None = None, clock: Callable[[], float], name: str | None = None
    ) -> None:
        self.id = name or secrets.token_urlsafe(16)
        self.plan, self.clock = plan, clock
        self.step = 0  # 0: the START page; plan.count + 1: finished
        self.error: str | None = None
        self._secret = secret
        self._key = key if key is not None else secrets.token_hex(16)
        self._solved: list[_Solved] = []
        self._now: _Now | None = None
        self._setup = self._make_setup(0)
        self._words = plan.rng(0, "words")
        self._look = wording.look(plan.rng(0, "look"))
        self._title = wording.say(self._words, plan.skin, wording.NAME)

    # -- the run -------------------------------------------------------------------------------------------------------

    @property
    def puzzle(self) -> Puzzle | None:
        """That of the current step; None before the first and after the last."""
        return self._now.puzzle if self._now else None

    @property
    def finished(self) -> bool:
        return self.step > self.plan.count

    @property
    def path(self) -> str:
        """Where the page is shown."""
        return "/" if self.step == 0 else "/finish" if self.finished else f"/step/{self.step}"

    def code(self, step: int) -> str:
        """What opens the step after this one."""
        digest = self._derive(f"code/{step}")
        return "".join(ALPHABET[byte % len(ALPHABET)] for byte in digest[:CODE_LENGTH])

    def begin(self, step: int) -> None:
        """Go to a step. One whose puzzle cannot be made is shown as an error, and ``status`` says so."""
        self.step, self._now, self.error = step, None, None
        if self.finished:
            return
        self._setup = setup = self._make_setup(step)
        kind = self.plan.step(step).type
        try:
            puzzle = load_puzzle(kind)(setup)
        except (ModuleNotFoundError, AttributeError) as error:
            self.error = f"the puzzle {kind!r} cannot be made: {error}"
            return
        distractors = Distractors(self.plan, step, setup.control)
        self._now = _Now(puzzle, distractors, self.clock())

    def on(self, signal: Signal) -> None:
        """Trusted input arrived."""
        if self.step == 0:
            if signal.kind == "click" and signal.part == self._setup.part(START):
                self.begin(1)
            return
        if (now := self._now) is None:
            return
        part, field_ = self._name(now, signal.part), self._name(now, signal.field)
        if part is None or field_ is None:
            return  # of an earlier step, on its way when the step changed
        if signal.kind == "wheel":  # the page scrolls whatever lies below the pointer
            now.puzzle.on(self._event(now, signal, part if part in now.puzzle.parts else ""))
            return
        if field_ == CODE or part == SUBMIT:
            pressed = signal.kind == "click" and part == SUBMIT
            entered = signal.kind == "keydown" and signal.key == "Enter" and field_ == CODE
            if pressed or entered:
                self._submit(now, signal)
            return
        if now.distractors.on(signal.kind, part, signal.key):
            return
        if not part.startswith("frame/"):
            now.puzzle.on(self._event(now, signal, part or field_))
            if signal.kind == "click" and part:
                now.distractors.touched()

    def wakes(self) -> float | None:
        """When the page changes by itself next."""
        return self._now.puzzle.wakes() if self._now else None

    def asset(self, token: str, name: str) -> Asset | None:
        """What stands at ``/asset/token/name`` now."""
        return self._now.puzzle.asset(name) if self._now and self.knows(token, name) else None

    def knows(self, token: str, name: str) -> bool:
        """Whether an asset's address is one of the current step's."""
        return hmac.compare_digest(self._setup.asset(name).encode(), f"{self._setup.base}/{token}/{name}".encode())

    # -- what is shown -------------------------------------------------------------------------------------------------

    def page(self) -> dict[str, Any]:
        """Everything that the app draws, as JSON."""
        skin, count = self.plan.skin, self.plan.count
        page: dict[str, Any] = {
            "kind": "page", "page": "step", "path": self.path, "skin": skin, "look": self._look, "name": self._title,
            "step": self.step, "steps": count,
        }  # fmt: skip
        words = self.plan.rng(0, "frame words") if self.finished else self.plan.rng(self.step, "frame words")
        if self.error is not None:
            return page | {"page": "error", "text": self.error}
        if self.step == 0:
            text = wording.say(words, skin, wording.START_TEXT, count=count)
            button = self._setup.control(START, wording.say(words, skin, wording.START))
            return page | {"page": "start", "text": text, "button": button}
        if self.finished:
            title = wording.say(words, skin, wording.FINISH)
            return page | {
                "page": "finish",
                "title": title,
                "text": wording.say(words, skin, wording.FINISH_TEXT, count=count),
            }
        assert self._now is not None
        return page | {
            "heading": f"Step {self.step} of {count}",
            "puzzle": self._now.puzzle.name,
            "view": self._now.puzzle.view(),
            "form": self._form(self._now, words),
            "region": wording.say(words, skin, wording.REGIONS),
            "distractors": self._now.distractors.view(),
        }

    def status(self) -> dict[str, Any]:
        """How the run stands, for its owner only."""
        return {
            "visit": self.id, "seed": self.plan.seed, "step": self.step, "steps": self.plan.count,
            "order": self.plan.order, "difficulty": self.plan.difficulty, "skin": self.plan.skin,
            "started": self.step > 0, "finished": self.finished, "error": self.error,
            "wrong": self._now.wrong if self._now else 0, "mistakes": self._now.puzzle.mistakes if self._now else 0,
            "solved": [vars(solved) for solved in self._solved],
            "types": [step.type for step in self.plan.steps],
        }  # fmt: skip

    # -- inside --------------------------------------------------------------------------------------------------------

    def _derive(self, purpose: str) -> bytes:
        return hmac.new(self._secret, f"{self._key}/{purpose}".encode(), hashlib.sha256).digest()

    def _make_setup(self, step: int) -> Setup:
        return Setup(
            rng=self.plan.rng(step, "puzzle"), code=self.code(step), difficulty=self.plan.difficulty,
            skin=self.plan.skin, clock=self.clock, secret=self._derive(f"parts/{step}"),
        )  # fmt: skip

    def _form(self, now: _Now, words: random.Random) -> dict[str, Any]:
        skin = self.plan.skin
        return {
            "name": wording.say(words, skin, wording.FORM),
            "field": {"part": self._setup.part(CODE), "label": wording.say(words, skin, wording.FIELD)},
            "submit": self._setup.control(SUBMIT, wording.say(words, skin, wording.SUBMIT)),
            "message": now.message,
        }

    def _name(self, now: _Now, token: str) -> str | None:
        """The part behind a token: "" for none, None for one that is unknown."""
        if not token:
            return ""
        if token not in now.names:
            known = (*now.puzzle.parts, *now.distractors.parts, CODE, SUBMIT)
            now.names = {self._setup.part(name): name for name in known}
        return now.names.get(token)

    def _event(self, now: _Now, signal: Signal, part: str) -> Event:
        fields = {name: text for token, text in signal.fields.items() if (name := self._name(now, token))}
        return Event(
            kind=signal.kind, part=part, at=self.clock(), x=signal.x, y=signal.y,
            width=signal.width, height=signal.height,
            button=signal.button, key=signal.key, value=signal.value, source=self._name(now, signal.source) or "",
            delta=signal.delta, scroll=signal.scroll, fields=fields,
        )  # fmt: skip

    def _submit(self, now: _Now, signal: Signal) -> None:
        token, at = self._setup.part(CODE), self.clock()
        given = "".join(signal.fields.get(token, "").split()).upper()
        words, skin = self.plan.rng(self.step, "answers"), self.plan.skin
        if at < now.locked_until:
            left = math.ceil(now.locked_until - at)
            now.message = wording.say(words, skin, wording.LOCKED, seconds=left)
        elif token in signal.tainted:
            now.message = wording.say(words, skin, wording.TAINTED)
        elif not given:
            now.message = wording.say(words, skin, wording.EMPTY)
        elif now.puzzle.earned and hmac.compare_digest(given.encode(), self.code(self.step).encode()):
            seconds = round(at - now.began, 3)
            self._solved.append(_Solved(self.step, now.puzzle.name, seconds, now.wrong, now.puzzle.mistakes))
            self.begin(self.step + 1)
        else:
            now.wrong += 1
            now.message = wording.turn(now.wrong, skin, wording.WRONG)
            if now.wrong > FREE_TRIES:
                now.locked_until = at + LOCK_S
