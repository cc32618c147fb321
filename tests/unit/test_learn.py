"""The loop that keeps learning: when a turn is due, what it reads, what it may cost, and whole turns on real models."""

from __future__ import annotations

import datetime
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import dpo_driver
from dpo_driver.core.config import RunConfig
from dpo_driver.core.errors import ConfigError, DataError
from dpo_driver.core.prices import Prices
from dpo_driver.core.records import Interaction, Message, Preference
from dpo_driver.flywheel.inbox import Inbox
from dpo_driver.flywheel.jobs import ENDED, Jobs
from dpo_driver.flywheel.learn.budget import BudgetSpent, Spent, check
from dpo_driver.flywheel.learn.due import due
from dpo_driver.flywheel.learn.loop import keep_learning, learn
from dpo_driver.flywheel.learn.reading import ACCESS_LOG, content_filter, read
from dpo_driver.flywheel.learn.settings import BudgetSettings, DueSettings, LearnSettings, inside, load_learn
from dpo_driver.policies.loading import save_version
from dpo_driver.preferences.interactions import pairs_of_interactions
from dpo_driver.preferences.mix import human_share, shared
from dpo_driver.registry import Registry
from dpo_driver.testing.tiny_models import tiny_model

SHORT, LONG = "Yes. Start on Monday.", "Well, there are many sides to this, so in the end it depends."


def said(name: str, question: str = "q", response: str = "r", role: str = "support", **more: Any) -> Interaction:
    values = {"id": name, "at": 1000.0, "role": role, "messages": (Message(role="user", content=question),),
              "response": response, **more}  # fmt: skip
    return Interaction.model_validate(values)


def fill(root: Path, rows: list[Interaction]) -> None:
    with Inbox(root) as inbox:
        inbox.append_many(rows)


def quiet() -> Console:
    return Console(file=io.StringIO())


# -- what came of answers, as pairs ----------------------------------------------------------------------------------


def test_a_better_answer_beats_the_one_that_was_given() -> None:
    (pair,) = pairs_of_interactions([said("1", preferred="better"), said("2", preferred="r")], "support")
    assert (pair.chosen, pair.rejected, pair.source, pair.level, pair.role) == (
        "better", "r", "human", "text", "support")  # fmt: skip
    assert pair.evidence == {"interaction": "1"}


def test_answers_to_one_question_are_compared_by_the_mean_of_what_was_said() -> None:
    rows = [
        said("1", response="a", rating=1.0), said("2", response="a", rating=0.0),  # mean .5
        said("3", response="b", rating=-0.5), said("4", response="c", success=False),  # -1, by the environment
        said("5", "another", "d", success=True),  # nothing to compare with
    ]  # fmt: skip
    pairs = {(pair.chosen, pair.rejected): pair for pair in pairs_of_interactions(rows, "support")}
    assert pairs.keys() == {("a", "b"), ("a", "c"), ("b", "c")}
    assert [pairs[key].source for key in sorted(pairs)] == ["human", "environment", "environment"]
    assert [pairs[key].margin for key in sorted(pairs)] == [0.5, 0.75, 0.25]
    assert pairs["a", "b"].evidence == {"interactions": ["1", "2", "3"]}
    assert pairs_of_interactions([said("1", response="a", rating=0.3), said("2", response="b", rating=0)], "") == []


def test_people_get_their_share_of_the_weight() -> None:
    def row(number: int, source: str) -> Preference:
        return Preference(id=str(number), messages=(), chosen="a", rejected="b", level="text", source=source)

    rows = [row(n, "human" if n < 4 else "environment") for n in range(8)]
    mixed = shared(rows, 0.8)
    assert human_share(mixed) == pytest.approx(0.8) and sum(r.weight for r in mixed) == pytest.approx(8)
    # One of a hundred: 80 % would need 396 times the weight; ten times it is, 10 of 109 parts.
    few = shared([row(n, "environment" if n else "human") for n in range(100)], 0.8)
    assert human_share(few) == pytest.approx(10 / 109)
    assert shared(rows[:4], 0.8) == rows[:4] and human_share([]) is None


# -- when, and for how much ------------------------------------------------------------------------------------------


def test_a_turn_is_due_when_there_is_enough(tmp_path: Path) -> None:
    settings = DueSettings(pairs=3)
    assert due(tmp_path, "support", settings).reason == "0 of 3 new pairs"
    fill(tmp_path, [said(str(n), f"q{n}", preferred="better") for n in range(2)])
    assert not due(tmp_path, "support", settings).due
    fill(tmp_path, [said("3", "q3", preferred="better"), said("4", "q4", preferred="better", role="other")])
    assert due(tmp_path, "support", settings).due and due(tmp_path, "support", settings).new == 3
    assert due(tmp_path, "", settings).reason == "0 of 3 new outcomes"
    # What a finished job has read is not new.
    jobs = Jobs(tmp_path)
    with jobs.running(jobs.add("support,other", "texts").id) as work:
        work.end("refused", result={"seen": {"support": 2}})
    assert due(tmp_path, "support", settings).new == 1


def test_time_makes_a_turn_due_only_where_something_is_new(tmp_path: Path) -> None:
    settings = DueSettings(pairs=100, hours=2)
    assert not due(tmp_path, "", settings, now=1e9).due
    fill(tmp_path, [said("1", role="", success=True)])
    assert not due(tmp_path, "", settings, now=1000 + 2 * 3600 - 1).due
    assert due(tmp_path, "", settings, now=1000 + 2 * 3600).due


def test_drift_is_a_fall_beyond_chance_of_the_model_that_serves(tmp_path: Path) -> None:
    settings = DueSettings(pairs=10_000)

    def outcomes(name: str, model: str, good: int, bad: int) -> list[Interaction]:
        return [said(f"{name}{n}", role="", model=model, success=n < good) for n in range(good + bad)]

    fill(tmp_path, outcomes("a", "m1", 90, 10) + outcomes("b", "m1", 80, 20))
    assert not due(tmp_path, "", settings).due  # [71, 87] % after [82, 95] %: the intervals meet
    fill(tmp_path, outcomes("c", "m1", 60, 40))
    found = due(tmp_path, "", settings)
    assert found.due and found.reason.startswith("m1 succeeds less often than before: 60% [50%, 69%] of 100, after 85%")
    fill(tmp_path, outcomes("d", "m2", 5, 14))
    assert not due(tmp_path, "", settings).due  # another model serves now, and is known by too few
    assert not due(tmp_path, "", DueSettings(pairs=10_000, drift=False)).due


@pytest.mark.parametrize(
    ("window", "hour", "minute", "may"),
    [("", 12, 0, True), ("22:00-06:00", 23, 30, True), ("22:00-06:00", 5, 59, True), ("22:00-06:00", 6, 0, False),
     ("09:00-17:30", 17, 29, True), ("09:00-17:30", 17, 30, False), ("09:00-17:30", 8, 59, False)],
)  # fmt: skip
def test_turns_begin_inside_the_window_only(window: str, hour: int, minute: int, may: bool) -> None:
    assert inside(window, datetime.datetime(2026, 11, 26, hour, minute)) is may


@pytest.mark.parametrize("text", ["22-6", "22:00", "25:00-06:00", "08:00-08:00"])
def test_a_window_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="window"):
        load_learn(None, [f"window='{text}'"])


def test_budgets() -> None:
    prices = Prices(browser_hour=0.2, training_hour=1.0, million_input_tokens=3.0, million_output_tokens=12.0)
    cost = Spent(3600, 1800, 1_500_000) + Spent(3600, 0, 0, 500_000)
    assert cost.money(prices) == pytest.approx(0.4 + 0.5 + 4.5 + 6.0)
    check(cost, BudgetSettings(browser_hours=2.1, training_hours=0.6, money=11.5, prices=prices))
    for limit in ({"browser_hours": 2.0}, {"training_hours": 0.5}, {"tokens": 2_000_000}, {"money": 11.4}):
        with pytest.raises(BudgetSpent, match=next(iter(limit))):
            check(cost, BudgetSettings.model_validate({**limit, "prices": prices}))
    table = Path(__file__).resolve().parents[2] / "configs" / "prices.example.yaml"
    assert load_learn(None, [f"budget.prices={table}"]).budget.prices.training_hour == 2.5
    with pytest.raises(ConfigError, match="no such configuration"):
        load_learn(None, ["budget.prices=none.yaml"])


def test_wrong_settings_are_explained() -> None:
    with pytest.raises(ConfigError, match="unknown key dua") as caught:
        load_learn(None, ["dua.pairs=3"])
    assert "due" in str(caught.value)
    with pytest.raises(ConfigError, match="names no function"):
        load_learn(None, ["filter=nothing"])
    with pytest.raises(ConfigError, match="cannot be loaded"):
        content_filter("no_such_module:function")
    with pytest.raises(ConfigError, match="nobody who could learn"):
        learn(LearnSettings(), None, Path("runs"), 1, quiet())


# -- reading ---------------------------------------------------------------------------------------------------------


def no_secrets(row: Interaction) -> Interaction | None:
    """A content filter: drops one row, changes another, and fails on a third."""
    if row.id == "fails":
        raise RuntimeError("cannot be checked")
    if "secret" in row.response:
        return None
    return row.model_copy(update={"response": row.response.replace("Ann", "[name]")})


def test_the_filter_stands_before_everything_and_every_reading_is_noted(tmp_path: Path) -> None:
    fill(tmp_path, [said("1", response="Hello Ann"), said("2", response="a secret"), said("fails"), said("4")])
    fill(tmp_path, [said("5", role="other")])
    keep = content_filter(f"{__name__}:no_secrets")
    found = read(tmp_path, "support", "a test", keep=keep)
    assert [row.response for row in found.rows] == ["Hello [name]", "r"]
    assert (found.upto, found.withheld) == (4, 2)
    assert read(tmp_path, "support", "again", after=4).rows == ()  # nothing was read: nothing is noted
    (note,) = [json.loads(line) for line in (tmp_path / ACCESS_LOG).read_text().splitlines()]
    assert note["purpose"] == "a test" and note["role"] == "support" and note["pid"] == os.getpid()
    assert (note["after"], note["upto"], note["read"], note["withheld"]) == (0, 4, 4, 2)
    assert (tmp_path / ACCESS_LOG).stat().st_mode & 0o077 == 0


# -- turns -----------------------------------------------------------------------------------------------------------


def toy(root: Path, **sections: Any) -> RunConfig:
    return RunConfig.model_validate({
        "project": {"name": "learner", "run_dir": root / "learner"},
        "env": {"name": "toy", "tasks": ["press", "login", "wizard"], "workers": 8},
        "collect": {"episodes_per_task": 8, "group_size": 4},
        "dpo": {"learning_rate": 5e-4, "max_steps": 2, "per_device_train_batch_size": 4, "replay_coefficient": 1.0},
        "evaluate": {"episodes_per_task": 4, "choose_per_task": 2}, "tracking": {"mlflow": False}, **sections,
    })  # fmt: skip


SETTINGS = LearnSettings(start="base", gate_per_task=4, final_per_task=4)


def test_turns_go_on_from_the_champion_and_nothing_is_done_twice(tmp_path: Path) -> None:
    asked = toy(tmp_path)
    first = learn(SETTINGS, asked, tmp_path, 1, quiet())
    (turn,) = first["turns"]
    jobs = Jobs(tmp_path)
    (job,) = jobs.list()
    assert job.state == ("done" if turn["decision"]["promoted"] else "refused") and job.result["pairs"] == turn["pairs"]
    assert turn["before"]["n"] == turn["after"]["n"] == 12 and turn["cost"]["tokens"] > 0
    assert any("under 500" in warning for warning in turn["warnings"])
    assert "round 1: collect" in jobs.log(job.id)[0] and "turn 1: gate" in jobs.log(job.id)[0]
    # A person's verdict on an episode elsewhere joins the next turn.
    known = first["turns"][0]["champion"]
    from dpo_driver.core.store import RunStore

    with RunStore(asked.run_dir) as store:
        played = store.trajectories("collect/1")[0]
    fill(tmp_path, [Interaction(id="live", at=1.0, trajectory=played.model_copy(update={"id": "live/1"}), success=True),
                    Interaction(id="foreign", at=1.0, success=True, trajectory=played.model_copy(
                        update={"id": "live/2", "context_policy": "another"}))])  # fmt: skip
    both = learn(SETTINGS, asked, tmp_path, 2, quiet())
    assert both["turns"][0] == turn and both["turns"][1]["parent"] == known
    assert both["turns"][1]["from_inbox"] == 1 and both["turns"][1]["seen"] == {"": 2}
    rows = both["success"]["by_turn"]
    assert [row["turn"] for row in rows] == [0, 1, 2] and all(row["strict"]["n"] == 12 for row in rows)
    assert Registry(tmp_path).aliases()["learner@champion"] == both["turns"][1]["champion"]
    # No held-out seed judges twice.
    with RunStore(asked.run_dir) as store:
        seeds = {stage: {t.task.seed for t in store.iterate(stage)} for stage in store.trajectory_stages()}
    judged = [seeds[stage] for stage in ("gate/1/base", f"gate/2/{known.partition('/')[2]}", "final/base")]
    assert sum(map(len, judged)) == len(set.union(*judged)) == 12 and len(jobs.list()) == 2
    # Where a person has made another model champion, the next turn begins with that.
    other = "learner/dpo-1" if both["turns"][1]["champion"] == "learner/base" else "learner/base"
    Registry(tmp_path).set_alias("champion", other)
    third = learn(SETTINGS, asked, tmp_path, 3, quiet())
    assert third["turns"][:2] == both["turns"] and third["turns"][2]["parent"] == other


@pytest.mark.slow
def test_a_budget_stops_before_the_next_phase_and_a_larger_one_goes_on(tmp_path: Path) -> None:
    tight = SETTINGS.model_copy(update={"budget": BudgetSettings(browser_hours=1e-7), "final_per_task": 0})
    with pytest.raises(DataError, match="browser_hours 1e-07 is spent"):
        learn(tight, toy(tmp_path), tmp_path, 1, quiet())
    (job,) = Jobs(tmp_path).list()
    assert job.state == "refused" and job.result["spent"]["browser_s"] > 0
    wide = tight.model_copy(update={"budget": BudgetSettings(browser_hours=10)})
    assert len(learn(wide, toy(tmp_path), tmp_path, 1, quiet())["turns"]) == 1


def test_roles_learn_in_one_job_from_what_was_recorded(tmp_path: Path) -> None:
    base = tmp_path / "base"
    save_version(*tiny_model("qwen3"), base)
    rows = []
    for role, count in (("support", 30), ("sales", 20)):
        rows += [said(f"{role}{n}", f"Question {n}?", LONG, role, preferred=SHORT) for n in range(count)]
        rows += [said(f"{role}-{n}-{answer[:3]}", f"Rated {n}?", answer, role, success=answer == SHORT)
                 for n in range(5) for answer in (SHORT, LONG)]  # fmt: skip
    fill(tmp_path, rows)
    options = (f"model.name={base}", "dpo.learning_rate=1e-2", "tracking.mlflow=false")
    settings = LearnSettings.model_validate({
        "roles": {role: {"overrides": options} for role in ("support", "sales", "idle")}, "due": {"pairs": 25}
    })  # fmt: skip
    told: list[dict[str, Any]] = []
    keep_learning(settings, None, tmp_path, quiet(), once=True, told=told.append)
    ((found,), (job,)) = told, Jobs(tmp_path).list()
    assert job.role == "sales,support" and job.state == "done"
    assert found["due"]["idle"] == "0 of 25 new pairs" and found["roles"].keys() == {"support", "sales"}
    support = found["roles"]["support"]
    assert sum(support["rows"].values()) == 35 and support["human_share"] == pytest.approx(0.8)
    assert support["held_out"]["ranked"]["after"]["success"] > 0.9 and support["decision"]["promoted"]
    assert {"support@champion", "sales@champion"} <= Registry(tmp_path).aliases().keys()
    # Rows that nothing can be learned from are used up as well, and ask for no second job.
    fill(tmp_path, [said(f"idle{n}", "One question?", LONG, "idle", preferred=f"{SHORT} {n}") for n in range(25)])
    keep_learning(settings, None, tmp_path, quiet(), once=True, told=told.append)
    assert "none can be held out" in told[1]["roles"]["idle"]["error"] and len(Jobs(tmp_path).list()) == 2
    keep_learning(settings, None, tmp_path, quiet(), once=True, told=told.append)
    assert "roles" not in told[2] and told[2]["due"]["idle"] == "0 of 25 new pairs" and len(Jobs(tmp_path).list()) == 2
    told.pop(1)
    assert "roles" not in told[1] and told[1]["due"]["support"] == "0 of 25 new pairs"
    status = dpo_driver.get_dpo_status("support", root=tmp_path)
    assert status["champion"] == "support/dpo-1" and status["last"]["id"] == job.id and not status["due"]


def test_training_from_python_goes_on_in_the_background(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    root, base = tmp_path / "runs", tmp_path / "base"
    save_version(*tiny_model("qwen3"), base)
    for number in range(24):
        name = dpo_driver.record_episode(role="support", messages=[{"role": "user", "content": f"Question {number}?"}],
                                         response=LONG, root=root)  # fmt: skip
        dpo_driver.record_feedback(name, rating=-0.5, preferred=SHORT, root=root)
    assert not dpo_driver.should_run_dpo_training("support", root=root)
    assert dpo_driver.should_run_dpo_training("support", least_pairs=24, root=root)
    data = dpo_driver.get_preference_data_path("support", root=root)
    assert data == root / "preferences" / "support.jsonl" and len(data.read_text().splitlines()) == 24
    job = dpo_driver.train_dpo_adapter("support", base, data, root / "support", root=root,
                                       overrides=("dpo.learning_rate=1e-2", "tracking.mlflow=false"))  # fmt: skip
    deadline = time.monotonic() + 100
    while (status := dpo_driver.get_training_status(job, root=root))["state"] not in ENDED:
        assert time.monotonic() < deadline, Jobs(root).log(job)[0]
        time.sleep(0.2)
    assert status["state"] == "done", Jobs(root).log(job)[0]
    assert status["result"]["held_out"]["ranked"]["after"]["success"] > 0.9
    assert not dpo_driver.should_run_dpo_training("support", least_pairs=1, root=root)  # nothing is new
    assert (root / "support" / "models" / "dpo-1" / "manifest.json").is_file()
    with pytest.raises(DataError, match="there is no such data"):
        dpo_driver.train_dpo_adapter("support", base, tmp_path / "none.jsonl", root / "support", root=root)
    with pytest.raises(ConfigError, match="is no name for a role"):
        dpo_driver.train_dpo_adapter("a,b", base, data, root / "support", root=root)
    with pytest.raises(DataError, match="nothing can be learned for the role 'none'"):
        dpo_driver.get_preference_data_path("none", root=root)


@pytest.mark.slow
def test_kill_9_and_the_same_command_goes_on(tmp_path: Path) -> None:
    file = tmp_path / "agent.yaml"
    file.write_text(toy(tmp_path / "runs", collect={"episodes_per_task": 40, "group_size": 4}).resolved_yaml())
    settings = tmp_path / "learn.yaml"
    settings.write_text(f"agent: {file}\nstart: base\ngate_per_task: 4\nfinal_per_task: 2\n")
    command = [sys.executable, "-m", "dpo_driver", "learn", str(settings), "--turns", "1", "--json"]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    jobs = Jobs(tmp_path / "runs")
    deadline = time.monotonic() + 90
    while not any("dpo" in job.phase for job in jobs.list()):
        assert time.monotonic() < deadline and process.poll() is None, process.communicate()
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    (killed,) = jobs.list()
    assert killed.state == "queued"
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    (job,) = jobs.list()
    assert job.id == killed.id and job.state in ("done", "refused")
    assert "collect: done before" in jobs.log(job.id)[0]
    assert len(json.loads(done.stdout)["turns"]) == 1
