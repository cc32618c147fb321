"""Online training without a browser: what is learned from, that it is exact, and that it survives being killed.

The toy environment is real in all that matters here: seeded pages, several steps, rewards that depend on what is done.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from dpo_driver.core import plugins
from dpo_driver.core.errors import ConfigError, StoreError, TrainingError
from dpo_driver.core.protocols import Policy
from dpo_driver.core.records import StopReason, Trajectory
from dpo_driver.core.schema_training import CurriculumConfig, GrpoConfig
from dpo_driver.flywheel.stage import LiveStage
from dpo_driver.policies.loading import load_model, load_tokenizer, weights_hash
from dpo_driver.rollout.kept import LiveRollouts
from dpo_driver.training import checkpoint as disk
from dpo_driver.training.curriculum import Curriculum, Draw
from dpo_driver.training.experience import as_tokens, reward_of
from dpo_driver.training.journal import Journal
from dpo_driver.training.online import OnlineResult, train_online
from dpo_driver.training.stream import Generation, Producer

FAMILIES = ("press", "login", "wizard")


def settings(**changes: Any) -> GrpoConfig:
    values: dict[str, Any] = {
        "episodes": 48, "groups_per_step": 3, "num_generations": 4, "temperature": 1.0, "learning_rate": 1e-4,
        "eval_steps": 100, "save_steps": 100, "max_completion_length": 40, "max_refills": 1, "warmup_ratio": 0.0,
    }  # fmt: skip
    return GrpoConfig(**(values | changes))


@contextmanager
def toy_stage(config: GrpoConfig, *, val: int = 2, workers: int = 4) -> Iterator[LiveStage]:
    make_task = plugins.load("make_task", "toy")
    with LiveRollouts(plugins.load("environments", "toy"), workers) as live:
        val_tasks = [make_task(name, 100_000 + i, "val") for name in FAMILIES for i in range(val)]
        yield LiveStage(live, lambda family, number: make_task(family, 10_000 + number, "train"), val_tasks, config,
                        profile="pocket", seed=0, max_batch=16)  # fmt: skip


def fit(folder: Path, *, kill_at: int = -1, val: int = 2, **changes: Any) -> tuple[OnlineResult, Any]:
    """Train the pocket model on the toy; with ``kill_at`` the process dies when that update is logged."""
    config = settings(**changes)
    model, tokenizer = load_model("pocket", trainable="full"), load_tokenizer("pocket")
    limits = {name: plugins.load("make_task", "toy")(name, 0).max_steps for name in FAMILIES}

    def log(step: int, metrics: dict[str, float]) -> None:
        if step == kill_at and "loss" in metrics:
            os.kill(os.getpid(), signal.SIGKILL)

    with toy_stage(config, val=val) as stage:
        curriculum = Curriculum(limits, config.curriculum, 0)
        return train_online(model, tokenizer, stage, curriculum, config, folder, on_log=log), model


# --- what it learns from --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampling", [{"temperature": 0.7}, {"temperature": 1.3, "top_p": 0.8}])
def test_the_first_updates_ratios_are_1(tmp_path: Path, sampling: dict[str, float]) -> None:
    """Temperature and nucleus are applied again in training: the probabilities are those that were sampled from."""
    result, _ = fit(tmp_path, episodes=600, max_steps=1, **sampling)
    first = next(row for row in result.history if "loss" in row)
    assert first["ratio/off"] < 1e-4
    assert first["kl"] == pytest.approx(0.0, abs=1e-6)
    assert first["clip_ratio"] == 0.0
    assert first["entropy"] > 0.01
    assert first["sharing_ratio"] > 1.5  # siblings begin with the same prompt


def test_another_temperature_in_training_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The self-check fires where the records say another temperature than the one that was used."""
    config = settings(episodes=600, max_steps=1)
    model, tokenizer = load_model("pocket", trainable="full"), load_tokenizer("pocket")

    class Lying:
        def __init__(self, stage: LiveStage) -> None:
            self.validate, self._stage = stage.validate, stage

        def roll_out(self, policy: Policy, draws: Sequence[Draw], siblings: int, name: str) -> list[Trajectory]:
            return [_said(t, 0.5) for t in self._stage.roll_out(policy, draws, siblings, name)]

    limits = dict.fromkeys(FAMILIES, 6)
    with toy_stage(config) as stage, pytest.raises(TrainingError, match="probability ratios"):
        train_online(model, tokenizer, Lying(stage), Curriculum(limits, config.curriculum, 0), config, tmp_path)


def _said(trajectory: Trajectory, temperature: float) -> Trajectory:
    def changed(step: Any) -> Any:
        sampling = step.generation.sampling.model_copy(update={"temperature": temperature})
        return step.model_copy(update={"generation": step.generation.model_copy(update={"sampling": sampling})})

    return trajectory.model_copy(update={"steps": tuple(map(changed, trajectory.steps))})


class Script:
    """A stage whose rollouts end as it is told: for each call a list of outcomes, None for a failure of the world."""

    def __init__(self, *calls: Sequence[bool | None]) -> None:
        self.calls, self.names = list(calls), []

    def roll_out(self, policy: Any, draws: Sequence[Draw], siblings: int, name: str) -> list[Trajectory]:
        outcomes = self.calls.pop(0)
        assert len(outcomes) == len(draws) * siblings
        self.names.append(name)
        make_task = plugins.load("make_task", "toy")
        return [
            Trajectory(
                id=f"{name}/{i}", task=make_task(draws[i // siblings].family, draws[i // siblings].number), agent="a",
                stop_reason=StopReason.PAGE_HUNG if good is None else StopReason.SUCCESS if good else StopReason.WRONG,
                success=good, reward=None if good is None else float(good), failure="hung" if good is None else None,
            )
            for i, good in enumerate(outcomes)
        ]  # fmt: skip

    def validate(self, policy: Any) -> dict[str, float]:
        return {"success": 0.0}


def produce(*calls: Sequence[bool | None], **changes: Any) -> tuple[Generation, Script]:
    config = settings(groups_per_step=2, num_generations=2, **changes)
    stage = Script(*calls)
    curriculum = Curriculum({"press": 3}, config.curriculum, 0)
    return Producer(stage, curriculum, config).make(1, 7, None), stage  # type: ignore[arg-type]


def test_groups_whose_siblings_agree_are_refilled() -> None:
    made, stage = produce([True, False, True, True], [False, False], [False, True], max_refills=2)
    assert [[t.success for t in group] for group in made.groups] == [[True, False], [False, True]]
    assert stage.names == ["grpo/1.0", "grpo/1.1", "grpo/1.2"]
    assert made.version == 7
    assert made.episodes == 8
    wanted = {"groups": 4, "groups/same": 2, "refills": 2, "excluded": 0, "reward": 0.5}
    assert {name: made.metrics[name] for name in wanted} == wanted


def test_refills_have_an_end() -> None:
    made, _ = produce([True, True, False, False], [True, True, True, True], max_refills=1)
    assert made.groups == []
    assert made.metrics["groups/same"] == 4


def test_failures_are_no_reward_and_their_places_are_filled() -> None:
    made, stage = produce([True, None, None, None], [False, True, True, None], max_refills=0)
    # Both groups lack siblings: two are asked for again, of each what is needed and sound.
    assert stage.names == ["grpo/1.0", "grpo/1.0/again"]
    assert [[t.success for t in group] for group in made.groups] == [[True, False]]
    assert made.metrics["excluded"] == 4
    assert made.metrics["reward"] == pytest.approx(2 / 3)  # of the three that were measured


def test_rewards_by_kind_and_returns_by_hand(tmp_path: Path) -> None:
    config = settings()
    with toy_stage(config) as stage:
        from dpo_driver.policies.hf import HFPolicy

        policy = HFPolicy("pocket")
        found = stage.roll_out(policy, [Draw("wizard", 0), Draw("login", 1)], 4, "x")
    assert len(found) == 8
    assert len({t.start_hash for t in found[:4]}) == 1
    for trajectory in found:
        reward = trajectory.reward or 0.0
        assert reward_of(trajectory, "strict") == float(bool(trajectory.success))
        assert reward_of(trajectory, "positive") == float(reward > 0)
        assert reward_of(trajectory, "dense") == reward
        rollout = as_tokens(trajectory, load_tokenizer("pocket"), reward="strict", gamma=0.5)
        last, count = float(bool(trajectory.success)), len(rollout.decisions)
        assert rollout.returns == pytest.approx([last * 0.5 ** (count - 1 - i) for i in range(count)])
        assert [d.logps for d in rollout.decisions] == [s.generation.logprobs for s in trajectory.steps if s.generation]


def test_settings_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"top_p.*max_staleness"):
        fit(tmp_path, top_p=0.9, max_staleness=2)


# --- the curriculum -------------------------------------------------------------------------------------------------


def test_the_horizon_opens_by_success() -> None:
    config = CurriculumConfig(start_steps=5, open_by=2, threshold=0.6, window=4)
    curriculum = Curriculum({"short": 3, "middle": 6, "long": 9}, config, 0)
    assert curriculum.open == ["short"]
    assert not curriculum.record("short", [1, 1, 1])  # the window is not full
    assert not curriculum.record("short", [0, 0])  # 1, 1, 0, 0
    assert curriculum.record("short", [1, 1, 1])  # 0, 1, 1, 1
    assert (curriculum.horizon, curriculum.open) == (7, ["short", "middle"])
    assert not curriculum.record("middle", [1, 1, 1])  # of the new horizon only three are known
    assert curriculum.record("middle", [1])
    assert (curriculum.horizon, curriculum.open) == (9, ["short", "middle", "long"])
    assert not curriculum.record("long", [1] * 8)  # nothing left to open


def test_families_where_siblings_differ_are_drawn_more_often() -> None:
    known = {"never": 0.0, "always": 1.0, "even": 0.5}
    curriculum = Curriculum(dict.fromkeys(known, 3), CurriculumConfig(), 0, known)
    draws = curriculum.draw(1200)
    counts = {name: sum(draw.family == name for draw in draws) for name in known}
    # Weights .1, .1 and 1: 1,000 of 1,200 are expected, with a standard deviation of 13.
    assert 935 < counts["even"] < 1065
    assert counts["never"] > 60 and counts["always"] > 60
    assert len(set(draws)) == len(draws)  # no start state twice


def test_a_curriculum_goes_on_where_it_was() -> None:
    config = CurriculumConfig(start_steps=3, open_by=3, threshold=0.5, window=4)
    one, other = (Curriculum({"a": 3, "b": 6}, config, 0) for _ in range(2))
    one.draw(3)
    one.record("a", [1, 0, 1])
    other.restore(one.state())
    assert other.draw(5) == one.draw(5)
    assert other.record("a", [1]) == one.record("a", [1])
    assert other.state() == one.state()


# --- the journal ----------------------------------------------------------------------------------------------------


def test_the_journal_keeps_entries_whole(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    made, _ = produce([True, False, True, False])
    size = journal.write(1, made.as_json())
    assert size < len(str(made.as_json())) / 3
    assert Generation.from_json(journal.read(1)) == made
    assert journal.last() == 1
    journal.write(3, {})
    assert journal.last() == 1  # 2 is missing, so 3 cannot be used
    (tmp_path / "rollouts-000002.json.new").write_bytes(b"killed while writing")
    assert journal.last() == 1
    journal.drop_after(1)
    assert not journal.path(3).exists()
    journal.path(1).write_bytes(journal.path(1).read_bytes()[:-9])
    with pytest.raises(StoreError, match="cannot be read"):
        journal.read(1)


def test_rollouts_of_another_run_are_not_learned_from(tmp_path: Path) -> None:
    """Killed before its first checkpoint, a run leaves its journal alone; another temperature must not take it up."""
    journal, own = Journal(tmp_path), {"config": {"temperature": 1.0}, "algorithm": ("Grpo", {"beta": 0.1})}
    assert not journal.belongs_to(own)
    journal.sign(own)
    assert journal.belongs_to(own)
    assert not journal.belongs_to({**own, "config": {"temperature": 0.5}})


def test_a_journal_without_a_checkpoint_serves_its_own_run_only(tmp_path: Path) -> None:
    assert _child(tmp_path, 2) == -signal.SIGKILL
    assert disk.newest(tmp_path)[0] is None
    fit(tmp_path, episodes=600, max_steps=1, temperature=0.5)
    groups = Journal(tmp_path / "journal").read(1)["groups"]
    sampled = {step["generation"]["sampling"]["temperature"] for group in groups for t in group for step in t["steps"]}
    assert sampled <= {0.5}


# --- resume ---------------------------------------------------------------------------------------------------------

_CHILD = """
import sys, torch
torch.set_num_threads(1)
sys.path.insert(0, {tests!r})
from pathlib import Path
from test_online import EXACT, fit
fit(Path(sys.argv[1]), kill_at=int(sys.argv[2]), **EXACT)
"""
# Two updates of each generation batch, two rounds through it: a checkpoint every three updates lies inside a buffer.
EXACT = {"episodes": 48, "save_steps": 3, "steps_per_generation": 2, "num_iterations": 2, "eval_steps": 5}


def _child(folder: Path, kill_at: int) -> int:
    code = _CHILD.format(tests=str(Path(__file__).parent))
    return subprocess.run([sys.executable, "-c", code, str(folder), str(kill_at)], timeout=110).returncode


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_kill_9_and_resume_is_bit_equal(tmp_path: Path) -> None:
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    assert _child(straight, -1) == 0
    assert _child(killed, 2) == -signal.SIGKILL  # before the first checkpoint: the journal alone is left
    assert disk.newest(killed)[0] is None
    assert Journal(killed / "journal").last() >= 1
    assert _child(killed, 8) == -signal.SIGKILL
    assert disk.newest(killed)[0] == killed / "checkpoint-6"  # inside a generation batch of four updates
    assert _child(killed, -1) == 0
    a, b = disk.newest(straight)[0], disk.newest(killed)[0]
    assert a is not None and b is not None and a.name == b.name
    for name in ("weights.safetensors", "optimizer.safetensors", "optimizer.json"):
        assert (a / name).read_bytes() == (b / name).read_bytes(), name
    histories = [disk.read_json(folder / "state.json")["history"] for folder in (a, b)]
    losses = [[row["loss"] for row in history if "loss" in row] for history in histories]
    assert losses[0] == losses[1]
    assert len(losses[0]) >= 8  # two batches at least


def test_a_finished_run_is_not_run_again_and_another_is_refused(tmp_path: Path) -> None:
    first, model = fit(tmp_path, episodes=72)
    again, same = fit(tmp_path, episodes=72)
    assert first.steps > 0
    assert (again.stop_reason, again.steps) == (first.stop_reason, first.steps)
    assert weights_hash(same) == weights_hash(model)
    with pytest.raises(TrainingError, match="another config"):
        fit(tmp_path, episodes=72, temperature=0.5)


def test_rollouts_ahead_of_updates_stay_within_their_bound(tmp_path: Path) -> None:
    result, _ = fit(tmp_path, episodes=96, max_staleness=2)
    staleness = [row["staleness"] for row in result.history if "loss" in row]
    assert result.stop_reason == "finished"
    assert max(staleness) >= 1  # they did overlap
    assert max(staleness) <= 2
    assert all(torch.isfinite(torch.tensor(row["loss"])) for row in result.history if "loss" in row)
