"""`dpo-driver models` on a real registry with real small models: every command of docs/models.md, and crashes."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from dpo_driver.core.records import Decision, ModelVersion, PairedDifference
from dpo_driver.core.schema_training import LoraConfig
from dpo_driver.core.store import RunStore
from dpo_driver.policies.loading import is_adapter, load_model, save_version
from dpo_driver.registry import Registry
from dpo_driver.registry.leftovers import leftovers, remove
from dpo_driver.registry.moves import demote, promote_by_hand, roll_back
from dpo_driver.testing.tiny_models import tiny_model

CommandLine = Callable[..., "subprocess.CompletedProcess[str]"]
PAGE = Path(__file__).resolve().parents[2] / "docs" / "models.md"


def put(root: Path, name: str, parent: str | None, **more: object) -> ModelVersion:
    """Register the folder of a version that lies where the flywheel puts it."""
    folder = root / "pocket" / "models" / name
    values = {
        "name": f"pocket/{name}", "version": 0, "path": str(folder), "parent": parent, "base_model": "tiny",
        "algorithm": name.partition("-")[0], "content_hash": "", "config_hash": "c0ffee", "data_hash": f"d-{name}",
        "adapter": is_adapter(folder), **more,
    }  # fmt: skip
    return Registry(root).register(ModelVersion.model_validate(values))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """pocket/base <- sft <- dpo-1 (champion, proven) and control-1, dpo-2 (an adapter); the run is finished."""
    root = tmp_path / "runs"
    models = root / "pocket" / "models"
    parents: dict[str, str] = {}
    for seed, name in enumerate(("base", "sft", "dpo-1", "control-1")):
        model, tokenizer = tiny_model("qwen3", seed=seed)
        save_version(model, tokenizer, models / name)
    tuned = load_model(models / "sft", device="cpu", trainable="lora", lora=LoraConfig(r=2))
    for key, parameter in tuned.named_parameters():
        if "lora_B" in key:
            torch.nn.init.normal_(parameter, std=0.1)
    save_version(tuned, tokenizer, models / "dpo-2")
    for name, parent in (("base", None), ("sft", "base"), ("dpo-1", "sft"), ("control-1", "sft"), ("dpo-2", "sft")):
        made = put(root, name, parents.get(parent or ""), metrics={"loss": 0.5} if name != "base" else {})
        parents[name] = made.content_hash
    registry = Registry(root)
    registry.set_alias("champion", "pocket/sft")
    gain = PairedDifference(mean=0.193, low=0.171, high=0.215, n=1000, wins=200, losses=7, p_mcnemar=1e-9)
    decision = Decision(promoted=True, candidate="pocket/dpo-1", champion="pocket/sft", reasons=("+19.3 %",), gain=gain)
    registry.promote("pocket/dpo-1", decision)
    with RunStore(root / "pocket") as store:
        store.begin_stage("promote")
        store.finish_stage("promote", 1.0, {})
    return root


def commands() -> list[str]:
    blocks = re.findall(r"```bash\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    lines = [line.partition("#")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line.startswith("dpo-driver ")]


def test_every_command_of_the_page_runs(cli: CommandLine, root: Path, tmp_path: Path) -> None:
    found = commands()
    assert len(found) >= 14
    for command in found:
        if "hf://" in command:  # needs the network
            continue
        done = cli(*shlex.split(command)[1:])
        assert done.returncode == 0, f"{command}\n{done.stderr}"
    # What they did, in this order: by hand to dpo-2, back, and stepping down.
    kinds = [move.kind for move in Registry(root).history("pocket")]
    assert kinds[:1] == ["promote"] and kinds.count("promote") == 2 and {"rollback", "demote"} <= set(kinds)


def test_by_hand_back_and_down(root: Path) -> None:
    registry = Registry(root)
    promote_by_hand(registry, "pocket/dpo-2", "tried on our pages")
    assert registry.aliases() == {"pocket@champion": "pocket/dpo-2", "pocket@previous": "pocket/dpo-1"}
    assert registry.decision(registry.get("champion")).reasons == ("by hand: tried on our pages",)  # type: ignore[union-attr]
    roll_back(registry, None, "slower")
    assert registry.aliases() == {"pocket@champion": "pocket/dpo-1", "pocket@previous": "pocket/dpo-2"}
    demote(registry, "pocket", "fails on logins")
    assert registry.aliases() == {"pocket@champion": "pocket/dpo-2"}
    demote(registry, None, "and this one too")
    assert registry.aliases() == {} and registry.find("champion") is None
    moves = registry.history("pocket")
    assert [(move.kind, move.before, move.after) for move in moves] == [
        ("promote", "pocket/sft", "pocket/dpo-1"), ("promote", "pocket/dpo-1", "pocket/dpo-2"),
        ("rollback", "pocket/dpo-2", "pocket/dpo-1"), ("demote", "pocket/dpo-1", "pocket/dpo-2"),
        ("demote", "pocket/dpo-2", ""),
    ]  # fmt: skip
    assert moves[2].why == "slower" and all(move.at and move.who is not None for move in moves)


def test_moves_that_cannot_be_made_say_why(cli: CommandLine, root: Path) -> None:
    for arguments, words in (
        (("promote", "pocket/dpo-2"), "needs a reason"),
        (("demote",), "needs a reason"),
        (("promote", "pocket/dpo-9", "--why", "x"), "no registered model"),
        (("show", "pocket/nothing"), "no registered model"),
        (("diff", "champion", "pocket/none"), "no registered model"),
    ):
        done = cli("models", *arguments)
        assert done.returncode == 2 and words in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert Registry(root).aliases()["pocket@champion"] == "pocket/dpo-1"


def test_a_changed_file_is_named_and_not_promoted(cli: CommandLine, root: Path) -> None:
    weights = root / "pocket" / "models" / "sft" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    done = cli("models", "verify")
    assert done.returncode == 2 and "model.safetensors was changed since pocket/sft" in done.stderr
    done = cli("models", "rollback")
    assert done.returncode == 2 and Registry(root).aliases()["pocket@champion"] == "pocket/dpo-1"


def test_diff_tells_weights_by_their_norm(cli: CommandLine, root: Path) -> None:
    found = json.loads(cli("models", "diff", "pocket/sft", "pocket/dpo-1", "--json").stdout)
    assert found["fields"]["data_hash"] == ["d-sft", "d-dpo-1"] and found["settings"] == {}
    sft, dpo = (load_model(root / "pocket/models" / name, device="cpu").state_dict() for name in ("sft", "dpo-1"))
    names = [name for name in sft if name != "lm_head.weight"]  # tied, so it is not in the file
    change = sum(float((sft[name].double() - dpo[name].double()).norm()) ** 2 for name in names)
    size = sum(float(sft[name].double().norm()) ** 2 for name in names)
    assert found["weights"]["relative"] == pytest.approx((change / size) ** 0.5)
    # Norms of layers begin as ones and are the same in both.
    assert 0 < found["weights"]["changed"] < found["weights"]["tensors"] == len(names)
    same = json.loads(cli("models", "diff", "pocket/sft", "pocket/sft", "--json").stdout)
    assert same["weights"]["relative"] == 0 and same["fields"] == {} and same["files"] == []


def test_what_is_pushed_loads_by_name_in_transformers_and_peft(cli: CommandLine, root: Path, tmp_path: Path) -> None:
    hub = tmp_path / "hub"
    for name in ("sft", "dpo-1", "dpo-2"):
        assert cli("models", "push", f"pocket/{name}", str(hub)).returncode == 0
    base = json.loads((root / "pocket/models/dpo-2/adapter_config.json").read_text())["base_model_name_or_path"]
    assert Path(base).name == "sft"
    script = """
import sys
from transformers import AutoModelForCausalLM, AutoTokenizer
from peft import AutoPeftModelForCausalLM
AutoTokenizer.from_pretrained("pocket/dpo-1")
print(AutoModelForCausalLM.from_pretrained("pocket/dpo-1").num_parameters())
print(type(AutoPeftModelForCausalLM.from_pretrained("pocket/dpo-2")).__name__)
"""
    environment = {"HF_HUB_CACHE": str(hub), "HF_HUB_OFFLINE": "1", "PATH": "/usr/bin", "HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, timeout=110,
                          check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[1] == "PeftModelForCausalLM"
    # A second push of other content is a revision beside the first.
    home = hub / "models--pocket--dpo-1"
    first = (home / "refs" / "main").read_text()
    promote_by_hand(Registry(root), "pocket/dpo-1", "the card says more now")
    assert cli("models", "push", "pocket/dpo-1", str(hub)).returncode == 0
    assert (home / "refs" / "main").read_text() != first
    assert len(list((home / "snapshots").iterdir())) == 2


def test_gc_keeps_what_an_alias_needs_and_what_is_new(root: Path) -> None:
    registry = Registry(root)
    (root / "pocket" / "checkpoints" / "control-1").mkdir(parents=True)
    (root / "pocket" / "checkpoints" / "control-1" / "state").write_bytes(b"x" * 100)
    assert leftovers(registry, keep=5) == []
    assert leftovers(registry, keep=0, older_than_days=1) == []
    found = leftovers(registry, keep=0)
    # Champion dpo-1, previous sft and their ancestor base stay.
    assert [item.folder.name for item in found] == ["control-1", "dpo-2", "control-1"]
    assert found[-1].version is None and found[-1].bytes == 100
    expected = sum(item.bytes for item in found)
    assert remove(registry, found) == expected
    assert not (root / "pocket" / "models" / "control-1").exists() and leftovers(registry, keep=0) == []
    assert registry.get("pocket/control-1").data_hash == "d-control-1"
    with pytest.raises(Exception, match="were removed on"):
        registry.load("pocket/control-1")
    assert [move.after for move in registry.history("pocket") if move.kind == "remove"] == [
        "pocket/control-1", "pocket/dpo-2",
    ]  # fmt: skip


def test_gc_leaves_unfinished_runs_and_foreign_folders_alone(root: Path, tmp_path: Path) -> None:
    with RunStore(root / "pocket") as store:
        store.begin_stage("grpo")  # online training has begun: its gate has not decided yet
    model, tokenizer = tiny_model("qwen3", seed=9)
    save_version(model, tokenizer, tmp_path / "elsewhere" / "models" / "m")
    put(root, "x", None, path=str(tmp_path / "elsewhere" / "models" / "m"))
    assert leftovers(Registry(root), keep=0) == []


def test_a_removal_that_was_killed_leaves_no_version_with_half_its_weights(root: Path) -> None:
    code = f"""
import os, pathlib, shutil
from dpo_driver.registry import Registry
from dpo_driver.registry.leftovers import leftovers, remove
shutil.rmtree = lambda *a, **k: os.kill(os.getpid(), 9)
registry = Registry({str(root)!r})
remove(registry, leftovers(registry, keep=0))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60, check=False)
    assert done.returncode == -9
    registry = Registry(root)
    gone = [version.name for version in registry.list() if registry.removed(version)]
    assert gone == ["pocket/control-1"] and not Path(registry.get(gone[0]).path).exists()
    remove(registry, leftovers(registry, keep=0))
    assert sorted(path.name for path in (root / "pocket" / "models").iterdir()) == ["base", "dpo-1", "sft"]


def test_the_card_says_what_is_on_record(cli: CommandLine, root: Path) -> None:
    import yaml

    text = cli("models", "card", "champion").stdout
    front = yaml.safe_load(text.split("---")[1])
    assert front["library_name"] == "transformers" and front["base_model"] == "tiny"
    assert front["model-index"][0]["results"][0]["metrics"][0]["value"] == 19.3
    assert "paired gain +19.3%, 95 % interval [+17.1%, +21.5%], n = 1000" in text
    assert "pocket/sft <- pocket/base" in text
    assert "peft" in cli("models", "card", "pocket/dpo-2").stdout
