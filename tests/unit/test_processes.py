"""Several processes do what one does: the same weights from the same rows, the same rollouts, one voice, and an end
with a message when one of them is killed. What they do is in tests/several.py, and is done once for all of these tests.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from test_engine import pairs, samples

from dpo_driver.algorithms import load_algorithm
from dpo_driver.core import ranks
from dpo_driver.core.config import load_config
from dpo_driver.core.errors import TrainingError
from dpo_driver.core.schema_training import ModelConfig
from dpo_driver.core.store import RunStore
from dpo_driver.flywheel.fitting import Fitting
from dpo_driver.testing.tiny_models import tiny_model
from dpo_driver.training.batches import Batch, step_batch
from dpo_driver.training.logprobs import Scorer
from dpo_driver.training.rows import encode_rows
from sample_sweep import demonstrate
from several import ONLINE, TESTS, interrupt, launch, learn_online, roll_out_toys, train_case

pytestmark = pytest.mark.timeout(300)
Done = Callable[[str], Path]
TIMES = ("tokens_per_second", "rollout_seconds")  # what is measured, not computed


SHARDED = pytest.mark.slow  # what is done under FSDP2 takes two more processes


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Done:
    """``done(case)`` is the folder in which two processes did it, with all other cases of its kind. They learn online
    from what one process rolled out."""
    folder = tmp_path_factory.mktemp("several")
    learn_online(folder / "alone", val=1, **ONLINE)
    ended: set[str] = set()

    def in_folder(case: str) -> Path:
        kind = "fsdp" if case.startswith("fsdp") else "ddp"
        if kind not in ended:
            ended.add(kind)
            journal = "fsdp-journal" if kind == "fsdp" else "journal"
            shutil.copytree(folder / "alone" / "journal", folder / journal / "journal")
            cases = ["fsdp"] if kind == "fsdp" else ["ddp", "refusals", "fewer", "online", "rollouts"]
            run = launch(str(TESTS / "several.py"), str(folder), *cases, timeout=280)
            assert run.returncode == 0, run.stderr
        return folder

    return in_folder


def facts(done: Done, case: str, rank: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((done(case) / f"{case}.{rank}.json").read_text())
    return found


def weights(done: Done, case: str, rank: int = 0) -> dict[str, torch.Tensor]:
    return load_file(done(case) / f"{case}.{rank}.safetensors")


def assert_same_weights(ours: Any, theirs: Any) -> None:
    assert ours.keys() == theirs.keys()
    difference = torch.cat([(ours[name] - theirs[name]).detach().abs().flatten() for name in theirs])
    # Adam moves a weight by the sign of its gradient, so where that is rounding noise the two may part; nowhere else.
    assert (difference < 1e-6).double().mean() > 0.9998
    assert difference.mean() < 1e-8


def without_times(row: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in row.items() if name not in TIMES}


def assert_same_history(ours: Any, theirs: Any, tolerance: float = 1e-5) -> None:
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        assert one.keys() == other.keys()
        # Before the first update margins are rounding noise, and their sign is too.
        names = [name for name in one if name not in TIMES and not (name.endswith("accuracies") and one["step"] < 2)]
        assert {name: one[name] for name in names} == pytest.approx(
            {name: other[name] for name in names}, abs=tolerance, rel=tolerance, nan_ok=True
        )


# --- the shares of a step -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 3, 20])
def test_shares_of_all_processes_add_up_to_the_step(count: int) -> None:
    """Also with more processes than there is to compute: those compute along, and it counts nothing."""
    model, tokenizer = tiny_model()
    rows = encode_rows(tokenizer, [*pairs(7), *samples(5)], max_length=999).examples
    algorithm = load_algorithm("nll", replay_coefficient=0.5)

    def losses(rank: int, ranks: int) -> tuple[float, list[str], int]:
        step = step_batch(rows, tokens_per_pass=300, rank=rank, ranks=ranks)
        total, names = 0.0, []
        with Scorer(model).session() as scorer, torch.no_grad():
            for batch, counts in step.weighted:
                assert isinstance(batch, Batch)
                total += counts * float(algorithm.loss(batch.scored(scorer))[0])
                names += batch.rows if counts else []
        return total, names, len(step.batches)

    whole, everyone, _ = losses(0, 1)
    shares = [losses(rank, count) for rank in range(count)]
    assert sum(share for share, _, _ in shares) == pytest.approx(whole, abs=1e-5)
    assert sorted(name for _, names, _ in shares for name in names) == sorted(everyone)
    assert len({forests for _, _, forests in shares}) == 1
    if count == 2:
        tokens = [sum(b.forest.tokens for b in step_batch(rows, tokens_per_pass=300, rank=r, ranks=2).batches)
                  for r in range(2)]  # fmt: skip
        assert max(tokens) < 1.3 * min(tokens)


def test_what_is_dealt_comes_together_again() -> None:
    for count in (1, 2, 3, 7):
        items = list("abcdefg")
        assert ranks.gathered([items[rank::count] for rank in range(count)]) == items


def test_one_process_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (ranks.count(), ranks.rank(), ranks.is_main()) == (1, 0, True)
    monkeypatch.setenv("WORLD_SIZE", "8")  # somebody else's: no launcher said which of them this is
    assert ranks.count() == 1
    assert ranks.gather(3) == [3]
    with ranks.beside(print, "never called") as others:
        pass
    assert others == []


# --- training -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case",
    ["ddp-sft", "ddp-dpo", "ddp-lora", "ddp-few",
     pytest.param("fsdp-sft", marks=SHARDED), pytest.param("fsdp-lora", marks=SHARDED)],
)  # fmt: skip
def test_two_processes_train_as_one(done: Done, tmp_path: Path, case: str) -> None:
    """Full weights and adapters; ``few`` has one forest a step, so one process computes along for nothing."""
    result, model = train_case(case.partition("-")[2], tmp_path)
    ours, theirs = weights(done, case), weights(done, case, 1)
    expected = {name: value for name, value in model.named_parameters() if value.requires_grad}
    assert ours.keys() == expected.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert_same_weights(ours, expected)
    found = facts(done, case)
    assert_same_history(found["history"], result.history)
    others = facts(done, case, 1)["history"]
    assert [without_times(row) for row in others] == [without_times(row) for row in found["history"]]
    assert (found["best"], found["sharing"]) == (result.best_step, pytest.approx(result.sharing_ratio))
    assert found["path"] == f"{result.path}; 2 processes, {'DDP' if case.startswith('ddp') else 'FSDP2'}"
    assert result.steps == 3


@SHARDED
def test_fsdp_really_shards(done: Done) -> None:
    assert {"FSDPScoring", "FSDPQwen3DecoderLayer"} <= set(facts(done, "fsdp-sft")["sharded"])
    assert not set(facts(done, "ddp-sft")["sharded"]) & {"FSDPScoring", "FSDPQwen3DecoderLayer"}


@pytest.mark.parametrize(
    ("case", "straight"),
    [("ddp-again", "ddp-dropout"), pytest.param("fsdp-again", "fsdp-lora", marks=SHARDED)],
)
def test_two_processes_stop_together_and_go_on_bit_by_bit(done: Done, case: str, straight: str) -> None:
    """Ctrl-C reached one of them only. Each goes on with its own random numbers."""
    for rank in (0, 1):
        found = facts(done, case, rank)
        assert (found["stopped"], found["steps"], found["resumed"]) == ("interrupted", 2, 2)
        losses = [
            [row["loss"] for row in facts(done, name, rank)["history"] if "loss" in row] for name in (case, straight)
        ]
        assert losses[0] == losses[1]
        for name, value in weights(done, straight).items():
            assert torch.equal(weights(done, case, rank)[name], value), name


def test_one_process_goes_on_where_two_stopped_unless_there_is_dropout(done: Done, tmp_path: Path) -> None:
    _, expected = train_case("lora", tmp_path)
    result, model = train_case("lora", done("left") / "left-lora", save_steps=1)
    assert result.resumed_from == 2
    assert_same_weights(dict(model.named_parameters()), dict(expected.named_parameters()))
    with pytest.raises(TrainingError, match="made by 2 processes, not 1"):
        train_case("dropout", done("left") / "left-dropout", save_steps=1)


def test_only_the_main_process_reports(done: Done) -> None:
    assert facts(done, "ddp-sft")["logged"] == len(facts(done, "ddp-sft")["history"])
    assert facts(done, "ddp-sft", 1)["logged"] == 0


def test_all_end_alike_with_a_message(done: Done) -> None:
    for rank in (0, 1):
        found = facts(done, "refused", rank)
        assert "is not finite at step" in found["inf"]
        assert "different rows or settings" in found["rows"]
    assert json.loads((done("refused") / "refused-inf" / "bad_batch.json").read_text())["rows"]


# --- online training ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", ["journal", "live", pytest.param("fsdp-journal", marks=SHARDED)])
def test_two_processes_learn_online_as_one(done: Done, case: str) -> None:
    """From the journal that one process left, and from rollouts that they share: draws depend on the task only."""
    (ours,), (expected,) = (list((done(case) / name).glob("checkpoint-*")) for name in (case, "alone"))
    assert ours.name == expected.name
    assert_same_weights(load_file(ours / "weights.safetensors"), load_file(expected / "weights.safetensors"))
    histories = [json.loads((folder / "state.json").read_text())["history"] for folder in (ours, expected)]
    assert_same_history(*histories, tolerance=1e-4)
    assert sum(row.get("episodes", 0) for row in histories[0]) == facts(done, case)["episodes"]
    assert len([row for row in histories[0] if "loss" in row]) >= 2


@pytest.mark.parametrize("case", ["journal", "live", "ahead", pytest.param("fsdp-journal", marks=SHARDED)])
def test_all_processes_end_online_training_with_the_same_weights(done: Done, case: str) -> None:
    ours, theirs = weights(done, case), weights(done, case, 1)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert facts(done, case)["episodes"] == facts(done, case, 1)["episodes"]


def test_rollouts_ahead_of_updates_begin_with_the_same_weights(done: Done) -> None:
    found = facts(done, "ahead")
    staleness = [row["staleness"] for row in found["history"] if "loss" in row]
    assert found["stop"] == "finished"
    assert 1 <= max(staleness) <= 2
    # Were the weights that acted not those that are recorded, the first update's ratios would not be 1.
    first = next(row for row in found["history"] if "loss" in row)
    assert first["ratio/off"] < 1e-4


# --- the launchers' files -------------------------------------------------------------------------------------------


def told(name: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What Accelerate's launcher says to the processes that it starts with one of our files."""
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env

    monkeypatch.chdir(root)
    given = ["--config_file", f"configs/launch/{name}.yaml", "--num_processes", "4", "-m", "dpo_driver", "run"]
    arguments, file, _ = _validate_launch_command(launch_command_parser().parse_args(given))
    assert arguments.num_processes == 4
    if arguments.use_deepspeed:
        arguments.deepspeed_fields_from_accelerate_config = ",".join(file.deepspeed_config)  # as launch_command() does
        found: dict[str, str] = prepare_deepspeed_cmd_env(arguments)[1]
    else:
        found = prepare_multi_gpu_env(arguments)
    return found


def test_launch_files_say_what_they_promise(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from accelerate.utils import FullyShardedDataParallelPlugin
    from accelerate.utils.deepspeed import HfDeepSpeedConfig

    assert not {"ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED"} & set(told("ddp", root, monkeypatch))
    fsdp = told("fsdp2", root, monkeypatch)
    for key, value in fsdp.items():
        if "FSDP" in key:
            monkeypatch.setenv(key, value)
    plugin = FullyShardedDataParallelPlugin()
    assert (fsdp["ACCELERATE_USE_FSDP"], plugin.fsdp_version, plugin.reshard_after_forward) == ("true", 2, True)
    assert not plugin.cpu_ram_efficient_loading
    zero = told("zero2", root, monkeypatch)
    assert zero["ACCELERATE_USE_DEEPSPEED"] == "true"
    parsed = HfDeepSpeedConfig(zero["ACCELERATE_DEEPSPEED_CONFIG_FILE"])
    assert parsed.is_zero2()
    assert not parsed.is_offload()


# --- the flywheel ---------------------------------------------------------------------------------------------------


def test_two_processes_roll_out_what_one_does(done: Done, tmp_path: Path) -> None:
    """Half of it in a first call, the rest in a second one, which skips what is there."""
    roll_out_toys(tmp_path)
    with RunStore(done("rollouts") / "run", mode="read") as ours, RunStore(tmp_path, mode="read") as theirs:
        found, expected = ours.trajectories("tried"), theirs.trajectories("tried")
    assert len(found) == 30
    assert [(t.id, t.reward, t.stop_reason, t.start_hash) for t in found] == [
        (t.id, t.reward, t.stop_reason, t.start_hash) for t in expected
    ]
    assert facts(done, "rollouts") == {"first": 12, "all": 18}
    assert not (done("rollouts") / "run" / "spool").exists()


def test_what_a_killed_run_left_in_its_spool_is_not_rolled_out_again(tmp_path: Path) -> None:
    roll_out_toys(tmp_path / "first", seeds=2)
    with RunStore(tmp_path / "first", mode="read") as store:
        lines = [t.model_dump_json() for t in store.trajectories("tried")]
    spool = tmp_path / "second" / "spool"
    spool.mkdir(parents=True)
    (spool / "tried.1.jsonl").write_text("\n".join(lines[:9]) + "\n" + lines[9][:40])  # killed while writing
    assert roll_out_toys(tmp_path / "second", seeds=2) == 3
    with RunStore(tmp_path / "second", mode="read") as store:
        assert [t.model_dump_json() for t in store.trajectories("tried")][:9] == lines[:9]
        assert store.count("tried") == 12
    assert not spool.exists()


def test_a_fresh_adapter_is_the_same_one_when_a_run_goes_on(tmp_path: Path) -> None:
    values = {"seed": 3, "max_steps": 3, "save_steps": 1, "logging_steps": 1, "per_device_train_batch_size": 2}
    fitting = Fitting("sft", ModelConfig(training="lora"), "pocket", tuple(samples(4)), values, tmp_path)
    assert fitting.run(interrupt(1))[2].interrupted
    torch.manual_seed(99)
    assert fitting.run(lambda step, metrics: None)[2].resumed_from == 2


CONFIG = """
project: {name: toy}
env: {name: toy, tasks: [wizard], workers: 4}
demos: {per_task: 4}
sft: {max_steps: 4, eval_steps: 1, save_steps: 1, logging_steps: 1}
rounds: 1
collect: {episodes_per_task: 24, group_size: 4, temperature: 1.5, max_new_tokens: 32}
pair: {max_parse_error_share: 1.0}
dpo: {max_steps: 3, eval_steps: 3}
grpo: {episodes: 24, groups_per_step: 3, num_generations: 4, temperature: 1.0, max_completion_length: 32}
evaluate: {episodes_per_task: 5, reference_episodes: 5, choose_per_task: 3, max_new_tokens: 32,
           agents: [random, sft, dpo, grpo]}
tracking: {mlflow: false}
"""


def toy_run(folder: Path) -> tuple[str, ...]:
    """A run whose demonstrations have been played, and the command that goes on with it."""
    folder.mkdir(exist_ok=True)
    (folder / "toy.yaml").write_text(CONFIG)
    override = f"project.run_dir={folder / 'run'}"
    demonstrate(load_config(folder / "toy.yaml", [override]))
    return str(folder / "toy.yaml"), "--set", override


def one_of(two: int, *arguments: str) -> subprocess.Popen[str]:
    """One of two processes, as a launcher would start it; ``two`` tells them apart and names their port."""
    rank, port = two % 2, two // 2
    env = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "NO_COLOR": "1",
           "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}  # fmt: skip
    command = [sys.executable, "-m", "dpo_driver", *arguments]
    return subprocess.Popen(command, env={**os.environ, **env}, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_kill_9_of_one_ends_the_other_with_a_message_and_the_command_goes_on(tmp_path: Path) -> None:
    command = ("train", "sft", *toy_run(tmp_path))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    main, other = (one_of(2 * port + rank, *command) for rank in (0, 1))
    checkpoints = tmp_path / "run" / "checkpoints" / "sft"
    try:
        deadline = time.monotonic() + 120
        while not list(checkpoints.glob("checkpoint-*/manifest.json")):
            assert main.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
        other.kill()
        _, said = main.communicate(timeout=30)
    finally:
        main.kill()
        other.kill()
    assert main.returncode == 2, said
    assert "another process of this run has ended (process 0 of 2)" in said
    assert "the same command goes on from here" in said
    assert "Traceback" not in said
    newest = max(checkpoints.glob("checkpoint-*"), key=lambda path: int(path.name.partition("-")[2]))
    before = json.loads((newest / "state.json").read_text())["history"]
    again = launch("-m", "dpo_driver", *command, timeout=120)
    assert again.returncode == 0, again.stderr
    assert "✓ supervised fine-tuning" in again.stderr
    after = json.loads((checkpoints / "finished.json").read_text())["history"]
    assert after[: len(before)] == before  # measured speeds included: it went on, it did not begin again
    assert after[-1]["step"] == 4
    with RunStore(tmp_path / "run", mode="read") as store:
        assert store.stage_status("sft").done
        assert store.count("evaluate/val/sft") == 3


@pytest.mark.slow
def test_a_run_of_two_processes_is_a_run(tmp_path: Path, cli: Any) -> None:
    """The whole job, as a user starts it: as many trajectories of every stage as one process stores, one report."""
    one, two = toy_run(tmp_path / "one"), toy_run(tmp_path / "two")
    alone = cli("run", *one, timeout=240)
    assert alone.returncode == 0, alone.stderr
    both = launch("-m", "dpo_driver", "run", *two, timeout=240)
    assert both.returncode == 0, both.stderr
    assert both.stdout.count("GRPO") == alone.stdout.count("GRPO") > 0  # said once, by the main process
    with RunStore(tmp_path / "one/run", mode="read") as ours, RunStore(tmp_path / "two/run", mode="read") as theirs:
        counts = {stage: ours.count(stage) for stage in ours.trajectory_stages()}
        assert counts == {stage: theirs.count(stage) for stage in theirs.trajectory_stages()}
        assert counts["collect/1"] == 24
        assert [s.stage for s in ours.stages() if s.done] == [s.stage for s in theirs.stages() if s.done]
        assert theirs.stage_status("grpo").facts["path"].endswith("2 processes, DDP")
    assert (tmp_path / "two/run/report.html").is_file()
    again = launch("-m", "dpo_driver", "run", *two, timeout=120)
    assert again.returncode == 0
    assert "▸" not in again.stderr  # everything was done before
