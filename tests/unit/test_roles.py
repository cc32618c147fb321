"""``train dpo --role``: a small model learns a role from text alone, is measured, registered, and goes on by itself."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from rich.console import Console
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from dpo_driver.cli.main import app
from dpo_driver.core.errors import ConfigError, DataError, DriverError, ModelError, StoreError
from dpo_driver.core.records import Message, Preference
from dpo_driver.core.store import RunStore
from dpo_driver.flywheel.roles import measured, prepared, role_config, role_rows, train_role
from dpo_driver.policies.loading import load_model, save_version
from dpo_driver.preferences.collect import collect_preference
from dpo_driver.preferences.jsonl import write_jsonl
from dpo_driver.preferences.log import PreferenceLog
from dpo_driver.registry import Registry
from dpo_driver.testing.tiny_models import tiny_model
from dpo_driver.training.ranking import Ranked, rank

QUIET = ("tracking.mlflow=false",)
LEARN = ("dpo.learning_rate=1e-2", *QUIET)
SHORT, LONG = "Yes. Start on Monday.", "Well, there are many sides to this, so in the end it depends."


def questions(count: int = 40) -> list[str]:
    topics = ("the shop", "the price", "the hire", "the budget", "the website", "the shift", "the card", "the van")
    return [f"Question {number}: what about {topics[number % len(topics)]}?" for number in range(count)]


def text_row(prompt: str, role: str = "CEO", chosen: str = SHORT, rejected: str = LONG, **about: Any) -> dict[str, Any]:
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected, "metadata": {"role": role, **about}}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random Qwen3 in a folder."""
    folder = tmp_path_factory.mktemp("base") / "qwen3"
    save_version(*tiny_model("qwen3"), folder)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty rows of a CEO and three of a CTO."""
    file = tmp_path_factory.mktemp("data") / "rows.jsonl"
    rows = [text_row(prompt, confidence=0.5 + 0.5 * (n % 2)) for n, prompt in enumerate(questions())]
    write_jsonl(file, [*rows, *(text_row(prompt, "CTO") for prompt in questions(3))])
    return file


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, base: Path, data: Path) -> tuple[Path, dict[str, Any]]:
    """The runs' folder, and what training found."""
    root = tmp_path_factory.mktemp("runs")
    return root, learn(data, base, root / "CEO")


def learn(data: Path, base: Path, out: Path, role: str = "CEO", *overrides: str, console: Any = None) -> dict[str, Any]:
    quiet = console or Console(file=io.StringIO())
    return train_role(role, data, overrides=[*LEARN, *overrides], model=str(base), out=out, console=quiet)


def test_the_model_learns_what_it_was_never_shown(trained: tuple[Path, dict[str, Any]]) -> None:
    _, found = trained
    held = found["held_out"]
    assert found["rows"]["train"] + found["rows"]["val"] == 40
    assert held["rows"] == held["prompts"] == found["rows"]["val"] >= 4
    assert held["ranked"]["before"]["success"] < held["ranked"]["after"]["success"] == 1.0
    assert held["rewards/accuracies"]["before"]["success"] is None  # every reward is 0 then
    assert held["rewards/accuracies"]["after"]["low"] > 0.5
    assert held["rewards/margins"]["low"] > 0


def test_held_out_prompts_are_not_trained_on_and_confidence_is_weight(trained: tuple[Path, dict[str, Any]]) -> None:
    root, found = trained
    with RunStore(root / "CEO", mode="read") as store:
        rows = store.preferences(1)
    prompts = {split: {row.messages for row in rows if row.split == split} for split in ("train", "val")}
    assert not prompts["train"] & prompts["val"]
    assert Counter(row.weight for row in rows) == {0.5: 20, 1.0: 20}
    assert {row.role for row in rows} == {"CEO"}
    assert json.loads((root / "CEO" / "dpo-1.json").read_text()) == found


def test_the_adapter_loads_in_plain_peft(trained: tuple[Path, dict[str, Any]], base: Path) -> None:
    _, found = trained
    ids_1T = torch.tensor([[5, 6, 7, 8]])
    plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), found["model"]).eval()
    ours = load_model(found["model"], device="cpu")(ids_1T).logits
    assert torch.allclose(plain(ids_1T).logits, ours, atol=1e-5)
    assert not torch.allclose(load_model(base, device="cpu")(ids_1T).logits, ours, atol=1e-3)


def test_champion_and_candidate_are_the_roles_own(trained: tuple[Path, dict[str, Any]], base: Path, data: Path) -> None:
    root, found = trained
    registry = Registry(root)
    assert [version.name for version in registry.lineage("CEO/dpo-1")] == ["CEO/dpo-1", "CEO/base"]
    assert registry.get("CEO/dpo-1").prompt_profile == ""  # it answers whatever it is sent
    decision = found["decision"]
    assert (decision["candidate"], decision["champion"]) == ("CEO/dpo-1", "CEO/base")
    holders = registry.aliases()
    if decision["promoted"]:
        assert holders == {"CEO@champion": "CEO/dpo-1", "CEO@previous": "CEO/base"}
    else:
        assert holders == {"CEO@champion": "CEO/base", "CEO@candidate": "CEO/dpo-1"}
    other = learn(data, base, root / "CTO", "CTO", "dpo.max_steps=1")
    assert other["version"] == "CTO/dpo-1"
    now = Registry(root).aliases()
    assert now["CTO@champion"] == "CTO/base" and now["CEO@champion"] == holders["CEO@champion"]
    further = role_config("CEO", None, [], model="CEO@champion", out=root / "CEO-2")
    assert further.model.name == Registry(root).get("CEO@champion").path
    with pytest.raises(ModelError, match="no registered model 'COO@champion'"):
        role_config("COO", None, [], model="COO@champion", out=root / "COO")


def test_the_same_rows_are_not_trained_on_twice_and_other_rows_are_another_round(
    tmp_path: Path, base: Path, data: Path
) -> None:
    out = tmp_path / "runs" / "CTO"
    first = learn(data, base, out, "CTO", "dpo.max_steps=1")
    weights = Path(first["model"]) / "adapter_model.safetensors"
    made = weights.stat().st_mtime_ns
    assert learn(data, base, out, "CTO", "dpo.max_steps=1") == first
    assert weights.stat().st_mtime_ns == made
    more = tmp_path / "more.jsonl"
    write_jsonl(more, [text_row(prompt, "CTO") for prompt in questions(5)])
    second = learn(more, base, out, "CTO", "dpo.max_steps=1")
    assert (second["version"], sum(second["rows"].values())) == ("CTO/dpo-2", 5)
    with pytest.raises(ConfigError, match=r"another configuration[^;]*\n.*dpo.beta; give this one a folder of its own"):
        learn(data, base, out, "CTO", "dpo.max_steps=1", "dpo.beta=0.7")


class CtrlC(io.StringIO):
    """A terminal in which somebody presses Ctrl-C when the first figures of the training appear."""

    pressed = False

    def write(self, text: str) -> int:
        if "loss" in text and not self.pressed:
            self.pressed = True
            signal.raise_signal(signal.SIGINT)
        return super().write(text)


def test_a_stopped_training_goes_on_by_the_same_command(
    trained: tuple[Path, dict[str, Any]], tmp_path: Path, base: Path, data: Path
) -> None:
    terminal = CtrlC()
    every = ("dpo.logging_steps=1",)  # free to differ: it changes no weights
    with pytest.raises(KeyboardInterrupt):
        learn(data, base, tmp_path / "CEO", "CEO", *every, console=Console(file=terminal, force_terminal=True))
    assert terminal.pressed
    with RunStore(tmp_path / "CEO", mode="read") as store:
        assert store.stage_status("dpo/1").state == "running"
    again = learn(data, base, tmp_path / "CEO", "CEO", *every)
    _, whole = trained
    assert again["held_out"] == whole["held_out"]
    assert again["steps"] == whole["steps"]


# -- rows ------------------------------------------------------------------------------------------------------------


def test_rows_of_a_log_or_of_the_folder_around_it(tmp_path: Path) -> None:
    path = tmp_path / "run" / "preferences.db"
    collect_preference("CEO", "Open?", "Yes.", "No.", "a", {"source": "teacher"}, log=path)
    collect_preference("CTO", "Open?", "Yes.", "No.", "a", log=path)
    for place in (path, path.parent):
        [row] = role_rows(place, "CEO", Counter())
        assert (row.role, row.chosen, row.source) == ("CEO", "Yes.", "teacher")


def test_a_confidence_that_is_none_is_named_by_line(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    write_jsonl(file, [text_row("a"), text_row("b", confidence=90)])
    with pytest.raises(DataError, match=r"'confidence' must be a number from 0 to 1, not 90 .*line 2"):
        role_rows(file, "CEO", Counter())


def test_what_has_no_rows_of_the_role_names_the_roles_that_are_there(tmp_path: Path, data: Path) -> None:
    with pytest.raises(DataError, match=r"no preferences of the role 'COO' .*\n.*roles there: CEO \(40\), CTO \(3\)"):
        role_rows(data, "COO", Counter())
    file = tmp_path / "plain.jsonl"
    write_jsonl(file, [{"prompt": "a", "chosen": "b", "rejected": "c"}])
    with pytest.raises(DataError, match=r"none \(1\); give them one: dpo-driver prefs import FILE .* --role CEO"):
        role_rows(file, "CEO", Counter())
    with PreferenceLog(tmp_path / "log.db") as log:
        collect_preference("CEO", "Open?", "Yes.", "No.", "tie", log=log)
        collect_preference("CTO", "Open?", "Yes.", "No.", "a", log=log)
    with pytest.raises(DataError, match=r"'CEO' gives no pair .*\n.*1 x comparison: its raters tie"):
        role_rows(tmp_path / "log.db", "CEO", Counter())
    with pytest.raises(DataError, match=r"roles there: CEO \(1\), CTO \(1\)"):
        role_rows(tmp_path / "log.db", "COO", Counter())
    with pytest.raises(StoreError, match="there is no preference log"):
        role_rows(tmp_path / "none.db", "CEO", Counter())
    write_jsonl(file, [{"prompt": "a", "completion": "b"}])
    with pytest.raises(DataError, match=r"an SFT row .*line 1"):
        role_rows(file, "CEO", Counter())


def pair(prompt: str, chosen: str = SHORT, rejected: str = LONG, **more: Any) -> Preference:
    given = {"id": f"{prompt}/{chosen}", "messages": (Message(role="user", content=prompt),), "level": "text",
             "source": "human", "role": "CEO", **more}  # fmt: skip
    return Preference(chosen=chosen, rejected=rejected, **given)


def test_rows_are_cleaned_weighted_and_split_by_prompt() -> None:
    config = role_config("CEO", None, ["pair.mix={human: 2.0}"])
    refused: Counter[str] = Counter()
    rows = [pair(prompt) for prompt in questions(50)] + [pair(prompt, "No.", LONG) for prompt in questions(50)]
    rows += [pair("x"), pair("x", LONG, SHORT), rows[0]]
    kept = prepared(rows, config, refused)
    assert refused == {"contradiction": 2, "duplicate": 1, "leak": 0}
    assert len(kept) == 100 and {row.weight for row in kept} == {2.0}
    sides: dict[tuple[Message, ...], set[str]] = {}
    for row in kept:
        sides.setdefault(row.messages, set()).add(row.split)
    assert all(len(side) == 1 for side in sides.values())
    assert 0.1 * 50 < sum(side == {"val"} for side in sides.values()) < 0.35 * 50
    # More rows later move no prompt to the other side.
    again = prepared([*rows, *(pair(f"later {n}") for n in range(50))], config, Counter())
    assert {row.split for row in again if row.messages in sides and {row.split} != sides[row.messages]} == set()


def test_a_split_that_the_data_brings_is_kept_and_two_prompts_are_enough() -> None:
    config = role_config("CEO", None, [])
    given = [pair("a"), pair("b", split="val"), pair("c")]
    assert [row.split for row in prepared(given, config, Counter())] == ["train", "val", "train"]
    assert {row.split for row in prepared([pair("a"), pair("b")], config, Counter())} == {"train", "val"}
    with pytest.raises(DataError, match="all pairs are of one prompt"):
        prepared([pair("a"), pair("a", "No.")], config, Counter())
    with pytest.raises(DataError, match="every pair is contradicted"):
        prepared([pair("a"), pair("a", LONG, SHORT)], config, Counter())


# -- figures ---------------------------------------------------------------------------------------------------------


def test_the_figures_by_hand() -> None:
    held = [pair("a"), pair("b"), pair("c"), pair("too long")]
    a, b, c, _ = (row.id for row in held)
    # Per token: -1 against -2 is right, although the sum is smaller; -2 against -1 is wrong.
    right, wrong = Ranked(-8.0, -6.0, 8, 3), Ranked(-4.0, -3.0, 2, 3)
    before = {a: right, b: wrong, c: wrong}
    after = {a: right, b: Ranked(-1.0, -9.0, 2, 3), c: Ranked(-4.0, -2.0, 2, 3)}
    found = measured(held, before, after, beta=0.5)
    assert found["overlong"] == ["too long/" + SHORT] and (found["rows"], found["prompts"]) == (3, 4)
    assert found["ranked"]["before"]["success"] == pytest.approx(1 / 3)
    assert found["ranked"]["after"]["success"] == pytest.approx(2 / 3)
    assert (found["ranked"]["gain"]["wins"], found["ranked"]["gain"]["losses"]) == (1, 0)
    # Margins: 0, 0.5 * ((-1 + 4) - (-9 + 3)) = 4.5, 0.5 * (0 - (-2 + 3)) = -0.5; only one is above 0
    assert found["rewards/margins"]["mean"] == pytest.approx(4 / 3)
    assert found["rewards/accuracies"]["after"]["success"] == pytest.approx(1 / 3)


def test_ranks_are_the_models_own_log_probs(base: Path) -> None:
    from dpo_driver.core.schema_training import ModelConfig
    from dpo_driver.policies.encoding import encode_completion, encode_prompt
    from dpo_driver.policies.loading import load_tokenizer

    row = pair("Shall we?")
    found = rank(base, [row, pair("x " * 3000)], ModelConfig(name=str(base), device="cpu", max_length=512))
    assert set(found) == {row.id}
    tokenizer, model = load_tokenizer(base), load_model(base, device="cpu")
    for text, total, count in ((SHORT, found[row.id].chosen, found[row.id].chosen_tokens),
                               (LONG, found[row.id].rejected, found[row.id].rejected_tokens)):  # fmt: skip
        start, written = encode_prompt(tokenizer, row.messages), encode_completion(tokenizer, text)
        logits = model(torch.tensor([[*start, *written]])).logits[0, len(start) - 1 : -1].log_softmax(-1)
        assert total == pytest.approx(float(logits[range(len(written)), list(written)].sum()), rel=1e-4)
        assert count == len(written)


# -- names, folders, the command -------------------------------------------------------------------------------------


def test_a_role_becomes_a_folder_and_a_name(tmp_path: Path) -> None:
    config = role_config("Head of Sales", None, ["dpo.beta=0.2"])
    assert (config.project.name, config.run_dir) == ("Head-of-Sales", Path("runs/Head-of-Sales"))
    assert (config.model.name, config.dpo.beta, config.dpo.num_train_epochs) == ("pocket", 0.2, 3)
    assert role_config("CEO", None, ["dpo.num_train_epochs=1"]).dpo.num_train_epochs == 1
    file = tmp_path / "x.yaml"
    file.write_text("model: Qwen/Qwen3-0.6B\ndpo: {beta: 0.3}\n")
    config = role_config("CEO", file, [])
    assert (config.model.name, config.dpo.beta, config.dpo.num_train_epochs) == ("Qwen/Qwen3-0.6B", 0.3, 1)
    with pytest.raises(ConfigError, match="is no name for a role"):
        role_config("?!", None, [])
    with pytest.raises(ConfigError, match=r"unknown key dpo\.betta"):
        role_config("CEO", None, ["dpo.betta=1"])


def test_a_folder_belongs_to_one_role_and_no_browser_run(tmp_path: Path, base: Path, data: Path) -> None:
    with RunStore(tmp_path / "browser") as store:
        store.begin_stage("demos")
    with pytest.raises(ConfigError, match=r"the run of a browser agent .*\n.*--out DIR"):
        learn(data, base, tmp_path / "browser")
    assert not (tmp_path / "browser" / "models").exists()
    with RunStore(tmp_path / "other") as store:
        store.set_fact("role", "C.E.O.")
    with pytest.raises(ConfigError, match=r"belongs to the role 'C\.E\.O\.'"):
        learn(data, base, tmp_path / "other")


@pytest.mark.slow
def test_the_example_and_the_same_by_command(
    root: Path, tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    example = [sys.executable, str(root / "examples" / "ceo_preferences.py"), "--model", str(base), "--learning-rate",
               "1e-2"]  # fmt: skip
    done = subprocess.run(example, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stderr
    assert "registered as CEO/dpo-1" in done.stdout
    assert (tmp_path / "runs" / "CEO" / "models" / "dpo-1" / "adapter_model.safetensors").is_file()
    settings = ["--set", "dpo.learning_rate=1e-2", "--set", "dpo.num_train_epochs=4", "--set", "dpo.rpo_alpha=0.2"]
    by_command = CliRunner().invoke(
        app, ["train", "dpo", "--role", "CEO", "--model", str(base), *settings, "--json"], catch_exceptions=False
    )
    assert by_command.exit_code == 0 and "done before" in by_command.stderr
    audited = CliRunner().invoke(app, ["prefs", "audit", "--run", "runs/CEO", "--json"], catch_exceptions=False)
    assert audited.exit_code == 0, audited.stdout  # every pair traces to its labels in the log that they were read from
    found = json.loads(by_command.stdout)
    assert found["held_out"]["ranked"]["after"]["success"] > found["held_out"]["ranked"]["before"]["success"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "x.jsonl"], "--data, --model and --out go with --role"),
        (["--role", "CEO", "--round", "1"], "leave out --round"),
        (["--role", "CEO"], "there is no preference log"),
        (["--role", "CEO", "--data", "x.jsonl"], "no such file"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_the_command_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["train", "dpo", *arguments])
    assert isinstance(done.exception, DriverError) and done.exception.exit_code == 2
    assert message in str(done.exception)
    assert not (tmp_path / "runs").exists()
