"""Where online training acts: the run's environments, the run's seeds, the run's prompt. Called by flywheel/grpo.py.

Several processes share every rollout and validation, each with environments of its own; all of them get all of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

from dpo_driver.agents.llm import PolicyAgent
from dpo_driver.core import ranks
from dpo_driver.core.errors import DriverError
from dpo_driver.core.protocols import Policy
from dpo_driver.core.records import Sampling, Task, Trajectory
from dpo_driver.core.schema_training import GrpoConfig
from dpo_driver.core.stats import rate
from dpo_driver.flywheel.shares import one_thread
from dpo_driver.rollout.kept import LiveRollouts
from dpo_driver.training.curriculum import Draw


class LiveStage:
    """Rollouts for training/stream.py.

    Args:
        live: environments, open.
        train_task: (family, number) -> task; the number counts start states of this family from 0.
        val_tasks: the same ones at each validation.
        config: how tokens are sampled.
        profile: prompt profile.
        seed: of the samples.
        max_batch: most prompts in one call of the policy.
    """

    def __init__(
        self,
        live: LiveRollouts,
        train_task: Callable[[str, int], Task],
        val_tasks: Sequence[Task],
        config: GrpoConfig,
        *,
        profile: str,
        seed: int,
        max_batch: int,
    ) -> None:
        self._live, self._train_task, self._val_tasks, self._config = live, train_task, val_tasks, config
        self._profile, self._seed, self._max_batch = profile, seed, max_batch

    def roll_out(self, policy: Policy, draws: Sequence[Draw], siblings: int, name: str) -> list[Trajectory]:
        """See :class:`dpo_driver.training.stream.Stage`. Samples depend on the seed, the name and the task only."""
        # Siblings that are asked for again must not repeat those that are there.
        seed = int.from_bytes(hashlib.sha256(f"{self._seed}/{name}".encode()).digest()[:6], "big")
        sampling = Sampling(temperature=self._config.temperature, top_p=self._config.top_p,
                            repetition_penalty=self._config.repetition_penalty,
                            max_new_tokens=self._config.max_completion_length, seed=seed)  # fmt: skip
        tasks = [self._train_task(draw.family, draw.number) for draw in draws]
        # Updates that take turns with the rollouts have all cores; those beside them must not (flywheel/grpo.py).
        with one_thread():
            found = self._live.roll_out(ranks.dealt(tasks), self._agent(policy, sampling), stage=name,
                                        group_size=siblings, in_step=self._config.max_staleness == 0)  # fmt: skip
        groups = [found[i : i + siblings] for i in range(0, len(found), siblings)]
        return [trajectory for group in ranks.gathered(ranks.gather(groups)) for trajectory in group]

    def validate(self, policy: Policy) -> dict[str, float]:
        """Strict success on the validation seeds, greedily."""
        sampling = Sampling(temperature=0.0, max_new_tokens=self._config.max_completion_length)
        with one_thread():
            found = self._live.roll_out(
                ranks.dealt(self._val_tasks), self._agent(policy, sampling), stage="grpo/validation"
            )
        successes = [success for part in ranks.gather([trajectory.success for trajectory in found]) for success in part]
        measured = rate(successes)
        if measured.success is None:  # nothing was measured, which is not nought
            raise DriverError("no validation episode could be played to its end", where="grpo/validation",
                              remedy="run `dpo-driver doctor`; the same command goes on where it stopped")  # fmt: skip
        return {"success": measured.success, "n": float(measured.n), "excluded": float(measured.excluded)}

    def _agent(self, policy: Policy, sampling: Sampling) -> PolicyAgent:
        return PolicyAgent(policy, self._profile, sampling, max_batch=self._max_batch, name="grpo")
