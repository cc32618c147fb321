"""`dpo-driver models` on a real registry with real small models: the commands of docs/models.md, and what they refuse.

Commands run in this process, as loading MLflow anew takes seconds; one test goes through the program."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
import yaml
from typer.testing import CliRunner

from dpo_driver.cli.main import app
from dpo_driver.core.errors import DriverError
from dpo_driver.core.records import Decision, ModelVersion, PairedDifference
from dpo_driver.core.schema_training import LoraConfig
from dpo_driver.policies.loading import is_adapter, load_model, save_version
from dpo_driver.registry import Registry
from dpo_driver.registry.moves import promote_by_hand
from dpo_driver.testing.tiny_models import tiny_model
from registry_folders import decide

pytestmark = pytest.mark.timeout(300)

CommandLine = Callable[..., "subprocess.CompletedProcess[str]"]
PAGE = Path(__file__).resolve().parents[2] / "docs" / "models.md"


class Done(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


Models = Callable[..., Done]


def put(root: Path, name: str, parent: str | None, **more: object) -> ModelVersion:
    """Register the folder of a version that lies where the flywheel puts it."""
    folder = root / "pocket" / "models" / name
    values = {
        "name": f"pocket/{name}", "version": 0, "path": str(folder), "parent": parent, "base_model": "tiny",
        "algorithm": name.partition("-")[0], "content_hash": "", "config_hash": "c0ffee", "data_hash": f"d-{name}",
        "adapter": is_adapter(folder), **more,
    }  # fmt: skip
    return Registry(root).register(ModelVersion.model_validate(values))


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """pocket/base <- sft <- dpo-1 (champion, proven) and control-1, dpo-2 (an adapter); the run is finished."""
    root = tmp_path_factory.mktemp("models") / "runs"
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
    decide(root, "pocket", "promote")
    return root


@pytest.fixture
def root(template: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(template, tmp_path / "runs"))


@pytest.fixture
def models(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Models:
    """``models("list", "--json")``: the command in the folder that holds the runs. What main() would print and exit
    with is the error itself here."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: str) -> Done:
        done = CliRunner().invoke(app, ["models", *arguments])
        if isinstance(done.exception, DriverError):
            return Done(done.exception.exit_code, done.stdout, done.stderr + str(done.exception))
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return Done(done.exit_code, done.stdout, done.stderr)

    return run


def commands() -> list[str]:
    blocks = re.findall(r"```bash\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    lines = [line.partition("#")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line.startswith("dpo-driver ")]


def test_every_command_of_the_page_runs(models: Models, root: Path) -> None:
    found = commands()
    assert len(found) >= 14
    for command in found:
        if "hf://" in command:  # the hub: see below
            continue
        program, group, *arguments = shlex.split(command)
        assert (program, group) == ("dpo-driver", "models")
        done = models(*arguments)
        assert done.returncode == 0, f"{command}\n{done.stderr}"
    # What they did, in this order: by hand to dpo-2, back, and dpo-1 stepping down for it.
    moves = [(move.kind, move.before, move.after) for move in Registry(root).history("pocket")]
    assert moves[2:5] == [
        ("promote", "pocket/dpo-1", "pocket/dpo-2"), ("rollback", "pocket/dpo-2", "pocket/dpo-1"),
        ("demote", "pocket/dpo-1", "pocket/dpo-2"),
    ]  # fmt: skip


def test_by_hand_back_and_down(models: Models, root: Path) -> None:
    registry = Registry(root)
    shown = json.loads(models("promote", "pocket/dpo-2", "--why", "tried on our pages", "--json").stdout)
    assert shown["name"] == "pocket/dpo-2"
    assert registry.aliases() == {"pocket@champion": "pocket/dpo-2", "pocket@previous": "pocket/dpo-1"}
    assert registry.decision(registry.get("champion")).reasons == ("by hand: tried on our pages",)  # type: ignore[union-attr]
    assert json.loads(models("rollback", "--why", "slower", "--json").stdout)["after"] == "pocket/dpo-1"
    assert registry.aliases() == {"pocket@champion": "pocket/dpo-1", "pocket@previous": "pocket/dpo-2"}
    assert models("demote", "pocket", "--why", "fails on logins").returncode == 0
    assert registry.aliases() == {"pocket@champion": "pocket/dpo-2"}
    assert "champion: nobody" in models("demote", "--why", "and this one too").stderr
    assert registry.aliases() == {} and registry.find("champion") is None
    moves = json.loads(models("history", "--json").stdout)
    assert [(move["kind"], move["before"], move["after"]) for move in moves] == [
        ("set", "", "pocket/sft"), ("promote", "pocket/sft", "pocket/dpo-1"),
        ("promote", "pocket/dpo-1", "pocket/dpo-2"),
        ("rollback", "pocket/dpo-2", "pocket/dpo-1"), ("demote", "pocket/dpo-1", "pocket/dpo-2"),
        ("demote", "pocket/dpo-2", ""),
    ]  # fmt: skip
    assert moves[3]["why"] == "slower" and all(move["at"] and move["who"] is not None for move in moves)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("promote", "pocket/dpo-2"), "needs a reason"),
        (("demote",), "needs a reason"),
        (("promote", "pocket/dpo-9", "--why", "x"), "no registered model"),
        (("show", "pocket/nothing"), "no registered model"),
        (("diff", "champion", "pocket/none"), "no registered model"),
        (("history", "nothing"), "no registered model 'nothing'"),
        # What would end MLflow's search too early.
        (("show", "o'brien@champion"), "no registered model"),
        (("show", "o'brien:1"), "no registered model"),
        (("show", "o'brien/dpo-1"), "no registered model"),
        (("demote", "o'brien", "--why", "x"), "no registered model"),
        (("rollback", "x\\"), "no registered model"),
        (("history", "o'brien"), "no registered model"),
    ],
)
def test_moves_that_cannot_be_made_say_why(models: Models, root: Path, arguments: tuple[str, ...], words: str) -> None:
    done = models(*arguments)
    assert done.returncode == 2 and words in done.stderr
    assert Registry(root).aliases()["pocket@champion"] == "pocket/dpo-1"


def test_the_program_says_it_without_a_traceback(cli: CommandLine, root: Path) -> None:
    done = cli(
        "models", "push", "champion", "hf://you/pocket-dpo", HF_HUB_OFFLINE="0", HF_ENDPOINT="http://127.0.0.1:9"
    )
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "no hub was reached: " in done.stderr and "(hf://you/pocket-dpo)" in done.stderr


def test_the_hub_is_not_asked_for_what_it_cannot_have(models: Models) -> None:
    for name in ("", "a/b/c", "a b"):
        done = models("push", "champion", f"hf://{name}")
        assert done.returncode == 2 and "the hub refused: " in done.stderr, done.stderr
    assert "no hub was reached: " in models("push", "champion", "hf://you/offline").stderr  # tests are


def test_a_changed_file_is_named_and_not_promoted(models: Models, root: Path) -> None:
    weights = root / "pocket" / "models" / "sft" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    for command in (("verify",), ("rollback",), ("demote", "--why", "x"), ("promote", "pocket/sft", "--why", "x")):
        done = models(*command)
        assert done.returncode == 2 and "model.safetensors was changed since pocket/sft" in done.stderr
    assert Registry(root).aliases() == {"pocket@champion": "pocket/dpo-1", "pocket@previous": "pocket/sft"}


def test_diff_tells_weights_by_their_norm(models: Models, root: Path) -> None:
    found = json.loads(models("diff", "pocket/sft", "pocket/dpo-1", "--json").stdout)
    assert found["fields"]["data_hash"] == ["d-sft", "d-dpo-1"] and found["settings"] == {}
    sft, dpo = (load_model(root / "pocket/models" / name, device="cpu").state_dict() for name in ("sft", "dpo-1"))
    names = [name for name in sft if name != "lm_head.weight"]  # tied, so it is not in the file
    change = sum(float((sft[name].double() - dpo[name].double()).norm()) ** 2 for name in names)
    size = sum(float(sft[name].double().norm()) ** 2 for name in names)
    assert found["weights"]["relative"] == pytest.approx((change / size) ** 0.5)
    # Norms of layers begin as ones and are the same in both.
    assert 0 < found["weights"]["changed"] < found["weights"]["tensors"] == len(names)
    same = json.loads(models("diff", "pocket/sft", "pocket/sft", "--json").stdout)
    assert same["weights"]["relative"] == 0 and same["fields"] == {} and same["files"] == []


def test_what_is_pushed_loads_by_name_in_transformers_and_peft(models: Models, root: Path, tmp_path: Path) -> None:
    hub = tmp_path / "hub"
    for name in ("sft", "dpo-1", "dpo-2"):
        assert models("push", f"pocket/{name}", str(hub)).returncode == 0
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
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, timeout=250,
                          check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[1] == "PeftModelForCausalLM"
    # A second push of other content is a revision beside the first.
    home = hub / "models--pocket--sft"
    first = (home / "refs" / "main").read_text()
    promote_by_hand(Registry(root), "pocket/sft", "the card says more now")
    assert models("push", "pocket/sft", str(hub)).returncode == 0
    assert (home / "refs" / "main").read_text() != first
    assert len(list((home / "snapshots").iterdir())) == 2


def test_gc_asks_shows_and_frees(models: Models, root: Path) -> None:
    shown = json.loads(models("gc", "--keep", "0", "--dry-run", "--json").stdout)
    assert [Path(item["folder"]).name for item in shown["found"]] == ["control-1", "dpo-2"] and shown["removed"] == 0
    assert models("gc", "--keep", "0").returncode == 1  # nobody said yes
    assert (root / "pocket/models/control-1").is_dir()
    assert json.loads(models("gc", "--keep", "0", "--yes", "--json").stdout)["removed"] == shown["bytes"]
    assert sorted(path.name for path in (root / "pocket/models").iterdir()) == ["base", "dpo-1", "sft"]
    assert json.loads(models("show", "pocket/dpo-2", "--json").stdout)["removed"].endswith("Z")
    done = models("push", "pocket/dpo-2", "hub")
    assert done.returncode == 2 and "were removed on" in done.stderr
    assert "3 of 5 versions" in models("verify").stderr


def test_the_card_says_what_is_on_record(models: Models, root: Path) -> None:
    from huggingface_hub import ModelCard

    text = models("card", "champion").stdout
    front = yaml.safe_load(text.split("---")[1])
    assert front["library_name"] == "transformers" and front["base_model"] == "tiny"
    (result,) = ModelCard(text).data.eval_results  # as the hub reads its model-index
    assert (result.metric_value, result.dataset_args) == (19.3, {"pairs": 1000})
    assert result.metric_args == {"low": 17.1, "high": 21.5, "level": 0.95, "n": 1000, "wins": 200, "losses": 7}
    assert "paired gain +19.3%, 95 % interval [+17.1%, +21.5%], n = 1000" in text
    assert "pocket/sft <- pocket/base" in text
    model = load_model(root / "pocket/models/dpo-1", device="cpu")
    size = (root / "pocket/models/dpo-1/model.safetensors").stat().st_size
    assert f"size: {model.num_parameters():,} parameters in {size:,} bytes\n" in text
    adapter = models("card", "pocket/dpo-2").stdout
    assert "peft" in adapter and "of the adapter alone" in adapter and "model-index" not in adapter
