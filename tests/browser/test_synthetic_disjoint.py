"""The pocket model has never seen MiniWoB++: pretraining shares no goal wording and no word list with it."""

from __future__ import annotations

import random
import re
from importlib.resources import files

import pytest

from dpo_driver.core.records import Element
from dpo_driver.envs.miniwob.environment import MiniwobEnvironment
from dpo_driver.envs.miniwob.tasks import TASKS, make_task
from dpo_driver.policies.pocket import ROLES
from dpo_driver.training.synthetic import words
from dpo_driver.training.synthetic.goals import branches
from dpo_driver.training.synthetic.scenes import scene

pytestmark = pytest.mark.browser

QUOTED = re.compile(r'"[^"]*"|\'[^\']*\'|\d+')
WORD = re.compile(r"[a-z]+")


def wording(goal: str, named: set[str]) -> set[tuple[str, ...]]:
    """Runs of three words of a goal, without what is quoted in it or named on its page."""
    text = QUOTED.sub(" ¦ ", goal)
    for name in sorted(named, key=len, reverse=True):
        text = text.replace(name, " ¦ ")
    runs: set[tuple[str, ...]] = set()
    for part in text.lower().split("¦"):
        found = WORD.findall(part)
        runs |= {tuple(found[i : i + 3]) for i in range(len(found) - 2)}
    return runs


def names_on(elements: tuple[Element, ...]) -> set[str]:
    said = {text for e in elements for text in (e.name, e.name.lower(), e.value or "", *e.options)}
    return {text for text in said if len(text) > 2 and text.lower() not in ROLES}


async def test_goals_share_no_wording() -> None:
    theirs: dict[tuple[str, ...], str] = {}
    environment = await MiniwobEnvironment.create()
    try:
        for name in TASKS:
            for seed in (1, 2):
                observation = await environment.reset(make_task(name, seed))
                theirs |= dict.fromkeys(wording(observation.goal, names_on(observation.elements)), observation.goal)
    finally:
        await environment.close()
    assert len(theirs) > 500  # the pages were really read
    rng = random.Random(7)
    shared = {}
    for _ in range(1500):
        page = scene(rng, 6)
        for branch in branches(rng, page, 6):
            for run in wording(branch.goal, names_on(page.elements)) & theirs.keys():
                shared[run] = (branch.goal, theirs[run])
    assert not shared, "\n".join(f"{run}: {ours!r} / {page!r}" for run, (ours, page) in sorted(shared.items()))


def test_word_lists_share_no_word() -> None:
    source = files("miniwob").joinpath("html/common/ui_utils.js").read_text(encoding="utf-8")
    lists = re.findall(r"ui_utils\.[A-Za-z_]+\s*=\s*\[(.*?)\]", source, re.DOTALL)
    theirs = {word.lower() for found in lists for word in re.findall(r"[\"']([A-Za-z]+)[\"']", found)}
    assert len(theirs) > 300
    ours = {word.lower() for word in (*words.ENGLISH, *words.FINISH, *words.FIELDS, *words.SECTIONS)}
    assert not ours & theirs
