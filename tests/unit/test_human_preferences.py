"""Labels to preferences, counted by hand; collect_preference; what a log is summed up to."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from dpo_driver import collect_preference
from dpo_driver.core.config import load_config
from dpo_driver.core.errors import DataError, StoreError
from dpo_driver.core.records import Comparison, Label, Message, Preference, Task
from dpo_driver.core.stats import cohen_kappa, mean_interval
from dpo_driver.preferences.collect import judgement
from dpo_driver.preferences.human import judged, pairs_of, preferences_from_labels
from dpo_driver.preferences.log import Entry, PreferenceLog
from dpo_driver.preferences.mix import KNOWN, logged
from dpo_driver.preferences.summary import summarise

PROMPT = (Message(role="user", content="Shall we open a second shop?"),)


def comparison(identity: str = "c", **more: Any) -> Comparison:
    return Comparison(id=identity, messages=PROMPT, first="Not yet.", second="Well, it depends.", **more)


def label(preferred: str, rater: str = "", confidence: float | None = None, **more: Any) -> Label:
    given = {"comparison": "c", "source": "human", "rater": rater, "confidence": confidence, **more}
    return Label.model_validate({"preferred": preferred, **given})


def entries(*records: Comparison | Label | int | Preference) -> list[Entry]:
    """A log's entries as it would number them; a number withdraws the entry of that number."""
    kinds: dict[type, Any] = {Comparison: "comparison", Label: "label", int: "withdrawn", Preference: "preference"}
    return [
        Entry(seq, 0.0, kinds[type(one)], {"seq": one} if isinstance(one, int) else one.model_dump(mode="json"), "")
        for seq, one in enumerate(records, start=1)
    ]


# -- votes, by hand --------------------------------------------------------------------------------------------------


def test_one_label_is_a_pair_with_its_evidence() -> None:
    [pair] = preferences_from_labels(entries(comparison(role="CEO"), label("second", "ann", 0.8)))
    assert (pair.chosen, pair.rejected, pair.messages) == ("Well, it depends.", "Not yet.", PROMPT)
    assert (pair.source, pair.role, pair.level, pair.margin, pair.weight) == ("human", "CEO", "text", 1.0, 0.8)
    assert pair.evidence == {"comparison": "c", "labels": [2], "raters": ["ann"]}


def test_the_majority_decides_and_its_confidence_is_the_weight() -> None:
    votes = (label("first", "ann", 1.0), label("first", "bob", 0.5), label("second", "cyd", 0.9), label("first", "dan"))
    [pair] = preferences_from_labels(entries(comparison(), *votes))
    assert pair.chosen == "Not yet."
    assert pair.weight == pytest.approx((1.0 + 0.5 + 1.0) / 3)  # of those for it; none given: sure
    assert pair.margin == pytest.approx((3 - 1) / 4)
    assert pair.evidence["votes"] == {"first": 3, "second": 1}
    assert pair.evidence["raters"] == ["ann", "bob", "cyd", "dan"]


@pytest.mark.parametrize(
    "preferred",
    [["tie"], ["both_bad"], ["first", "second"], ["first", "tie"], ["first", "first", "tie", "both_bad"]],
    ids=" ".join,
)
def test_what_gives_no_pair(preferred: list[str]) -> None:
    votes = [label(said, f"rater {number}") for number, said in enumerate(preferred)]
    refused: Counter[str] = Counter()
    assert pairs_of(judged(entries(comparison(), *votes)), refused) == []
    assert refused == {"no_majority": 1}


def test_a_rater_counts_once_and_hidden_repeats_decide_nothing() -> None:
    again = label("second", "ann", evidence={"repeat": True})
    log = entries(comparison(), again, label("first", "ann"), label("second", "ann"), label("second", "bob"))
    [one] = judged(log)
    # Her first label that is no repeat, though the repeat stands before it.
    assert [(vote.seq, vote.label.preferred) for vote in one.votes] == [(3, "first"), (5, "second")]
    assert [vote.seq for vote in one.repeats] == [2, 4]
    assert (one.winner, one.agreed) == (None, False)
    [pair] = preferences_from_labels(log[:3])
    assert (pair.chosen, pair.evidence["labels"]) == ("Not yet.", [2, 3])


def test_what_was_withdrawn_does_not_count() -> None:
    log = entries(comparison(), label("first", "ann"), 2, label("second", "ann"))
    assert [pair.chosen for pair in preferences_from_labels(log)] == ["Well, it depends."]
    assert preferences_from_labels(entries(comparison(), label("first"), 1)) == []  # without the comparison no pair


def test_sources_are_counted_apart() -> None:
    log = entries(comparison(), label("first", "ann"), label("second", "gpt", source="teacher"))
    assert [(pair.source, pair.chosen) for pair in preferences_from_labels(log)] == [
        ("human", "Not yet."),
        ("teacher", "Well, it depends."),
    ]


def test_somebody_who_does_not_know_gives_no_pair() -> None:
    refused: Counter[str] = Counter()
    assert pairs_of(judged(entries(comparison(), label("first", "ann", 0.0))), refused) == []
    assert refused == {"no_confidence": 1}


def test_a_page_keeps_its_task_and_both_trajectories() -> None:
    task = Task(id="toy.login/7", env="toy", name="login", seed=7, split="train")
    evidence = {"task_id": task.id, "same_prompt": True, "first": {"trajectory": "t1", "action": 'click("1")'},
                "second": {"trajectory": "t2", "action": 'click("2")'}}  # fmt: skip
    page = comparison(state_hash="9a", task=task, evidence=evidence)
    [pair] = preferences_from_labels(entries(page, label("second", "ann")))
    assert (pair.level, pair.task_name, pair.seed, pair.state_hash) == ("step", "login", 7, "9a")
    assert (pair.evidence["chosen"]["trajectory"], pair.evidence["rejected"]["trajectory"]) == ("t2", "t1")
    assert pair.evidence["task_id"] == "toy.login/7" and pair.evidence["same_prompt"] is True
    assert not {"first", "second"} & pair.evidence.keys()


@pytest.mark.parametrize("split", ["val", "test"])
def test_what_is_held_out_is_never_trained_on(split: Any) -> None:
    task = Task(id="toy.login/7", env="toy", name="login", seed=7, split=split)
    refused: Counter[str] = Counter()
    assert pairs_of(judged(entries(comparison(task=task), label("first"))), refused) == []
    assert refused == {"judged_held_out": 1}


def test_broken_entries_are_named() -> None:
    broken = entries(comparison(), label("first"))
    broken[1].body["preferred"] = "left"
    with pytest.raises(StoreError, match="entry 2 of the preference log is no label: preferred"):
        judged(broken)
    other = comparison().model_copy(update={"first": "Something else."})
    with pytest.raises(StoreError, match=r"entry 2 .* gives the name c to another comparison"):
        judged(entries(comparison(), other))


# -- collect_preference ----------------------------------------------------------------------------------------------


def test_collect_preference_writes_comparison_and_label(tmp_path: Path) -> None:
    about = {"rater": "ann", "confidence": 0.9, "channel": "mail"}
    path = tmp_path / "runs" / "preferences.db"
    pair = collect_preference("CEO", "Open a shop?", "Yes.", "No.", "b", about, log=path)
    assert pair is not None
    assert (pair.role, pair.chosen, pair.rejected, pair.weight, pair.source) == ("CEO", "No.", "Yes.", 0.9, "human")
    assert pair.evidence["metadata"] == {"channel": "mail"}
    with PreferenceLog(path, "read") as log:
        assert [entry.kind for entry in log.entries()] == ["comparison", "label"]
        assert log.verify().whole
        assert logged(log.standing("comparison", "label", "preference")) == [pair]


def test_the_order_of_the_answers_makes_no_other_comparison(tmp_path: Path) -> None:
    with PreferenceLog(tmp_path / "log.db") as log:
        collect_preference("", "Open?", "Yes.", "No.", "a", {"rater": "ann"}, log=log)
        collect_preference("", "Open?", "No.", "Yes.", "b", {"rater": "bob"}, log=log)
        collect_preference("", "Open?", "No.", "Yes.", "a", {"rater": "cyd"}, log=log)
        [one] = judged(log.entries())
        assert [getattr(one.comparison, vote.label.preferred) for vote in one.votes] == ["Yes.", "Yes.", "No."]
        # "No." sorts first, so for ann, who saw "Yes." first, the sides are swapped.
        assert [vote.label.evidence["swapped"] for vote in one.votes] == [True, False, False]
        [pair] = logged(list(log.entries()))
        assert pair.chosen == "Yes." and pair.margin == pytest.approx(1 / 3)


@pytest.mark.parametrize("verdict", ["tie", "both_bad"])
def test_a_tie_is_kept_and_gives_none(tmp_path: Path, verdict: str) -> None:
    with PreferenceLog(tmp_path / "log.db") as log:
        assert collect_preference("CEO", "Open?", "Yes.", "No.", verdict, log=log) is None
        assert [entry.body["preferred"] for entry in log.entries("label")] == [verdict]


def test_a_conversation_as_prompt(tmp_path: Path) -> None:
    turns: list[dict[str, str] | Message] = [
        {"role": "system", "content": "Be brief."},
        Message(role="user", content="Open?"),
    ]
    pair = collect_preference("CEO", turns, "Yes.", "No.", "a", log=tmp_path / "log.db")
    assert pair is not None and [message.role for message in pair.messages] == ["system", "user"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"preference": "left"}, "'preference' must be one of a, b, tie, both_bad, not 'left'"),
        ({"response_b": "Yes. "}, "response_a and response_b are equal"),
        ({"response_a": " "}, "'response_a' is empty"),
        ({"prompt": ""}, "'prompt' is empty"),
        ({"metadata": {"confidence": 80}}, "'confidence' must be a number from 0 to 1, not 80"),
        ({"metadata": {"source": "humn"}}, "unknown preference source 'humn'; known: environment, search, human"),
        ({"metadata": {"rater": 7}}, "metadata 'rater' must be a text"),
        ({"metadata": {"when": object()}}, "not JSON serializable"),
    ],
    ids=lambda value: "" if isinstance(value, dict) else str(value)[:30],
)
def test_what_cannot_be_used_writes_nothing(tmp_path: Path, values: dict[str, Any], message: str) -> None:
    given = {"prompt": "Open?", "response_a": "Yes.", "response_b": "No.", "preference": "a", **values}
    with pytest.raises(DataError, match=message):
        collect_preference("CEO", **given, log=tmp_path / "log.db")
    assert not (tmp_path / "log.db").exists()


# -- the account of a log --------------------------------------------------------------------------------------------


def test_kappa_and_the_interval_of_a_mean_by_hand() -> None:
    # 45 of 50 agree on 25 x yes, 20 x no; chance: (30/50 * 25/50) + (20/50 * 25/50) = 0.5; (0.9 - 0.5) / 0.5
    one = ["yes"] * 25 + ["no"] * 20 + ["yes"] * 5
    other = ["yes"] * 25 + ["no"] * 25
    assert cohen_kappa(one, other) == pytest.approx(0.8)
    assert cohen_kappa(["a", "b"], ["b", "a"]) == pytest.approx(-1)
    assert cohen_kappa(["a", "a"], ["a", "a"]) is None and cohen_kappa([], []) is None
    with pytest.raises(ValueError, match="cannot be compared"):
        cohen_kappa(["a"], [])
    # mean 3, s = sqrt(2.5), t(4) = 2.7764451: half = 2.7764451 * 1.5811388 / 2.2360680
    assert mean_interval([1, 2, 3, 4, 5]) == pytest.approx((3 - 1.9632432, 3 + 1.9632432))
    assert mean_interval([1.0, 2.0]) == pytest.approx((1.5 - 6.3531024, 1.5 + 6.3531024))  # t(1) = 12.7062047
    assert mean_interval([7]) is None


def test_the_account_of_raters_biases_and_doubles() -> None:
    shown = {"swapped": True}
    log = entries(
        comparison("a", role="CEO"),
        label("first", "ann", comparison="a", evidence={"swapped": False}),  # shown first, preferred
        label("first", "bob", comparison="a", evidence=shown),  # shown second, preferred
        label("second", "ann", comparison="a", evidence={"repeat": True, **shown}),  # not as before
        comparison("b", role="CEO"),
        label("tie", "ann", comparison="b", evidence={"swapped": False}),
        label("second", "bob", comparison="b", evidence=shown),  # shown first, preferred
        comparison("d", role="CTO"),
        label("first", "gpt", comparison="d", source="teacher"),
        label("first", "bob", comparison="d"),
        10,
    )
    rows = logged(log)
    found = summarise(rows, log)
    assert (found.pairs, found.by_source, found.by_role) == (2, {"human": 1, "teacher": 1}, {"CEO": 1, "CTO": 1})
    assert (found.comparisons, found.labels, found.withdrawn) == (3, 6, 1)
    assert found.verdicts == {"first": 3, "second": 1, "tie": 1}
    assert found.tie_share.n == 5 and found.tie_share.success == pytest.approx(1 / 5)
    ann = found.raters["ann"]
    assert (ann.labels, ann.ties, ann.repeats, ann.steady.success) == (2, 1, 1, 0.0)
    assert (found.raters["gpt"].source, found.raters["bob"].labels) == ("teacher", 2)
    agreement = found.agreement["human"]
    assert (agreement.comparisons, agreement.same.success, agreement.same.n) == (2, 0.5, 2)
    # ann: first, tie; bob: first, second; chance 1/4: (1/2 - 1/4) / (3/4)
    assert agreement.kappa == pytest.approx(1 / 3)
    assert agreement.by_pair == {"ann / bob": pytest.approx(1 / 3)}
    assert found.shown_first.n == 3 and found.shown_first.success == pytest.approx(2 / 3)
    # "Not yet." has 8 characters, "Well, it depends." 17: chosen is shorter by 9 both times
    assert (found.longer.mean, found.longer.low, found.longer.high) == (-9, -9, -9)
    assert (found.longer_chosen.success, found.longer_chosen.n) == (0.0, 2)
    assert (found.duplicates, found.contradictions) == (0, 0)


def test_doubles_and_contradictions_are_counted_within_a_role() -> None:
    one = Preference(id="1", messages=PROMPT, chosen="x", rejected="y", level="text", source="import", role="CEO")
    rows = [
        one,
        one.model_copy(update={"id": "2", "source": "human"}),  # the same again
        one.model_copy(update={"chosen": "p", "rejected": "q"}),
        one.model_copy(update={"chosen": "q", "rejected": "p"}),  # the opposite of the one before: neither stays
        one.model_copy(update={"chosen": "y", "rejected": "x", "role": "CTO"}),  # another role's opinion
    ]
    found = summarise(rows)
    assert (found.duplicates, found.contradictions) == (1, 2)
    assert found.weights.by_source == {"human": 1.0, "import": 4.0}


def test_the_page_about_preferences_is_true(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (root / "docs" / "preferences.md").read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    [row] = re.findall(r"```json\n(.*?)```", text, re.DOTALL)
    comparison, label = judgement(json.loads(row))
    assert (comparison.role, label.rater, label.confidence) == ("CEO", "ann", 0.9)
    [block] = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    exec(compile(block, "docs/preferences.md", "exec"), {})
    [settings] = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    (tmp_path / "x.yaml").write_text(settings)
    assert load_config(tmp_path / "x.yaml").pair.mix == {"human": 2.0, "heuristic": 0.5}
    listed = re.findall(r"^\| (\w+) \| .* \| `", text.partition("## The sources")[2], re.MULTILINE)
    assert {*listed, "import"} - {"source"} == set(KNOWN)
