"""The gauntlet's site without a browser: plans, codes, signed starts, what counts as input."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from dpo_driver.core.errors import ConfigError, UnknownNameError
from dpo_driver.envs.gauntlet.distractors import Distractors
from dpo_driver.envs.gauntlet.plan import BANDS, Plan
from dpo_driver.envs.gauntlet.puzzles import HELD_OUT, TYPES, load_puzzle
from dpo_driver.envs.gauntlet.puzzles.base import ALPHABET
from dpo_driver.envs.gauntlet.signals import Signal, read_signal
from dpo_driver.envs.gauntlet.tokens import Start, read, sign
from dpo_driver.envs.gauntlet.visit import LOCK_S, Visit

ROOT = Path(__file__).resolve().parents[2]
SITE = ROOT / "src" / "dpo_driver" / "envs" / "gauntlet" / "site"


# -- built files ------------------------------------------------------------------------------------------------------


def test_built_files_match_their_sources() -> None:
    manifest = json.loads((SITE / "manifest.json").read_text(encoding="utf-8"))
    folder = ROOT / "gauntlet"
    names = ["build.mjs", "package.json", "package-lock.json", "tsconfig.json", "vite.config.ts"]
    sources = [folder / name for name in names] + [path for path in (folder / "src").rglob("*") if path.is_file()]
    found = {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in sources}
    changed = sorted(name for name in found.keys() | manifest["sources"].keys()
                     if found.get(name) != manifest["sources"].get(name))  # fmt: skip
    assert not changed, f"run `npm run build` in gauntlet/: {changed} changed since"
    built = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in SITE.iterdir()}
    del built["manifest.json"]
    assert built == manifest["built"] and set(built) == {"app.js", "licences.txt", "seal.js"}


def test_every_type_has_a_class_and_a_component() -> None:
    components = {path.stem for path in (ROOT / "gauntlet" / "src" / "puzzles").glob("*.tsx")}
    classes = {path.stem.replace("_", "-") for path in (SITE.parent / "puzzles").glob("*.py")}
    assert set(TYPES) <= components and set(TYPES) <= classes
    assert sum(len(band) for band in BANDS) == len(TYPES) and {name for band in BANDS for name in band} == set(TYPES)


def test_the_page_asks_nobody_else() -> None:
    app = (SITE / "app.js").read_text(encoding="utf-8")
    elsewhere = set(re.findall(r"https?://[^\s\"'`)\\]+", app)) - {"https://react.dev/errors/"}
    assert {address for address in elsewhere if not address.startswith("http://www.w3.org/")} == set()
    assert "https://" not in (SITE / "seal.js").read_text(encoding="utf-8")


# -- plans ------------------------------------------------------------------------------------------------------------


def test_a_plan_is_its_seed() -> None:
    assert Plan.of(7, difficulty=3) == Plan.of(7, difficulty=3)
    assert len({tuple(step.type for step in Plan.of(seed, order="mixed").steps) for seed in range(20)}) == 20


def test_types_come_evenly_and_those_held_out_only_when_asked() -> None:
    assert len(TYPES) - len(HELD_OUT) == 30
    counts = Counter(step.type for step in Plan.of(1).steps)
    assert set(counts) == set(TYPES) - HELD_OUT and set(counts.values()) == {1}
    counts = Counter(step.type for step in Plan.of(1, steps=95, order="mixed").steps)
    assert set(counts.values()) == {3, 4}
    assert set(TYPES) == {step.type for step in Plan.of(1, steps=34, held_out=True).steps}
    assert {step.type for step in Plan.of(1, types=["conditional"]).steps} == {"conditional"}


def test_bands_go_from_easy_to_hard() -> None:
    level = {name: number for number, band in enumerate(BANDS) for name in band}
    levels = [level[step.type] for step in Plan.of(3).steps]
    assert levels == sorted(levels) and len(set(levels)) == 3
    mixed = [level[step.type] for step in Plan.of(3, order="mixed").steps]
    assert mixed != sorted(mixed)


def test_a_plan_that_cannot_be_made_is_refused() -> None:
    for wrong in ({"order": "upwards"}, {"skin": "c"}, {"types": ["chess"]}):
        with pytest.raises(UnknownNameError):
            Plan.of(1, **wrong)  # type: ignore[arg-type]
    for wrong in ({"difficulty": 4}, {"steps": 0}):
        with pytest.raises(ConfigError):
            Plan.of(1, **wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("difficulty", [1, 2, 3])
@pytest.mark.parametrize("skin", ["a", "b"])
def test_distractors_can_all_be_closed_and_stay_closed(difficulty: int, skin: str) -> None:
    seen: Counter[str] = Counter()
    for seed in range(60):
        plan = Plan.of(seed, steps=1, types=["click-reveal"], difficulty=difficulty, skin=skin)
        distractors = Distractors(plan, 1, lambda part, label: {"part": part, "label": label})
        distractors.touched()
        for item in distractors.view():
            seen[item["kind"]] += 1
            closing = [button for button in item["buttons"] if button["style"] == "close"]
            assert closing or item["kind"] in ("traps", "filler")
            for button in (b for b in item["buttons"] if b["style"] != "close"):
                assert distractors.on("click", button["part"], "")
                assert [i["note"] for i in distractors.view() if i["id"] == item["id"]] != [""]
            if closing:
                distractors.on("click", closing[0]["part"], "")
        assert {item["kind"] for item in distractors.view()} <= {"traps", "filler"}
        assert not distractors.on("keydown", "", "Escape")
    expected = {"cookies", "filler", "newsletter"} | (
        {"prize", "traps", "decoys", "modal"} if difficulty > 1 else set()
    )
    assert set(seen) == expected


def test_escape_closes_popups_one_after_the_other() -> None:
    plan = replace(Plan.of(1, steps=1, difficulty=3), steps=(replace(Plan.of(1).steps[0],
                   distractors=("modal", "newsletter", "prize", "traps")),))  # fmt: skip
    distractors = Distractors(plan, 1, lambda part, label: {"part": part, "label": label})
    distractors.touched()
    kinds = []
    for _ in range(3):
        assert distractors.on("keydown", "", "Escape")
        kinds.append([item["kind"] for item in distractors.view()])
    assert kinds == [["modal", "newsletter", "traps"], ["modal", "traps"], ["traps"]]
    assert not distractors.on("keydown", "", "Escape")


# -- a visit ----------------------------------------------------------------------------------------------------------


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def visit_of(clock: Clock, key: str | None = "k", secret: bytes = b"s", steps: int = 3) -> Visit:
    visit = Visit(Plan.of(5, steps=steps, types=["click-reveal"], difficulty=2), secret, key=key, clock=clock)
    visit.begin(1)
    return visit


def test_codes_are_random_unless_pinned() -> None:
    clock = Clock()
    pinned = [visit_of(clock).code(step) for step in (1, 2, 3)]
    assert pinned == [visit_of(clock).code(step) for step in (1, 2, 3)] and len(set(pinned)) == 3
    assert all(len(code) == 6 and set(code) <= set(ALPHABET) for code in pinned)
    assert visit_of(clock, secret=b"t").code(1) != pinned[0] != visit_of(clock, key="l").code(1)
    assert len({visit_of(clock, key=None).code(1) for _ in range(50)}) == 50
    drawn = Counter(char for n in range(800) for char in visit_of(clock, key=str(n), steps=1).code(1))
    assert set(drawn) == set(ALPHABET) and max(drawn.values()) < 1.8 * min(drawn.values())


def submitted(visit: Visit, text: str, **how: Any) -> str:
    form = visit.page()["form"]
    field = form["field"]["part"]
    visit.on(Signal("keydown", field=field, key="Enter", fields={field: text}, **how))
    page = visit.page()
    return str(page["form"]["message"]) if page["page"] == "step" else ""


def reveal(visit: Visit) -> str:
    page = visit.page()
    named = re.search(r'"(.+)"', page["view"]["text"])
    assert named is not None and page["view"]["reveal"] is None
    button = next(b for b in page["view"]["buttons"] if b["label"] == named[1])
    visit.on(Signal("click", part=button["part"]))
    shown: str = visit.page()["view"]["reveal"]
    return shown


def test_a_run_from_click_to_finish() -> None:
    clock = Clock()
    visit = visit_of(clock)
    for step in (1, 2, 3):
        assert visit.path == f"/step/{step}" and visit.page()["heading"] == f"Step {step} of 3"
        code = visit.code(step)
        assert code not in json.dumps(visit.page())
        assert code in reveal(visit)
        clock.now += 2
        submitted(visit, f" {code.lower()} ")
    status = visit.status()
    assert visit.path == "/finish" and status["finished"] and visit.page()["page"] == "finish"
    assert [(s["step"], s["type"], s["seconds"], s["wrong"]) for s in status["solved"]] == [
        (step, "click-reveal", 2.0, 0) for step in (1, 2, 3)
    ]


def test_input_of_an_earlier_step_does_nothing() -> None:
    visit = visit_of(Clock())
    first = visit.page()
    reveal(visit)
    submitted(visit, visit.code(1))
    assert visit.step == 2
    for button in first["view"]["buttons"]:
        visit.on(Signal("click", part=button["part"]))
    old = first["form"]["field"]["part"]
    visit.on(Signal("keydown", field=old, key="Enter", fields={old: visit.code(2)}))
    assert visit.step == 2 and visit.page()["view"]["reveal"] is None


def test_a_code_counts_once_its_puzzle_is_done_and_not_before() -> None:
    """Who knows it from elsewhere has not earned it; where the task is to read, there is nothing to do first."""
    reading = {name for name in TYPES if load_puzzle(name).reads}
    assert reading == {"calculated-code", "encoded", "hidden-text", "visible-text"}
    for name in TYPES:
        visit = Visit(Plan.of(7, types=(name,), steps=1), b"s", key="k", clock=Clock())
        visit.begin(1)
        submitted(visit, visit.code(1))
        assert (visit.finished, visit.status()["wrong"]) == ((True, 0) if name in reading else (False, 1)), name


def test_a_later_code_opens_nothing_early() -> None:
    visit = visit_of(Clock())
    submitted(visit, visit.code(2))
    assert visit.step == 1 and visit.status()["wrong"] == 1


def test_after_ten_wrong_codes_each_costs_three_seconds() -> None:
    clock = Clock()
    visit = visit_of(clock)
    reveal(visit)
    said = [submitted(visit, "WRONG2") for _ in range(11)]
    assert visit.status()["wrong"] == 11 and "" not in said
    assert all(a != b for a, b in pairwise(said)), "an answer that repeats cannot be seen"
    assert "3 s" in submitted(visit, visit.code(1)) and visit.step == 1
    clock.now += LOCK_S - 0.01
    submitted(visit, visit.code(1))
    assert visit.step == 1 and visit.status()["wrong"] == 11
    clock.now += 0.01
    submitted(visit, visit.code(1))
    assert visit.step == 2


def test_enter_on_the_button_counts_once() -> None:
    """The browser makes a keydown and a click of it."""
    visit = visit_of(Clock())
    form = visit.page()["form"]
    field, button = form["field"]["part"], form["submit"]["part"]
    for kind in ("keydown", "click", "keyup"):
        visit.on(Signal(kind, part=button, key="" if kind == "click" else "Enter", fields={field: "WRONG2"}))
    assert visit.status()["wrong"] == 1


def test_text_that_a_script_had_a_hand_in_does_not_count() -> None:
    visit = visit_of(Clock())
    reveal(visit)
    field = visit.page()["form"]["field"]["part"]
    told = {"kind": "keydown", "field": field, "key": "Enter", "fields": {field: visit.code(1)}}
    tainted = read_signal(json.dumps(told | {"tainted": {field: True}}))
    assert tainted is not None and tainted.fields == {field: ""}
    visit.on(tainted)
    assert visit.step == 1 and visit.status()["wrong"] == 0 and "keyboard" in visit.page()["form"]["message"]
    honest = read_signal(json.dumps(told))
    assert honest is not None
    visit.on(honest)
    assert visit.step == 2
    typed = read_signal(json.dumps({"kind": "input", "field": "x", "value": "abc", "tainted": {"value": True}}))
    assert typed is not None and typed.value == ""


def test_only_known_kinds_are_read_and_nothing_breaks_them() -> None:
    for kind in ("focus", "scroll", "change", "submit", "play", "toggle", "message", "popstate", "", None, 3):
        assert read_signal(json.dumps({"kind": kind, "part": "x"})) is None
    for text in ("", "[]", "3", '{"kind":', "null"):
        assert read_signal(text) is None
    odd = read_signal('{"kind":"click","x":NaN,"y":"7","button":true,"part":["a"],"fields":[1],"tainted":3}')
    assert odd == Signal("click")


# -- signed starts ----------------------------------------------------------------------------------------------------


def test_a_start_is_only_read_as_it_was_signed() -> None:
    start = Start(seed=7, step=20, types=("math", "audio"), key="k", visit="mine", until=time.time() + 60)
    token = sign(start, b"secret")
    assert read(token, b"secret") == start
    assert read(token, b"other") is None
    assert read(token, b"secret", now=start.until) is None
    for at in range(0, len(token) - 1, 7):
        assert read(token[:at] + ("A" if token[at] != "A" else "B") + token[at + 1 :], b"secret") is None
    assert read("", b"secret") is None and read("a.b.c", b"secret") is None and read("é.ü", b"secret") is None
    with pytest.raises(ConfigError):
        replace(start, step=31).check()
