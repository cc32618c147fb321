"""What the dashboard adds up: costs, labels, feedback, jobs, models, pictures. Derived by hand."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from dashboard_server import episode
from dpo_driver.core.errors import ConfigError, DataError
from dpo_driver.core.prices import Prices, load_prices
from dpo_driver.core.records import Decision, Interaction, Message, PairedDifference, Usage
from dpo_driver.core.store import RunStore
from dpo_driver.dashboard import jobs
from dpo_driver.dashboard.labels import Feedback, Labels, logs
from dpo_driver.dashboard.ledger import Ledger, Spent, cost, gpu_seconds, money
from dpo_driver.dashboard.models import Models
from dpo_driver.dashboard.pictures import picture
from dpo_driver.dashboard.reader import Reader
from dpo_driver.flywheel.inbox import FILE, Inbox
from dpo_driver.flywheel.jobs import Jobs
from dpo_driver.preferences.log import LOG, PreferenceLog
from dpo_driver.registry import Registry
from registry_folders import put

ROOT = Path(__file__).resolve().parents[2]
PRICES = Prices(currency="CHF", browser_hour=3.6, training_hour=7.2, million_input_tokens=2, million_output_tokens=10)


# -- costs -------------------------------------------------------------------------------------------------------------


def test_an_episodes_cost_comes_from_its_record_alone() -> None:
    own = episode("s", "login", 1, tokens=((100, 5), (120, 7)))
    assert cost(own.model_dump(mode="json")) == Spent(1, 220, 12, 0.5, 1.0, 0.0)
    usage = Usage(input_tokens=812, output_tokens=31, cost=0.25)
    remote = episode("s", "login", 1, tokens=((100, 5), (120, 7)), usage=usage)
    assert cost(remote.model_dump(mode="json")) == Spent(1, 932, 38, 0.5, 1.0, 0.25)
    assert cost({"steps": [{"generation": None, "timing": None}]}) == Spent(1)


def test_money_is_hours_and_tokens_by_the_users_prices() -> None:
    spent = Spent(input_tokens=500_000, output_tokens=20_000, browser_s=1000.0)
    # 1000 s at 3.6 an hour is 1; 500 s at 7.2 is 1; half a million at 2 is 1; 0.02 million at 10 is 0.2.
    assert money(spent, 500.0, PRICES) == pytest.approx(3.2)
    assert money(spent, 500.0, Prices()) == 0


def test_the_ledger_goes_on_where_it_stood(tmp_path: Path) -> None:
    ticks = iter(range(1000))
    ledger = Ledger(PRICES, clock=lambda: float(next(ticks)))
    with RunStore(tmp_path / "run") as store:
        for stage, seconds in (("sft", 500.0), ("collect/1", 30.0), ("held_out/1", 2.0)):
            store.begin_stage(stage)
            store.finish_stage(stage, seconds)
        rows = [episode("collect/1", "login", seed, tokens=((10, 2),)) for seed in range(120)]
        store.add_trajectories("collect/1", rows)
        reader = Reader(tmp_path / "run" / "run.db")
        first = ledger.of("run", reader, work_s=0.5)  # the clock moves a second at every look: one batch of 50
        assert (first["counted"], first["episodes"], first["total"]["input_tokens"]) == (50, 120, 500)
        assert ledger.of("run", reader, work_s=0.0)["counted"] == 50
        whole = ledger.of("run", reader, work_s=100.0)
        assert whole["counted"] == 120 and whole["error"] == ""
        assert whole["total"] == {"episodes": 120, "input_tokens": 1200, "output_tokens": 240, "browser_s": 30.0,
                                  "policy_s": 60.0, "billed": 0.0}  # fmt: skip
        assert (whole["training_s"], whole["stages_s"], whole["device"]) == (502.0, 532.0, "")
        # 30 s at 3.6 and 502 s at 7.2 an hour, 1200 tokens at 2 and 240 at 10 a million.
        assert whole["money"] == pytest.approx(0.03 + 1.004 + 0.0024 + 0.0024)
        assert [(one["stage"], one["episodes"], one["training"]) for one in whole["stages"]] == [
            ("sft", 0, True), ("collect/1", 120, False), ("held_out/1", 0, True),
        ]  # fmt: skip
        # An episode that was rolled out again replaces what it was.
        store.add_trajectory("collect/1", episode("collect/1", "login", 3, tokens=((1000, 9), (1000, 9))))
        again = ledger.of("run", reader, work_s=100.0)
    assert (again["counted"], again["total"]["input_tokens"]) == (120, 1200 - 10 + 2000)


def test_seconds_on_a_gpu_are_what_the_trainings_noted() -> None:
    noted = [("sft", 10.0, '{"device": "cuda"}'), ("collect/1", 5.0, '{"n": 3}'), ("dpo/1", 20.0, '{"device": "cuda"}'),
             ("control/1", 4.0, '{"device": "cpu"}'), ("dpo/2", 7.0, "{}")]  # fmt: skip
    assert gpu_seconds(noted) == 30.0  # the last one has not ended
    assert gpu_seconds(noted[3:]) == 0.0
    assert gpu_seconds([*noted, ("dpo/3", 1.0, '{"steps": 4}')]) is None  # an older version's: nobody knows


def test_what_trained_is_told_as_the_configuration_asked(tmp_path: Path) -> None:
    with RunStore(tmp_path / "run"):
        (tmp_path / "run" / "config.yaml").write_text("model:\n  device: cuda\n")
    told = Ledger().of("run", Reader(tmp_path / "run" / "run.db"))
    assert told["device"] == "cuda" and told["money"] is None


def test_the_example_of_prices_can_be_read_and_a_wrong_one_is_refused(tmp_path: Path) -> None:
    assert load_prices(ROOT / "configs" / "prices.example.yaml").browser_hour == 0.05
    wrong = tmp_path / "prices.yaml"
    wrong.write_text("browser_hours: 1\n")
    with pytest.raises(ConfigError, match="browser_hours"):
        load_prices(wrong)


# -- labels and feedback -----------------------------------------------------------------------------------------------


def label(preferred: str, rater: str = "ann") -> dict[str, object]:
    return {"comparison": "c1", "preferred": preferred, "source": "human", "rater": rater, "evidence": {}}


def test_labels_are_counted_as_they_come_without_those_taken_back(tmp_path: Path) -> None:
    labels = Labels(tmp_path / LOG)
    assert labels.page() == {"rows": [], "next": None, "kinds": {}, "raters": []}
    with PreferenceLog(tmp_path / LOG) as log:
        log.append("comparison", [{"id": "c1"}])
        log.append("label", [label("first"), label("tie"), label("second", "bob")])
        told = labels.page()
        assert [(row["seq"], row["rater"], row["preferred"]) for row in told["rows"]] == [
            (4, "bob", "second"), (3, "ann", "tie"), (2, "ann", "first"),
        ]  # fmt: skip
        assert told["kinds"] == {"comparison": 1, "label": 3}
        log.withdraw(3, "by mistake")
        log.append("label", [label("first")])
        told = labels.page(limit=2)
    assert [(row["seq"], row["withdrawn"]) for row in told["rows"]] == [(6, False), (4, False)] and told["next"] == 4
    older = labels.page(before=told["next"])
    assert [(row["seq"], row["withdrawn"]) for row in older["rows"]] == [(3, True), (2, False)]
    ann = next(one for one in told["raters"] if one["rater"] == "ann")
    assert (ann["labels"], ann["first"], ann["tie"]) == (2, 2, 0)
    assert told["kinds"] == {"comparison": 1, "label": 4, "withdrawn": 1}


def test_logs_of_runs_and_the_roots_own_are_found(tmp_path: Path) -> None:
    PreferenceLog(tmp_path / LOG).close()
    PreferenceLog(tmp_path / "a" / LOG).close()
    (tmp_path / "b").mkdir()
    assert logs(tmp_path, ["a", "b"]) == ["", "a"]


def test_feedback_is_told_newest_first_and_nothing_is_made_for_it(tmp_path: Path) -> None:
    feedback = Feedback(tmp_path)
    assert feedback.page()["total"] == 0 and not (tmp_path / FILE).exists()
    with Inbox(tmp_path) as inbox:
        asked = (Message(role="user", content="Where is it?"),)
        for number in range(3):
            inbox.append(Interaction(id=str(number), at=1.0 + number, role="support", messages=asked, response="Soon.",
                                     rating=-1.0, preferred="In Lyon."))  # fmt: skip
        inbox.append(Interaction(id="page", at=9.0, trajectory=episode("act", "login", 1), success=True))
        told = feedback.page(limit=2)
    assert [(row["id"], row["asked"], row["steps"]) for row in told["rows"]] == [
        ("page", "Log in, 1", 1), ("2", "Where is it?", None),
    ]  # fmt: skip
    assert (told["total"], told["roles"], told["next"]) == (4, {"": 1, "support": 3}, 3)
    assert [row["id"] for row in feedback.page(before=3)["rows"]] == ["1", "0"]
    assert told["rows"][1]["better"] == "In Lyon." and told["rows"][1]["rating"] == -1.0


# -- jobs and models ---------------------------------------------------------------------------------------------------


def test_jobs_and_their_logs_as_they_grow(tmp_path: Path) -> None:
    assert jobs.jobs(tmp_path) == []
    known = Jobs(tmp_path)
    job = known.add("support", "dpo", {"data": "rows.jsonl"})
    with known.running(job.id) as work:
        work.phase("train", 0.5)
        first = jobs.one(tmp_path, job.id)
        assert (first["state"], first["phase"], first["progress"]) == ("running", "train", 0.5)
        assert first["log"].endswith("train\n") and first["request"] == {"data": "rows.jsonl"}
        work.end("done", result={"model": "support/dpo-1"})
    more = jobs.one(tmp_path, job.id, first["next"])
    assert (
        more["log"].endswith("done\n") and "train" not in more["log"] and more["result"] == {"model": "support/dpo-1"}
    )
    told = jobs.jobs(tmp_path)[0]
    assert told["seconds"] == pytest.approx(told["ended"] - told["started"])
    for name in ("nothing", "../jobs"):
        with pytest.raises(DataError):
            jobs.one(tmp_path, name)


def test_models_are_told_with_aliases_and_what_the_gate_said(tmp_path: Path) -> None:
    models = Models(tmp_path)
    assert models.list() == {"models": []} and not (tmp_path / "mlflow.db").exists()
    sft = put(tmp_path, "p/sft")
    registry = Registry(tmp_path)
    registry.set_alias("champion", "p/sft")
    put(tmp_path, "p/dpo-1", sft)
    gain = PairedDifference(mean=0.25, low=0.08, high=0.42, n=24, wins=7, losses=1, p_mcnemar=0.01)
    registry.promote(
        "p/dpo-1", Decision(promoted=True, candidate="p/dpo-1", champion="p/sft", reasons=("+25 %",), gain=gain)
    )
    told = models.list()
    assert models.list() is told  # nothing changed: nothing is asked
    (model,) = told["models"]
    assert [(one["name"], one["aliases"], one["parent_name"]) for one in model["versions"]] == [
        ("p/dpo-1", ["champion"], "p/sft"), ("p/sft", ["previous"], ""),
    ]  # fmt: skip
    assert model["versions"][0]["decision"]["reasons"] == ["+25 %"]
    assert model["versions"][0]["path"] == "p/models/dpo-1"
    assert [move["kind"] for move in model["history"]] == ["promote", "set"]
    put(tmp_path, "q/sft")
    assert [one["name"] for one in models.list()["models"]] == ["p", "q"]


# -- pictures ----------------------------------------------------------------------------------------------------------


def test_pictures_are_given_whole_or_small_and_nothing_else_is(tmp_path: Path) -> None:
    out = io.BytesIO()
    Image.new("RGB", (800, 600), "teal").save(out, "PNG")
    with RunStore(tmp_path / "run") as store:
        sha, text = store.put_blob(out.getvalue()), store.put_blob(b"<svg onload=alert(1)>")
    folder = tmp_path / "run"
    assert picture(folder, sha) == (out.getvalue(), "image/png")
    small, kind = picture(folder, sha, 320)
    assert kind == "image/webp" and Image.open(io.BytesIO(small)).size == (320, 240)
    for wrong in (text, "0" * 64, "../../run.db", ""):
        with pytest.raises(DataError, match="no such picture"):
            picture(folder, wrong)
    with pytest.raises(DataError):
        picture(folder, sha, 317)


# -- the command -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere"], "no such folder of runs"),
        ([".", "--host", "0.0.0.0"], "there is no password"),
        ([".", "--password"], "there is no password"),
        ([".", "--prices", "none.yaml"], "no such configuration"),
    ],
)
def test_what_cannot_be_served_is_refused(tmp_path: Path, arguments: list[str], said: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "DPO_DRIVER_DASHBOARD_PASSWORD"}
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "dpo_driver", "dashboard", *arguments, "--no-open"], cwd=tmp_path, env=environment,
        capture_output=True, text=True, timeout=100, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr, time.monotonic() - began
