"""Puzzles of the gauntlet, hand-fed with events: text, clicks, hovering, scrolling, keys, forms, guesses.

What counts: the complete evidence solves, and nothing less does; no view holds the code before; equal seeds are equal.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from typing import Any

import pytest

from dpo_driver.envs.gauntlet.puzzles import load_puzzle
from dpo_driver.envs.gauntlet.puzzles.base import SKINS, Event, Puzzle, Setup

CODE = "QX7RK2"
READ = ("visible-text", "hidden-text")
ACTED = (
    "click-reveal", "scroll-find", "hover-reveal", "click-sequence", "key-sequence", "form-fill", "radio-force",
)  # fmt: skip
LEVELS = (1, 2, 3)
SEEDS = range(16)
CODES = re.compile(r"\b[A-HJ-NP-Z2-9]{6}\b")
TOKEN = re.compile(r"p[0-9a-f]{10}")


class Play:
    """A puzzle with a clock of its own; events carry the time."""

    def __init__(self, name: str, seed: int = 0, level: int = 1, skin: str = "a", code: str = CODE) -> None:
        self.now = 100.0
        self.made: dict[str, Any] = {"seed": seed, "level": level, "skin": skin}
        self.setup = Setup(
            rng=random.Random(f"{name}/{seed}"), code=code, difficulty=level, skin=skin, clock=lambda: self.now,
            secret=b"of this visit",
        )  # fmt: skip
        self.puzzle: Puzzle = load_puzzle(name)(self.setup)

    @property
    def view(self) -> dict[str, Any]:
        return self.puzzle.view()

    @property
    def solved(self) -> bool:
        view = self.view  # the clock may have solved it
        assert self.puzzle.solved == bool(view["reveal"] and CODE in view["reveal"])
        return self.puzzle.solved

    def name(self, token: str) -> str:
        return {self.setup.part(name): name for name in self.puzzle.parts}[token]

    def event(self, kind: str, part: str = "", **more: Any) -> None:
        self.now += 0.01
        self.puzzle.on(Event(kind=kind, part=part, at=self.now, **more))

    def click(self, part: str, **more: Any) -> None:
        for kind in ("pointerdown", "pointerup", "click"):
            self.event(kind, part, **more)

    def key(self, part: str, key: str) -> None:
        self.event("keydown", part, key=key)
        self.event("keyup", part, key=key)


def plays(name: str, **more: Any) -> Iterator[Play]:
    for skin in SKINS:
        for level in LEVELS:
            for seed in SEEDS:
                yield Play(name, seed, level, skin, **more)


def labelled(play: Play, key: str) -> dict[str, str]:
    """label -> part, of a list of controls in the view."""
    return {control["label"]: play.name(control["part"]) for control in play.view[key]}


# -- all of them -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*READ, *ACTED])
def test_equal_seeds_are_equal_and_seeds_differ(name: str) -> None:
    seen = set()
    for one, two in zip(plays(name), plays(name), strict=True):
        assert one.view == one.view == two.view
        seen.add(json.dumps(one.view))
    assert len(seen) >= 0.9 * len(SKINS) * len(LEVELS) * len(SEEDS)


@pytest.mark.parametrize("name", [*READ, *ACTED])
def test_the_views_parts_are_listed_and_words_vary(name: str) -> None:
    words: dict[str, set[str]] = {"a": set(), "b": set()}
    for play in plays(name):
        known = {play.setup.part(part) for part in play.puzzle.parts}
        assert len(known) == len(play.puzzle.parts)
        assert set(TOKEN.findall(json.dumps(play.view))) <= known
        text = re.sub(r"\".*?\"", "", play.view["text"])
        words[play.setup.skin].add(re.sub(r"\d[\d.]*", "", text))
    assert len(words["a"]) >= 4 and len(words["b"]) >= 3
    assert not words["a"] & words["b"]


@pytest.mark.parametrize("name", ACTED)
def test_nothing_is_given_away_by_what_is_no_evidence(name: str) -> None:
    for play in plays(name):
        assert CODE not in json.dumps(play.view) and play.view["reveal"] is None
        for kind in ("pointerdown", "pointerup", "dblclick", "contextmenu", "wheel", "input", "drop"):
            for part in ("", *play.puzzle.parts):
                if (name, kind) not in (("hover-reveal", "pointerdown"), ("hover-reveal", "pointerup")):
                    play.event(kind, part, value=CODE, source=part)
        assert not play.solved and CODE not in json.dumps(play.view)
        assert play.puzzle.asset("code") is None and play.puzzle.feed(True) == ()


@pytest.mark.parametrize("name", READ)
def test_reading_types_hold_the_code_once_and_react_to_nothing(name: str) -> None:
    for play in plays(name):
        before = play.view
        text = json.dumps(before)
        assert before["reveal"] is None and text.count(CODE) == 1
        assert list(play.puzzle.parts) == []
        play.click("")
        assert play.view == before and not play.puzzle.solved


@pytest.mark.parametrize("name", [*READ, *ACTED])
def test_only_the_code_depends_on_the_code(name: str) -> None:
    """Nothing else in the page may tell something about it: not the order, not the labels."""
    for one, two in zip(plays(name), plays(name, code="ABCDEF"), strict=True):
        assert json.dumps(one.view).replace(CODE, "ABCDEF") == json.dumps(two.view)


# -- one by one --------------------------------------------------------------------------------------------------------


def test_click_reveal() -> None:
    for play in plays("click-reveal"):
        for part in play.puzzle.parts:
            if part != "reveal":
                play.click(part)
        assert not play.solved and play.puzzle.mistakes == 2 * (play.setup.difficulty - 1)
        assert (
            f'"{next(b["label"] for b in play.view["buttons"] if play.name(b["part"]) == "reveal")}"'
            in play.view["text"]
        )
        play.click("reveal")
        assert play.solved


def test_visible_text_tells_which() -> None:
    """Of the codes shown, the words single out one; how many there are grows."""
    counts = dict.fromkeys(LEVELS, 0)
    for play in plays("visible-text"):
        items = play.view["items"]
        counts[play.setup.difficulty] += len({code for item in items for code in CODES.findall(item["text"])})
        quoted = re.search(r'"(.+)"', play.view["text"])
        if quoted:
            assert [item["text"] for item in items if item["head"] == quoted[1]] == [CODE]
    assert 3 * len(SKINS) * len(SEEDS) == counts[1] < counts[2] < counts[3]


def test_visible_text_days_hold_today_once() -> None:
    checked = 0
    for play in plays("visible-text"):
        spans = [
            (item["text"], [int(n) for n in re.findall(r"\b\d{1,2}\b", CODES.sub("", item["text"]))])
            for item in play.view["items"]
        ]
        today = re.search(r"\b\d{1,2}\b", play.view["text"])
        if today and all(len(days) == 2 for _, days in spans):
            inside = [text for text, (a, b) in spans if a <= int(today[0]) <= b]
            assert len(inside) == 1 and CODE in inside[0]
            checked += 1
    assert checked > 5


def test_hidden_text_is_never_at_sight() -> None:
    kinds = set()
    for play in plays("hidden-text"):
        kinds.add(play.view["kind"])
        for block in play.view["blocks"]:
            if play.view["kind"] != "folded":
                assert CODE not in json.dumps(block["lines"])
    assert kinds == {"ink", "wide", "folded", "more"}


def test_scroll_find_needs_the_way() -> None:
    for play in plays("scroll-find"):
        assert play.view["goal"] is None
        play.click("goal")  # where no button is
        play.event("wheel", delta=-5000.0)
        play.event("keydown", "", key="PageUp")
        play.event("pointermove", "ground", scroll=9000.0)  # a script may have scrolled
        play.click("goal", scroll=9000.0)
        assert not play.solved and play.view["goal"] is None
        stretches = (1, 2, 4)[play.setup.difficulty - 1]
        sections = len(play.view["sections"])
        for stretch in range(stretches):
            assert play.view["goal"] is None and len(play.view["sections"]) == sections + 3 * stretch
            for _ in range(4):
                play.event("wheel", ("", "ground")[stretch % 2], delta=100.0)
        label = play.view["goal"]["label"]
        assert f'"{label}"' in play.view["text"]
        traps = [play.name(s["trap"]["part"]) for s in play.view["sections"] if s["trap"]]
        assert label not in {s["trap"]["label"] for s in play.view["sections"] if s["trap"]}
        for trap in traps:
            play.click(trap)
        assert not play.solved and play.puzzle.mistakes == len(traps)
        play.click("goal")
        assert play.solved


@pytest.mark.parametrize(("key", "presses"), [("End", 1), ("PageDown", 1), (" ", 1), ("ArrowDown", 10), ("Tab", 4)])
def test_scroll_find_by_keys(key: str, presses: int) -> None:
    play = Play("scroll-find")
    for _ in range(presses - 1):
        play.key("", key)
    assert play.view["goal"] is None
    play.key("", key)
    play.click("goal")
    assert play.solved


def test_scroll_find_by_a_finger_but_not_by_a_script_between_clicks() -> None:
    finger = Play("scroll-find")
    finger.event("pointerdown", "ground", scroll=0.0)  # a swipe: no pointerup follows, the page has moved
    finger.event("pointermove", "ground", scroll=700.0)
    assert finger.view["goal"] is not None
    script = Play("scroll-find")
    for scroll in (0.0, 900.0, 1800.0):
        script.click("ground", scroll=scroll)
    assert script.view["goal"] is None


def test_scroll_find_one_event_brings_one_stretch() -> None:
    play = Play("scroll-find", level=3)
    play.event("wheel", delta=1e9)
    assert play.view["goal"] is None and len(play.view["sections"]) == 7


def test_hover_reveal_stays() -> None:
    for play in plays("hover-reveal"):
        names = re.findall(r'"(.+?)"', play.view["text"])
        stay = (0.6, 0.8, 1.0)[play.setup.difficulty - 1]
        assert f"{stay:g}" in play.view["text"] and len(names) == (2 if play.setup.difficulty == 3 else 1)
        things = labelled(play, "things")
        wrong = next(part for label, part in things.items() if label not in names)
        play.event("pointermove", wrong)
        play.now += 5
        assert not play.solved and play.view["note"] and play.puzzle.wakes() is None
        for name in names:
            play.event("pointermove", things[name])
            assert play.puzzle.wakes() == pytest.approx(play.now + stay)
            play.now += stay - 0.05
            assert not play.solved
            play.event("pointermove", "floor")  # left too early
            play.now += 5
            assert not play.solved
            play.event("pointermove", things[name])
            play.now += stay - 0.05
            play.event("pointermove", things[name])  # moves within it do not start anew
            play.now += 0.06
            assert (play.view["reveal"] is not None) == (name == names[-1])
        assert play.solved


def test_hover_reveal_in_order_only_and_not_after_leaving_the_page_part() -> None:
    play = Play("hover-reveal", level=3)
    first, second = re.findall(r'"(.+?)"', play.view["text"])
    things = labelled(play, "things")
    play.event("pointermove", things[second])
    play.now += 3
    play.event("pointermove", things[first])
    play.event("pointermove", "")  # over nothing
    play.now += 3
    play.event("pointermove", things[second])
    play.now += 3
    assert not play.solved


def test_hover_reveal_with_the_keyboard() -> None:
    play = Play("hover-reveal")
    name = re.findall(r'"(.+?)"', play.view["text"])[0]
    play.event("keyup", labelled(play, "things")[name], key="Tab")
    play.now += 0.7
    assert play.solved


def sequence_of(play: Play) -> list[str]:
    """The right order, found by trying: what shows as pressed after the parts that are right so far."""
    order: list[str] = []
    while True:
        for part in play.puzzle.parts:
            probe = Play("click-sequence", **play.made)
            for step in (*order, part):
                probe.click(step)
            if probe.solved:
                return [*order, part]
            if sum(tile["on"] for tile in probe.view["tiles"]) == len(order) + 1 and part not in order:
                order.append(part)
                break
        else:
            raise AssertionError(f"nothing goes on after {order}")


def test_click_sequence() -> None:
    kinds = set()
    for play in plays("click-sequence"):
        order, text = sequence_of(play), play.view["text"]
        labels = {part: label for label, part in labelled(play, "tiles").items()}
        said = [labels[part] for part in order]
        assert len(labels) == len(play.puzzle.parts) and 3 <= len(order) <= 7
        if all(re.fullmatch(r"-?\d+", label) for label in said):
            values = [int(label) for label in said]
            down = re.search(
                r"descending|from the largest|highest|large numbers before|falling|greatest|from high", text
            )
            assert values == sorted(values, reverse=down is not None)
            if odd := re.search(r"\b(even|odd)\b", text):
                wanted = {label for label in labels.values() if int(label) % 2 == (odd[1] == "odd")}
                assert set(said) == wanted and len(wanted) < len(labels)
            kinds.add("down" if down else "up")
        elif all(len(label) == 1 for label in said):
            back = re.search(r"revers|backwards|against|from Z|last letter", text)
            assert said == sorted(said, reverse=back is not None)
            kinds.add("back" if back else "forth")
        elif all(label in text for label in said):
            assert said == sorted(said, key=text.index)
            kinds.add("given")
        else:
            assert said[0] in text and not any(label in text for label in said[1:])
            kinds.add("calendar")
        for part in order[::-1]:
            play.click(part)
        assert not play.solved and play.puzzle.mistakes > 0
        play.click(order[-1])
        assert play.view["note"] and not any(tile["on"] for tile in play.view["tiles"])
        for part in order[:-1]:
            play.click(part)
            assert not play.solved
        play.click(order[-2])  # a slip at the end loses everything
        play.click(order[-1])
        assert not play.solved
        for part in order:
            play.click(part)
        assert play.solved
    assert kinds == {"up", "down", "forth", "back", "given", "calendar"}


KEYS = {
    "↑": "ArrowUp", "↓": "ArrowDown", "←": "ArrowLeft", "→": "ArrowRight", "Space": " ", "Up": "ArrowUp",
    "Down": "ArrowDown", "Left": "ArrowLeft", "Right": "ArrowRight", "Space bar": " ", "Return": "Enter",
}  # fmt: skip


def test_key_sequence() -> None:
    backwards = 0
    for play in plays("key-sequence"):
        keys = [KEYS.get(name, name.lower()) for name in play.view["keys"]]
        assert len(keys) == (3, 5, 7)[play.setup.difficulty - 1]
        if re.search(r"backwards|reverse|last to|last one first|last to the first", play.view["text"]):
            keys.reverse()
            backwards += 1
        for key in keys:
            play.key("", key)  # without the focus
        assert not play.solved and play.puzzle.mistakes == 0
        for key in keys[:-1]:
            play.key("pad", key)
        play.key("pad", "Tab")
        play.event("keydown", "pad", key="Shift")
        play.key("pad", "F9")  # wrong: from the start again
        assert play.puzzle.mistakes == 1 and play.view["note"]
        play.key("pad", keys[-1])
        assert not play.solved
        play.key("pad", "F9")
        for key in keys:
            play.key("pad", key.upper() if len(key) == 1 else key)
        assert play.solved
    assert 6 < backwards < 26  # half of difficulty 3, more or less


def test_key_sequence_counts_a_held_key_once() -> None:
    play = Play("key-sequence")
    keys = [KEYS.get(name, name.lower()) for name in play.view["keys"]]
    play.event("keydown", "pad", key=keys[0])
    for _ in range(50):
        play.event("keydown", "pad", key=keys[0])
    play.event("keyup", "", key=keys[0])
    for key in keys[1:]:
        play.key("pad", key)
    assert play.solved and play.puzzle.mistakes == 0


def fill(play: Play) -> tuple[dict[str, str], list[str]]:
    """Right texts by field, and the parts to click, from the right card; fields and facts are matched by trying."""
    view = play.view
    quoted = re.search(r'"(.+?)"', view["text"])
    card = next(c for c in view["cards"] if quoted is None or c["title"] == quoted[1])
    facts = dict(card["lines"])
    texts: dict[str, str] = {}
    for field in view["fields"]:
        name = play.name(field["name"])
        for value in facts.values():
            probe = Play("form-fill", **play.made)
            probe.click("send", fields={name: value})
            if field["label"] not in (probe.view["note"] or ""):
                texts[name] = value
    clicks = []
    if view["choice"]:
        right = facts[view["choice"]["label"]]
        clicks += [play.name(option["part"]) for option in view["choice"]["options"] if option["label"] == right]
    if view["tick"] and facts[view["tick"]["label"]] == "yes":
        clicks.append("tick")
    return texts, clicks


def test_form_fill() -> None:
    for play in plays("form-fill"):
        texts, clicks = fill(play)
        assert len(texts) == len(play.view["fields"]) == 2 + play.setup.difficulty
        play.click("send")
        play.click("send", fields=dict.fromkeys(texts, CODE))
        if clicks:
            play.click("send", fields=texts)  # a choice is missing
        assert not play.solved and play.puzzle.mistakes == 2 + bool(clicks)
        for part in clicks:
            play.click(part)
        for name in texts:
            play.click("send", fields={n: t for n, t in texts.items() if n != name})
            assert not play.solved and play.view["note"]
        play.event("input", "send", value="x")
        shouted = {name: f"  {text.upper()} " for name, text in texts.items()}
        if play.made["seed"] % 2:
            play.click("send", fields=shouted)
        else:
            play.event("keydown", next(iter(texts)), key="Enter", fields=shouted)
        assert play.solved


def test_radio_force() -> None:
    rights: set[tuple[int, int]] = set()
    for play in plays("radio-force"):
        options = [part for part in play.puzzle.parts if part != "check"]
        assert len(options) == (4, 6, 9)[play.setup.difficulty - 1]
        play.click("check")
        assert not play.solved and play.puzzle.mistakes == 0 and play.view["note"]
        for tries, option in enumerate(options):
            play.event("pointerdown", option)
            play.click(option)
            assert not play.solved  # chosen is not checked
            play.click("check")
            if play.solved:
                rights.add((play.setup.difficulty, tries))
                break
            assert play.puzzle.mistakes == tries + 1 and play.view["options"][tries]["tried"]
            play.click(option)  # what was tried cannot be chosen again
            play.click("check")
            assert play.puzzle.mistakes == tries + 1
        assert play.solved
    assert {tries for level, tries in rights if level == 3} == set(range(9))  # every place is the right one somewhere
