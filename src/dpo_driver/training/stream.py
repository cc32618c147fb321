"""Where the steps of online training come from: rollouts, made in turns with the updates or ahead of them.

One *generation batch* is: draw start states by the curriculum, roll out groups of siblings with the newest weights, put
new groups in place of those in which all siblings did equally well, write everything to the journal, learn from it in
one or more updates. Called by training/online.py. Knows no algorithm and no environment by name: rollouts come from a
:class:`Stage`.
"""

from __future__ import annotations

import math
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor

from dpo_driver.core import ranks
from dpo_driver.core.errors import TrainingError
from dpo_driver.core.protocols import Policy
from dpo_driver.core.records import StopReason, Trajectory
from dpo_driver.core.schema_training import GrpoConfig
from dpo_driver.training.actor import Actor
from dpo_driver.training.batches import StepBatch
from dpo_driver.training.curriculum import Curriculum, Draw
from dpo_driver.training.experience import Rollout, as_tokens, reward_of
from dpo_driver.training.journal import Journal

NOTHING_TO_LEARN = 5  # generation batches in a row without a group whose siblings differ


class Stage(Protocol):
    """Where rollouts happen: the flywheel's browsers, or a toy in a test."""

    def roll_out(self, policy: Policy, draws: Sequence[Draw], siblings: int, name: str) -> list[Trajectory]:
        """Every draw ``siblings`` times, from provably equal starts; failures of the world are in the records. The ids
        of equal draws and names are equal. Several processes all ask for the same, and all must get the same list."""
        ...

    def validate(self, policy: Policy) -> dict[str, float]:
        """``success`` and what else is worth a line, on validation seeds."""
        ...


@dataclass
class Generation:
    """One generation batch: what it is learned from, and the account of it. JSON both ways, for the journal."""

    number: int
    version: int  # updates that the acting weights had behind them
    groups: list[list[Trajectory]]  # those whose siblings differ
    curriculum: dict[str, Any]  # its state afterwards
    episodes: int  # that were rolled out, failures included
    metrics: dict[str, float] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """For the journal."""
        groups = [[trajectory.model_dump(mode="json") for trajectory in group] for group in self.groups]
        return {**vars(self), "groups": groups}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Generation:
        """What :meth:`as_json` gave."""
        groups = [[Trajectory.model_validate(each) for each in group] for group in data["groups"]]
        return cls(**{**data, "groups": groups})


class Producer:
    """Makes generation batches: draws, rolls out, refills, tops up."""

    def __init__(self, stage: Stage, curriculum: Curriculum, config: GrpoConfig) -> None:
        self._stage, self._curriculum, self._config = stage, curriculum, config

    def make(self, number: int, version: int, policy: Policy) -> Generation:
        """Roll out one batch with a policy."""
        began = time.monotonic()
        config, wanted = self._config, self._config.groups_per_step
        kept: list[list[Trajectory]] = []
        rewards: list[float] = []
        count = {"episodes": 0, "excluded": 0, "same": 0, "groups": 0, "opened": 0, "overlong": 0}
        rounds = 0
        while len(kept) < wanted and rounds <= config.max_refills:
            draws = self._curriculum.draw(wanted - len(kept))
            groups, lost = self._groups(draws, policy, f"grpo/{number}.{rounds}")
            count["excluded"] += lost
            count["episodes"] += sum(map(len, groups)) + lost
            for draw, group in zip(draws, groups, strict=True):
                found = [reward_of(trajectory, config.reward) for trajectory in group]
                rewards += found
                count["groups"] += 1
                count["overlong"] += sum(t.stop_reason is StopReason.CONTEXT_OVERFLOW for t in group)
                count["opened"] += self._curriculum.record(draw.family, found)
                if len(group) > 1 and max(found) > min(found):
                    kept.append(group)
                else:
                    count["same"] += 1
            rounds += 1
        metrics = {
            "reward": sum(rewards) / len(rewards) if rewards else math.nan,
            "groups": float(count["groups"]), "groups/same": float(count["same"]), "refills": float(rounds - 1),
            "episodes": float(count["episodes"]), "excluded": float(count["excluded"]),
            "horizon": float(self._curriculum.horizon), "families": float(len(self._curriculum.open)),
            "opened": float(count["opened"]), "overlong": float(count["overlong"]),
            "rollout_seconds": time.monotonic() - began,
        }  # fmt: skip
        return Generation(number, version, kept, self._curriculum.state(), count["episodes"], metrics)

    def _groups(self, draws: Sequence[Draw], policy: Policy, name: str) -> tuple[list[list[Trajectory]], int]:
        """A group for each draw, without failures; siblings that failed are asked for once more. And how many
        failed."""
        siblings = self._config.num_generations
        found = _by_task(self._stage.roll_out(policy, draws, siblings, name), draws, siblings)
        groups = [[each for each in group if each.failure is None] for group in found]
        lost = sum(map(len, found)) - sum(map(len, groups))
        short = [i for i, group in enumerate(groups) if len(group) < siblings]
        if short:
            missing = max(siblings - len(groups[i]) for i in short)
            again = self._stage.roll_out(policy, [draws[i] for i in short], missing, f"{name}/again")
            for i, group in zip(short, _by_task(again, [draws[i] for i in short], missing), strict=True):
                start = groups[i][0].start_hash if groups[i] else None
                sound = [t for t in group if t.failure is None and start in (None, t.start_hash)]
                lost += len(group) - len(sound)
                groups[i] += sound[: siblings - len(groups[i])]
        return groups, lost


def _by_task(found: Sequence[Trajectory], draws: Sequence[Draw], siblings: int) -> list[list[Trajectory]]:
    """Trajectories in the order of the draws, siblings by their number."""
    if len(found) != len(draws) * siblings:
        raise TrainingError(f"{len(draws) * siblings} rollouts were asked for and {len(found)} came back")
    return [list(found[i * siblings : (i + 1) * siblings]) for i in range(len(draws))]


class RolloutStream:
    """Steps for the trainer, without end until the budget of episodes is used: from the journal as far as it goes, then
    from live rollouts, in turns with the updates or ahead of them.

    Args:
        producer: makes new batches.
        journal: read first, and written.
        learn: turns rollouts into a step.
        sync: the newest weights and how many updates they have seen.
        actor: gets these weights and acts.
    """

    def __init__(
        self,
        producer: Producer,
        curriculum: Curriculum,
        journal: Journal,
        config: GrpoConfig,
        tokenizer: Any,
        actor: Actor,
        learn: Callable[[Sequence[Rollout]], StepBatch],
        sync: Callable[[], tuple[int, dict[str, Tensor]]],
    ) -> None:
        self._producer, self._curriculum, self._journal, self._config = producer, curriculum, journal, config
        self._tokenizer, self._actor, self._learn, self._sync = tokenizer, actor, learn, sync
        self.generation, self.part = 0, 0  # where the next step begins
        self.episodes, self.empty = 0, 0
        self.current: Generation | None = None
        self.over: str | None = None  # why there are no more steps
        self._first = 0  # updates that were done when the current batch was begun
        self._ahead: _Ahead | None = None
        # Several processes begin a batch that is made ahead with the same weights: those of when all were ready for it.
        self._begun = 0
        self._agreed: dict[int, tuple[int, dict[str, Tensor]]] = {}

    @property
    def parts(self) -> int:
        """Updates of a full generation batch."""
        return self._config.steps_per_generation * self._config.num_iterations

    def __iter__(self) -> Iterator[StepBatch]:
        try:
            while self.over is None:
                generation = self._next()
                self._first = self._sync()[0] - self.part
                steps = self._steps(generation)
                self.empty = 0 if steps else self.empty + 1
                self.current = generation
                while self.part < len(steps):
                    self.part += 1
                    if self.part == len(steps):
                        self._close(generation)  # before the step: the checkpoint behind it must know
                        yield self._learn(steps[-1])
                        break
                    yield self._learn(steps[self.part - 1])
                else:
                    self._close(generation)
        finally:
            self.stop()

    def stop(self) -> None:
        """Let a batch that is being rolled out ahead come to its end."""
        if self._ahead is not None:
            self._ahead.close()
            self._ahead = None

    def state(self) -> dict[str, Any]:
        """Where the stream stands, for a checkpoint."""
        return {"generation": self.generation, "part": self.part, "episodes": self.episodes, "empty": self.empty,
                "curriculum": self._curriculum_state}  # fmt: skip

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on where :meth:`state` was taken."""
        self.generation, self.part = state["generation"], state["part"]
        self.episodes, self.empty = state["episodes"], state["empty"]
        if state["curriculum"] is not None:
            self._curriculum.restore(state["curriculum"])

    @property
    def _curriculum_state(self) -> dict[str, Any] | None:
        return None if self.current is None else self.current.curriculum

    def _close(self, generation: Generation) -> None:
        self.generation, self.part = generation.number, 0
        self.episodes += generation.episodes
        if self.episodes >= self._config.episodes:
            self.over = "finished"
        elif self.empty >= NOTHING_TO_LEARN:
            self.over = "nothing_to_learn"

    def _next(self) -> Generation:
        number = self.generation + 1
        kept = ranks.of_main(lambda: self._journal.read(number) if number <= self._journal.last() else None)
        if kept is not None:
            generation = Generation.from_json(kept)
            self._curriculum.restore(generation.curriculum)
            return generation
        if self._config.max_staleness == 0:
            version, weights = self._sync()
            generation = self._producer.make(number, version, self._actor.policy(weights, f"update-{version}"))
        else:
            if self._ahead is None:
                self._begun = number - 1
                self._ahead = _Ahead(self._producer, self._actor, self._begin, number)
            if self._begun < number:
                self._agree_on(number)
            generation = self._ahead.take()
            self.offer()
        if ranks.is_main():
            self._journal.write(number, generation.as_json())
        return generation

    def offer(self) -> None:
        """Begin the next batch ahead if all processes are ready for it; they must ask together."""
        if ranks.count() == 1 or self._ahead is None:
            return
        number = self._begun + 1
        ready = self._ahead.waits_for == number and self._may_begin(number)
        if ranks.total([ready]) == [ranks.count()]:
            self._agree_on(number)

    def _agree_on(self, number: int) -> None:
        self._begun = number
        self._agreed[number] = self._sync()

    def _begin(self, number: int) -> tuple[int, dict[str, Tensor]] | None:
        """Version and weights to make a batch with; None as long as it may not begin."""
        if ranks.count() > 1:
            return self._agreed.pop(number, None)
        return self._sync() if self._may_begin(number) else None

    def _may_begin(self, number: int) -> bool:
        """Whether a batch may be rolled out with the weights of now: at its last update they are too old otherwise."""
        done, _ = self._sync()
        reading, first = (self.generation + 1, done) if self.current is None else (self.current.number, self._first)
        last = first + (number - reading + 1) * self.parts - 1
        return last - done <= max(self._config.max_staleness, self.parts - 1)

    def _steps(self, generation: Generation) -> list[list[Rollout]]:
        """Groups dealt to the updates, and that again for each iteration."""
        groups = [
            [as_tokens(t, self._tokenizer, reward=self._config.reward, gamma=self._config.gamma) for t in group]
            for group in generation.groups
        ]
        groups = [[rollout for rollout in group if rollout.decisions] for group in groups]
        count = min(self._config.steps_per_generation, len(groups))
        dealt = [[rollout for group in groups[i::count] for rollout in group] for i in range(count)]
        return [step for _ in range(self._config.num_iterations) for step in dealt]


class _Ahead:
    """A thread that rolls the next batch out while the trainer learns from the last.

    Args:
        begin: version and weights to make a batch with, or None while it may not begin.
        number: of the first batch.
    """

    def __init__(
        self,
        producer: Producer,
        actor: Actor,
        begin: Callable[[int], tuple[int, dict[str, Tensor]] | None],
        number: int,
    ) -> None:
        self._made: queue.Queue[Generation | BaseException] = queue.Queue(maxsize=1)
        self._closing = threading.Event()
        self._producer, self._actor, self._begin = producer, actor, begin
        self.waits_for: int | None = None  # the batch that it could begin now
        self._thread = threading.Thread(target=self._run, args=(number,), name="rollouts-ahead", daemon=True)
        self._thread.start()

    def take(self) -> Generation:
        """The next batch, when it is there."""
        made = self._made.get()
        if isinstance(made, BaseException):
            raise made
        return made

    def close(self) -> None:
        """End the thread; what it has made and nobody took is lost."""
        self._closing.set()
        while self._thread.is_alive():
            try:
                self._made.get(timeout=0.1)
            except queue.Empty:
                continue

    def _run(self, number: int) -> None:
        try:
            while True:
                # In this order: what all processes agreed to make before they closed, all of them make.
                closing = self._closing.is_set()
                begun = None if closing and ranks.count() == 1 else self._begin(number)
                if begun is None:
                    if closing:
                        return
                    self.waits_for = number
                    time.sleep(0.01)
                    continue
                self.waits_for = None
                version, weights = begun
                policy = self._actor.policy(weights, f"update-{version}")
                self._made.put(self._producer.make(number, version, policy))
                number += 1
        except BaseException as error:  # noqa: BLE001  handed to the trainer's thread, which raises it
            self._made.put(error)
