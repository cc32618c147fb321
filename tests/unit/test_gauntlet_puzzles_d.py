"""Shadow DOM, frames, computed style, mutation, encoded, encrypted, conditional, multi-step: what solves them and what
does not, by hand-fed trusted input on a clock that is turned by hand."""

from __future__ import annotations

import base64
import codecs
import itertools
import json
import random
import re
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import pytest

from dpo_driver.envs.gauntlet.puzzles import HELD_OUT, load_puzzle
from dpo_driver.envs.gauntlet.puzzles.base import CODE_LENGTH, Event, Puzzle, Setup
from dpo_driver.envs.gauntlet.puzzles.encrypted import shifts_of, turned

NAMES = (
    "shadow-dom",
    "frames",
    "computed-style",
    "mutation",
    "encoded",
    "encrypted",
    "conditional",
    "multi-step",
)
CODE = "K7QX4M"
SEEDS = range(12)
ALL = [(name, level, skin) for name in NAMES for level in (1, 2, 3) for skin in "ab"]


class Clock:
    """Seconds that pass only by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def made(name: str, seed: int = 0, level: int = 1, skin: str = "a", code: str = CODE, secret: bytes = b"s") -> Any:
    setup = Setup(random.Random(seed), code, level, skin, Clock(), secret)
    return load_puzzle(name)(setup)


def click(puzzle: Puzzle, part: str, **fields: str) -> None:
    assert part in puzzle.parts
    puzzle.on(Event("click", part, fields=fields))


def write(puzzle: Puzzle, part: str, text: str) -> None:
    assert part in puzzle.parts
    puzzle.on(Event("input", part, value=text))


def tokens(value: Any) -> Iterator[str]:
    """Everything in a view that names a part."""
    if isinstance(value, dict):
        if isinstance(value.get("part"), str):
            yield value["part"]
        for inner in value.values():
            yield from tokens(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from tokens(inner)


def check_parts(puzzle: Puzzle) -> int:
    """All parts that the view and the frames draw are among those listed; gives how many are drawn."""
    known = {puzzle.setup.part(name) for name in puzzle.parts}
    assert len(known) == len(puzzle.parts)
    drawn = set(tokens(puzzle.view())) | set(re.findall(r'data-part="([^"]+)"', pages(puzzle)))
    assert drawn <= known
    return len(drawn)


def pages(puzzle: Puzzle) -> str:
    """The text of all assets."""
    assets = [puzzle.asset(f"frame-{index}") for index in range(20)]
    return "".join(asset.content.decode() for asset in assets if asset)


# -- what holds for all ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "level", "skin"), ALL)
def test_a_seed_is_a_puzzle(name: str, level: int, skin: str) -> None:
    views = []
    for seed in SEEDS:
        puzzle, again = made(name, seed, level, skin), made(name, seed, level, skin)
        view = puzzle.view()
        assert view == again.view() == json.loads(json.dumps(view))
        assert pages(puzzle) == pages(again)
        assert 0 < len(view["title"]) < 60 and 0 < len(view["text"]) <= 300
        assert view["reveal"] is None and not puzzle.solved
        check_parts(puzzle)
        puzzle.setup.clock.now += 1000  # type: ignore[attr-defined]
        assert puzzle.view() == view and puzzle.wakes() is None
        views.append(json.dumps(view))
    assert len(set(views)) >= len(SEEDS) - 2  # two may meet where there is little to draw


@pytest.mark.parametrize(("name", "level", "skin"), ALL)
def test_nothing_shows_the_code_before(name: str, level: int, skin: str) -> None:
    for seed in SEEDS:
        puzzle = made(name, seed, level, skin)
        assert CODE not in json.dumps(puzzle.view()) and CODE not in pages(puzzle)
        other = made(name, seed, level, skin, code="ZZ2234")
        if name != "encoded":  # whose task is to read
            assert other.view() == puzzle.view() and pages(other) == pages(puzzle)


@pytest.mark.parametrize(("name", "level", "skin"), ALL)
def test_parts_cannot_be_guessed(name: str, level: int, skin: str) -> None:
    ours, theirs = made(name, 1, level, skin), made(name, 1, level, skin, secret=b"another visit's")
    if name != "encoded":
        assert not set(tokens(ours.view())) & set(tokens(theirs.view()))
        assert check_parts(ours) > 0


@pytest.mark.parametrize("name", NAMES)
def test_held_out_types_are_those_of_the_table(name: str) -> None:
    puzzle = made(name)
    assert puzzle.name == name and puzzle.held_out == (name in HELD_OUT)


INSTRUCTIONS = {
    "shadow_dom": "TITLE TEXT",
    "frames": "TITLE ONE TWO",
    "computed_style": "TITLE TEXT",
    "mutation": "TITLE ALONE AMONG",
    "encoded": "TITLE ONCE TWICE",
    "encrypted": "TITLE SHIFT WORD SHIFTED",
    "conditional": "TITLE TEXT",
    "multi_step": "TITLE TEXT WRITE TICK CHOOSE",
}


@pytest.mark.parametrize("name", INSTRUCTIONS)
def test_wording_varies_and_the_skins_share_none(name: str) -> None:
    module = import_module(f"dpo_driver.envs.gauntlet.puzzles.{name}")
    for table in INSTRUCTIONS[name].split():
        a, b = getattr(module, table)
        assert len(set(a)) >= 4 and len(set(b)) >= 3 and not set(a) & set(b)


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"encoded"}))
def test_other_input_than_clicks_solves_nothing(name: str) -> None:
    for level in (1, 2, 3):
        puzzle = made(name, 5, level)
        kinds = ("pointerdown", "pointerup", "pointermove", "wheel", "drop", "dblclick", "keyup", "contextmenu")
        for kind, part in itertools.product(kinds, puzzle.parts):
            puzzle.on(Event(kind, part, key="Enter"))
        assert not puzzle.solved and puzzle.mistakes == 0


# -- one by one ------------------------------------------------------------------------------------------------------


def reveals(puzzle: Puzzle) -> None:
    assert puzzle.solved and CODE in puzzle.view()["reveal"]
    check_parts(puzzle)


def way_in(puzzle: Any) -> list[str]:
    """The parts of the shadow roots' right things, by the names that the instruction quotes."""
    named = re.findall(r"[\"“]([^\"”]+)[\"”]", puzzle.view()["text"])
    return [f"{at}/{level.names.index(named[at])}" for at, level in enumerate(puzzle._levels)]


@pytest.mark.parametrize(("level", "skin", "deep"), [(1, "a", 2), (2, "b", 3), (3, "a", 4), (3, "b", 4)])
def test_shadow_dom_opens_from_the_outside_in(level: int, skin: str, deep: int) -> None:
    for seed in SEEDS:
        puzzle = made("shadow-dom", seed, level, skin)
        way = way_in(puzzle)
        assert len(way) == deep
        for part in way[1:]:  # what lies inside is not there yet
            click(puzzle, part)
        assert len(puzzle.view()["levels"]) == 1 and not puzzle.solved and puzzle.mistakes == 0
        for done, part in enumerate(way):
            assert len(puzzle.view()["levels"]) == done + 1 and not puzzle.solved
            click(puzzle, part)
        reveals(puzzle)


def test_shadow_dom_shuts_at_a_wrong_thing() -> None:
    puzzle = made("shadow-dom", 3, 3)
    way = way_in(puzzle)
    for part in way[:-1]:
        click(puzzle, part)
    wrong = next(part for part in puzzle.parts if part.startswith("3/") and part != way[-1])
    click(puzzle, wrong)
    view = puzzle.view()
    assert len(view["levels"]) == 1 and view["note"] and puzzle.mistakes == 1
    click(puzzle, way[-1])
    assert not puzzle.solved
    inner = puzzle.setup.part(way[1])
    assert inner not in json.dumps(view)
    for part in way:
        click(puzzle, part)
    reveals(puzzle)


@pytest.mark.parametrize(("level", "skin", "deep"), [(1, "a", 2), (2, "b", 3), (3, "a", 4), (3, "b", 4)])
def test_frames_lie_in_each_other(level: int, skin: str, deep: int) -> None:
    puzzle = made("frames", 7, level, skin)
    sources = {puzzle.setup.asset(f"frame-{index}"): index for index in range(20)}

    def depth(index: int) -> int:
        asset = puzzle.asset(f"frame-{index}")
        assert asset is not None and asset.media_type.startswith("text/html")
        inner = re.findall(r'<iframe [^>]*src="([^"]+)"', asset.content.decode())
        return 1 + max((depth(sources[source]) for source in inner), default=0)

    assert depth(0) == deep and puzzle.view()["frame"]["src"] == puzzle.setup.asset("frame-0")
    for nothing in ("frame-20", "frame--1", "frame-", "else", "frame-0/.."):
        assert puzzle.asset(nothing) is None
    assert "<script" not in pages(puzzle)


def pressed(puzzle: Any, room: Any) -> str:
    return f"press/{puzzle._rooms.index(room)}"


@pytest.mark.parametrize("skin", ["a", "b"])
def test_frames_count_only_the_innermost(skin: str) -> None:
    for seed in SEEDS:
        puzzle = made("frames", seed, 2, skin)
        outer, middle, inner = puzzle._chain
        click(puzzle, pressed(puzzle, outer))
        click(puzzle, pressed(puzzle, middle))
        assert not puzzle.solved and puzzle.mistakes == 2 and puzzle.view()["note"]
        quoted = re.findall(r"[\"“]([^\"”]+)[\"”]", puzzle.view()["text"])
        assert inner.name in quoted and outer.name in quoted
        click(puzzle, pressed(puzzle, inner))
        reveals(puzzle)


def test_frames_two_of_many_in_order() -> None:
    for seed in SEEDS:
        puzzle = made("frames", seed, 3)
        first, second = puzzle._targets
        assert len(puzzle.parts) == 7 and first is not second
        click(puzzle, pressed(puzzle, second))  # too early
        assert puzzle.mistakes == 1
        click(puzzle, pressed(puzzle, first))
        assert not puzzle.solved and puzzle.view()["note"]
        other = next(room for room in puzzle._rooms if room not in (first, second))
        click(puzzle, pressed(puzzle, other))  # begins anew
        click(puzzle, pressed(puzzle, second))
        assert not puzzle.solved and puzzle.mistakes == 3
        click(puzzle, pressed(puzzle, first))
        click(puzzle, pressed(puzzle, second))
        reveals(puzzle)


def test_frames_escape_what_they_show() -> None:
    puzzle = made("frames", 0, 2)
    puzzle._rooms[0].name = "<b>&\"'"
    puzzle._number = {room.name: index for index, room in enumerate(puzzle._rooms)}
    content = puzzle.asset("frame-0").content.decode()
    assert "<b>" not in content and "&lt;b&gt;&amp;&quot;" in content


@pytest.mark.parametrize(("level", "skin"), [(1, "a"), (2, "a"), (2, "b"), (3, "a"), (3, "b")])
def test_computed_style_in_a_row(level: int, skin: str) -> None:
    for seed in range(40):
        puzzle = made("computed-style", seed, level, skin)
        for at, asked in enumerate(puzzle._questions):
            view = puzzle.view()
            assert not puzzle.solved and len(view["boxes"]) == len(asked.boxes) >= 4
            assert sorted(box["order"] for box in view["boxes"]) == list(range(len(asked.boxes)))
            assert len({box["label"] for box in view["boxes"]}) == len(asked.boxes)
            click(puzzle, f"{at}/{asked.right}")
        assert len(puzzle._questions) == level and puzzle.mistakes == 0
        reveals(puzzle)


def test_computed_style_wrong_box_starts_again() -> None:
    puzzle = made("computed-style", 2, 3)
    first, second, third = (f"{at}/{asked.right}" for at, asked in enumerate(puzzle._questions))
    click(puzzle, third)  # of a row that is not shown yet
    assert puzzle.mistakes == 0 and puzzle.view()["text"] == puzzle._texts[0]
    click(puzzle, first)
    click(puzzle, second)
    wrong = next(part for part in puzzle.parts if part.startswith("2/") and part != third)
    click(puzzle, wrong)
    assert puzzle.mistakes == 1 and puzzle.view()["text"] == puzzle._texts[0] and puzzle.view()["note"]
    click(puzzle, third)
    assert not puzzle.solved
    for part in (first, second, third):
        click(puzzle, part)
    reveals(puzzle)


def test_computed_style_asks_by_every_trait() -> None:
    said = " ".join(made("computed-style", seed, level).view()["text"] for seed in range(150) for level in (1, 2, 3))
    for word in ("largest", "smallest", "from the left", "from the right", "tilted", "upright", "frame", "red"):
        assert word in said


def watched(puzzle: Any) -> str:
    """Press through the series, and read what comes in."""
    before, word = {letter["id"] for letter in puzzle.view()["board"]}, ""
    while not puzzle.view()["ended"]:
        click(puzzle, "next")
        board = puzzle.view()["board"]
        (new,) = (letter for letter in board if letter["id"] not in before)
        before, word = {letter["id"] for letter in board}, word + new["letter"]
    return word


@pytest.mark.parametrize(("level", "row", "length"), [(1, 0, 4), (2, 4, 5), (3, 6, 6)])
def test_mutation_the_letters_that_came_in(level: int, row: int, length: int) -> None:
    for seed, skin in itertools.product(SEEDS, "ab"):
        puzzle = made("mutation", seed, level, skin)
        assert len(puzzle.view()["board"]) == row
        word = watched(puzzle)
        assert len(word) == length == len(set(word)) and not puzzle.solved
        assert len(puzzle.view()["board"]) == max(row, 1)
        click(puzzle, "next")  # nothing follows
        click(puzzle, "check", word=f" {word.lower()} ")
        reveals(puzzle)


def test_mutation_needs_the_whole_series() -> None:
    puzzle = made("mutation", 4, 2)
    word = puzzle._word
    click(puzzle, "check", word=word)  # a lucky guess
    assert not puzzle.solved and puzzle.mistakes == 1
    for _ in range(4):
        click(puzzle, "next")
    click(puzzle, "check", word=word)  # one letter short; it starts again
    assert not puzzle.solved and puzzle.mistakes == 2 and not puzzle.view()["ended"]
    first = puzzle.view()["seen"]
    watched(puzzle)
    click(puzzle, "check", word=word[:-1])
    assert not puzzle.solved and puzzle.view()["seen"] == first and puzzle.view()["note"]
    watched(puzzle)
    click(puzzle, "check")  # nothing typed
    assert not puzzle.solved and puzzle.view()["ended"]
    click(puzzle, "again")
    assert puzzle.view()["seen"] == first and watched(puzzle) == word
    puzzle.on(Event("keydown", "word", key="Enter", fields={"word": word}))
    reveals(puzzle)


DECODE = {
    "base64": lambda text: base64.b64decode(text).decode(),
    "hex": lambda text: bytes.fromhex(text).decode(),
    "decimal": lambda text: bytes(map(int, text.split())).decode(),
    "rot13": lambda text: codecs.decode(text, "rot13"),
    "reversed": lambda text: text[::-1],
}
SAID = {
    "base64": r"base.?64",
    "hex": "hex",
    "decimal": r"ascii|char\w+ codes",
    "rot13": r"rot.?13",
    "reversed": "back|rever",
}


@pytest.mark.parametrize(("level", "skin", "ways"), [(1, "a", 1), (2, "b", 1), (3, "a", 2), (3, "b", 2)])
def test_encoded_as_it_says(level: int, skin: str, ways: int) -> None:
    seen = set()
    for seed in range(30):
        puzzle = made("encoded", seed, level, skin)
        view = puzzle.view()
        places = {way: re.search(words, view["text"], re.IGNORECASE) for way, words in SAID.items()}
        said = sorted((place.start(), way) for way, place in places.items() if place)
        if len(said) > ways:  # "turn it back" is no way of writing
            said = [pair for pair in said if pair[1] != "reversed"]
        assert len(said) == ways
        orders = [said, said[::-1]]
        found = set()
        for note, order in itertools.product(view["notes"], orders):
            text = note["text"]
            try:
                for _, way in order:
                    text = DECODE[way](text)
            except ValueError:
                continue
            found |= set(re.findall(rf"\b{CODE}\b", text))
        assert found == {CODE}
        seen |= {way for _, way in said}
        assert len(view["notes"]) == (2 if level == 3 else 1) and view["reveal"] is None
        for kind in ("click", "keydown", "input"):
            puzzle.on(Event(kind, "", value=CODE))
        assert puzzle.view() == view
    assert seen == set(DECODE)


def key_to(puzzle: Any) -> str:
    """The key as a reader finds it."""
    view = puzzle.view()
    number = re.search(r"\d+", view["text"])
    lines = [line.split(": ") for line in view["list"]["lines"]]
    if not lines:
        return number[0] if number else ""
    ((_, word),) = (line for line in lines if re.search(rf"\b{line[0]}\b", view["text"], re.IGNORECASE))
    return turned(word, [-int(number[0])]) if number else word


@pytest.mark.parametrize(("level", "skin"), [(1, "a"), (1, "b"), (2, "a"), (2, "b"), (3, "a"), (3, "b")])
def test_encrypted_by_the_key_on_the_page(level: int, skin: str) -> None:
    for seed in SEEDS:
        puzzle = made("encrypted", seed, level, skin)
        cipher = puzzle.view()["message"]["text"]
        key = key_to(puzzle)
        for wrong in ("", "NONSENSE", "27", "!?", key + "X", cipher):
            click(puzzle, "go", key=wrong)
            assert not puzzle.solved
        assert puzzle.mistakes == 6
        plain = turned(cipher, [-shift for shift in shifts_of(key) or []])
        click(puzzle, "go", key=f" {key.lower()} ")
        reveals(puzzle)
        assert puzzle.view()["message"]["text"] == plain.capitalize()
        by_hand = made("encrypted", seed, level, skin)
        by_hand.on(Event("keydown", "key", key="Enter", fields={"key": plain}))
        reveals(by_hand)


def test_encrypted_a_wrong_key_shows_what_it_makes() -> None:
    puzzle = made("encrypted", 1, 2)
    cipher = puzzle.view()["message"]["text"]
    click(puzzle, "go", key="abc")
    assert puzzle.view()["tried"]["text"] == turned(cipher, [0, -1, -2]).capitalize()
    assert turned("ABC xyz-YZ", [1, 2]) == "BDD xyz-AA"


def answer(puzzle: Any, level: int, value: str) -> None:
    what = puzzle._questions()[level]
    click(puzzle, f"{level}/{what}/{value}")


@pytest.mark.parametrize(("level", "skin", "asked"), [(1, "a", 2), (2, "b", 3), (3, "a", 4), (3, "b", 4)])
def test_conditional_by_the_card(level: int, skin: str, asked: int) -> None:
    for seed in SEEDS:
        puzzle = made("conditional", seed, level, skin)
        view = puzzle.view()
        assert len(view["cards"]) == level
        (card,) = (
            card
            for card in view["cards"]
            if set(re.findall("[A-Z][a-z]+", card["title"])) & set(re.findall("[A-Z][a-z]+", view["text"]))
        )
        facts = " ".join(card["lines"]).lower()
        for done in range(asked):
            questions = puzzle.view()["questions"]
            assert len(questions) == done + 1
            (right,) = (o["label"] for o in questions[-1]["options"] if re.search(rf"\b{o['label'].lower()}\b", facts))
            answer(puzzle, done, right)
        assert not puzzle.solved and puzzle.mistakes == 0
        click(puzzle, "done")
        reveals(puzzle)


def test_conditional_goes_astray() -> None:
    puzzle = made("conditional", 9, 3)
    right = [puzzle._right[what] for what in puzzle._path]
    asked = [question["text"] for question in puzzle.view()["questions"]]
    click(puzzle, "done")
    assert puzzle.mistakes == 1
    wrong = next(value for value in puzzle._options[puzzle._path[0]] if value != right[0])
    answer(puzzle, 0, wrong)
    assert puzzle._questions()[1] not in puzzle._path  # another question opens
    click(puzzle, f"1/{puzzle._path[1]}/{right[1]}")  # which is not asked now
    assert len(puzzle.view()["questions"]) == 2
    for level in range(1, 4):
        answer(puzzle, level, puzzle._options[puzzle._questions()[level]][0])
    click(puzzle, "done")
    assert not puzzle.solved and puzzle.mistakes == 2 and len(puzzle.view()["questions"]) == 1
    for level, value in enumerate(right):
        answer(puzzle, level, value)
    answer(puzzle, 0, wrong)  # a changed answer shuts what it had opened
    assert len(puzzle.view()["questions"]) == 2
    click(puzzle, "done")
    assert not puzzle.solved
    for level, value in enumerate(right[:-1]):
        answer(puzzle, level, value)
    click(puzzle, "done")  # one is missing
    assert not puzzle.solved and [q["text"] for q in puzzle.view()["questions"]] == asked
    for level, value in enumerate(right):
        answer(puzzle, level, value)
    click(puzzle, "done")
    reveals(puzzle)


def test_conditional_answers_are_unmistakable() -> None:
    for lines in import_module("dpo_driver.envs.gauntlet.puzzles.conditional").ASKED:
        values = [value for line in lines for value in line.partition(": ")[2].split(", ")]
        assert len(values) == len(set(values)) >= 60


def follow(puzzle: Any, lines: list[Any]) -> None:
    for line in lines:
        if line.value:
            write(puzzle, line.part, line.value[:2])
            write(puzzle, line.part, line.value)
        else:
            click(puzzle, line.part)


@pytest.mark.parametrize(("level", "skin", "count"), [(1, "a", 4), (1, "b", 4), (2, "a", 5), (3, "a", 7), (3, "b", 7)])
def test_multi_step_in_order(level: int, skin: str, count: int) -> None:
    for seed in SEEDS:
        puzzle = made("multi-step", seed, level, skin)
        assert len(puzzle._lines) == len(puzzle.view()["lines"]) == count
        for line in puzzle._lines:
            assert puzzle._labels[line.part] in line.said and line.value in line.said
        assert puzzle.view()["form"] is None
        follow(puzzle, puzzle._lines[:-1])
        assert not puzzle.solved
        click(puzzle, "finish")
        assert puzzle.mistakes == 0
        reveals(puzzle)


@pytest.mark.parametrize("level", [1, 2, 3])
def test_multi_step_any_slip_starts_again(level: int) -> None:
    puzzle = made("multi-step", 11, level)
    lines, slips = puzzle._lines, 0
    click(puzzle, "finish")  # before the start there is no form
    write(puzzle, "word", "x")
    assert puzzle.mistakes == 0 and puzzle.view()["form"] is None
    for left_out in range(1, len(lines) - 1):
        follow(puzzle, lines[:left_out])
        round_ = puzzle.view()["form"]["round"]
        follow(puzzle, lines[left_out + 1 :])
        slips = puzzle.mistakes
        assert not puzzle.solved and slips >= left_out and round_ >= left_out
    for one, other in itertools.combinations(range(1, len(lines) - 1), 2):
        swapped = list(lines)
        swapped[one], swapped[other] = lines[other], lines[one]
        follow(puzzle, swapped)
        assert not puzzle.solved and puzzle.mistakes > slips
        slips = puzzle.mistakes
    for extra in set(puzzle.parts) - {line.part for line in lines}:
        follow(puzzle, lines[:-1])
        click(puzzle, extra)
        click(puzzle, "finish")
        assert not puzzle.solved and puzzle.view()["note"]
    follow(puzzle, lines)
    reveals(puzzle)


def test_multi_step_wants_the_very_word() -> None:
    puzzle = made("multi-step", 2, 1)
    start, word, *rest = puzzle._lines
    for text in (word.value + "s", word.value[:-1], "", word.value.upper()):
        follow(puzzle, [start])
        write(puzzle, "word", text)
        follow(puzzle, rest)
        assert not puzzle.solved
    follow(puzzle, [start])
    write(puzzle, "word", "oops")
    write(puzzle, "word", word.value)  # mended before going on
    follow(puzzle, rest)
    reveals(puzzle)


def test_codes_have_the_length_that_the_tests_use() -> None:
    assert len(CODE) == CODE_LENGTH
