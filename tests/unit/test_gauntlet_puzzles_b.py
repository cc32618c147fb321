"""Group B of the gauntlet's puzzles, fed with events by hand under a clock that the test turns: what solves each, and
what does not; that no view gives the code away before; and that the two solvers that only read read rightly. The types
that are judged by places are in test_gauntlet_puzzles_b_places.py."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from dpo_driver.agents.solver import calculated_code, math
from dpo_driver.agents.solver.page import PuzzlePage
from dpo_driver.core.records import Element, Observation
from dpo_driver.envs.gauntlet.puzzles import HELD_OUT
from gauntlet_game import ALL, CODE, Game, games

TYPES = (
    "animated-button", "calculated-code", "delayed-reveal", "drag-drop", "draw", "math", "memory", "slider", "timing",
)  # fmt: skip
READING = ("calculated-code",)
TOKEN = re.compile(r'"(p[0-9a-f]{10})"')


# ---- what holds for all ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TYPES)
def test_equal_seeds_give_equal_views_and_others_give_others(name: str) -> None:
    for difficulty, skin in ALL:
        views = [json.dumps(Game(name, seed, difficulty, skin).view) for seed in range(20)]
        assert views == [json.dumps(Game(name, seed, difficulty, skin).view) for seed in range(20)]
        assert len(set(views)) >= 15
    texts = [{Game(name, seed, 2, skin).view["title"] for seed in range(60)} for skin in ("a", "b")]
    assert len(texts[0]) >= 4 and len(texts[1]) >= 3 and not texts[0] & texts[1]


@pytest.mark.parametrize("name", TYPES)
def test_the_view_has_the_parts_that_are_listed_and_no_code(name: str) -> None:
    for game in games(name):
        view = game.view
        assert view["title"] and view["text"] and view["reveal"] is None
        assert set(TOKEN.findall(json.dumps(view))) == {game.setup.part(part) for part in game.puzzle.parts}
        shown = json.dumps(view) + json.dumps(view).replace(" ", "")
        assert CODE not in shown and CODE[::-1] not in (shown if name not in READING else "")
        assert game.puzzle.asset("feed") is None and not game.puzzle.feed(True)
        assert game.puzzle.held_out == (name in HELD_OUT)


@pytest.mark.parametrize("name", TYPES)
def test_one_event_of_any_kind_solves_nothing(name: str) -> None:
    kinds = "click dblclick contextmenu pointerdown pointerup pointermove keydown keyup wheel input drop".split()
    for difficulty, skin in ALL:
        for kind in kinds:
            for part in ["", *Game(name, 1, difficulty, skin).puzzle.parts]:
                game = Game(name, 1, difficulty, skin)
                game.on(kind, part, x=5, y=5, width=500, height=280, key="Enter", value=CODE, source=part)
                assert not game.solved
                game.now += 1.9 if name == "delayed-reveal" else 60
                assert not game.solved and CODE not in json.dumps(game.view)


# ---- reading ---------------------------------------------------------------------------------------------------------


def page_of(view: dict[str, Any]) -> PuzzlePage:
    """The page as an agent reads it: title, instruction, what is told, the fields."""
    rules = [("listitem", rule) for rule in view.get("rules", [])]
    told = [("text", line) for line in (view.get("given"), view.get("list"), *view.get("lines", [])) if line]
    fields = [("textbox", view["field"]["label"]), ("button", view["check"]["label"])] if "field" in view else []
    texts = [("heading", "Step 3 of 30"), ("heading", view["title"]), ("text", view["text"]), *told, *rules, *fields]
    elements = [
        Element(ref=str(i), role=role, name=name) for i, (role, name) in enumerate([*texts, ("textbox", "Code")])
    ]
    return PuzzlePage(Observation(goal="", elements=tuple(elements)), ())


def test_the_rules_give_the_code() -> None:
    for game in games("calculated-code", seeds=80):
        page = page_of(game.view)
        assert calculated_code.recognise(page) > 0.9
        assert calculated_code.solve(page)[1].value == CODE  # type: ignore[union-attr]


def test_sums_are_solved_by_their_result_only() -> None:
    results = set()
    for game in games("math", seeds=80):
        number = math.result(page_of(game.view))
        assert number is not None and 0 <= number < 1000, game.view
        results.add(number)
        for wrong in (str(number + 1), str(-number - 1), f"{number}.5", "", "9" * 5000, f"{number} or {number + 1}"):
            game.click("check", fields={"answer": wrong})
            assert not game.solved
        game.on("input", "answer", value=str(number))
        assert not game.solved and game.puzzle.mistakes == 1
        game.click("check", fields={"answer": f" {number} "})
        assert game.solved and CODE in game.view["reveal"]
    assert len(results) > 60


def test_a_sum_is_checked_by_enter_too() -> None:
    game = Game("math")
    fields = {"answer": str(math.result(page_of(game.view)))}
    game.on("keydown", "answer", key="a", fields=fields)
    assert not game.solved
    game.on("keydown", "answer", key="Enter", fields=fields)
    assert game.solved


def told(*lines: str) -> int | None:
    return math.result(page_of({"title": "Sums", "text": "Solve this.", "lines": lines}))


def test_sums_in_other_words_are_read_too() -> None:
    assert told("17 \u2212 3 \u00d7 (2 + 1) = ?") == 8
    assert told("Alice starts with 10 apples.", "She eats 4.", "Her aunt brings 7 more.", "How many has she?") == 13
    assert told("Begin with twenty-one.", "Divide that by three.", "Subtract two.", "What is it?") == 5
    assert told("Open from 9 to 5.", "Ask for prices.") is None


def test_rules_in_other_words_are_read_too() -> None:
    for rule, row in (
        ("Now reverse everything", "FEDCBA"),
        ("Flip each pair", "BADCFE"),
        ("The first half and the other change places", "DEFABC"),
        ("Shift each letter 2 places back in the alphabet", "YZABCD"),
        ("Keep 6, 5, 4, 1, 2, 3", "FEDABC"),
        ("Press Submit", None),
    ):
        assert calculated_code.turn("ABCDEF", rule, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") == row


# ---- time ------------------------------------------------------------------------------------------------------------


def test_a_delay_must_pass_undisturbed() -> None:
    for game in games("delayed-reveal"):
        seconds = int(re.findall(r"\d+", game.view["text"])[-1])
        game.click("start")
        for left in range(seconds, 0, -1):
            assert str(left) in game.view["note"]
            game.now += 0.9
            assert not game.solved
            game.now += 0.1
        assert game.solved and game.puzzle.wakes() is None
    game = Game("delayed-reveal", difficulty=3)
    game.click("start")
    game.now += 3.0
    game.click("other/0")
    game.now += 10.0
    assert not game.solved and game.puzzle.mistakes == 1 and game.view["note"]
    game.click("start")
    game.now += 3.0
    game.click("start")  # begins again
    game.now += 3.0
    assert not game.solved
    while not game.solved:
        game.wake()
    assert game.now <= 100 + 16 + 5


def test_the_moment_is_the_servers() -> None:
    for game in games("timing"):
        needed = {1: 1, 2: 2, 3: 3}[game.setup.difficulty]
        game.click("press")
        assert not game.solved and game.puzzle.wakes() is None  # it does not run yet
        game.click("start")
        begin = game.now
        for caught in range(needed):
            assert not game.solved and game.view["phase"] == 0 and str(caught) in game.view["count"]
            states = {game.view["state"]}
            while game.view["phase"] < 2:
                game.wake()
                states.add(game.view["state"])
            assert len(states) == (2 if game.setup.difficulty == 1 else 3)
            game.now += 0.3
            game.click("press")
        assert game.solved and game.now - begin <= 6.0


def test_hammering_or_a_press_too_late_catches_nothing() -> None:
    game = Game("timing", difficulty=1)
    game.click("start")
    for _ in range(600):
        game.now += 0.1
        game.click("press")
    assert not game.solved and game.puzzle.mistakes == 600
    while game.view["phase"] < 2:
        game.wake()
    game.wake()
    assert game.view["phase"] == 0
    game.now += 0.2
    game.click("press")
    assert not game.solved and game.puzzle.mistakes == 601


def test_a_moving_button_is_hit_in_a_row() -> None:
    for game in games("animated-button"):
        needed = {1: 2, 2: 3, 3: 4}[game.setup.difficulty]
        places = set()
        for hit in range(needed):
            assert not game.solved and str(hit) in game.view["count"]
            button = next(b for b in game.view["buttons"] if game.name(b["part"]) == "goal")
            assert 0 <= button["x"] <= 100 and 0 <= button["y"] <= 84 and button["label"] in game.view["text"]
            places.add((button["x"], button["y"]))
            game.on("pointermove", "goal")
            game.on("click", "goal")  # follows a press or is made by a key: both have counted before
            game.wake()
            game.on("pointerdown", "goal")
        assert game.solved and len(places) == needed and game.puzzle.wakes() is None


def test_a_wrong_moving_button_costs_all_hits() -> None:
    game = Game("animated-button", difficulty=3)
    for part in ("goal", "goal", "goal", "other/1", "goal"):
        game.on("pointerdown", part)
    assert not game.solved and game.puzzle.mistakes == 1
    for _ in range(2):
        game.on("pointerdown", "goal", button=2)
        game.on("keydown", "goal", key="Enter")
    assert not game.solved
    game.on("keydown", "goal", key=" ")
    assert game.solved


def play(game: Game) -> list[str]:
    """Let the words be shown to their end, and name the parts of what was seen."""
    game.click("show")
    seen = []
    while game.view["shown"]:
        word = game.view["shown"].partition(": ")[2]
        seen += [game.name(w["part"]) for w in game.view["words"] if w["label"] == word]
        game.wake()
    return seen


def test_words_are_repeated_after_they_were_shown() -> None:
    for game in games("memory"):
        game.click("word/0")
        assert game.view["note"] and game.puzzle.mistakes == 0  # nothing was shown yet
        before = game.now
        order = play(game)
        assert len(order) == {1: 3, 2: 4, 3: 5}[game.setup.difficulty] and game.now - before <= 4.1
        for part in order[:-1]:
            game.click(part)
            assert not game.solved
        game.click(order[-1])
        assert game.solved


def test_words_in_another_order_or_while_they_are_shown_do_not_count() -> None:
    game = Game("memory", difficulty=3)
    order = play(game)
    for part in reversed(order):
        game.click(part)
    assert not game.solved and game.puzzle.mistakes == 1 and game.view["note"]
    game.click("show")
    for part in order:
        game.click(part)
    assert not game.solved
    play(game)
    game.click(order[0])
    game.click("clear")
    game.click("slower")
    before = game.now
    assert play(game) == order and game.now - before == pytest.approx(12.0)
    for part in order[1:]:
        game.click(part)
    assert not game.solved
    game.click("clear")
    for part in order:
        game.click(part)
    assert game.solved
