"""Slider, drag-drop and draw: judged from where trusted pointer events fell on a part, or from keys; fed by hand."""

from __future__ import annotations

import re

from gauntlet_game import Game, games


def targets(game: Game) -> dict[str, int]:
    """What the lines tell of each slider."""
    wanted: dict[str, int] = {}
    for line in game.view["lines"]:
        names = sorted((line.index(s["label"]), s["label"]) for s in game.view["scales"] if s["label"] in line)
        number = int(re.findall(r"-?\d+", line)[0])
        wanted[names[0][1]] = number + (wanted[names[1][1]] if len(names) > 1 else 0)
    return wanted


def test_sliders_are_set_by_pointer_and_keys() -> None:
    for game in games("slider"):
        game.click("confirm")
        assert not game.solved and game.puzzle.mistakes == 1
        wanted = targets(game)
        assert len(wanted) == game.setup.difficulty
        for index, scale in enumerate(game.view["scales"]):
            part, low, high = f"scale/{index}", scale["min"], scale["max"]
            assert low <= wanted[scale["label"]] <= high and scale["value"] != wanted[scale["label"]]
            place = 400 * (wanted[scale["label"]] - low) / (high - low)
            game.on("pointermove", part, x=place, width=400)  # only passes by
            assert game.view["scales"][index]["value"] == scale["value"]
            if index % 2:
                game.on("pointerdown", part, x=399, width=400)
                game.on("pointermove", part, x=place + 0.4, width=400)
                game.on("pointerup", "", source=part)
                game.on("pointermove", part, x=200, width=400)
            else:
                game.on("keydown", part, key="Home")
                while game.view["scales"][index]["value"] < wanted[scale["label"]]:
                    game.on("keydown", part, key="ArrowRight")
            assert game.view["scales"][index]["value"] == wanted[scale["label"]] and not game.solved
        game.on("pointerdown", "confirm")
        assert not game.solved
        game.click("confirm")
        assert game.solved and game.puzzle.mistakes == 1


def test_a_slider_stays_within_its_ends() -> None:
    game = Game("slider", difficulty=3)
    low, high = game.view["scales"][0]["min"], game.view["scales"][0]["max"]
    for key, value in (
        ("End", high),
        ("ArrowUp", high),
        ("PageDown", high - (high - low) // 10),
        ("Home", low),
        ("PageDown", low),
    ):
        game.on("keydown", "scale/0", key=key)
        assert game.view["scales"][0]["value"] == value
    game.on("pointerdown", "scale/0", x=-50, width=400)
    assert game.view["scales"][0]["value"] == low
    game.on("pointermove", "scale/0", x=1000, width=400)
    assert game.view["scales"][0]["value"] == high


def pairs(game: Game) -> list[tuple[str, str]]:
    """(thing, place) by their parts, as the lines tell."""
    things = {t["label"]: game.name(t["part"]) for t in game.view["table"]["items"]}
    places = {s["label"]: game.name(s["part"]) for s in game.view["slots"]}
    told = []
    for line in game.view["lines"]:
        found = [[part for label, part in of.items() if re.search(rf"\b{label}\b", line)] for of in (things, places)]
        if all(found):
            told.append((found[0][-1] if "Key ring" not in line else things["Key ring"], found[1][0]))
    return told


def test_things_are_dragged_to_their_places() -> None:
    for number, game in enumerate(games("drag-drop")):
        told = pairs(game)
        assert len(told) == {1: 2, 2: 3, 3: 4}[game.setup.difficulty]
        for thing, place in told:
            assert not game.solved
            game.click(thing)  # is no drag
            game.on("pointerup", place, source=thing)  # went down nowhere
            game.on("pointerdown", thing)
            game.on("pointerup", place, source="table")  # the page speaks of another start
            game.click(place)
            assert place not in [
                game.name(s["part"])
                for s in game.view["slots"]
                if any(i["part"] == game.setup.part(thing) for i in s["items"])
            ]
            if number % 2:
                game.on("keydown", thing, key="Enter")
                game.on("keydown", place, key="Enter")
            else:
                game.on("pointerdown", thing)
                game.on("pointerup", place, source=thing)
            slot = next(s for s in game.view["slots"] if game.name(s["part"]) == place)
            held = next(i for i in slot["items"] if game.name(i["part"]) == thing)
            assert held["label"] in held["name"] and slot["label"] in held["name"]
        assert game.solved and game.puzzle.mistakes == 0


def test_a_thing_too_many_has_to_be_taken_out() -> None:
    game = Game("drag-drop", difficulty=2)
    told = pairs(game)
    odd = next(f"item/{i}" for i in range(4) if f"item/{i}" not in dict(told))
    for thing, place in [(odd, told[0][1]), *told]:
        game.on("pointerdown", thing)
        game.on("pointerup", place, source=thing)
    assert not game.solved and game.puzzle.mistakes == 1
    game.on("pointerdown", odd)
    game.on("pointerup", "table", source=odd)
    assert game.solved


PAD = (500.0, 280.0)


def stroke(
    game: Game,
    names: list[str],
    *,
    size: tuple[float, float] = PAD,
    kinds: tuple[str, str] = ("pointerdown", "pointerup"),
) -> None:
    """Straight from point to point."""
    places = {p["label"]: (p["x"] * size[0], p["y"] * size[1]) for p in game.view["points"]}
    box = {"width": size[0], "height": size[1]}
    for number, name in enumerate(names):
        x, y = places[name]
        game.on("pointermove" if number else kinds[0], "pad", x=x, y=y, **box)
    game.on(kinds[1], "pad", x=x, y=y, source="pad", **box)


def way(game: Game) -> list[str]:
    line = game.view["lines"][0]
    return sorted((p["label"] for p in game.view["points"] if p["label"] in line), key=line.index)


def test_a_stroke_meets_the_named_points_in_order() -> None:
    for game in games("draw"):
        names = way(game)
        assert len(names) == {1: 2, 2: 3, 3: 4}[game.setup.difficulty]
        stroke(game, names[::-1])
        stroke(game, names[:-1])
        stroke(game, names, kinds=("pointermove", "pointerup"))  # the button was never down
        stroke(game, names, size=(20.0, 20.0))  # a speck
        assert not game.solved and game.puzzle.mistakes == 2 and len(game.view["stroke"]) > 1
        stroke(game, names, kinds=("pointerdown", "pointermove"))  # not let go yet
        assert not game.solved
        game.on("pointerup", "", source="pad")
        assert game.solved and 1 < len(game.view["stroke"]) <= len(names) + 1


def test_a_stroke_through_another_point_is_none() -> None:
    for seed in range(12):
        game = Game("draw", seed, difficulty=3)
        names = way(game)
        other = next(p["label"] for p in game.view["points"] if p["label"] not in names)
        stroke(game, [*names[:2], other, *names[2:]])
        assert not game.solved and game.puzzle.mistakes == 1 and game.view["note"]
        stroke(game, names, size=(340.0, 280.0))  # on a phone
        assert game.solved
