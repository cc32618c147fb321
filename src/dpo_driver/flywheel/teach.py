"""Teach: a model at any endpoint judges comparisons, both orders of each, and its labels go into a preference log.

What was answered is kept beside the log under its question's address (answers.py), so a call is paid once: the same
command goes on where it was stopped. A label is written the moment both orders of its comparison are answered; pairing
makes preferences of labels (preferences/human.py). Called by cli/teach.py; knows the endpoint as a policy only, and
where comparisons come from not at all.
"""

from __future__ import annotations

import asyncio
import fcntl
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from dpo_driver.agents.reasoning_check import strange_codes
from dpo_driver.core.errors import DataError, DriverError, RolloutFailure, StoreError
from dpo_driver.core.protocols import RemotePolicy
from dpo_driver.core.records import Comparison, Generation, Label, Message, Sampling, Usage
from dpo_driver.flywheel.answers import Answer, Answers, added, address
from dpo_driver.preferences.human import read_entry
from dpo_driver.preferences.log import PreferenceLog
from dpo_driver.preferences.teacher import (
    ORDERS,
    SOURCE,
    VERSION,
    Order,
    Rubric,
    Verdict,
    asked_again,
    in_both_orders,
    label_of,
    question,
    rubric_for,
    verdict_line,
    verdict_of,
)

FOLDER = "judgements"  # beside the log
LOCK = "teach.lock"
REPEATS = 2  # after an answer that cannot be read; then the comparison gets no label
SAMPLING = Sampling(temperature=0.0, max_new_tokens=384)
LOST_IN_A_ROW = 5  # comparisons without an answer, after which the endpoint is taken for dead


@dataclass(frozen=True)
class Asked:
    """A comparison as it is put to the teacher."""

    comparison: Comparison
    rubric: Rubric
    messages: dict[Order, tuple[Message, ...]]
    keys: dict[Order, str]


@dataclass
class Account:
    """How far it came. ``usage`` is of all calls that these questions ever took."""

    model: str
    comparisons: int = 0
    labelled: int = 0
    preferred: Counter[str] = field(default_factory=Counter)  # labels, by what was preferred
    disagreed: int = 0  # ties because the two orders disagree
    shown_first: int = 0  # verdicts for the answer that was shown first ...
    shown_second: int = 0  # ... and for the other one
    unreadable: int = 0  # comparisons without a label, because no verdict could be read, however often asked
    too_long: int = 0  # comparisons without a label, because they do not fit the model
    unanswered: int = 0
    calls: int = 0  # of this command
    usage: Usage = field(default_factory=lambda: Usage(cost=0.0))
    lost: str = ""  # why the last comparison without an answer has none
    problem: DriverError | None = None  # that ended it early

    @property
    def done(self) -> int:
        return self.labelled + self.unreadable + self.too_long

    def as_json(self) -> dict[str, Any]:
        found: dict[str, Any] = {one.name: getattr(self, one.name) for one in fields(self)}
        found |= {"preferred": dict(sorted(self.preferred.items())), "usage": self.usage.model_dump()}
        return found | {"problem": None if self.problem is None else str(self.problem)}


class Teaching:
    """Comparisons, what a teacher has said of them, and what is still to be asked.

    Args:
        log: open for writing. Comparisons that it lacks are added.
        comparisons: what is judged.
        model: who judges, by the version of its policy; the rater in the labels.
        rubric: by what; None: each comparison by the package's own (:func:`teacher.rubric_for`).

    Raises:
        DataError: there is nothing to judge.
    """

    def __init__(
        self, log: PreferenceLog, comparisons: Iterable[Comparison], model: str, rubric: Rubric | None = None
    ) -> None:
        self._log, self._answers = log, Answers(log.path.parent, FOLDER)
        found = {one.id: one for one in comparisons}
        if not found:
            raise DataError("there is nothing to judge", where=str(log.path),
                            remedy="put comparisons up first: name a run with rollouts, or --texts FILE")  # fmt: skip
        self._asked = [_asked(one, rubric or rubric_for(one), model) for one in found.values()]
        self.account = Account(model, len(self._asked))
        known = {str(entry.body["id"]) for entry in log.standing("comparison")}
        new = [one.model_dump(mode="json") for identity, one in found.items() if identity not in known]
        if new:
            log.append("comparison", new)
        self._before = self._labels()
        self._known = {key: self._answers.get(key) for one in self._asked for key in one.keys.values()}
        for answers in self._known.values():
            for answer in answers:
                self.account.usage = added(self.account.usage, answer.usage)
        self._open = [one for one in self._asked if not self._settle(one)]

    def _labels(self) -> dict[str, tuple[int, Label]]:
        """This rater's labels that stand, by comparison."""
        labels = ((entry.seq, read_entry(Label, entry)) for entry in self._log.standing("label"))
        own = (SOURCE, self.account.model)
        return {label.comparison: (seq, label) for seq, label in labels if (label.source, label.rater) == own}

    def _settle(self, asked: Asked) -> bool:
        """Count a comparison whose answers say enough, and write its label; False if something must be asked."""
        account = self.account
        answers = {order: self._known[asked.keys[order]] for order in ORDERS}
        if any(answer.finish == "error" for given in answers.values() for answer in given):
            account.too_long += 1
            return True
        verdicts = {order: verdict for order in ORDERS if (verdict := _verdict(answers[order])) is not None}
        if any(len(answers[order]) > REPEATS for order in ORDERS if order not in verdicts):
            account.unreadable += 1
            return True
        if len(verdicts) < len(ORDERS):
            return False
        self._write(asked, verdicts)
        preferred, agreed = in_both_orders(verdicts["given"], verdicts["swapped"])
        account.labelled += 1
        account.preferred[preferred] += 1
        account.disagreed += not agreed
        account.shown_first += sum(verdict == "a" for verdict in verdicts.values())
        account.shown_second += sum(verdict == "b" for verdict in verdicts.values())
        return True

    def _write(self, asked: Asked, verdicts: dict[Order, Verdict]) -> None:
        """The label, unless it stands already. One by another rubric no longer counts then: a rater has one vote."""
        label = label_of(asked.comparison, self.account.model, asked.rubric, verdicts, asked.keys)
        seq, before = self._before.get(label.comparison, (0, None))
        if before == label:
            return
        if before is not None:
            self._log.withdraw(seq, "judged again by the same teacher", rubric_hash=asked.rubric.digest)
        [entry] = self._log.append("label", [label.model_dump(mode="json")])
        self._before[label.comparison] = (entry.seq, label)

    async def run(
        self, policy: RemotePolicy, jobs: int = 8, show: Callable[[Account], None] = lambda _account: None
    ) -> None:
        """Ask what is open, ``jobs`` comparisons at once. What stops it early is in ``account.problem``: the calls
        under way then are still waited for, because they are paid."""
        waiting, lost = deque(self._open), 0

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
        self.account.unanswered = self.account.comparisons - self.account.done

    async def _ask(self, policy: RemotePolicy, asked: Asked) -> None:
        """Ask in the first order that has no verdict yet."""
        order = next(order for order in ORDERS if _verdict(self._known[asked.keys[order]]) is None)
        before, messages = self._known[asked.keys[order]], asked.messages[order]
        sampling = SAMPLING.model_copy(update={"seed": len(before)})
        given = await policy.answer(asked_again(messages) if before else messages, sampling)
        answer = _kept(messages, given)
        self.account.calls += 1
        self.account.usage = added(self.account.usage, answer.usage)
        before.append(answer)
        self._answers.put(asked.keys[order], self.account.model, f"{asked.comparison.id} {order}", before)


def _asked(comparison: Comparison, rubric: Rubric, model: str) -> Asked:
    messages = {order: question(comparison, rubric, order) for order in ORDERS}
    keys = {order: address(model, VERSION, messages[order], "") for order in ORDERS}
    return Asked(comparison, rubric, messages, keys)


def _verdict(answers: list[Answer]) -> Verdict | None:
    """The first verdict. Read anew each time, so that a better reader counts for old answers too. An answer that was
    cut off ends with none."""
    found = (verdict_of(answer.text) for answer in answers if answer.text is not None and answer.finish == "stop")
    return next((verdict for verdict in found if verdict is not None), None)


def _kept(messages: tuple[Message, ...], given: Generation) -> Answer:
    """An answer as it may be written down. Of one with a code from nowhere, which may be a key, only the verdict is."""
    known = "\n".join(message.content for message in messages)
    text = verdict_line(given.text) if strange_codes(given.text, known) else given.text
    return Answer(text, given.finish_reason, given.usage or Usage(cost=None, estimated=True))


def _silent(failure: RolloutFailure) -> DriverError:
    return DriverError(f"the endpoint does not answer: {failure.detail}", where=f"{LOST_IN_A_ROW} comparisons in a row",
                       remedy="the same command goes on from here")  # fmt: skip


@contextmanager
def alone(log: Path) -> Iterator[None]:
    """One process at a time teaches into a log: two would pay the same calls.

    Raises:
        StoreError: another one does.
    """
    folder = log.parent / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StoreError("another process is being taught into this log", where=str(log),
                             remedy="wait for it to finish, or stop it") from None  # fmt: skip
        yield
