"""The hybrid: the solver plays, and a model takes over where it says that it is at its end, step by step of a run.

What is right on any page (closing a window, entering a code that has appeared) stays with the solver even then: it
costs no tokens. Also :class:`StepwiseAgent`, which lets a model forget earlier steps. Called by rollouts and the
command line. Knows the model's agent by its protocol only: must not import policies or environments.
"""

from __future__ import annotations

from collections.abc import Sequence

from dpo_driver.agents.experts.page import Page
from dpo_driver.agents.solver import agent as solver
from dpo_driver.agents.solver.page import PuzzlePage, of_this_step
from dpo_driver.core.actions import ReportInfeasible
from dpo_driver.core.protocols import Agent, Move
from dpo_driver.core.records import Observation, Step, Task

SOLVER_ACTIONS = 24  # on one step: more than any type needs
SETBACKS = 2  # of the solver on one step (see agents/solver/agent.py): it goes round in circles


class StepwiseAgent:
    """An agent whose memory begins anew at each step of a run: its prompt holds what it did on this one."""

    def __init__(self, inner: Agent) -> None:
        self._inner = inner

    @property
    def name(self) -> str:
        return self._inner.name

    @property
    def policy_version(self) -> str:
        return self._inner.policy_version

    @property
    def context_policy(self) -> str:
        return f"{self._inner.context_policy}+stepwise"

    async def act(self, task: Task, observation: Observation, history: Sequence[Step]) -> Move:
        return await self._inner.act(task, observation, of_this_step(observation, history))


class HybridAgent:
    """``HybridAgent(PolicyAgent(policy, "chat"))``.

    Args:
        model: plays what the solver leaves: steps that it does not know, or on which it gets nowhere.
        solver_actions: how many actions on one step the solver may take before the model has its turn.
    """

    def __init__(self, model: Agent, *, solver_actions: int = SOLVER_ACTIONS, profile: str = "chat") -> None:
        self._model = StepwiseAgent(model)
        self._solver = solver.SolverAgent(profile)
        self._limit = solver_actions

    @property
    def name(self) -> str:
        return "hybrid"

    @property
    def policy_version(self) -> str:
        return f"solver+{self._model.policy_version}"

    @property
    def context_policy(self) -> str:
        return self._model.context_policy

    async def act(self, task: Task, observation: Observation, history: Sequence[Step]) -> Move:
        """The solver's move; the model's, once the solver has given this step up."""
        page = PuzzlePage.of(observation, history)
        if any(step.generation is not None for step in page.history):
            free = solver.reflexes(page, history) or solver.enter_revealed(page)
            if free is not None:
                return self._solver.written(*free, observation, history)
            return await self._model.act(task, observation, history)
        if len(page.history) < self._limit and solver.setbacks(page) < SETBACKS:
            thought, action = solver.solve(Page(observation, history))
            if not isinstance(action, ReportInfeasible):
                return self._solver.written(thought, action, observation, history)
        return await self._model.act(task, observation, history)
