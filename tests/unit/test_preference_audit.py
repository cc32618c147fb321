"""The audit: a sound run passes, and every way to bend a pair, a label or the log is named by its reason."""

from __future__ import annotations

import io
import json
import shutil
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import zstandard
from rich.console import Console

from dpo_driver.agents.random import RandomAgent
from dpo_driver.core.config import RunConfig
from dpo_driver.core.records import Comparison, Label, Message, Preference, Trajectory
from dpo_driver.core.store import RunStore
from dpo_driver.flywheel.collect import make_tasks, roll_out
from dpo_driver.flywheel.context import open_run
from dpo_driver.flywheel.pair import pair
from dpo_driver.label.candidates import comparisons_of
from dpo_driver.preferences.audit import Audit, audit, doubted
from dpo_driver.preferences.evidence import Books
from dpo_driver.preferences.human import preferences_from_labels
from dpo_driver.preferences.log import LOG, Head, PreferenceLog
from dpo_driver.preferences.poison import Caught, drill
from dpo_driver.preferences.rounds import HEAD, keep

CommandLine = Callable[..., "subprocess.CompletedProcess[str]"]
FAMILIES = ("press", "login")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on toy pages, collected and paired."""
    folder = tmp_path_factory.mktemp("audit") / "run"
    config = RunConfig.model_validate(
        {
            "project": {"run_dir": folder},
            "env": {"name": "toy", "tasks": FAMILIES},
            "collect": {"episodes_per_task": 40, "group_size": 8},
            "tracking": {"mlflow": False},
            "pair": {"sources": ["step", "outcome", "trajectory", "heuristic"], "max_per_state": 20},
        }
    )
    with open_run(config, console=Console(file=io.StringIO())) as ctx:
        tasks = make_tasks(ctx, "train", dict.fromkeys(FAMILIES, 12))
        roll_out(ctx, "collect/1", "rollouts", tasks, RandomAgent(), group_size=8)
        stats = pair(ctx, 1)
    assert stats.pairs > 20 and {"step", "trajectory"} <= set(stats.by_level)
    return folder


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    """A copy to bend."""
    return Path(shutil.copytree(made, tmp_path / "run"))


def audited(folder: Path, *noted: Head) -> Audit:
    with RunStore(folder, "read") as store:
        if not (folder / LOG).is_file():
            return audit(store, None, noted=noted)
        with PreferenceLog(folder / LOG, "read") as log:
            return audit(store, log, noted=noted)


def bend(folder: Path, change: Callable[[Preference], Preference], level: str = "step") -> Preference:
    """Change one pair of the environment's in run.db, and write the log anew around it: nothing but the evidence can
    tell."""
    with RunStore(folder) as store:
        rows = store.preferences(1)
        at = next(n for n, row in enumerate(rows) if (row.source, row.level) == ("environment", level))
        rows[at] = change(rows[at])
        for file in folder.glob(f"{LOG}*"):
            file.unlink()
        keep(store, 1, rows)
        return rows[at]


def side(row: Preference, name: str, **changed: Any) -> Preference:
    return row.model_copy(update={"evidence": {**row.evidence, name: {**row.evidence[name], **changed}}})


def turned(row: Preference) -> Preference:
    """Both sides change places, with their evidence."""
    evidence = {**row.evidence, "chosen": row.evidence["rejected"], "rejected": row.evidence["chosen"]}
    return row.model_copy(update={"chosen": row.rejected, "rejected": row.chosen, "evidence": evidence})


def test_a_sound_run_passes(made: Path) -> None:
    found = audited(made)
    assert found.whole and found.problems == {} and found.doubts == {}
    with RunStore(made, "read") as store:
        rows = store.preferences()
        head = store.get_fact(HEAD.format(1))
    assert (found.pairs, found.traced, found.own_word, found.unlogged) == (len(rows), len(rows), 0, 0)
    assert found.entries == {"preference": len(rows)}
    assert found.head == (head["count"], head["hash"])
    assert {name: counts["traced"] for name, counts in found.by_source.items()} == {
        name: sum(row.source == name for row in rows) for name in {row.source for row in rows}
    }


OTHER = (Message(role="user", content="another prompt"),)
BENT: dict[str, tuple[Callable[[Preference], Preference], set[str]]] = {
    "texts swapped": (lambda row: row.model_copy(update={"chosen": row.rejected, "rejected": row.chosen}),
                      {"text_differs"}),
    "sides swapped": (turned, {"outcome_order"}),
    "a text": (lambda row: row.model_copy(update={"chosen": "action: click([9])"}), {"text_differs"}),
    "a prompt": (lambda row: row.model_copy(update={"messages": OTHER}), {"prompt_differs"}),
    "a state": (lambda row: row.model_copy(update={"state_hash": "0" * 16}), {"state_differs"}),
    "a seed": (lambda row: row.model_copy(update={"seed": 1}), {"task_differs"}),
    "a margin": (lambda row: row.model_copy(update={"margin": row.margin / 2}), {"margin_differs"}),
    "a value": (lambda row: side(row, "chosen", value=0.5, n=2), {"value_differs"}),
    "an action": (lambda row: side(row, "rejected", action="noop()"), {"action_differs"}),
    "a trajectory": (lambda row: side(row, "chosen", trajectory="collect/1/toy.press/1/99"), {"no_trajectory"}),
    "a step": (lambda row: side(row, "chosen", step=99), {"no_step"}),
    "no evidence": (lambda row: row.model_copy(update={"evidence": {}}), {"no_evidence"}),
}  # fmt: skip


@pytest.mark.parametrize(("change", "reasons"), BENT.values(), ids=BENT)
def test_a_bent_pair_is_found_by_its_evidence(
    run: Path, change: Callable[[Preference], Preference], reasons: set[str]
) -> None:
    row = bend(run, change)
    found = audited(run)
    assert set(found.problems) == reasons
    assert {one.where for one in found.findings} == {f"round 1, pair {row.id}"}
    assert {one.source for one in found.findings} == {"environment"}


def test_turns_of_whole_trajectories_are_compared(run: Path) -> None:
    bend(run, lambda row: row.model_copy(update={"chosen_more": row.rejected_more}), level="trajectory")
    assert set(audited(run).problems) <= {"text_differs"}
    bend(run, lambda row: row.model_copy(update={"rejected_more": ()}), level="trajectory")
    assert audited(run).problems["text_differs"] >= 1


def test_a_heuristic_pair_is_asked_of_its_rules_again(run: Path) -> None:
    with RunStore(run) as store:
        rows = store.preferences(1)
        named = [row for row in rows if row.source == "heuristic"]
        if not named:
            pytest.skip("no rule spoke on these pages")
        at = rows.index(named[0])
        rows[at] = turned(named[0])
        keep(store, 1, rows)
    assert set(audited(run).problems) == {"rule_order"}


def test_a_change_of_run_db_alone_is_found_by_the_log(run: Path) -> None:
    with RunStore(run) as store:
        rows = store.preferences(1)
        heavier = rows[0].model_copy(update={"weight": 50.0})  # no evidence speaks of weights
        stranger = rows[1].model_copy(update={"id": "forged"})
        store.add_preferences(1, [heavier, *rows[2:], stranger])
    found = audited(run)
    assert found.problems == {"differs_from_log": 1, "not_in_log": 1, "not_in_run": 2}


def test_a_changed_outcome_is_found_by_the_pairs_that_rest_on_it(run: Path) -> None:
    with RunStore(run) as store:
        row = next(row for row in store.preferences(1) if row.source == "environment")
        lost = store.trajectory(row.evidence["rejected"]["trajectory"])
        store.add_trajectory("collect/1", lost.model_copy(update={"success": True, "reward": 1.0}))
    problems = audited(run).problems
    assert problems["outcome_order"] >= 1 and set(problems) <= {"outcome_order", "value_differs"}


def test_a_log_that_was_changed_cut_or_removed_is_found(run: Path) -> None:
    with PreferenceLog(run / LOG) as log:
        count = log.head.count
    with closing(sqlite3.connect(run / LOG, isolation_level=None)) as database:
        database.execute("DROP TRIGGER no_delete")
        database.execute("DELETE FROM entries WHERE seq=?", (count,))
    (run / f"{LOG}.head").unlink()
    found = audited(run)
    assert found.problems["not_in_log"] == 1
    assert any("once held entry" in one.what for one in found.findings), "the run itself has noted the head"
    for file in run.glob(f"{LOG}*"):
        file.unlink()
    found = audited(run)
    assert found.head is None and not found.whole and "chain" in found.problems


def test_what_cannot_be_read_is_named_and_the_rest_is_checked(run: Path) -> None:
    whole = audited(run).pairs
    with closing(sqlite3.connect(run / "run.db", isolation_level=None)) as database:
        broken = zstandard.compress(b'{"id": "p", "seed": "none"}')
        identity = database.execute("SELECT id FROM preferences ORDER BY position LIMIT 1").fetchone()[0]
        database.execute("UPDATE preferences SET body=? WHERE id=?", (broken, identity))
    found = audited(run)
    assert found.problems == {"unreadable": 1, "not_in_run": 1}
    assert found.pairs == whole  # it is still in the log


def test_a_run_from_before_logs_is_only_told_so(run: Path) -> None:
    with closing(sqlite3.connect(run / "run.db", isolation_level=None)) as database:
        database.execute("DELETE FROM facts WHERE key=?", (HEAD.format(1),))
    for file in run.glob(f"{LOG}*"):
        file.unlink()
    found = audited(run)
    assert found.whole and found.unlogged == found.traced == found.pairs


# -- rounds ------------------------------------------------------------------------------------------------------------


def test_a_round_that_is_paired_anew_withdraws_what_it_replaces_and_doubles_nothing(run: Path) -> None:
    with RunStore(run) as store, PreferenceLog(run / LOG) as log:
        rows = store.preferences(1)
        before = log.head
        assert keep(store, 1, rows) == before, "nothing is new"
        assert keep(store, 2, rows[:3]) == before, "the same pairs in another round"
        head = keep(store, 1, rows[2:])
        assert head is not None
        gone = [entry.body for entry in log.entries("withdrawn")]
        # rows[0] and rows[1] are still in round 2
        assert gone == [] and head.count == before.count
        keep(store, 2, [])
        assert len(list(log.entries("withdrawn"))) == 2
        assert len(log.standing("preference")) == len(rows) - 2
        again = keep(store, 1, rows)
        assert again is not None and len(log.standing("preference")) == len(rows)
        assert log.verify().whole
    assert audited(run).whole


def test_imported_pairs_stand_by_their_own_word_and_their_weight_is_the_runs(run: Path) -> None:
    row = Preference(id="mine", messages=OTHER, chosen="yes", rejected="no", level="text", source="import",
                     evidence={"metadata": {"from": "a paper"}})  # fmt: skip
    with RunStore(run) as store, PreferenceLog(run / LOG) as log:
        log.append("preference", [row.model_dump(mode="json")])
        count = log.head.count
        weighed = row.model_copy(update={"weight": 2.0, "split": "val"})
        keep(store, 1, [*store.preferences(1), weighed])
        assert log.head.count == count, "a run's weight is no other pair"
    found = audited(run)
    assert found.whole and found.own_word == 1


# -- labels ------------------------------------------------------------------------------------------------------------


def put_up(folder: Path, count: int = 6) -> list[Comparison]:
    """Comparisons of two rollouts of which one succeeded and the other failed."""
    with RunStore(folder, "read") as store:
        rollouts = {one.id: one for one in store.trajectories("collect/1")}
    found = [one for one in comparisons_of(rollouts.values()) if _won(one, "first", rollouts)
             is not _won(one, "second", rollouts)]  # fmt: skip
    with PreferenceLog(folder / LOG) as log:
        log.append("comparison", [one.model_dump(mode="json") for one in found[:count]])
    return found[:count]


def _won(comparison: Comparison, name: str, rollouts: dict[str, Trajectory]) -> bool | None:
    return rollouts[comparison.evidence[name]["trajectory"]].success


def right(comparison: Comparison, folder: Path) -> str:
    with RunStore(folder, "read") as store:
        return "first" if store.trajectory(comparison.evidence["first"]["trajectory"]).success else "second"


def wrong(comparison: Comparison, folder: Path) -> str:
    return "second" if right(comparison, folder) == "first" else "first"


def say(folder: Path, comparison: Comparison, preferred: str, rater: str, **evidence: Any) -> int:
    about = {"comparison": comparison.id, "preferred": preferred, "rater": rater, "evidence": evidence}
    label = Label.model_validate({**about, "source": "human"})
    with PreferenceLog(folder / LOG) as log:
        return log.append("label", [label.model_dump(mode="json")])[0].seq


def test_pairs_of_labels_trace_to_them(run: Path) -> None:
    compared = put_up(run)
    for comparison in compared:
        for rater in ("ann", "ben"):
            say(run, comparison, right(comparison, run), rater)
    with PreferenceLog(run / LOG) as log, RunStore(run) as store:
        pairs = preferences_from_labels(list(log.entries()))
        assert len(pairs) == len(compared)
        count = log.head.count
        keep(store, 2, pairs)
        assert log.head.count == count, "the labels are their record"
    found = audited(run)
    assert found.whole and found.by_source["human"] == {"pairs": len(pairs), "traced": len(pairs)}
    assert found.doubts == {}

    def after(change: Callable[[Preference], Preference]) -> set[str]:
        with RunStore(run) as store:
            store.add_preferences(2, [change(pairs[0]), *pairs[1:]])
        return set(audited(run).problems)

    seq = pairs[0].evidence["labels"][0]
    assert after(turned) == {"label_order"}
    assert after(lambda row: _about(row, labels=[9999])) == {"no_label"}
    assert after(lambda row: _about(row, labels=[])) == {"no_label"}
    assert after(lambda row: _about(row, labels=[seq + 2])) == {"label_elsewhere"}
    assert after(lambda row: _about(row, raters=["eve"])) == {"raters_differ"}
    assert after(lambda row: row.model_copy(update={"chosen": "other"})) >= {"text_differs"}
    assert after(lambda row: row) == set()
    with PreferenceLog(run / LOG) as log:
        log.withdraw(seq, "undo")
    assert after(lambda row: row) == {"label_withdrawn"}


def _about(row: Preference, **changed: Any) -> Preference:
    return row.model_copy(update={"evidence": {**row.evidence, **changed}})


def test_a_comparison_whose_pages_say_something_else_is_found(run: Path) -> None:
    one, other = put_up(run, 2)
    bent = one.model_copy(update={"id": "bent", "first": other.first + "!"})
    with PreferenceLog(run / LOG) as log:
        log.append("comparison", [bent.model_dump(mode="json")])
        log.append("label", [{"comparison": "nothing", "preferred": "first", "source": "human"}, {"preferred": "none"}])
    assert audited(run).problems == {"text_differs": 1, "no_comparison": 1, "unreadable": 1}


def test_labels_that_something_contradicts_are_doubtful_and_not_wrong(run: Path) -> None:
    a, b, c, d = put_up(run, 4)
    for rater in ("ann", "ben"):
        say(run, a, right(a, run), rater)
    outvoted = say(run, a, wrong(a, run), "eve")
    first = say(run, b, right(b, run), "ann")
    again = say(run, b, wrong(b, run), "ann", repeat=True)
    alone = say(run, c, wrong(c, run), "ann")
    say(run, d, "tie", "ann")
    say(run, d, "both_bad", "ben")
    found = audited(run)
    assert found.whole
    assert found.doubts == {"outcome_disagrees": 3, "repeat_disagrees": 2, "rater_disagrees": 1}
    with PreferenceLog(run / LOG, "read") as log, RunStore(run, "read") as store:
        books = Books(store, list(log.entries()))
        assert doubted(books.standing_labels(), books) == {
            outvoted: {"rater_disagrees", "outcome_disagrees"},
            first: {"repeat_disagrees"},
            again: {"repeat_disagrees", "outcome_disagrees"},
            alone: {"outcome_disagrees"},
        }
        by_itself = audit(None, log)  # without the run nobody knows how it came out
    assert by_itself.doubts == {"repeat_disagrees": 2, "rater_disagrees": 1}
    assert by_itself.whole and by_itself.unchecked == by_itself.pairs > 0


# -- the drill ---------------------------------------------------------------------------------------------------------


def line(lines: list[Caught], what: str, source: str, share: float) -> Caught:
    return next(one for one in lines if (one.what, one.source, one.share) == (what, source, share))


def test_the_drill_says_what_would_be_caught_and_what_not(run: Path) -> None:
    mine = [Preference(id=f"i{n}", messages=OTHER, chosen=f"yes {n}", rejected="no", level="text", source="import")
            for n in range(20)]  # fmt: skip
    compared = put_up(run, 6)
    for number, comparison in enumerate(compared):
        say(run, comparison, right(comparison, run), f"rater {number}")
    text = [Comparison(id=f"t{n}", messages=OTHER, first="a", second="b") for n in range(6)]
    with PreferenceLog(run / LOG) as log:
        log.append("comparison", [one.model_dump(mode="json") for one in text])
    for comparison in text:
        say(run, comparison, "first", "ann")
    with RunStore(run) as store, PreferenceLog(run / LOG) as log:
        keep(store, 1, [*store.preferences(1), *mine])
        before = (store.preferences(), log.head)
        lines = drill(store, log, seed=3, shares=(0.1, 1.0))
        assert (store.preferences(), log.head) == before, "on copies"
        assert drill(store, log, seed=3, shares=(0.1, 1.0)) == lines
    of_pages = line(lines, "pairs", "environment", 1.0)
    assert of_pages.turned == of_pages.total > 20 and of_pages.missed == of_pages.before == 0
    assert of_pages.caught.low is not None and of_pages.caught.low > 0.8
    assert set(of_pages.ways) == {"texts", "with evidence", "forged"}
    imported = line(lines, "pairs", "import", 0.1)
    assert (imported.turned, imported.missed, imported.caught.success) == (2, 2, 0.0), "nothing speaks against them"
    # Every label stands alone: the outcome contradicts the six of pages, and nothing the six of text.
    labels = line(lines, "labels", "human", 1.0)
    assert (labels.total, labels.turned, labels.missed, labels.before) == (12, 12, 6, 0)
    assert labels.caught.success == 0.5


def test_with_several_raters_most_turned_labels_of_text_are_seen(tmp_path: Path) -> None:
    """Each of 40 comparisons has three raters who agree; a turned label is outvoted by the two others."""
    text = [Comparison(id=f"t{n}", messages=OTHER, first="a", second="b") for n in range(40)]
    with PreferenceLog(tmp_path / "log.db") as log:
        log.append("comparison", [one.model_dump(mode="json") for one in text])
        log.append("label", [{"comparison": one.id, "preferred": "first", "source": "human", "rater": rater}
                             for one in text for rater in ("ann", "ben", "cid")])  # fmt: skip
        (found,) = drill(None, log, shares=(0.05,))
    assert (found.total, found.turned, found.missed) == (120, 6, 0)
    assert found.caught.low == pytest.approx(0.6097, abs=1e-3)  # Wilson of 6 in 6


# -- the command -------------------------------------------------------------------------------------------------------


def test_the_command_says_all_this_with_its_exit_code(cli: CommandLine, run: Path, tmp_path: Path) -> None:
    found = cli("prefs", "audit", "--run", str(run), "--drill", "--replay", "3", "--json")
    assert found.returncode == 0, found.stderr
    told = json.loads(found.stdout)
    assert told["whole"] and told["pairs"] == told["traced"] > 20
    assert [one["state"] for one in told["replay"]] == ["same"] * 3, "the toy's pages are played again"
    assert {one["share"] for one in told["drill"]} == {0.005, 0.01, 0.02, 0.05, 0.1}
    count, digest = told["head"]

    bend(run, lambda row: row.model_copy(update={"state_hash": "0" * 16}))
    found = cli("prefs", "audit", "--run", str(run), "--head", f"{count}:{digest[:12]}")
    assert found.returncode == 1
    assert "2 x state_differs" in found.stdout and "something is wrong" in found.stdout
    assert "another hash stands there" in found.stdout, "the log was written anew after the head was noted"

    for arguments, said in (
        (["--log", "nothing.db"], "there is no preference log"),
        (["--run", "nowhere"], "nowhere"),
        (["--run", str(run), "--head", "12"], "is no head"),
        (["--run", str(run), "--log", "x.db"], "by itself"),
    ):
        found = cli("prefs", "audit", *arguments)
        assert found.returncode == 2 and said in found.stderr and "Traceback" not in found.stderr, arguments
