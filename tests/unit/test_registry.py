"""The registry on a real MLflow database: numbers, lineage, aliases, refusals, and files that changed."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from dpo_driver.core.errors import ModelError
from dpo_driver.core.records import Decision, ModelVersion, PairedDifference
from dpo_driver.registry import Registry, file_hashes, folder_hash


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One database for all tests of this file: creating it takes seconds. Each test uses a model name of its own."""
    return tmp_path_factory.mktemp("runs")


def folder(root: Path, name: str, weights: bytes = b"weights") -> Path:
    path = root / name / "model"
    path.mkdir(parents=True, exist_ok=True)
    (path / "model.safetensors").write_bytes(weights)
    (path / "config.json").write_text("{}")
    return path


def version(root: Path, name: str, *, parent: str | None = None, weights: bytes | None = None) -> ModelVersion:
    path = folder(root, name, weights or name.encode())
    return ModelVersion(
        name=name,
        version=0,
        path=str(path),
        parent=parent,
        base_model="pocket",
        algorithm=name.rpartition("/")[2].partition("-")[0],
        content_hash="",
        config_hash="c0ffee",
        data_hash="dada",
        metrics={"success": 0.5},
    )


def decision(candidate: str, *, promoted: bool = True, low: float | None = 0.1) -> Decision:
    gain = PairedDifference(mean=0.15, low=low, high=0.2, n=1000, wins=200, losses=50, p_mcnemar=1e-9)
    return Decision(
        promoted=promoted, candidate=candidate, champion="sft", reasons=("the interval contains 0",), gain=gain
    )


def test_register_fills_in_and_survives_reopening(root: Path) -> None:
    made = Registry(root).register(version(root, "first/sft"))
    assert made.version == 1
    assert made.content_hash == folder_hash(file_hashes(made.path)) and len(made.content_hash) == 16
    assert made.created.endswith("Z")
    again = Registry(root).get("first/sft")
    assert again == made
    assert again.metrics == {"success": 0.5} and again.config_hash == "c0ffee"
    assert Path(again.path).is_absolute()


def test_registering_the_same_again_adds_nothing(root: Path) -> None:
    registry = Registry(root)
    first = registry.register(version(root, "same/sft"))
    assert registry.register(version(root, "same/sft")) == first
    changed = registry.register(version(root, "same/sft-b", weights=b"other"))
    assert (first.version, changed.version) == (1, 2)


def test_lineage_goes_back_to_the_model_that_was_not_trained_here(root: Path) -> None:
    registry = Registry(root, model="line")
    base = registry.register(version(root, "line/base"))
    sft = registry.register(version(root, "line/sft", parent=base.content_hash))
    registry.register(version(root, "line/control-1", parent=sft.content_hash))
    dpo = registry.register(version(root, "line/dpo-1", parent=sft.content_hash))
    assert [v.name for v in registry.lineage("line/dpo-1")] == ["line/dpo-1", "line/sft", "line/base"]
    assert registry.lineage(dpo.content_hash)[0] == dpo
    assert [v.name for v in registry.list()] == ["line/base", "line/sft", "line/control-1", "line/dpo-1"]
    assert registry.get("line:2") == sft


def test_an_unknown_parent_is_refused(root: Path) -> None:
    with pytest.raises(ModelError, match="parent beef"):
        Registry(root).register(version(root, "orphan/dpo-1", parent="beef"))


def test_promotion_moves_the_aliases(root: Path) -> None:
    registry = Registry(root, model="up")
    assert registry.find("champion") is None
    sft = registry.register(version(root, "up/sft"))
    registry.set_alias("champion", "up/sft")
    dpo = registry.register(version(root, "up/dpo-1", parent=sft.content_hash))
    registry.set_alias("candidate", "up/dpo-1")
    assert registry.get("champion") == sft and registry.get("up@candidate") == dpo
    assert registry.promote("candidate", decision("up/dpo-1")) == dpo
    assert registry.get("champion") == dpo and registry.get("previous") == sft
    assert registry.find("candidate") is None
    # Promoting again changes nothing: a resumed run must not lose what "previous" means.
    registry.promote("up/dpo-1", decision(dpo.content_hash))
    assert registry.get("previous") == sft
    assert Registry(root).aliases()["up@champion"] == "up/dpo-1"


@pytest.mark.parametrize(
    ("name", "answer", "reason"),
    [
        ("no-a", {"promoted": False}, "the interval contains 0"),
        ("no-b", {"low": 0.0}, "interval of the gain contains 0"),
        ("no-c", {"low": None}, "interval of the gain contains 0"),
    ],
)
def test_refused_promotion_leaves_the_champion(root: Path, name: str, answer: dict[str, object], reason: str) -> None:
    registry = Registry(root, model=name)
    sft = registry.register(version(root, f"{name}/sft"))
    registry.set_alias("champion", f"{name}/sft")
    registry.register(version(root, f"{name}/dpo-1", parent=sft.content_hash))
    with pytest.raises(ModelError, match=reason):
        registry.promote(f"{name}/dpo-1", decision(f"{name}/dpo-1", **answer))  # type: ignore[arg-type]
    assert registry.get("champion") == sft
    assert registry.find("previous") is None


def test_a_decision_about_another_model_promotes_nothing(root: Path) -> None:
    registry = Registry(root, model="mix")
    registry.register(version(root, "mix/dpo-1"))
    with pytest.raises(ModelError, match="about mix/dpo-9"):
        registry.promote("mix/dpo-1", decision("mix/dpo-9"))
    assert registry.find("champion") is None


def test_changed_files_are_refused_at_load_and_promotion(root: Path) -> None:
    registry = Registry(root, model="hash")
    made = registry.register(version(root, "hash/sft"))
    assert registry.load("hash/sft") == made
    weights = Path(made.path) / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + b"X")
    with pytest.raises(ModelError, match=r"model.safetensors was changed") as caught:
        registry.load("hash/sft")
    assert caught.value.exit_code == 2 and str(weights) in str(caught.value)
    with pytest.raises(ModelError, match="was changed"):
        registry.promote("hash/sft", decision("hash/sft"))
    weights.write_bytes(content)
    (Path(made.path) / "extra.json").write_text("{}")
    with pytest.raises(ModelError, match=r"extra.json was added"):
        registry.load("hash/sft")
    (Path(made.path) / "extra.json").unlink()
    (Path(made.path) / "config.json").unlink()
    with pytest.raises(ModelError, match=r"config.json is missing"):
        registry.load("hash/sft")


def test_unsafe_or_broken_folders_are_refused(root: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such model folder"):
        file_hashes(tmp_path / "gone")
    with pytest.raises(ModelError, match="no safetensors"):
        file_hashes(tmp_path)
    made = version(root, "bad/sft")
    (Path(made.path) / "pytorch_model.bin").write_bytes(b"\x80\x04")
    with pytest.raises(ModelError, match=r"pickled weights are refused: pytorch_model.bin"):
        Registry(root).register(made)
    (Path(made.path) / "pytorch_model.bin").unlink()
    digest = hashlib.sha256(b"something else").hexdigest()
    listed = {"files": [{"name": "model.safetensors", "size": 1, "sha256": digest}]}
    (Path(made.path) / "manifest.json").write_text(json.dumps(listed))
    with pytest.raises(ModelError, match="does not match the manifest"):
        Registry(root).register(made)


def test_unknown_names_list_the_known_ones(root: Path, tmp_path: Path) -> None:
    registry = Registry(root, model="known")
    registry.register(version(root, "known/sft"))
    with pytest.raises(ModelError, match="known/sft"):
        registry.get("knwon/sft")
    with pytest.raises(ModelError, match="unknown alias"):
        registry.set_alias("king", "known/sft")  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="no name for a model"):
        registry.register(version(root, "known/sft").model_copy(update={"name": "a:b"}))


def test_an_alias_that_two_models_hold_must_be_named(root: Path) -> None:
    registry = Registry(root)
    for name in ("twin-a", "twin-b"):
        registry.register(version(root, f"{name}/sft"))
        registry.set_alias("champion", f"{name}/sft")
    with pytest.raises(ModelError, match="several models have a champion"):
        registry.get("champion")
    assert registry.get("twin-b@champion").name == "twin-b/sft"


def test_runs_can_be_moved_as_a_whole(tmp_path: Path) -> None:
    before = tmp_path / "before"
    made = Registry(before).register(version(before, "move/sft"))
    before.rename(tmp_path / "after")
    moved = Registry(tmp_path / "after").load("move/sft")
    assert moved.content_hash == made.content_hash
    assert moved.path == str(tmp_path / "after" / "move/sft" / "model")
