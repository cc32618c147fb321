"""What the dashboard lists: runs, episodes, arrivals, failures, curves and pairs, read beside a writer. By hand."""

from __future__ import annotations

import hashlib
import json
import math
import os
from pathlib import Path

import pytest

from dashboard_server import episode
from dpo_driver.core.errors import DataError, StoreError
from dpo_driver.core.records import EvalReport, Message, Preference, Rate, StopReason
from dpo_driver.core.store import RunStore
from dpo_driver.core.vault import VARIABLE, VaultError
from dpo_driver.dashboard import curves, episodes, pairs
from dpo_driver.dashboard.arrivals import Arrivals
from dpo_driver.dashboard.failures import MEANING, failures
from dpo_driver.dashboard.reader import Reader
from dpo_driver.dashboard.runs import Runs, is_written


def reader(folder: Path) -> Reader:
    return Reader(folder / "run.db")


# -- the file ----------------------------------------------------------------------------------------------------------


def test_reading_neither_writes_nor_keeps_the_writer_out(tmp_path: Path) -> None:
    with RunStore(tmp_path / "run") as store:
        store.add_trajectory("collect/1", episode("collect/1", "login", 1))
    path = tmp_path / "run" / "run.db"
    before = hashlib.sha256(path.read_bytes()).hexdigest()
    found = Reader(path)
    assert found.rows("SELECT count(*) FROM trajectories") == [(1,)]
    with pytest.raises(StoreError, match="readonly"):
        found.rows("DELETE FROM trajectories")
    assert hashlib.sha256(path.read_bytes()).hexdigest() == before
    with RunStore(tmp_path / "run") as store:  # takes the lock and commits while the reader is open
        store.add_trajectory("collect/1", episode("collect/1", "login", 2))
        assert found.rows("SELECT count(*) FROM trajectories") == [(2,)]


def test_what_was_worked_out_is_kept_until_somebody_commits(tmp_path: Path) -> None:
    with RunStore(tmp_path / "run") as store:
        found, calls = reader(tmp_path / "run"), []

        def work() -> int:
            calls.append(1)
            return len(calls)

        assert [found.kept("x", work) for _ in range(3)] == [1, 1, 1]
        store.log_metric("sft", 1, {"loss": 1.0})
        assert [found.kept("x", work) for _ in range(2)] == [2, 2]


def test_a_run_that_was_deleted_and_begun_again_is_read_anew(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with RunStore(folder) as store:
        store.log_metric("sft", 1, {"loss": 1.0})
    found = reader(folder)
    assert curves.stages(found) == ["sft"]
    for path in folder.glob("run.db*"):
        path.unlink()
    with pytest.raises(StoreError):
        curves.stages(found)
    with RunStore(folder) as store:
        store.log_metric("dpo/1", 1, {"loss": 1.0})
    assert curves.stages(found) == ["dpo/1"]


# -- runs --------------------------------------------------------------------------------------------------------------


def test_runs_are_found_and_told_how_far_they_are(tmp_path: Path) -> None:
    for name in ("pocket", "sweeps/beta=0.1,seed=1", "pocket2/models/hidden", ".trash/old"):
        RunStore(tmp_path / name).close()
    with RunStore(tmp_path / "pocket") as store:
        assert is_written(tmp_path / "pocket")
        store.add_trajectory("collect/1", episode("collect/1", "login", 1))
        store.begin_stage("sft")
        store.finish_stage("sft", 7.5, {"summary": "6 steps"})
        report = EvalReport(agent="dpo", policy_version="0", split="test", seeds=(1, 4), positive=_rate(3), tasks={},
                            strict=_rate(2))  # fmt: skip
        store.set_fact("eval/dpo", report.model_dump(mode="json"))
        store.begin_stage("evaluate/test/dpo")
        store.finish_stage("evaluate/test/dpo", 1.0, {"report": report.model_dump(mode="json")})
        store.begin_stage("promote")
        runs = Runs(tmp_path)
        assert runs.ids() == ["pocket", "sweeps/beta=0.1,seed=1"]
        told = runs.summary("pocket")
        assert told["state"] == "running" and told["episodes"] == 1 and told["by_stage"] == {"collect/1": 1}
        assert [(one["name"], one["state"]) for one in told["stages"]] == [
            ("sft", "done"), ("evaluate/test/dpo", "done"), ("promote", "running"),
        ]  # fmt: skip
        assert told["stages"][0]["seconds"] == 7.5 and told["stages"][0]["summary"] == "6 steps"
        # The same measurement is a stage and a fact; it is told once.
        assert [(one["agent"], one["success"], one["n"]) for one in told["evaluations"]] == [("dpo", 0.5, 4)]
    assert not is_written(tmp_path / "pocket")
    assert runs.summary("pocket")["state"] == "stopped"
    assert runs.summary("sweeps/beta=0.1,seed=1")["state"] == "empty"
    with RunStore(tmp_path / "pocket") as store:
        store.finish_stage("promote", 0.1)
    assert runs.summary("pocket")["state"] == "done"
    with pytest.raises(DataError, match="no run"):
        runs.folder("../pocket")


def _rate(won: int) -> Rate:
    return Rate(success=won / 4, low=0.1, high=0.9, n=4)


def test_one_runs_folder_is_a_root_of_its_own(tmp_path: Path) -> None:
    for name in ("a", "b"):
        RunStore(tmp_path / name).close()
    runs = Runs(tmp_path / "a")
    assert runs.ids() == ["a"] and runs.root == tmp_path.resolve()


def test_a_damaged_run_does_not_hide_the_others(tmp_path: Path) -> None:
    RunStore(tmp_path / "good").close()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "run.db").write_bytes(b"this is no database, but long enough to be looked at" * 100)
    found = {one["id"]: one["state"] for one in Runs(tmp_path).list()}
    assert found == {"good": "empty", "bad": "unreadable"}


# -- episodes ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """Ten episodes: collect/1 has login 1 to 6 (2, 4, 6 solved, 5 lost), evaluate has 100%_sure 1 to 4, all solved."""
    with RunStore(tmp_path / "run") as store:
        outcome = {1: False, 2: True, 3: False, 4: True, 5: None, 6: True}
        store.begin_stage("evaluate")
        store.begin_stage("collect/1")
        rows = [episode("collect/1", "login", seed, success=won) for seed, won in outcome.items()]
        rows[0] = episode("collect/1", "login", 1, success=False, stop=StopReason.MAX_STEPS)
        store.add_trajectories("collect/1", rows)
        store.add_trajectories("evaluate", [episode("evaluate", "100%_sure", seed) for seed in range(1, 5)])
    return tmp_path / "run"


def test_pages_of_episodes_follow_each_other_without_gaps(many: Path) -> None:
    found, seen, after = reader(many), [], ""
    for wanted in (4, 4, 2):
        got = episodes.page(found, after=after, limit=4)
        assert len(got["rows"]) == wanted and got["total"] == 10
        seen += [(row["stage"], row["seed"]) for row in got["rows"]]
        after = got["next"]
    assert after == ""
    assert seen == [("collect/1", seed) for seed in range(1, 7)] + [("evaluate", seed) for seed in range(1, 5)]


@pytest.mark.parametrize(
    ("ask", "seeds"),
    [
        ({"stage": "collect/1"}, [1, 2, 3, 4, 5, 6]),
        ({"stage": "collect/1", "outcome": "success"}, [2, 4, 6]),
        ({"outcome": "miss"}, [1, 3]),
        ({"outcome": "failure"}, [5]),
        ({"stop": "max_steps"}, [1]),
        ({"text": "%_s"}, [1, 2, 3, 4]),
        ({"text": "LOGIN/4"}, [4]),
        ({"text": "'; DROP TABLE trajectories; --"}, []),
    ],
)
def test_episodes_are_filtered(many: Path, ask: dict[str, str], seeds: list[int]) -> None:
    found = reader(many)
    got = episodes.page(found, **ask)  # type: ignore[arg-type]
    assert [row["seed"] for row in got["rows"]] == seeds and got["total"] == len(seeds)
    walked, after = [], ""
    for _ in range(20):
        part = episodes.page(found, **ask, after=after, limit=2)  # type: ignore[arg-type]
        walked += [row["seed"] for row in part["rows"]]
        if not (after := part["next"]):
            break
    assert walked == seeds


def test_a_page_far_down_costs_what_the_first_does(many: Path) -> None:
    query = f"SELECT {episodes.COLUMNS} FROM trajectories WHERE 1 AND (stage, task_name, seed, id) > (?,?,?,?)"
    order = "ORDER BY stage, task_name, seed, id LIMIT ?"
    plan = reader(many).rows(f"EXPLAIN QUERY PLAN {query} {order}", ("collect/1", "login", 3, "", 500))
    told = " ".join(str(row[-1]) for row in plan)
    assert "SEARCH trajectories USING INDEX trajectories_by_stage" in told and "TEMP B-TREE" not in told


def test_what_is_no_key_or_outcome_is_refused(many: Path) -> None:
    for after in ("x", "[1]", '["a","b","c","d"]', "null"):
        with pytest.raises(DataError, match="no key"):
            episodes.page(reader(many), after=after)
    with pytest.raises(DataError, match="no outcome"):
        episodes.page(reader(many), outcome="nice")


def test_stages_are_counted_in_the_order_they_began(many: Path) -> None:
    assert episodes.stages(reader(many)) == [
        {"name": "evaluate", "episodes": 4, "success": 4, "failed": 0},
        {"name": "collect/1", "episodes": 6, "success": 3, "failed": 1},
    ]


def test_an_episode_is_shown_in_full_without_its_secrets(many: Path) -> None:
    told = episodes.one(many, "collect/1/toy.login/2/0")
    assert told["goal"] == "Log in, 2" and told["success"] is True and len(told["steps"]) == 1
    step = told["steps"][0]
    assert (step["action"]["kind"], step["action"]["ref"], step["thought"]) == ("click", "3", "button Log in")
    assert (step["policy_s"], step["browser_s"]) == (0.5, 0.25)
    values = {one["name"]: one["value"] for one in step["page"]["elements"]}
    assert values["User"] == "bob" and values["Password"] == ""
    assert "hunter2" not in json.dumps(told)
    with pytest.raises(StoreError, match="no trajectory"):
        episodes.one(many, "collect/1/toy.login/99/0")


# -- arrivals ----------------------------------------------------------------------------------------------------------


def test_what_came_since_we_looked_comes_first_with_its_time(many: Path) -> None:
    now = [100.0]
    arrivals = Arrivals(reader(many), clock=lambda: now[0])
    first = arrivals.latest(3)
    # Nothing came yet: the last stage that began, from its end.
    assert [(one["seed"], one["seen"]) for one in first] == [(6, None), (5, None), (4, None)]
    with RunStore(many) as store:
        now[0] = 107.0
        store.add_trajectory("collect/1", episode("collect/1", "login", 8))
        assert [(one["seed"], one["seen"]) for one in arrivals.latest(2)] == [(8, 107.0), (6, None)]
        now[0] = 109.0
        store.add_trajectory("collect/2", episode("collect/2", "login", 7, success=None))
        told = arrivals.latest(2)
    assert [(one["seed"], one["seen"], one["stop"]) for one in told] == [
        (7, 109.0, "browser_lost"),
        (8, 107.0, "success"),
    ]
    assert told[1]["count"] == 1 and told[1]["page"]["elements"][3]["name"] == "Log in"


def test_an_episode_that_was_rolled_out_again_is_shown_as_it_is_now(many: Path) -> None:
    arrivals = Arrivals(reader(many))
    assert [one["success"] for one in arrivals.latest(2)] == [True, None]  # 6 solved, 5 lost
    with RunStore(many) as store:
        store.add_trajectory("collect/1", episode("collect/1", "login", 5, success=True))
        assert [(one["seed"], one["success"]) for one in arrivals.latest(2)] == [(6, True), (5, True)]


# -- failures ----------------------------------------------------------------------------------------------------------


def test_failures_tell_the_agents_own_from_the_worlds(many: Path) -> None:
    told = failures(reader(many))
    assert told["total"] == 10
    assert [(one["stop"], one["count"], one["ours"]) for one in told["reasons"]] == [
        ("success", 7, True), ("browser_lost", 1, False), ("max_steps", 1, True), ("wrong", 1, True),
    ]  # fmt: skip
    # login: 3 of the 5 that the world did not break; the worst first.
    assert told["tasks"][0] == {
        "task": "login", "episodes": 6, "success": 3, "failed": 1,
        "stops": {"browser_lost": 1, "max_steps": 1, "success": 3, "wrong": 1},
    }  # fmt: skip
    assert told["details"] == [{"text": "browser_lost: it is gone", "count": 1, "example": "collect/1/toy.login/5/0"}]
    assert failures(reader(many), "evaluate")["total"] == 4


def test_every_stop_reason_has_its_words() -> None:
    assert set(MEANING) == {reason.value for reason in StopReason}


# -- curves ------------------------------------------------------------------------------------------------------------


def test_curves_are_told_by_stage_in_the_order_of_the_stages(tmp_path: Path) -> None:
    with RunStore(tmp_path / "run") as store:
        for stage in ("sft", "dpo/1", "control/1"):
            store.begin_stage(stage)
        store.log_metric("dpo/1", 1, {"loss": 0.69, "rewards/margins": 0.0})
        store.log_metric("dpo/1", 2, {"loss": math.nan, "rewards/margins": math.inf})
        store.log_metric("sft", 1, {"loss": 2.5})
        found = reader(tmp_path / "run")
        assert curves.curves(found, "dpo/1") == {
            "stages": ["sft", "dpo/1"], "stage": "dpo/1", "steps": 2,
            "series": {"loss": [(1, 0.69), (2, None)], "rewards/margins": [(1, 0.0), (2, None)]},
        }  # fmt: skip
        assert curves.curves(found)["stage"] == "dpo/1"
        store.log_metric("control/1", 5, {"loss": 1.0})
        assert curves.curves(found)["series"] == {"loss": [(5, 1.0)]}
    assert curves.curves(found, "no-such-stage")["stage"] == "control/1"


def test_thinning_keeps_the_ends_and_every_spike() -> None:
    points: list[curves.Point] = [(step, 0.0) for step in range(10_000)]
    points[4321] = (4321, 9.0)
    points[7000] = (7000, -9.0)
    points[8000] = (8000, None)
    kept = curves.thin(points, 100)
    assert len(kept) <= 100 and kept[0] == (0, 0.0) and kept[-1] == (9999, 0.0)
    assert (4321, 9.0) in kept and (7000, -9.0) in kept
    assert kept == sorted(kept, key=lambda point: point[0])
    assert curves.thin(points[:100], 100) == points[:100]


# -- pairs -------------------------------------------------------------------------------------------------------------


def pair(number: int, **values: object) -> Preference:
    return Preference.model_validate(
        {"id": f"p{number}", "messages": (Message(role="user", content="Which?"),), "chosen": f"right {number}",
         "rejected": "wrong", "level": "step", "source": "environment", "task_name": "login", **values}
    )  # fmt: skip


def test_pages_of_pairs_and_one_with_its_evidence(tmp_path: Path) -> None:
    with RunStore(tmp_path / "run") as store:
        store.add_preferences(1, [pair(3), pair(1), pair(2, chosen="x" * 300)])
        store.add_preferences(2, [pair(4, evidence={"chosen": {"trajectory": "t/1", "step": 2}})])
    found, folder = reader(tmp_path / "run"), tmp_path / "run"
    first = pairs.page(found, folder, limit=2)
    assert [(row["round"], row["id"]) for row in first["rows"]] == [(1, "p3"), (1, "p1")]
    assert (first["total"], first["rounds"]) == (4, [1, 2])
    second = pairs.page(found, folder, after=first["next"], limit=2)
    assert [(row["round"], row["id"]) for row in second["rows"]] == [(1, "p2"), (2, "p4")] and second["next"] == ""
    assert len(second["rows"][0]["chosen"]) == pairs.SHORT
    assert [row["id"] for row in pairs.page(found, folder, round_number=2)["rows"]] == ["p4"]
    told = pairs.one(found, folder, 2, "p4")
    assert told["evidence"] == {"chosen": {"trajectory": "t/1", "step": 2}}
    assert told["messages"] == [{"role": "user", "content": "Which?"}]
    with pytest.raises(DataError, match="no pair"):
        pairs.one(found, folder, 1, "p4")


# -- sealed ------------------------------------------------------------------------------------------------------------


def test_a_sealed_run_is_listed_without_its_key_and_shown_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, "11" * 32)
    with RunStore(tmp_path / "run", encrypt=True) as store:
        store.add_trajectory("collect/1", episode("collect/1", "login", 1))
        store.add_preferences(1, [pair(1)])
    found, folder = reader(tmp_path / "run"), tmp_path / "run"
    assert episodes.card(folder, "collect/1/toy.login/1/0")["goal"] == "Log in, 1"
    assert pairs.page(found, folder)["rows"][0]["chosen"] == "right 1"
    monkeypatch.delenv(VARIABLE)
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keyring.backends.null.Keyring")
    assert Runs(tmp_path).summary("run")["sealed"] is True
    assert episodes.page(found)["total"] == 1
    assert Arrivals(found).latest(1)[0]["unread"]
    for ask in (lambda: episodes.one(folder, "collect/1/toy.login/1/0"), lambda: pairs.page(found, folder)):
        with pytest.raises(VaultError):
            ask()
    assert os.environ.get(VARIABLE) is None
