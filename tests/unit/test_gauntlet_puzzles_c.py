"""Puzzles of the gauntlet that hand the code out through media, tabs, feeds, workers and stores: hand-fed events and a
hand-turned clock. What sounds and films hold is tested in test_gauntlet_media.py."""

from __future__ import annotations

import itertools
import json
import random
import re
from collections.abc import Iterator
from typing import Any

import pytest

from dpo_driver.envs.gauntlet.puzzles import load_puzzle
from dpo_driver.envs.gauntlet.puzzles.base import Event, Puzzle, Setup
from dpo_driver.envs.gauntlet.puzzles.pieces import PIECE, Teller, split

CODE = "K7MQ2X"
NAMES = (
    "rotating-code",
    "multi-tab",
    "split-parts",
    "video",
    "audio",
    "websocket",
    "service-worker",
    "storage",
)
KINDS = list(itertools.product(NAMES, (1, 2, 3), "ab"))


class Clock:
    """Turned by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def make(name: str, seed: int = 7, difficulty: int = 1, skin: str = "a") -> tuple[Any, Clock]:
    clock = Clock()
    setup = Setup(random.Random(seed), CODE, difficulty, skin, clock, secret=b"of this test")
    return load_puzzle(name)(setup), clock


def press(puzzle: Puzzle, part: str, kind: str = "click", button: int = 0) -> None:
    assert part in puzzle.parts
    puzzle.on(Event(kind, part, at=puzzle.setup.clock(), button=button))


def shown(puzzle: Puzzle) -> str:
    return json.dumps(puzzle.view(), ensure_ascii=False)


def addresses(value: Any) -> Iterator[str]:
    """Everything in a view that is an address of an asset."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for inner in value:
            yield from addresses(inner)
    elif isinstance(value, str) and value.startswith("/asset/"):
        yield value


def named_parts(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if "part" in value:
            yield value["part"]
        value = list(value.values())
    if isinstance(value, list):
        for inner in value:
            yield from named_parts(inner)


def told_pieces(puzzle: Puzzle, texts: list[str], count: int) -> str:
    """The code that some sentences tell, found without the puzzle's own knowledge of their order."""
    patterns = [Teller(puzzle.setup, pattern, "").tell(i, count, "(PIECE)") for pattern in PIECE[0] + PIECE[1] for i in
                range(1, count + 1)]  # fmt: skip
    numbers = [i for _ in PIECE[0] + PIECE[1] for i in range(1, count + 1)]
    found: dict[int, str] = {}
    for text, (number, pattern) in itertools.product(texts, zip(numbers, patterns, strict=True)):
        match = re.search(re.escape(pattern).replace(re.escape("(PIECE)"), rf"([A-Z2-9]{{{6 // count}}})"), text)
        if match:
            found[number] = match[1]
    return "".join(found.get(i, "?") for i in range(1, count + 1))


# ---- all of them ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "difficulty", "skin"), KINDS)
def test_before_any_evidence_nothing_holds_the_code(name: str, difficulty: int, skin: str) -> None:
    for seed in range(10):
        puzzle, clock = make(name, seed, difficulty, skin)
        parts = {puzzle.setup.part(part) for part in puzzle.parts}
        before = shown(puzzle)
        for part, kind in itertools.product(puzzle.parts, ("keydown", "keyup", "pointerup", "wheel", "input", "drop")):
            puzzle.on(Event(kind, part, at=clock.now, key="Enter", value=CODE))
        puzzle.on(Event("click", "", at=clock.now))
        clock.now += 60
        assert shown(puzzle) == before and not puzzle.solved and puzzle.wakes() is None
        assert puzzle.view()["reveal"] is None and puzzle.view()["title"] and puzzle.view()["text"]
        assert not any(piece in before for count in (1, 2, 3) for piece in split(CODE, count) if len(piece) > 2)
        for address in addresses(puzzle.view()):
            assert puzzle.asset(address.rpartition("/")[2]) is None
        for asset in ("film.webm", "picture-0.webp", "sound.wav", "worker.js", "window-0.txt", "sheet-0.html", "feed"):
            assert puzzle.asset(asset) is None
        assert list(puzzle.feed(True)) == []
        assert set(named_parts(puzzle.view())) <= parts


@pytest.mark.parametrize(("name", "difficulty", "skin"), KINDS)
def test_the_seed_alone_makes_the_puzzle(name: str, difficulty: int, skin: str) -> None:
    views = [shown(make(name, seed, difficulty, skin)[0]) for seed in range(30)]
    assert views == [shown(make(name, seed, difficulty, skin)[0]) for seed in range(30)]
    assert len(set(views)) >= 20
    texts = {make(name, seed, difficulty, skin)[0].view()["text"] for seed in range(30)}
    others = {make(name, seed, difficulty, "b" if skin == "a" else "a")[0].view()["text"] for seed in range(30)}
    assert len(texts) >= 3 and not texts & others


@pytest.mark.parametrize(("name", "difficulty", "skin"), KINDS)
def test_what_was_done_does_not_undo_the_parts(name: str, difficulty: int, skin: str) -> None:
    """Every part that any view draws is one that the server knows."""
    puzzle, clock = make(name, 3, difficulty, skin)
    parts = {puzzle.setup.part(part) for part in puzzle.parts}
    for part in list(puzzle.parts) * 2:
        press(puzzle, part)
        clock.now += 0.7
        assert set(named_parts(puzzle.view())) <= parts
    assert puzzle.solved


# ---- rotating-code --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("difficulty", "skin"), itertools.product((1, 2, 3), "ab"))
def test_rotating_code_shows_one_piece_at_a_time(difficulty: int, skin: str) -> None:
    count, slots = {1: (2, 2), 2: (3, 3), 3: (3, 4)}[difficulty]
    for seed in range(8):
        puzzle, clock = make("rotating-code", seed, difficulty, skin)
        press(puzzle, "start")
        began, lines, pieces = clock.now, [], split(CODE, count)
        for _ in range(slots):
            lines.append(puzzle.view()["line"])
            assert sum(piece in lines[-1] for piece in pieces) <= 1
            wakes = puzzle.wakes()
            assert wakes is not None and wakes > clock.now
            clock.now = wakes - 0.001
            assert puzzle.view()["line"] == lines[-1]
            clock.now = wakes
        assert clock.now - began <= 5.0
        assert told_pieces(puzzle, lines, count) == CODE
        assert puzzle.view()["line"] == lines[0]


def test_rotating_code_comes_to_an_end_and_starts_again() -> None:
    puzzle, clock = make("rotating-code")
    press(puzzle, "start")
    first = puzzle.view()["line"]
    wakes = 0
    while (at := puzzle.wakes()) is not None:
        clock.now, wakes = at, wakes + 1
    assert wakes == 12 * 2 and not any(piece in shown(puzzle) for piece in split(CODE, 2))
    press(puzzle, "start")
    assert puzzle.view()["line"] == first


# ---- multi-tab ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("difficulty", "skin"), itertools.product((1, 2, 3), "ab"))
def test_multi_tab_serves_a_sheet_after_its_own_click_only(difficulty: int, skin: str) -> None:
    for seed in range(8):
        puzzle, _ = make("multi-tab", seed, difficulty, skin)
        assert len(puzzle.parts) == {1: 1, 2: 2, 3: 4}[difficulty]
        assert sorted(address.rpartition("/")[2] for address in addresses(puzzle.view())) == sorted(puzzle.parts)
        texts = []
        for part in puzzle.parts:
            assert puzzle.asset(part) is None
            press(puzzle, part, "pointerdown", button=0)  # a press that is not finished opens nothing
            assert puzzle.asset(part) is None
            press(puzzle, part)
            page = puzzle.asset(part)
            assert page is not None and page.media_type.startswith("text/html")
            texts.append(page.content.decode())
            assert "<script" not in texts[-1]
        assert puzzle.solved and puzzle.view()["reveal"] is None and CODE not in shown(puzzle)
        found = CODE if difficulty == 1 and CODE in texts[0] else told_pieces(puzzle, texts, difficulty)
        assert found == CODE


@pytest.mark.parametrize(("kind", "button"), [("pointerdown", 1), ("contextmenu", 2)])
def test_multi_tab_knows_other_ways_to_open_a_tab(kind: str, button: int) -> None:
    puzzle, _ = make("multi-tab")
    press(puzzle, "sheet-0.html", kind, button)
    assert puzzle.asset("sheet-0.html") is not None


# ---- split-parts ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("difficulty", "skin"), itertools.product((1, 2, 3), "ab"))
def test_split_parts_opens_one_place_of_a_kind(difficulty: int, skin: str) -> None:
    count = {1: 2, 2: 3, 3: 6}[difficulty]
    for seed in range(8):
        puzzle, _ = make("split-parts", seed, difficulty, skin)
        assert len(puzzle.parts) == 3 * difficulty and type(puzzle).held_out
        texts, solved_at = [], 0
        for number, part in enumerate(puzzle.parts, start=1):
            press(puzzle, part)
            held = [item for group in puzzle.view()["groups"] for item in group["items"] if item["holds"] is not None]
            kinds = {part.partition("/")[0] for part in puzzle.parts[:number]}
            assert len(held) == len(kinds)
            texts += [item["holds"] for item in held]
            if puzzle.solved and not solved_at:
                solved_at = number
                assert told_pieces(puzzle, texts, count) == CODE
            elif not puzzle.solved:
                assert "?" in told_pieces(puzzle, texts, count)
        assert solved_at


def test_split_parts_notes_open_under_the_pointer_and_folds_close() -> None:
    puzzle, _ = make("split-parts", 3, 3)
    for kind, opened in (("tabs", False), ("folds", False), ("notes", True)):
        press(puzzle, f"{kind}/1", "pointermove")
        held = [item["holds"] for group in puzzle.view()["groups"] if group["kind"] == kind for item in group["items"]]
        assert [text is not None for text in held] == [False, opened, False]
    press(puzzle, "folds/0")
    press(puzzle, "folds/0")
    assert all(
        item["holds"] is None
        for group in puzzle.view()["groups"]
        if group["kind"] == "folds"
        for item in group["items"]
    )


# ---- websocket ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("difficulty", "skin"), itertools.product((1, 2, 3), "ab"))
def test_websocket_sends_the_pieces_on_the_named_channel(difficulty: int, skin: str) -> None:
    count = {1: 2, 2: 3, 3: 3}[difficulty]
    for seed in range(8):
        puzzle, _ = make("websocket", seed, difficulty, skin)
        assert puzzle.view()["feed"] is None and list(puzzle.feed(True)) == []
        press(puzzle, "connect")
        assert puzzle.view()["feed"].endswith("/feed")
        messages = list(puzzle.feed(True))
        assert list(puzzle.feed(False)) == []
        times = [at for at, _ in messages]
        assert times == sorted(times) and times[0] > 0 and times[-1] <= 4.0
        assert len(messages) == {1: 3, 2: 7, 3: 11}[difficulty]
        quoted = re.findall(r'"([^"]+)"', puzzle.view()["text"])
        (channel,) = [name for name in quoted if name != puzzle.view()["connect"]["label"]]
        mine = [text for _, text in messages if channel in text]
        assert len(mine) == count and told_pieces(puzzle, mine, count) == CODE
        theirs = told_pieces(puzzle, [text for _, text in messages if channel not in text], count)
        assert (difficulty == 3) == ("?" not in theirs) and theirs != CODE


# ---- service-worker -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("difficulty", "skin"), itertools.product((1, 2, 3), "ab"))
def test_service_worker_answers_what_was_asked(difficulty: int, skin: str) -> None:
    for seed in range(8):
        puzzle, _ = make("service-worker", seed, difficulty, skin)
        asks = [part for part in puzzle.parts if part != "start"]
        assert len(asks) == {1: 1, 2: 2, 3: 4}[difficulty]
        press(puzzle, asks[0])  # before the worker was started it is not heard
        assert all(window["address"] is None for window in puzzle.view()["windows"]) and puzzle.view()["worker"] is None
        press(puzzle, "start")
        script = puzzle.asset("worker.js")
        assert script is not None and script.media_type.startswith("text/javascript")
        assert CODE not in script.content.decode() and puzzle.view()["worker"].startswith(puzzle.view()["scope"])
        texts = []
        for ask in asks:
            name = ask.removeprefix("ask/")
            assert puzzle.asset(f"{name}.txt") is None
            press(puzzle, ask)
            answer = puzzle.asset(f"{name}.txt")
            assert answer is not None
            texts.append(answer.content.decode())
            address = script.content.decode().partition(f'"{name}": "')[2].partition('"')[0]
            assert address == puzzle.setup.asset(f"{name}.txt")
        scope = puzzle.view()["scope"]
        assert [window["address"] for window in puzzle.view()["windows"]] == [
            scope + a.removeprefix("ask/") for a in asks
        ]
        found = CODE if difficulty == 1 and CODE in texts[0] else told_pieces(puzzle, texts, difficulty)
        assert puzzle.solved and found == CODE and CODE not in shown(puzzle)


# ---- storage --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("difficulty", "skin"), itertools.product((1, 2, 3), "ab"))
def test_storage_hands_out_a_store_when_it_is_opened(difficulty: int, skin: str) -> None:
    for seed in range(8):
        puzzle, _ = make("storage", seed, difficulty, skin)
        assert len(puzzle.parts) == difficulty
        values: dict[str, str] = {}
        for number, part in enumerate(puzzle.parts, start=1):
            assert not puzzle.solved
            press(puzzle, part)
            stores = {store["store"]: store["entries"] for store in puzzle.view()["stores"]}
            assert sum(bool(entries) for entries in stores.values()) == number
            entries = stores[part.removeprefix("open/")]
            assert len(entries) == {1: 3, 2: 4, 3: 5}[difficulty] == len({key for key, _ in entries})
            values.update(map(tuple, entries))
        labels = {store["label"] for store in puzzle.view()["stores"]}
        keys = [name for name in re.findall(r'"([^"]+)"', puzzle.view()["text"]) if name not in labels]
        assert puzzle.solved and len(keys) == difficulty and "".join(values[key] for key in keys) == CODE


def test_a_code_is_cut_into_equal_pieces_only() -> None:
    assert split(CODE, 3) == ["K7", "MQ", "2X"] and split(CODE, 1) == [CODE]
    with pytest.raises(ValueError, match="4 equal pieces"):
        split(CODE, 4)
