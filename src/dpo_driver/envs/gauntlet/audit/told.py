"""What the server says before anything was done, without a browser: it must not depend on the code.

Two twins of a visit are alike but for their codes. Everything that they would send or serve is compared, byte by byte:
a difference is something about the code, in whatever disguise, in one piece or in many. Signals that a script can cause
are among what they are told. This is done for many seeds, at every difficulty and in both skins.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from typing import Any

from dpo_driver.envs.gauntlet.audit.adversary import STEPS, Adversary
from dpo_driver.envs.gauntlet.audit.judge import READING
from dpo_driver.envs.gauntlet.audit.source import ASSET_NAMES
from dpo_driver.envs.gauntlet.audit.table import attack
from dpo_driver.envs.gauntlet.plan import Plan
from dpo_driver.envs.gauntlet.puzzles.base import ALPHABET, CODE_LENGTH
from dpo_driver.envs.gauntlet.signals import Signal
from dpo_driver.envs.gauntlet.visit import CODE, Visit

SEEDS = 8  # for each difficulty and skin
TIMES = (0.0, 0.4, 1.0, 2.5, 6.0, 60.0)


class Twin(Visit):
    """A visit whose codes are given."""

    codes: dict[int, str] = {}

    def code(self, step: int) -> str:
        return self.codes.get(step, "222222")


def _twin(plan: Plan, codes: dict[int, str], clock: Callable[[], float]) -> Twin:
    kind = type("Twin", (Twin,), {"codes": codes})
    visit: Twin = kind(plan, b"secret", key="key", clock=clock)
    visit.begin(1)
    return visit


def said(plan: Plan, codes: dict[int, str]) -> list[str]:
    """All that a visit sends and serves on its first step while nobody does anything."""
    now = [0.0]
    visit = _twin(plan, codes, lambda: now[0])
    texts = []
    puzzle = visit.puzzle
    assert puzzle is not None
    for now[0] in TIMES:
        texts.append(json.dumps([visit.page(), visit.wakes()], ensure_ascii=False, sort_keys=True))
    for signal in _caused_by_scripts(visit):
        visit.on(signal)
        texts.append(json.dumps(visit.page(), ensure_ascii=False, sort_keys=True))
    names = {*ASSET_NAMES, *re.findall(r"/asset/[0-9a-f]+/([^\"\\]+)", texts[0])}
    for name in sorted(names):
        asset = puzzle.asset(name)
        texts.append(f"{name}: {asset.content if asset else None!r}")
    texts += [str(puzzle.feed(True)), str(puzzle.feed(False))]
    status = visit.status() | {"visit": ""}
    texts.append(json.dumps([visit.page(), status], ensure_ascii=False, sort_keys=True))
    return texts


def _caused_by_scripts(visit: Visit) -> list[Signal]:
    puzzle = visit.puzzle
    assert puzzle is not None
    tokens = [puzzle.setup.part(name) for name in (*puzzle.parts, CODE)]
    return [
        signal
        for token in tokens
        for signal in (Signal("input", field=token), Signal("input", part=token, scroll=9000.0), Signal("pointermove"))
    ]


def differences(kind: str, difficulty: int, skin: str, seed: int) -> list[str]:
    """Where what twins say differs; none is right."""
    plan = Plan.of(seed, steps=STEPS, types=(kind,), difficulty=difficulty, skin=skin)
    rng = random.Random(f"{seed}/{kind}/codes")
    made = [{step: "".join(rng.choices(ALPHABET, k=CODE_LENGTH)) for step in range(1, STEPS + 1)} for _ in range(2)]
    if kind in READING:
        made[1][1] = made[0][1]  # its own code may be read
    first, second = (said(plan, codes) for codes in made)
    return [_difference(a, b) for a, b in zip(first, second, strict=True) if a != b]


def _difference(a: str, b: str) -> str:
    at = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    return f"...{a[max(0, at - 60) : at + 30]}... and ...{b[at : at + 30]}..."


@attack("told")
async def what_twins_say(it: Adversary) -> int:
    """Compare all that two visits send and serve which differ in nothing but their codes, while time passes and scripts
    cause what they can: any difference is a leak, however it is written."""
    tries = 0
    scene: Any = it.scene
    for difficulty in (1, 2, 3):
        for skin in ("a", "b"):
            for seed in range(SEEDS * scene.seed, SEEDS * (scene.seed + 1)):
                tries += 1
                for found in differences(scene.type, difficulty, skin, seed)[:1]:
                    it.won(f"twins differ at seed {seed}, difficulty {difficulty}, skin {skin}: {found}")
    return tries
