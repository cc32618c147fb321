"""What a pair's evidence names, looked up, and whether it says what the pair says.

:class:`Books` finds trajectories in a run and comparisons and labels in a log; :func:`check_pair` and
:func:`check_comparison` compare. Values are worked out anew from the run's trajectories, never taken from the pair.
Called by audit.py and poison.py; must not import environments, agents or torch.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any, TypeVar

from pydantic import ValidationError

from dpo_driver.core.errors import StoreError
from dpo_driver.core.records import Comparison, Label, Preference, Step, Trajectory
from dpo_driver.core.store import RunStore
from dpo_driver.preferences.decisions import TRAINABLE, Arm, States, decision, fork_of, index_states, state_of
from dpo_driver.preferences.heuristic import RULES
from dpo_driver.preferences.human import judged
from dpo_driver.preferences.log import Entry

REASONS = {
    "chain": "log: its chain of hashes is broken, or it no longer holds what was noted down of it",
    "unreadable": "entry, pair or trajectory: it cannot be read as what it should be",
    "no_evidence": "pair: it names nothing that it came from",
    "no_trajectory": "side: it names a trajectory that the run does not have",
    "no_step": "side: it names a step that the trajectory does not have",
    "held_out": "side: its trajectory has no outcome, or its split is never trained on",
    "task_differs": "side: its trajectory played another task, family or seed",
    "state_differs": "side: the page was in another state at that step",
    "prompt_differs": "side: the model was shown something else at that step",
    "text_differs": "side: something else was written at that step",
    "action_differs": "side: something else was done at that step",
    "outcome_order": "pair: the side that was rejected did as well as the chosen one, or better",
    "rule_order": "pair: a rule that it names does not prefer the chosen side",
    "value_differs": "side: the run's trajectories give another value, or another number of tries",
    "margin_differs": "pair: its margin is not the difference of the two values",
    "no_comparison": "label or pair: the comparison that it names is not in the log",
    "no_label": "pair: a label that it names is not in the log, or it names none",
    "label_withdrawn": "pair: a label that it rests on was withdrawn",
    "label_elsewhere": "pair: a label that it names judges another comparison, or is another source's",
    "label_order": "pair: most of its raters did not prefer the chosen side",
    "raters_differ": "pair: its labels are other raters' than it says",
    "not_in_log": "pair: it is in a round of the run and was never noted in the log",
    "differs_from_log": "pair: the log noted it otherwise",
    "not_in_run": "pair: the log notes that a round trains on it, and no round has it",
}
# Not wrong, only less than proof.
NOTES = {
    "own_word": "pair: imported, so nothing but its own metadata speaks for it",
    "unchecked": "pair: it names trajectories of a run that was not given",
}
OF_ROLLOUTS = frozenset({"environment", "search", "memory", "heuristic"})  # what pairing builds anew from trajectories
Problem = tuple[str, str]  # reason, and what is wrong in words
_KEPT = 512  # trajectories in memory
_ROUNDING = 1e-9
_PAIR_SIDES, _LABEL_SIDES = ("chosen", "rejected"), ("first", "second")
Model = TypeVar("Model", Comparison, Label)


class Books:
    """Where evidence is looked up.

    Args:
        store: the run; None: there is none to look in.
        entries: of the log, withdrawn ones too.
        elsewhere: of the log that ``pair.log`` names, where it is another one.
    """

    def __init__(self, store: RunStore | None, entries: Sequence[Entry], elsewhere: Sequence[Entry] = ()) -> None:
        self.store = store
        self.withdrawn = {entry.body.get("seq") for entry in entries if entry.kind == "withdrawn"}
        self.unreadable: list[tuple[int, str]] = []
        standing = [entry for entry in entries if entry.seq not in self.withdrawn]
        self.comparisons = {
            comparison.id: (entry.seq, comparison)
            for entry, comparison in reversed(list(self._of_kind("comparison", Comparison, standing)))
        }
        self.labels = {entry.seq: label for entry, label in self._of_kind("label", Label, entries)}
        self._elsewhere = Books(None, elsewhere) if elsewhere else None
        self._trajectories: OrderedDict[str, Trajectory | str] = OrderedDict()
        self._states: OrderedDict[tuple[Any, ...], States] = OrderedDict()

    def _of_kind(self, kind: str, model: type[Model], entries: Sequence[Entry]) -> Iterator[tuple[Entry, Model]]:
        for entry in entries:
            if entry.kind == kind:
                try:
                    yield entry, model.model_validate(entry.body)
                except ValidationError:
                    self.unreadable.append((entry.seq, kind))

    def of(self, comparison: str) -> Books | None:
        """The book that holds a comparison."""
        if comparison in self.comparisons:
            return self
        return None if self._elsewhere is None else self._elsewhere.of(comparison)

    def judges(self, row: Preference) -> bool:
        """Whether labels of this very log give the pair: they are the record of it then."""
        return row.evidence.get("comparison") in self.comparisons

    def standing_labels(self) -> Iterator[tuple[int, Label]]:
        """Labels that were not withdrawn, with their sequence numbers."""
        return ((seq, label) for seq, label in self.labels.items() if seq not in self.withdrawn)

    def trajectory(self, identity: str) -> Trajectory | str:
        """A trajectory of the run, or the reason why there is none."""
        if identity not in self._trajectories:
            self._trajectories[identity] = self._read(identity)
            while len(self._trajectories) > _KEPT:
                self._trajectories.popitem(last=False)
        return self._trajectories[identity]

    def _read(self, identity: str) -> Trajectory | str:
        if self.store is None or not self.store.has_trajectory(identity):
            return "no_trajectory"
        try:
            return self.store.trajectory(identity)
        except (StoreError, ValidationError):
            return "unreadable"

    def arms(self, row: Preference, of: Trajectory, at: int) -> dict[str, Arm]:
        """The decisions that were taken where a side's was, with all rollouts of the same stage that took them: what
        pairing compared. Empty where it cannot be known."""
        assert self.store is not None
        together = row.source == "environment" and row.level == "outcome"  # siblings alone
        where = state_of if row.source == "environment" and row.level == "step" else fork_of
        key = (of.id.rpartition("/")[0], where, together and (of.policy_version, of.context_policy))
        if key not in self._states:
            self._states[key] = index_states(self._siblings(of, together), where=where)
            while len(self._states) > _KEPT // 8:
                self._states.popitem(last=False)
        return self._states[key].get(where(of, at), {})

    def _siblings(self, of: Trajectory, together: bool) -> list[Trajectory]:
        assert self.store is not None
        try:
            found = self.store.siblings(of.id, of.task)
        except (StoreError, ValidationError):
            return []
        alike = (of.policy_version, of.context_policy)
        return [one for one in found if not _problem_of(one)
                and (not together or (one.policy_version, one.context_policy) == alike)]  # fmt: skip

    def line_values(self, of: Trajectory) -> Mapping[str, float]:
        """What the lines of a search were worth, by trajectory: from the account that the search left."""
        assert self.store is not None
        stage = of.id.removesuffix(f"/{of.task.id}/{of.id.rpartition('/')[2]}")
        account = self.store.get_fact(f"{stage}/account/{of.task.id}") or {}
        return {line["trajectory"]: line["value"] for line in account.get("lines", ())}

    def better_side(self, comparison: str) -> str | None:
        """The side of a comparison whose rollout succeeded where the other's failed; None where neither is known to be
        better."""
        if self.store is None or comparison not in self.comparisons:
            return None
        evidence = self.comparisons[comparison][1].evidence
        won = {}
        for side in _LABEL_SIDES:
            witness = evidence.get(side)
            if not isinstance(witness, dict) or "trajectory" not in witness:
                return None
            trajectory = self.trajectory(witness["trajectory"])
            won[side] = None if isinstance(trajectory, str) else trajectory.success
        if won["first"] is won["second"] or None in won.values():
            return None
        return "first" if won["first"] else "second"


# -- pairs -------------------------------------------------------------------------------------------------------------


def check_pair(row: Preference, books: Books) -> list[Problem]:
    """What is wrong with a pair's evidence, with keys of ``REASONS``; or why it proves less, with keys of ``NOTES``."""
    problems: list[Problem] = []
    by_labels, by_pages = "comparison" in row.evidence, _names_pages(row.evidence, _PAIR_SIDES)
    if by_labels:
        problems += _check_labels(row, books)
    if by_pages and books.store is not None:
        problems += _check_pages(row, books)
    elif by_pages and not by_labels:
        problems.append(("unchecked", NOTES["unchecked"]))
    if by_labels or by_pages:
        return problems
    judges = row.source in ("human", "teacher") and not {"metadata", "columns"} & row.evidence.keys()
    if judges or row.source in OF_ROLLOUTS:
        return [("no_evidence", REASONS["no_evidence"])]
    return [("own_word", NOTES["own_word"])]


def _names_pages(evidence: Mapping[str, Any], sides: Sequence[str]) -> bool:
    return all(isinstance(evidence.get(side), dict) and "trajectory" in evidence[side] for side in sides)


def _check_pages(row: Preference, books: Books) -> list[Problem]:
    problems: list[Problem] = []
    found: dict[str, tuple[Trajectory, int]] = {}
    prompts = {}
    for side in _PAIR_SIDES:
        witness = row.evidence[side]
        trajectory = books.trajectory(str(witness["trajectory"]))
        if isinstance(trajectory, str):
            problems.append((trajectory, f"{side}: {witness['trajectory']}"))
            continue
        at = 0 if row.level == "trajectory" else witness.get("step")
        own = _problem_of(trajectory)
        if own:
            problems.append((own, f"{side}: {trajectory.failure or trajectory.task.split}"))
        if not isinstance(at, int) or not 0 <= at < len(trajectory.steps):
            problems.append(("no_step", f"{side}: step {at} of {len(trajectory.steps)}"))
            continue
        step = trajectory.steps[at]
        problems += _check_place(side, row.evidence, (row.task_name, row.seed), row.state_hash, trajectory, step)
        problems += _check_texts(side, row, trajectory, step)
        prompts[side] = step.messages == row.messages
        found[side] = (trajectory, at)
    if len(found) == 2:
        # Step and outcome pairs quote the chosen side's prompt; others may quote either's.
        needed = [prompts["chosen"]] if row.source in ("environment", "search") else [any(prompts.values())]
        if row.evidence.get("same_prompt") is True and row.source in ("environment", "search"):
            needed.append(prompts["rejected"])
        if not all(needed):
            problems.append(("prompt_differs", "the pair's prompt is not the one at that step"))
        problems += _check_order(row, found, books)
    return problems


def _problem_of(trajectory: Trajectory) -> str | None:
    """Why nothing may be learned from a trajectory."""
    scored = trajectory.failure is None and trajectory.success is not None
    return None if scored and trajectory.task.split in TRAINABLE else "held_out"


def _check_place(
    side: str, evidence: Mapping[str, Any], about: tuple[str, int | None], state: str, trajectory: Trajectory,
    step: Step,
) -> Iterator[Problem]:  # fmt: skip
    task = trajectory.task
    if (task.name, task.seed) != about or evidence.get("task_id", task.id) != task.id:
        yield "task_differs", f"{side}: {task.id}"
    if step.observation.state_hash != state:
        yield "state_differs", f"{side}: {step.observation.state_hash}, not {state}"


def _check_texts(side: str, row: Preference, trajectory: Trajectory, step: Step) -> Iterator[Problem]:
    text: str = getattr(row, side)
    action = row.evidence[side].get("action")
    if row.level == "trajectory":
        turns = [(turn.messages, turn.completion) for turn in getattr(row, f"{side}_more")]
        written = [(one.messages, one.completion) for one in trajectory.steps[1:]]
        done = "; ".join(str(decision(one)) for one in trajectory.steps)
        if step.completion != text or turns != written:
            yield "text_differs", f"{side}: not what {trajectory.id} wrote"
    else:
        done = str(decision(step))
        if step.completion != text:
            yield "text_differs", f"{side}: {trajectory.id} wrote {step.completion[:80]!r}"
    if action is not None and action != done:
        yield "action_differs", f"{side}: {done[:80]}, not {str(action)[:80]}"


# -- which side did better ---------------------------------------------------------------------------------------------


def _check_order(row: Preference, found: Mapping[str, tuple[Trajectory, int]], books: Books) -> list[Problem]:
    """The chosen side's outcome is above the rejected side's, by the run's own trajectories."""
    (chosen, _), (rejected, _) = found["chosen"], found["rejected"]
    if row.source in ("environment", "memory") and not (chosen.success is True and rejected.success is False):
        return [("outcome_order", f"chosen: success is {chosen.success}, rejected: {rejected.success}")]
    if row.source == "heuristic":
        return _check_rules(row, found, books)
    if row.source not in ("environment", "search", "memory") or row.level == "trajectory":
        return []
    name, count, value_of = ("value", "n", _success) if row.source != "search" else ("q", "visits", None)
    values: dict[str, float] = {}
    problems: list[Problem] = []
    for side, (trajectory, at) in found.items():
        witness, taken = row.evidence[side], decision(trajectory.steps[at])
        arm = books.arms(row, trajectory, at).get(str(taken))
        counted = _of_search(arm, books.line_values(trajectory)) if value_of is None else value_of(arm)
        if counted is None:
            problems.append(("value_differs", f"{side}: nothing in the run gives it a value"))
            continue
        values[side], tries = counted
        if abs(values[side] - float(witness.get(name, -1))) > _ROUNDING or tries != witness.get(count):
            said = f"{witness.get(name)} of {witness.get(count)} tries"
            problems.append(("value_differs", f"{side}: {values[side]:g} of {tries} tries, and it says {said}"))
    if len(values) == 2:
        margin = values["chosen"] - values["rejected"]
        if margin <= 0:
            problems.append(("outcome_order", f"values {values['chosen']:g} and {values['rejected']:g}"))
        elif abs(margin - row.margin) > _ROUNDING:
            problems.append(("margin_differs", f"{margin:g}, not {row.margin:g}"))
    return problems


def _check_rules(row: Preference, found: Mapping[str, tuple[Trajectory, int]], books: Books) -> list[Problem]:
    """The rules that a pair names, asked again."""
    arms: list[Arm] = []
    for trajectory, at in (found["chosen"], found["rejected"]):
        arm = books.arms(row, trajectory, at).get(str(decision(trajectory.steps[at])))
        if arm is None:
            return [("value_differs", "nothing in the run took this decision")]
        arms.append(arm)
    problems: list[Problem] = []
    for name in row.evidence.get("rules") or ("",):
        said = RULES[name](*arms) if name in RULES else None
        if said is None or said.better.decision != arms[0].decision:
            problems.append(("rule_order", f"{name or 'it names none'}"))
    return problems


def _success(arm: Arm | None) -> tuple[float, int] | None:
    return None if arm is None else (arm.value, arm.n)


def _of_search(arm: Arm | None, values: Mapping[str, float]) -> tuple[float, int] | None:
    """Mean value of the lines through a decision; lines of refused branches have none."""
    worth = [values[taken.trajectory.id] for taken in (arm.passes if arm else ()) if taken.trajectory.id in values]
    return (fmean(worth), len(worth)) if worth else None


# -- labels ------------------------------------------------------------------------------------------------------------


def _check_labels(row: Preference, books: Books) -> list[Problem]:
    identity, seqs = str(row.evidence["comparison"]), row.evidence.get("labels")
    book = books.of(identity)
    if book is None:
        return [("no_comparison", identity)]
    seq, comparison = book.comparisons[identity]
    if not isinstance(seqs, list) or not seqs:
        return [("no_label", "it names no label")]
    problems: list[Problem] = []
    votes = []
    for number in seqs:
        label = book.labels.get(number)
        if label is None:
            problems.append(("no_label", f"entry {number}"))
        elif number in book.withdrawn:
            problems.append(("label_withdrawn", f"entry {number}"))
        elif (label.comparison, label.source) != (identity, row.source):
            problems.append(("label_elsewhere", f"entry {number}: {label.source} of {label.comparison}"))
        else:
            votes.append(Entry(number, 0.0, "label", label.model_dump(mode="json"), ""))
    if comparison.messages != row.messages:
        problems.append(("prompt_differs", f"comparison {identity}"))
    if {row.chosen, row.rejected} != {comparison.first, comparison.second}:
        return [*problems, ("text_differs", f"comparison {identity} is of other answers")]
    if not votes:
        return problems
    verdict = judged([Entry(seq, 0.0, "comparison", comparison.model_dump(mode="json"), ""), *votes])[0]
    preferred = None if verdict.winner is None else getattr(comparison, verdict.winner)
    if preferred != row.chosen:
        problems.append(("label_order", f"comparison {identity}: {verdict.counts}"))
    raters = sorted({vote.label.rater for vote in verdict.votes})
    if len(votes) == len(seqs) and row.evidence.get("raters", raters) != raters:
        problems.append(("raters_differ", f"comparison {identity}: {', '.join(raters)}"))
    return problems


def check_comparison(comparison: Comparison, books: Books) -> list[Problem]:
    """What is wrong with the pages that a comparison names. Nothing where it is of plain text."""
    if not _names_pages(comparison.evidence, _LABEL_SIDES):
        return []
    if books.store is None:
        return [("unchecked", NOTES["unchecked"])]
    problems: list[Problem] = []
    prompts = []
    for side in _LABEL_SIDES:
        witness = comparison.evidence[side]
        trajectory = books.trajectory(str(witness["trajectory"]))
        if isinstance(trajectory, str):
            problems.append((trajectory, f"{side}: {witness['trajectory']}"))
            continue
        at = witness.get("step")
        if not isinstance(at, int) or not 0 <= at < len(trajectory.steps):
            problems.append(("no_step", f"{side}: step {at} of {len(trajectory.steps)}"))
            continue
        step, task = trajectory.steps[at], comparison.task or trajectory.task
        problems += _check_place(side, comparison.evidence, (task.name, task.seed), comparison.state_hash, trajectory,
                                 step)  # fmt: skip
        if step.completion != getattr(comparison, side):
            problems.append(("text_differs", f"{side}: {trajectory.id} wrote {step.completion[:80]!r}"))
        prompts.append(step.messages == comparison.messages)
    if prompts and not any(prompts):
        problems.append(("prompt_differs", "the comparison's prompt is neither side's at that step"))
    return problems
