"""From rollouts to batches: trajectories as tokens, their advantages, and forests in which equal prompts are shared.

Siblings begin with the same prompt, often go on through the same pages and sometimes write the same: each prompt, and
each completion of it, is computed once, however many rollouts it occurs in. Called by training/online.py.

Shapes: as in algorithms/rollouts.py; N scored tokens of a forest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from dpo_driver.algorithms.rollouts import Experience, OnlineAlgorithm, RolloutTotals, ScoredRollouts
from dpo_driver.core import ranks
from dpo_driver.core.errors import TrainingError
from dpo_driver.core.records import Trajectory
from dpo_driver.policies.encoding import encode_prompt
from dpo_driver.training.batches import StepBatch, dealt
from dpo_driver.training.logprobs import Distribution, Repetition, Scorer, TokenScores
from dpo_driver.training.parent import Parent
from dpo_driver.training.tree import Branch, Forest, Ids, pack, plant


@dataclass(frozen=True, slots=True)
class Decided:
    """One decision: what the model was given, what it wrote, and how probable that was when it was sampled."""

    prompt: Ids
    completion: Ids
    logps: tuple[float, ...]
    temperature: float
    kept: tuple[Ids, ...] | None  # for each token what could be drawn; None: everything
    state: str  # hash of the page
    repetition_penalty: float = 1.0

    @property
    def branch(self) -> Branch:
        return self.prompt, self.completion


@dataclass(frozen=True, slots=True)
class Rollout:
    """A trajectory as tokens. ``returns`` are discounted rewards from each decision on."""

    id: str
    group: str
    decisions: tuple[Decided, ...]
    reward: float
    returns: tuple[float, ...]


def reward_of(trajectory: Trajectory, kind: str) -> float:
    """``strict``: 1 for full reward, else 0; ``positive``: 1 for any reward above 0; ``dense``: the raw reward."""
    if kind == "dense":
        return trajectory.reward or 0.0
    return float(bool(trajectory.success if kind == "strict" else trajectory.positive))


def as_tokens(trajectory: Trajectory, tokenizer: Any, *, reward: str, gamma: float) -> Rollout:
    """A trajectory without failure, ready to learn from.

    A step's own reward (a milestone) counts where it was given; with ``strict`` and ``positive`` only the end does.

    Raises:
        TrainingError: a step whose tokens or log-probs were not recorded.
    """
    decisions = []
    for step in trajectory.steps:
        generation = step.generation
        if generation is None or not generation.token_ids or len(generation.logprobs) != len(generation.token_ids):
            if generation is not None and generation.finish_reason == "error":
                continue  # the prompt did not fit: nothing was written
            raise TrainingError("a step has no token ids with log-probs", where=trajectory.id,
                                remedy="online training needs a local policy")  # fmt: skip
        decisions.append(
            Decided(
                tuple(encode_prompt(tokenizer, step.messages)),
                generation.token_ids,
                generation.logprobs,
                generation.sampling.temperature,
                generation.kept or None,
                step.observation.state_hash,
                generation.sampling.repetition_penalty,
            )
        )
    total = reward_of(trajectory, reward)
    given = [0.0] * len(decisions)
    if reward == "dense":
        given = [step.reward or 0.0 for step in trajectory.steps][: len(decisions)]
    elif given:
        given[-1] = total
    returns = list(given)
    for i in range(len(returns) - 2, -1, -1):
        returns[i] += gamma * returns[i + 1]
    return Rollout(trajectory.id, trajectory.task.id, tuple(decisions), total, tuple(returns))


@dataclass(frozen=True, eq=False)
class RolloutBatch:
    """Some of a step's decisions on one forest. ``token_K`` leads from the tokens of the decisions, one after the
    other, to the forest's scored tokens: what several rollouts wrote alike lies there once."""

    forest: Forest
    rows: tuple[str, ...]
    sampled: Distribution
    token_K: Tensor
    old_K: Tensor
    reference_K: Tensor | None
    advantage_K: Tensor
    turn_K: Tensor
    lengths_U: Tensor
    trajectory_tokens_U: Tensor
    totals: RolloutTotals
    unshared_tokens: int  # that computing every decision with its own prompt would take

    def scored(self, scorer: Scorer) -> ScoredRollouts:
        """What an online algorithm is given."""
        tokens = scorer(self.forest, self.sampled)
        return ScoredRollouts(
            logps_K=tokens.logps_N.index_select(0, self.token_K),
            entropy_K=tokens.entropy_N.index_select(0, self.token_K),
            old_K=self.old_K,
            reference_K=self.reference_K,
            advantage_K=self.advantage_K,
            turn_K=self.turn_K,
            lengths_U=self.lengths_U,
            trajectory_tokens_U=self.trajectory_tokens_U,
            totals=self.totals,
        )

    def to(self, device: Any, non_blocking: bool = False) -> RolloutBatch:
        """The same batch on a device."""
        moved: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Tensor | Forest):
                moved[field.name] = value.to(device, non_blocking=non_blocking)
        return replace(self, sampled=self.sampled.to(device), **moved)


@dataclass(frozen=True, eq=False)
class _Part:
    """Decisions that are computed together, before their advantages are known."""

    forest: Forest
    sampled: Distribution
    turns: tuple[int, ...]  # numbers of the decisions within the step
    token_K: Tensor


def online_step(
    rollouts: Sequence[Rollout],
    algorithm: OnlineAlgorithm,
    *,
    scorer: Scorer,
    parent: Parent,
    tokens_per_pass: int,
) -> StepBatch:
    """One generation batch as forests, with advantages and, where the algorithm wants them, the parent's log-probs.

    Args:
        rollouts: groups of siblings, none empty; the same ones in every process.
        scorer: of the model in training, inside its session.
        parent: the weights that the KL is measured against.
        tokens_per_pass: as in training/batches.py.

    Returns:
        This process's share of the step.
    """
    decisions = [decided for rollout in rollouts for decided in rollout.decisions]
    cut, padding = dealt([(decided.branch,) for decided in decisions], tokens_per_pass, ranks.rank(), ranks.count())
    parts = [_part(rows, decisions) for rows in cut]
    references = [_reference(part, scorer, parent) if algorithm.beta else None for part in parts]
    lengths = [len(decided.completion) for decided in decisions]
    old_by_turn = [torch.tensor(decided.logps) for decided in decisions]
    drift_by_turn: list[Tensor] = [torch.zeros(n) for n in lengths]
    for turn, reference_K in _everyones(parts[: len(parts) - padding], references, lengths).items():
        drift_by_turn[turn] = old_by_turn[turn] - reference_K
    owner = [number for number, rollout in enumerate(rollouts) for _ in rollout.decisions]
    experience = _experience(rollouts, owner, lengths, torch.cat(drift_by_turn))
    advantages = algorithm.advantages(experience).float().split(lengths)
    tokens_J = torch.zeros(len(rollouts)).index_add(0, torch.tensor(owner), torch.tensor(lengths, dtype=torch.float32))
    totals = RolloutTotals(tokens=float(sum(lengths)), turns=float(len(decisions)), trajectories=float(len(rollouts)))
    batches = []
    for part, reference in zip(parts, references, strict=True):
        turns = list(part.turns)
        lengths_U = torch.tensor([lengths[turn] for turn in turns])
        batches.append(
            RolloutBatch(
                forest=part.forest,
                rows=tuple(rollouts[owner[turn]].id for turn in turns),
                sampled=part.sampled,
                token_K=part.token_K,
                old_K=torch.cat([old_by_turn[turn] for turn in turns]),
                reference_K=reference,
                advantage_K=torch.cat([advantages[turn] for turn in turns]),
                turn_K=torch.repeat_interleave(torch.arange(len(turns)), lengths_U),
                lengths_U=lengths_U.float(),
                trajectory_tokens_U=tokens_J[torch.tensor([owner[turn] for turn in turns])],
                totals=totals,
                unshared_tokens=sum(len(decisions[turn].prompt) + lengths[turn] for turn in turns),
            )
        )
    return StepBatch(tuple(batches), padding)


def _everyones(
    parts: Sequence[_Part], references: Sequence[Tensor | None], lengths: Sequence[int]
) -> dict[int, Tensor]:
    """Log-probs under the parent by number of the decision, of all processes' parts: advantages may depend on them."""
    own: dict[int, Tensor] = {}
    for part, reference in zip(parts, references, strict=False):
        if reference is not None:
            split = reference.split([lengths[turn] for turn in part.turns])
            own |= {turn: reference_K.clone() for turn, reference_K in zip(part.turns, split, strict=True)}
    return {turn: reference_K for found in ranks.gather(own) for turn, reference_K in found.items()}


def _part(rows: Sequence[int], decisions: Sequence[Decided]) -> _Part:
    numbers: dict[Branch, int] = {}
    first: list[Decided] = []
    for row in rows:
        if decisions[row].branch not in numbers:
            numbers[decisions[row].branch] = len(first)
            first.append(decisions[row])
    trees, planted = plant(list(numbers))
    forest = pack(trees)
    start, starts = 0, {}
    for number in planted:
        starts[number] = start
        start += len(first[number].completion)
    token_K = torch.cat([
        torch.arange(len(decisions[row].completion)) + starts[numbers[decisions[row].branch]] for row in rows
    ])  # fmt: skip
    ordered = [first[number] for number in planted]
    temperature_N = torch.cat([torch.full((len(d.completion),), d.temperature) for d in ordered])
    kept = None
    if any(decided.kept is not None for decided in ordered):
        kept = tuple(
            None if decided.kept is None else torch.tensor(decided.kept[i])
            for decided in ordered
            for i in range(len(decided.completion))
        )
    return _Part(forest, Distribution(temperature_N, kept, _repetition(ordered)), tuple(rows), token_K)


def _repetition(ordered: Sequence[Decided]) -> Repetition | None:
    """What decisions had before them when they were sampled with a penalty, in the order of the forest's tokens."""
    if all(decided.repetition_penalty == 1 for decided in ordered):
        return None
    lengths = torch.tensor([len(decided.completion) for decided in ordered])
    prompts: list[Tensor] = []
    for decided in ordered:
        prompts += [torch.tensor(sorted(set(decided.prompt)))] * len(decided.completion)
    return Repetition(
        penalty_N=torch.tensor([decided.repetition_penalty for decided in ordered]).repeat_interleave(lengths),
        prompts=tuple(prompts),
        written_M=torch.tensor([token for decided in ordered for token in decided.completion]),
        first_N=(lengths.cumsum(0) - lengths).repeat_interleave(lengths),
        at_N=torch.arange(int(lengths.sum())),
    )


@torch.no_grad()
def _reference(part: _Part, scorer: Scorer, parent: Parent) -> Tensor:
    """[K] log-probs under the parent, of the same distribution, without dropout."""
    device = next(scorer.model.parameters()).device
    was_training = scorer.model.training
    scorer.model.eval()
    with parent.in_place():
        tokens: TokenScores = scorer(part.forest.to(device), part.sampled.to(device))
    scorer.model.train(was_training)
    return tokens.logps_N.cpu().index_select(0, part.token_K)


def _experience(
    rollouts: Sequence[Rollout], owner: Sequence[int], lengths: Sequence[int], drift_K: Tensor
) -> Experience:
    groups: dict[str, int] = {}
    anchors: dict[tuple[str, str], int] = {}
    states = [(rollout.group, decided.state) for rollout in rollouts for decided in rollout.decisions]
    return Experience(
        reward_J=torch.tensor([rollout.reward for rollout in rollouts]),
        group_J=torch.tensor([groups.setdefault(rollout.group, len(groups)) for rollout in rollouts]),
        trajectory_U=torch.tensor(owner),
        return_U=torch.tensor([value for rollout in rollouts for value in rollout.returns]),
        anchor_U=torch.tensor([anchors.setdefault(state, len(anchors)) for state in states]),
        turn_K=torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths)),
        drift_K=drift_K,
    )
