"""Sources beside each other: what a log gives to a round, merging, contradictions, weights down to the loss."""

from __future__ import annotations

import io
import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from test_preferences import rollout, say

from dpo_driver.algorithms import load_algorithm
from dpo_driver.core.config import PairConfig, RunConfig, load_config
from dpo_driver.core.errors import ConfigError, DataError, UnknownNameError
from dpo_driver.core.records import Comparison, Label, Message, Preference, Task
from dpo_driver.flywheel.context import RunContext, open_run
from dpo_driver.flywheel.pair import pair
from dpo_driver.preferences import build_pairs, filters
from dpo_driver.preferences.collect import collect_preference, write_pairs
from dpo_driver.preferences.log import LOG, Entry, PreferenceLog
from dpo_driver.preferences.mix import LOGGED, logged, of_sources, weighted
from dpo_driver.testing.tiny_models import tiny_model
from dpo_driver.training.batches import step_batch
from dpo_driver.training.logprobs import Scorer
from dpo_driver.training.reference import reference_sums
from dpo_driver.training.rows import encode_rows

PROMPT = (Message(role="user", content="go"),)
LOOSE = PairConfig(min_margin=0.5, max_per_state=100, max_per_task=10_000, max_parse_error_share=1.0, val_fraction=0.0)
RIGHT, WRONG = say('click("1")'), say('click("2")')


def row(chosen: str, rejected: str, source: str = "import", **more: Any) -> Preference:
    identity = f"{source}/{chosen}/{rejected}"
    given = {"id": identity, "messages": PROMPT, "level": "text", "source": source, **more}
    return Preference(chosen=chosen, rejected=rejected, **given)


def rollouts() -> list[Any]:
    """Siblings that part in their first state: ``RIGHT`` succeeds, ``WRONG`` fails."""
    return [
        rollout([("s", RIGHT)], True, sibling=0),
        rollout([("s", RIGHT)], True, sibling=1),
        rollout([("s", WRONG)], False, sibling=2),
        rollout([("s", WRONG)], False, sibling=3),
    ]


@pytest.fixture
def log(tmp_path: Path) -> Iterator[PreferenceLog]:
    with PreferenceLog(tmp_path / LOG) as opened:
        yield opened


def judge(log: PreferenceLog, first: str, second: str, preferred: str, source: str = "human", **label: Any) -> None:
    """A judgement of two decisions in the rollouts' first state."""
    trajectory = rollouts()[0]
    evidence = {"first": {"action": first[-10:]}, "second": {"action": second[-10:]}}
    one = Comparison(id="page", messages=trajectory.steps[0].messages, first=first, second=second, state_hash="s",
                     task=trajectory.task, evidence=evidence)  # fmt: skip
    said = Label.model_validate({"comparison": "page", "preferred": preferred, "source": source, **label})
    log.append("comparison", [one.model_dump(mode="json")])
    log.append("label", [said.model_dump(mode="json")])


# -- reading a log ---------------------------------------------------------------------------------------------------


def test_a_source_is_read_by_its_name_and_other_roles_are_counted(log: PreferenceLog) -> None:
    collect_preference("", "Open?", "Yes.", "No.", "a", {"rater": "ann"}, log=log)
    collect_preference("", "Open?", "Yes.", "No.", "b", {"source": "teacher"}, log=log)
    collect_preference("CEO", "Open?", "Yes.", "No.", "b", {"rater": "ann"}, log=log)
    write_pairs(log, [row("x", "y"), row("x", "z", "human"), row("p", "q", role="CEO")])
    entries = list(log.entries())

    def read(*sources: str, role: str = "") -> tuple[list[tuple[str, str]], dict[str, int]]:
        refused: Counter[str] = Counter()
        rows = of_sources(entries, sources, refused, role)
        return [(one.source, one.chosen) for one in rows], {name: n for name, n in refused.items() if n}

    assert read("human") == ([("human", "x"), ("human", "Yes.")], {"other_role": 1})
    assert read("teacher") == ([("teacher", "No.")], {})
    assert read("import") == ([("import", "x")], {"other_role": 1})
    assert read("human", "import", role="CEO")[0] == [("import", "p"), ("human", "No.")]
    assert len(logged(entries)) == 6


def test_pairs_that_a_run_noted_of_labels_count_once_and_as_the_labels_say(log: PreferenceLog) -> None:
    made = collect_preference("", "Open?", "Yes.", "No.", "a", {"confidence": 0.5}, log=log)
    assert made is not None
    write_pairs(log, weighted([made], {"human": 4.0}))  # as a round trained on it
    assert logged(list(log.entries())) == [made]


def test_a_file_is_added_to_a_log_once_and_foreign_sources_become_import(log: PreferenceLog) -> None:
    given = [row("x", "y", "ultrafeedback", evidence={"metadata": {"note": 1}}), row("p", "q", "human")]
    assert len(write_pairs(log, [*given, *given])) == 2
    assert write_pairs(log, given) == []
    first, second = logged(list(log.entries()))
    assert (first.source, first.evidence["metadata"]) == ("import", {"note": 1, "source": "ultrafeedback"})
    assert second.source == "human"


# -- merging ---------------------------------------------------------------------------------------------------------


def test_equal_pairs_are_merged_and_the_first_source_keeps_them(log: PreferenceLog) -> None:
    judge(log, RIGHT, WRONG, "first", confidence=0.5)
    rows, stats = build_pairs(rollouts(), LOOSE, sources=["step", "human"], log=list(log.entries()))
    assert [one.source for one in rows] == ["environment"]
    assert stats.refused == {"duplicate": 1}
    rows, _ = build_pairs(rollouts(), LOOSE, sources=["human", "step"], log=list(log.entries()))
    assert [(one.source, one.weight) for one in rows] == [("human", 0.5)]


def test_a_contradiction_is_settled_by_the_margin_and_counted(log: PreferenceLog) -> None:
    judge(log, RIGHT, WRONG, "second")  # against the environment, both with margin 1: neither stays
    rows, stats = build_pairs(rollouts(), LOOSE, sources=["step", "human"], log=list(log.entries()))
    assert (rows, stats.refused) == ([], {"contradiction": 2})
    for rater, said in (("bob", "first"), ("cyd", "second")):
        judge(log, RIGHT, WRONG, said, rater=rater)  # 2 of 3 against it, margin 1/3: the environment's stays
    rows, stats = build_pairs(rollouts(), LOOSE, sources=["step", "human"], log=list(log.entries()))
    assert [one.source for one in rows] == ["environment"]
    assert stats.refused == {"contradiction": 1}


def test_text_of_no_task_is_split_by_its_prompt_and_not_capped() -> None:
    rows = [
        row(f"yes {number}", "no", "human", messages=(Message(role="user", content=f"question {number // 2}"),))
        for number in range(2000)
    ]
    split = filters.assign_split(rows, 0.2)
    held = sum(one.split == "val" for one in split)
    assert 0.15 * 2000 < held < 0.25 * 2000
    assert all(one.split == other.split for one, other in zip(split[::2], split[1::2], strict=True))
    assert len(filters.cap_per_task(rows, 10, Counter())) == 2000


def test_unknown_sources_list_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match=r"unknown preference source 'humn'.*\n.*human"):
        weighted([], {"humn": 2.0})
    with pytest.raises(UnknownNameError, match="'humn'"):
        build_pairs([], sources=["humn"])
    file = tmp_path / "x.yaml"
    file.write_text("pair:\n  mix: {humn: 2.0}\n")
    with pytest.raises(ConfigError, match=r"pair.mix: unknown preference source 'humn'; known: environment"):
        load_config(file)
    file.write_text("pair:\n  sources: [humn]\n")
    with pytest.raises(ConfigError, match="'human', 'teacher', 'heuristic', 'memory'"):
        load_config(file)
    file.write_text("pair:\n  mix: {human: 0}\n")
    with pytest.raises(ConfigError, match="greater than 0"):
        load_config(file)


def test_the_mix_is_part_of_what_a_run_is_and_old_runs_keep_their_hash() -> None:
    assert RunConfig().hash() == RunConfig.model_validate({"pair": {"mix": {}, "log": None}}).hash() != (
        RunConfig.model_validate({"pair": {"mix": {"human": 2}}}).hash()
    )  # fmt: skip


# -- down to the loss ------------------------------------------------------------------------------------------------


def test_the_weight_of_a_source_reaches_the_loss(tmp_path: Path) -> None:
    """Margins set by hand to ln 3 and -ln 3: -log sigmoid is ln(4/3) and ln 4, and the mean is weighted 1 to 3."""
    rows = weighted([row("good", "bad", "environment"), row("fine", "poor", "human")], {"human": 3.0})
    assert [one.weight for one in rows] == [1.0, 3.0]
    model, tokenizer = tiny_model()
    examples = encode_rows(tokenizer, rows, max_length=512).examples
    beta = 0.5
    with Scorer(model).session() as scorer:
        sums = reference_sums(scorer, examples, folder=tmp_path, key="now", tokens_per_pass=4096)
        # The reference gave the chosen answers less, or more, than the model does now: margin = beta * (now - then).
        apart = {examples[0].chosen: math.log(3) / beta, examples[1].chosen: -math.log(3) / beta}
        then = {branch: value - apart.get(branch[1], 0.0) for branch, value in sums.items()}
        [batch] = step_batch(examples, tokens_per_pass=4096, reference=then).batches
        loss, metrics = load_algorithm("dpo", beta=beta).loss(batch.scored(scorer))
    by_hand = (1.0 * math.log(4 / 3) + 3.0 * math.log(4)) / 4.0
    assert float(loss.detach()) == pytest.approx(by_hand, abs=1e-4)
    assert float(metrics["rewards/accuracies"]) == pytest.approx(1 / 4)  # the heavier pair is the wrong one
    assert float(metrics["rewards/margins"]) == pytest.approx((1 - 3) * math.log(3) / 4, abs=1e-4)


# -- a round ---------------------------------------------------------------------------------------------------------


def opened(folder: Path, **pairs: Any) -> Any:
    config = {"project": {"run_dir": folder}, "env": {"name": "toy", "tasks": ["press"]}, "pair": pairs,
              "tracking": {"mlflow": False}}  # fmt: skip
    return open_run(RunConfig.model_validate(config), console=Console(file=io.StringIO()))


def judged_round(context: RunContext, path: Path) -> list[Entry]:
    with PreferenceLog(path) as log:
        judge(log, RIGHT, WRONG, "first")
        collect_preference("", "Open?", "Yes.", "No.", "a", {"source": "teacher"}, log=log)
        return list(log.entries())


def test_a_round_pairs_what_people_said_in_its_own_log(tmp_path: Path) -> None:
    sources = ["human", "teacher"]
    with opened(tmp_path / "run", sources=sources, mix={"human": 2.0}, val_fraction=0.0) as context:
        with pytest.raises(DataError, match=r"pair.sources names human, and there is no preference log"):
            pair(context)
        judged_round(context, context.run_dir / LOG)
        stats = pair(context)
        assert stats.by_source == {"human": 1, "teacher": 1}
        rows = context.store.preferences(1)
        assert {one.source: one.weight for one in rows} == {"human": 2.0, "teacher": 1.0}
        assert {one.source: one.level for one in rows} == {"human": "step", "teacher": "text"}


def test_a_round_reads_the_log_that_the_configuration_names(tmp_path: Path) -> None:
    elsewhere = tmp_path / "shared.db"
    with opened(tmp_path / "run", sources=["teacher"], log=str(elsewhere), val_fraction=0.0) as context:
        judged_round(context, elsewhere)
        assert pair(context).by_source == {"teacher": 1}


def test_rollouts_are_still_asked_for_where_a_source_reads_them(tmp_path: Path) -> None:
    with opened(tmp_path / "run", sources=["step", "human"]) as context, pytest.raises(DataError, match="no rollouts"):
        pair(context)
    assert set(LOGGED) == {"human", "teacher", "import"}


def test_held_out_comparisons_are_left_out_and_counted(log: PreferenceLog) -> None:
    task = Task(id="toy.press/7", env="toy", name="press", seed=7, split="test")
    one = Comparison(id="t", messages=PROMPT, first="a", second="b", task=task)
    log.append("comparison", [one.model_dump(mode="json")])
    log.append("label", [Label(comparison="t", preferred="first", source="human").model_dump(mode="json")])
    rows, stats = build_pairs([], LOOSE, sources=["human"], log=list(log.entries()))
    assert (rows, stats.refused) == ([], {"judged_held_out": 1})
