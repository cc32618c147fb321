"""Promotion, stepping down, rolling back and removal: whole under kill -9, and one history under two writers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dpo_driver.core.errors import ModelError
from dpo_driver.registry import Move, Registry
from dpo_driver.registry.moves import demote, promote_by_hand, roll_back
from registry_folders import decide, put, weights
from registry_kills import NOTES, RACERS, kills

# A process for each moment: 20 s, on a machine that has nothing else to do.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

BEFORE = {"p@candidate": "p/c", "p@champion": "p/b", "p@previous": "p/a"}
HISTORY = [["promote", "", "p/a"], ["promote", "p/a", "p/b"]]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """p/a was champion, p/b is, p/c waits, nobody needs p/d. What is killed works on copies."""
    root = tmp_path_factory.mktemp("moves") / "runs"
    for name in ("a", "b", "c", "d"):
        put(root, f"p/{name}")
    weights(root / "p" / "checkpoints" / "d", "state")
    decide(root, "p", "promote")
    registry = Registry(root)
    promote_by_hand(registry, "p/a", "the first")
    promote_by_hand(registry, "p/b", "better")
    registry.set_alias("candidate", "p/c")
    return root


@pytest.fixture(scope="module")
def killed(template: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    """All of it by one process: loading MLflow takes longer than the rest."""
    return kills(template, tmp_path_factory.mktemp("kills"), "promote", "rollback:2", "demote:2", "gc", "race")


@pytest.mark.parametrize(
    ("work", "aliases", "move", "moments"),
    [
        ("promote", {"p@champion": "p/c", "p@previous": "p/b"}, ["promote", "p/b", "p/c"], 7),
        ("rollback", {**BEFORE, "p@champion": "p/a", "p@previous": "p/b"}, ["rollback", "p/b", "p/a"], 2),
        ("demote", {"p@candidate": "p/c", "p@champion": "p/a"}, ["demote", "p/b", "p/a"], 2),
    ],
)
def test_a_move_killed_anywhere_is_made_whole_by_the_same_command(
    killed: dict[str, list[dict[str, Any]]], work: str, aliases: dict[str, str], move: list[str], moments: int
) -> None:
    found = killed[work]
    assert len(found) == moments
    assert found[0]["at"] == "INSERT INTO registered_model_tags"
    for kill in found:
        # Its first write is the whole move: from then on everybody reads it, before anybody has finished it.
        assert kill["then"]["aliases"] == aliases, kill["at"]
        assert kill["then"]["moves"] == [*HISTORY, move], kill["at"]
        if (
            work != "promote" or kill is not found[-1]
        ):  # after its last write there is nothing left to finish: the command is a new one
            assert kill["after"]["aliases"] == aliases and kill["after"]["moves"] == [*HISTORY, move], kill["at"]
        assert ("p/c" in kill["after"]["decided"]) == (work == "promote")


def test_a_removal_killed_anywhere_is_finished_by_the_next(killed: dict[str, list[dict[str, Any]]]) -> None:
    found = killed["gc"]
    # History and record, the name, the folder with its files, the empty folder; then the checkpoint's.
    assert [kill["at"] for kill in found] == [
        "INSERT INTO registered_model_tags", "INSERT INTO model_version_tags", "os.rename", "shutil.rmtree", "os.rmdir",
        "os.rename", "shutil.rmtree", "os.rmdir",
    ]  # fmt: skip
    for number, kill in enumerate(found):
        then, after = kill["then"], kill["after"]
        # A folder under its own name is whole: its version is not said to be gone.
        assert ("models/d" in then["folders"]) == (number < 3)
        assert then["removed"] == ([] if number < 3 else ["p/d"])
        assert after["folders"] == ["models/a", "models/b", "models/c"] and after["removed"] == ["p/d"]
        assert after["aliases"] == BEFORE
        assert {tuple(move) for move in after["moves"][len(HISTORY) :]} == {("remove", "p/b", "p/d")}


def test_two_writers_lose_nothing_of_the_history(killed: dict[str, list[dict[str, Any]]]) -> None:
    moves = killed["race"][0]["after"]["moves"]
    assert moves[:2] == HISTORY
    written = [after for _, _, after in moves[2:]]
    assert sorted(written) == sorted(f"{racer}/{number}" for racer in range(RACERS) for number in range(NOTES))
    for racer in range(RACERS):  # each writer's own in the order it wrote them
        assert [one for one in written if one.startswith(f"{racer}/")] == [f"{racer}/{n}" for n in range(NOTES)]


def test_another_command_first_finishes_what_was_begun(template: Path) -> None:
    """What a killed process wrote down, by hand: it was to promote q/b."""
    for name in ("a", "b"):
        put(template, f"q/{name}")
    registry = Registry(template)
    registry.set_alias("champion", "q/a")
    client, move = registry._open(), Move("promote", "q", "q/a", "q/b", "begun", "ann", "2026-01-01T00:00:00Z")
    text = (
        '{"key": "move.000002.ab", "move": {"kind": "promote", "model": "q", "before": "q/a", "after": "q/b", '
        '"why": "begun", "who": "ann", "at": "2026-01-01T00:00:00Z"}, "aliases": {"champion": 2, "previous": 1}, '
        '"tags": {}}'
    )
    client.set_registered_model_tag("q", "pending", text)
    assert registry.get("q@champion").name == "q/b" and registry.history("q")[1:] == (move,)
    roll_back(registry, "q", "no")
    assert [one.kind for one in registry.history("q")] == ["set", "promote", "rollback"]
    assert registry.get("q@champion").name == "q/a" and registry.get("q@previous").name == "q/b"
    assert "pending" not in client.get_registered_model("q").tags


def test_a_version_whose_files_changed_takes_over_from_nobody(template: Path) -> None:
    old = put(template, "r/a")
    put(template, "r/b")
    registry = Registry(template)
    promote_by_hand(registry, "r/a", "the first")
    promote_by_hand(registry, "r/b", "better")
    (Path(old.path) / "model.safetensors").write_bytes(b"changed")
    before = registry.history("r")
    for move in (demote, roll_back):
        with pytest.raises(ModelError, match=r"model.safetensors was changed since r/a"):
            move(registry, "r", "bad")
    with pytest.raises(ModelError, match=r"model.safetensors was changed since r/a"):
        promote_by_hand(registry, "r/a", "again")
    assert registry.get("r@champion").name == "r/b" and registry.get("r@previous").name == "r/a"
    assert registry.history("r") == before


def test_aliases_that_somebody_moved_meanwhile_are_left_alone(template: Path) -> None:
    put(template, "s/a")
    put(template, "s/b")
    registry = Registry(template)
    registry.set_alias("champion", "s/b")
    with pytest.raises(ModelError, match="were moved meanwhile"):
        registry.move(Move("demote", "s", "s/a", "", "late"), {"champion": 1}, {"champion": None})
    assert registry.get("s@champion").name == "s/b" and [one.kind for one in registry.history("s")] == ["set"]


def test_a_champion_that_is_also_the_one_before_steps_down_to_nobody(template: Path) -> None:
    put(template, "t/a")
    registry = Registry(template)
    registry.set_alias("champion", "t/a")
    registry.set_alias("previous", "t/a")
    with pytest.raises(ModelError, match="nothing to go back to"):
        roll_back(registry, "t", "no")
    assert demote(registry, "t", "bad").after == ""
    assert registry.find("t@champion") is None and registry.find("t@previous") is None


def test_long_reasons_in_any_script_are_cut_not_refused(template: Path) -> None:
    put(template, "u/a")
    registry = Registry(template)
    promote_by_hand(registry, "u/a", "好" * 3000)
    assert registry.history("u")[0].why == "by hand: " + "好" * 1991
