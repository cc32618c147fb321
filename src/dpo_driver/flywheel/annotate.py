"""Annotate: a few sentences of reasoning for every decision of the successful demonstrations, from any endpoint.

What was answered is kept under its question's address (answers.py), so a call is paid once: the same command goes on
where it was stopped. The originals stay as they are; trajectories with the new thoughts lie beside them under the stage
``annotated``, and training reads those where ``demos.thoughts`` says so. Called by cli/annotate.py and train.py; knows
the endpoint as a policy only.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, fields
from typing import Any

from dpo_driver.agents.prompt import PROFILES, Profile, get_profile
from dpo_driver.agents.reasoning import PROMPT_VERSION, asked_again, cleaned, question, thinking, with_thoughts
from dpo_driver.agents.reasoning_check import Problem, problems
from dpo_driver.core.actions import Action, format_action
from dpo_driver.core.config import RunConfig
from dpo_driver.core.errors import DataError, DriverError, RolloutFailure
from dpo_driver.core.protocols import RemotePolicy
from dpo_driver.core.records import Generation, Message, Observation, Sampling, Step, Trajectory, Usage
from dpo_driver.core.store import RunStore
from dpo_driver.flywheel.answers import Answer, Answers, added, address
from dpo_driver.policies.budget import tokens_in
from dpo_driver.preferences.decisions import learnable

SOURCE, STAGE = "demos", "annotated"
FACT = "annotate"
REPEATS = 2  # after a refused answer; then the step keeps its expert's thought
SAMPLING = Sampling(temperature=0.7, max_new_tokens=256)
LOST_IN_A_ROW = 5  # questions without an answer, after which the endpoint is taken for dead
CUT_OFF = {"length": "cut", "error": "prompt"}  # by how it ended: at the limit, or before it began


@dataclass(frozen=True)
class Question:
    """One decision that is asked about; equal ones are asked once."""

    key: str
    messages: tuple[Message, ...]
    observation: Observation
    history: tuple[Step, ...]
    action: Action

    def verdict(self, answer: Answer) -> tuple[str | None, tuple[Problem, ...]]:
        """The thought of an answer, or what is wrong with it. Judged anew each time, so that a better check counts for
        old answers too."""
        if answer.text is None:
            return None, (Problem("code", "it held a code that is not on the page"),)
        thought = cleaned(answer.text)
        wrong = problems(thought, self.observation, self.action, self.history)
        return (None, wrong) if wrong or answer.finish != "stop" else (thought, ())


@dataclass
class Account:
    """How far it came. Counts are of questions, ``usage`` of all calls that any of them ever took."""

    model: str
    questions: int = 0
    steps: int = 0  # that share the questions
    trajectories: int = 0
    accepted: int = 0
    template: int = 0  # refused however often asked: the expert's thought stays
    unanswered: int = 0
    calls: int = 0  # of this command
    refused: Counter[str] = field(default_factory=Counter)  # answers to settled questions, by what was wrong
    usage: Usage = field(default_factory=lambda: Usage(cost=0.0))
    longest: int = 0  # characters of an accepted thought
    lost: str = ""  # why the last question without an answer has none
    problem: DriverError | None = None  # that ended it early

    def as_json(self) -> dict[str, Any]:
        found: dict[str, Any] = {one.name: getattr(self, one.name) for one in fields(self)}
        found |= {"refused": dict(self.refused), "usage": self.usage.model_dump(), "prompt_version": PROMPT_VERSION}
        return found | {"problem": None if self.problem is None else str(self.problem)}


class Annotation:
    """The successful demonstrations of a store, what is asked about them, and what was answered already.

    Args:
        store: of a run or any folder with demonstrations; open for writing.
        model: who answers, by the version of its policy.

    Raises:
        DataError: there are no successful demonstrations.
    """

    def __init__(self, store: RunStore, model: str) -> None:
        self._store, self._answers = store, Answers(store.run_dir)
        self._shown = [one for one in learnable(store.iterate(SOURCE), Counter()) if one.success]
        if not self._shown:
            raise DataError("there are no successful demonstrations", where=str(store.run_dir),
                            remedy="name a configuration, or record some: dpo-driver play TASK --save RUN")  # fmt: skip
        self._keys: dict[tuple[str, int], str] = {}  # by trajectory and step
        self._questions: dict[str, Question] = {}
        for one in self._shown:
            for index, asked in questions(one, model):
                self._keys[one.id, index] = asked.key
                self._questions.setdefault(asked.key, asked)
        self.account = Account(model, len(self._questions), len(self._keys), len(self._shown))
        self._thoughts: dict[str, str | None] = {}  # of settled questions; None: the expert's stays
        self._written: list[Trajectory] = []
        self._known = {key: self._answers.get(key) for key in self._questions}
        for asked in self._questions.values():
            for answer in self._known[asked.key]:
                self.account.usage = added(self.account.usage, answer.usage)
            self._settle(asked)

    def _settle(self, asked: Question) -> bool:
        """Count a question whose answers say enough; False if it must be asked (again)."""
        answers, account = self._known[asked.key], self.account
        refused: Counter[str] = Counter()
        thought = None
        for answer in answers:
            thought, wrong = asked.verdict(answer)
            if thought is not None:
                break
            refused.update([CUT_OFF[answer.finish]] if answer.finish in CUT_OFF else {one.kind for one in wrong})
        if thought is None and len(answers) <= REPEATS and not any(answer.finish == "error" for answer in answers):
            return False
        account.accepted += thought is not None
        account.template += thought is None
        account.refused += refused
        account.longest = max(account.longest, len(thought or ""))
        self._thoughts[asked.key] = thought
        return True

    async def run(
        self, policy: RemotePolicy, jobs: int = 8, show: Callable[[Account], None] = lambda _account: None
    ) -> None:
        """Ask what is not settled, ``jobs`` questions at once. What stops it early is in ``account.problem``: the calls
        under way then are still waited for, because they are paid."""
        waiting = deque(asked for key, asked in self._questions.items() if key not in self._thoughts)
        lost = 0

        async def work() -> None:
            nonlocal lost
            while waiting and self.account.problem is None:
                asked = waiting.popleft()
                try:
                    while not self._settle(asked) and self.account.problem is None:
                        await self._ask(policy, asked)
                    lost = 0
                except RolloutFailure as failure:
                    lost += 1
                    self.account.lost = failure.detail
                    if lost >= LOST_IN_A_ROW:
                        self.account.problem = _silent(failure)
                except DriverError as error:
                    self.account.problem = self.account.problem or error
                show(self.account)

        show(self.account)
        async with asyncio.TaskGroup() as group:
            for _ in range(min(jobs, len(waiting))):
                group.create_task(work())
        self.account.unanswered = len(self._questions) - len(self._thoughts)

    async def _ask(self, policy: RemotePolicy, asked: Question) -> None:
        before = self._known[asked.key]
        wrong = [problem.detail for answer in before for problem in asked.verdict(answer)[1]]
        if any(answer.finish == "length" for answer in before):
            wrong.append("it was too long")
        sampling = SAMPLING.model_copy(update={"seed": len(before)})
        given = await policy.answer(asked_again(asked.messages, wrong), sampling)
        answer = _kept(asked, given)
        self.account.calls += 1
        self.account.usage = added(self.account.usage, answer.usage)
        before.append(answer)
        self._answers.put(asked.key, self.account.model, format_action(asked.action), before)

    def write(self, profile: Profile | None) -> int:
        """Put trajectories of which all questions are settled beside the originals; returns how many.

        Args:
            profile: how they are written down; None: as each was recorded, with thoughts.
        """
        rows = []
        for one in self._shown:
            keys = [self._keys.get((one.id, index)) for index in range(len(one.steps))]
            if all(key is None or key in self._thoughts for key in keys):
                thoughts = [None if key is None else self._thoughts[key] for key in keys]
                form = profile or thinking(_recorded(one))
                identity = f"{STAGE}/{one.id.removeprefix(f'{SOURCE}/')}"
                rows.append(with_thoughts(one, thoughts, form).model_copy(update={"id": identity}))
        self._store.add_trajectories(STAGE, rows)
        self._written = rows
        self._store.set_fact(FACT, {**self.account.as_json(), "written": len(rows)})
        return len(rows)

    def too_long_for(self, config: RunConfig) -> str | None:
        """The warning of :func:`cut_short` for what was written, by a guess at its tokens: SFT counts them."""
        completions = (step.completion for one in self._written for step in one.steps)
        return cut_short(completions, config, lambda text: tokens_in(len(text)))


def questions(trajectory: Trajectory, model: str) -> Iterator[tuple[int, Question]]:
    """What is asked about each step at which something readable was done, by the step's index."""
    for index, step in enumerate(trajectory.steps):
        if step.action is not None:
            history = trajectory.steps[:index]
            messages = question(step.observation, history, step.action)
            key = address(model, PROMPT_VERSION, messages, format_action(step.action))
            yield index, Question(key, messages, step.observation, history, step.action)


def _kept(asked: Question, given: Generation) -> Answer:
    """An answer as it may be written down. One with a code from nowhere is not: it may be a key."""
    wrong = problems(cleaned(given.text), asked.observation, asked.action, asked.history)
    text = None if any(problem.kind == "code" for problem in wrong) else given.text
    return Answer(text, given.finish_reason, given.usage or Usage(cost=None, estimated=True))


def _silent(failure: RolloutFailure) -> DriverError:
    return DriverError(f"the endpoint does not answer: {failure.detail}", where=f"{LOST_IN_A_ROW} questions in a row",
                       remedy="the same command goes on from here")  # fmt: skip


def _recorded(trajectory: Trajectory) -> Profile:
    return next((one for one in PROFILES.values() if one.id == trajectory.context_policy), get_profile("chat"))


# -- what training reads -----------------------------------------------------------------------------------------------


def annotated(store: RunStore, config: RunConfig) -> list[Trajectory]:
    """The demonstrations of a run with annotated thoughts, in the run's own profile. The annotations may be another
    run's (``demos.annotations``): decisions are matched by task, pages and actions.

    Raises:
        DataError: some demonstrations have none; the command that makes them is named.
    """
    source = config.demos.annotations
    profile = get_profile(config.model.prompt_profile)
    shown = [one for one in learnable(store.iterate(SOURCE), Counter()) if one.success]
    with nullcontext(store) if source is None else RunStore(source, mode="read") as lender:
        known = {_decided(one): one for one in lender.iterate(STAGE)}
    lacking = [one.task.id for one in shown if _decided(one) not in known]
    if lacking:
        where = source or store.run_dir
        raise DataError(f"{len(lacking)} demonstrations have no annotated thoughts: {', '.join(lacking[:3])}",
                        where=str(where), remedy=f"dpo-driver annotate {where} --provider NAME")  # fmt: skip
    return [_rewritten(one, known[_decided(one)], profile) for one in shown]


def _decided(trajectory: Trajectory) -> tuple[Any, ...]:
    """Task, and page and action of every step: equal for demonstrations that show the same."""
    done = [(s.observation.state_hash, s.action and format_action(s.action)) for s in trajectory.steps]
    return (trajectory.task.id, *done)


def _rewritten(own: Trajectory, lent: Trajectory, profile: Profile) -> Trajectory:
    return with_thoughts(own, [step.thought for step in lent.steps], profile)


def cut_short(completions: Iterable[str], config: RunConfig, tokens: Callable[[str], int]) -> str | None:
    """A warning when answers as long as these would be cut off where the run generates; None if none would be.

    Args:
        completions: what is learned.
        config: of the run, with its limits on new tokens.
        tokens: counts those of a text.
    """
    limits = {"evaluate.max_new_tokens": config.evaluate.max_new_tokens}
    if config.rounds:
        limits["collect.max_new_tokens"] = config.collect.max_new_tokens
    if config.grpo.episodes:
        limits["grpo.max_completion_length"] = config.grpo.max_completion_length
    lengths: Sequence[int] = [tokens(text) for text in completions]
    longest, least = max(lengths, default=0), min(limits.values())
    if longest <= least:
        return None
    over = sum(length > least for length in lengths)
    keys = ", ".join(key for key, limit in limits.items() if limit < longest)
    return (f"{over} of {len(lengths)} answers to learn are longer than {least} tokens, the longest {longest}: "
            f"what the model writes will be cut before its action; raise {keys}")  # fmt: skip
