"""What gc frees and keeps: aliases, ancestors, unfinished runs, shared folders. Killed: test_registry_moves.py."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from dpo_driver.core.errors import ModelError, StoreError
from dpo_driver.registry import Registry
from dpo_driver.registry.leftovers import leftovers, remove
from dpo_driver.registry.moves import promote_by_hand
from registry_folders import decide, put, weights


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root whose database is there and empty: making it takes seconds, copying it does not."""
    root = tmp_path_factory.mktemp("gc") / "runs"
    Registry(root).list()
    return root


@pytest.fixture
def root(empty: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(empty, tmp_path / "runs"))


def free(root: Path, keep: int = 0) -> list[str]:
    return [str(item.folder.relative_to(root)) for item in leftovers(Registry(root), keep=keep)]


def test_aliases_ancestors_and_the_newest_stay(root: Path) -> None:
    base = put(root, "p/base")
    sft = put(root, "p/sft", base)
    for name in ("dpo-1", "control-1", "dpo-2"):
        put(root, f"p/{name}", sft)
    weights(root / "p" / "checkpoints" / "control-1", "state")
    decide(root, "p", "sft", "promote")
    registry = Registry(root)
    registry.set_alias("champion", "p/dpo-1")
    assert free(root, keep=3) == [] and free(root, keep=2) == []
    assert free(root, keep=1) == ["p/models/control-1", "p/checkpoints/control-1"]
    assert leftovers(registry, keep=0, older_than_days=1) == []
    found = leftovers(registry, keep=0)
    names = ["models/control-1", "checkpoints/control-1", "models/dpo-2"]
    assert [str(item.folder.relative_to(root / "p")) for item in found] == names
    # "state" is 5 bytes, "p/control-1" 11, and every config.json 2.
    assert [item.bytes for item in found] == [13, 7, 9]
    assert [[one.name for one in item.versions] for item in found] == [["p/control-1"], [], ["p/dpo-2"]]
    assert remove(registry, found) == 29
    assert free(root) == []
    assert sorted(path.name for path in (root / "p" / "models").iterdir()) == ["base", "dpo-1", "sft"]
    assert [(move.kind, move.before, move.after, move.why) for move in registry.history("p")][1:] == [
        ("remove", "p/dpo-1", "p/control-1", "13 bytes"), ("remove", "p/dpo-1", "p/dpo-2", "9 bytes"),
    ]  # fmt: skip
    gone = registry.get("p/dpo-2")
    with pytest.raises(ModelError, match="were removed on"):
        registry.load("p/dpo-2")
    # The remedy that the error names: from a copy it is as it was.
    weights(Path(gone.path), "p/dpo-2")
    assert registry.load("p/dpo-2") == gone and registry.removed(gone) == ""


def test_the_older_of_two_versions_of_one_name_is_still_the_champion(root: Path) -> None:
    old = put(root, "p/dpo-1", folder="one", content="A")
    new = put(root, "p/dpo-1", folder="two", content="B")
    decide(root, "p", "promote")
    registry = Registry(root)
    registry.set_alias("champion", "p:1")
    assert free(root) == ["p/models/two"]
    assert registry.aliases() == {"p@champion": "p:1"} and registry.get("p:1") == old
    assert registry.get("p/dpo-1") == new
    assert registry.holders() == {"p@champion": old}


def test_two_versions_in_one_folder_go_and_stay_together(root: Path) -> None:
    put(root, "p/a", folder="x")
    put(root, "p/b", folder="x")
    decide(root, "p", "promote")
    registry = Registry(root)
    registry.set_alias("previous", "p/a")
    assert free(root) == []
    promote_by_hand(registry, put(root, "p/c").name, "better")
    registry.set_alias("previous", "p/c")
    (item,) = leftovers(registry, keep=0)
    assert [one.name for one in item.versions] == ["p/a", "p/b"]
    assert remove(registry, [item]) == item.bytes == 5
    assert all(registry.removed(registry.get(name)) for name in ("p/a", "p/b"))


def test_what_an_unfinished_run_has_made_or_descends_from_stays(root: Path) -> None:
    base = put(root, "a/base")
    sft = put(root, "a/sft", base)
    put(root, "a/other")
    decide(root, "a", "sft", "promote")
    put(root, "b/dpo-1", sft)
    assert free(root) == ["a/models/other"]  # b says nothing of its stages, and has weights
    decide(root, "b", "sft", begun="promote")
    assert free(root) == ["a/models/other"]
    decide(root, "b", "promote", begun="grpo")  # online training has a gate of its own
    assert free(root) == ["a/models/other"]
    decide(root, "b", "grpo", "promote/online")
    assert free(root) == ["a/models/base", "a/models/sft", "a/models/other", "b/models/dpo-1"]
    decide(root, "b", begun="promote")
    shutil.rmtree(root / "b")  # by hand: nobody will go on with it
    assert free(root) == ["a/models/base", "a/models/sft", "a/models/other"]


def test_a_run_that_has_registered_nothing_yet_keeps_what_it_starts_from(root: Path) -> None:
    base = put(root, "a/base")
    start = put(root, "a/sft", base)
    put(root, "a/other")
    decide(root, "a", "promote")
    decide(root, "b", begun="demos")
    (root / "b" / "config.yaml").write_text(f"model:\n  name: {start.path}\n")
    assert free(root) == ["a/models/other"]
    decide(root, "b", "promote")
    assert free(root) == ["a/models/base", "a/models/sft", "a/models/other"]


def test_a_roles_run_is_finished_when_each_of_its_trainings_has_met_its_gate(root: Path) -> None:
    put(root, "writer/dpo-1")
    decide(root, "writer", "dpo/1")
    assert free(root) == []
    decide(root, "writer", "held_out/1")
    assert free(root) == ["writer/models/dpo-1"]
    decide(root, "writer", begun="dpo/2")
    assert free(root) == []


def test_the_model_under_an_adapter_stays(root: Path) -> None:
    put(root, "p/base")
    under = put(root, "p/under")
    folder = weights(root / "p" / "models" / "adapter", "small")
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": under.path}))
    put(root, "p/adapter", content="small")
    decide(root, "p", "promote")
    Registry(root).set_alias("champion", "p/adapter")
    assert free(root) == ["p/models/base"]


def test_folders_outside_of_the_root_are_left_alone(root: Path, tmp_path: Path) -> None:
    path = weights(tmp_path / "elsewhere" / "models" / "m", "foreign")
    version = put(root, "p/x")
    Registry(root).register(version.model_copy(update={"name": "p/m", "path": str(path), "content_hash": ""}))
    decide(root, "p", "promote")
    assert free(root) == ["p/models/x"]


def test_what_became_champion_since_it_was_listed_stays(root: Path) -> None:
    put(root, "p/a")
    put(root, "p/b")
    decide(root, "p", "promote")
    registry = Registry(root)
    found = leftovers(registry, keep=0)
    promote_by_hand(registry, "p/a", "wanted after all")
    assert remove(registry, found) == 5
    assert registry.load("champion").name == "p/a" and registry.removed(registry.get("p/b"))


def test_what_cannot_be_removed_is_named(root: Path) -> None:
    put(root, "p/a")
    decide(root, "p", "promote")
    registry = Registry(root)
    found = leftovers(registry, keep=0)
    shutil.rmtree(found[0].folder)  # by somebody else
    with pytest.raises(StoreError, match=r"cannot be removed.*p/models/a"):
        remove(registry, found)
