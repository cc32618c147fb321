"""Pairs from trajectories, counted by hand: what becomes a pair, what does not and why, caps, splits, replay rows."""

from __future__ import annotations

import random
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpo_driver.agents.llm import PolicyAgent
from dpo_driver.agents.prompt import parse_completion
from dpo_driver.core.actions import format_action, parse_action
from dpo_driver.core.config import PairConfig
from dpo_driver.core.errors import ActionError, UnknownNameError
from dpo_driver.core.records import Message, Observation, Preference, Sampling, Step, StopReason, Task, Trajectory
from dpo_driver.envs.toy import ToyEnvironment, make_task
from dpo_driver.policies.scripted import ScriptedPolicy
from dpo_driver.preferences import build_pairs, filters, successes_as_samples
from dpo_driver.preferences.decisions import REASONS, UNREADABLE, digest
from dpo_driver.preferences.replay import share_out
from dpo_driver.rollout.pool import rollout as rollout_pool

LOOSE = PairConfig(min_margin=0.5, max_per_state=100, max_per_task=10_000, max_parse_error_share=1.0, val_fraction=0.0)


def step(state: str, text: str, history: str = "") -> Step:
    """A step in a state; the prompt shows the state and what was done before."""
    try:
        thought, action = parse_completion(text)
        error = None
    except ActionError as problem:
        thought, action, error = "", None, str(problem)
    return Step(
        observation=Observation(goal="g", state_hash=state),
        messages=(Message(role="user", content=f"{history}|{state}"),),
        completion=text,
        thought=thought,
        action=action,
        parse_error=error,
    )


def say(action: str, thought: str = "t") -> str:
    return f"thought: {thought}\naction: {action}"


def rollout(
    path: Sequence[tuple[str, str]],
    success: bool | None,
    *,
    name: str = "click-link",
    seed: int = 1,
    sibling: int = 0,
    policy: str = "p1",
    split: str = "train",
    failure: str | None = None,
) -> Trajectory:
    """A trajectory through (state, completion) pairs; the history in the prompts grows with each action."""
    steps = []
    for index, (state, text) in enumerate(path):
        steps.append(step(state, text, history=" ".join(done for _, done in path[:index])))
    stop = StopReason.SUCCESS if success else StopReason.WRONG
    return Trajectory(
        id=f"miniwob.{name}/{seed}/{sibling}",
        task=Task(id=f"miniwob.{name}/{seed}", env="miniwob", name=name, seed=seed, split=split),  # type: ignore[arg-type]
        agent="policy",
        policy_version=policy,
        steps=tuple(steps),
        stop_reason=StopReason.BROWSER_LOST if failure else stop,
        reward=None if success is None else float(success),
        success=success,
        failure=failure,
    )


def group(*outcomes: tuple[Sequence[tuple[str, str]], bool | None], **fields: object) -> list[Trajectory]:
    return [rollout(path, won, sibling=i, **fields) for i, (path, won) in enumerate(outcomes)]  # type: ignore[arg-type]


A, B, C = say('click("1")'), say('click("2")'), say('click("3")')


def test_siblings_that_part_at_the_first_step() -> None:
    rows, stats = build_pairs(group(([("s0", A)], True), ([("s0", B)], False)), LOOSE)
    [row] = rows
    assert (row.chosen, row.rejected, row.level, row.source, row.margin) == (A, B, "step", "environment", 1.0)
    assert (row.task_name, row.seed, row.state_hash) == ("click-link", 1, "s0")
    assert row.messages == (Message(role="user", content="|s0"),)
    assert row.evidence["chosen"] == {
        "trajectory": "miniwob.click-link/1/0",
        "step": 0,
        "policy_version": "p1",
        "stop_reason": "success",
        "action": 'click("1")',
        "value": 1.0,
        "n": 1,
    }
    assert row.evidence["rejected"]["trajectory"] == "miniwob.click-link/1/1"
    assert row.id == digest(row.messages, A, B)
    # The outcome source finds the same pair; the step source said it first.
    assert stats.refused == {"duplicate": 1}
    assert (stats.trajectories, stats.used, stats.groups, stats.mixed_groups, stats.forked_states) == (2, 2, 1, 1, 1)
    assert (stats.by_task, stats.by_level, stats.by_split) == ({"click-link": 1}, {"step": 1}, {"train": 1})
    assert stats.mean_margin == 1.0
    [alone], stats = build_pairs(group(([("s0", A)], True), ([("s0", B)], False)), LOOSE, sources=["outcome"])
    assert alone == row.model_copy(update={"level": "outcome"}) and stats.refused == {}


def test_the_pair_is_taken_where_siblings_part_not_before() -> None:
    won, lost = [("s0", A), ("s1", B), ("s2", C)], [("s0", A), ("s1", C)]
    [row], _ = build_pairs(group((won, True), (lost, False)), LOOSE)
    assert (row.state_hash, row.chosen, row.rejected) == ("s1", B, C)
    assert (row.evidence["chosen"]["step"], row.evidence["rejected"]["step"]) == (1, 1)


def test_values_are_mean_success_through_a_decision() -> None:
    """click 1: won 3 of 4, click 2: won 1 of 4, click 3: won 0 of 1. Margins: 1-2 .5, 1-3 .75, 2-3 .25."""
    runs = [([("s0", A)], i < 3) for i in range(4)] + [([("s0", B)], i < 1) for i in range(4)] + [([("s0", C)], False)]
    rows, stats = build_pairs(group(*runs), LOOSE, sources=["step"])
    assert [(row.chosen, row.rejected, row.margin) for row in rows] == [(A, C, 0.75), (A, B, 0.5)]
    assert rows[1].evidence["chosen"]["value"] == 0.75 and rows[1].evidence["chosen"]["n"] == 4
    assert rows[1].evidence["rejected"]["value"] == 0.25
    assert stats.refused == {"margin_too_small": 1}
    # Quoted from a success and from a failure, whatever else went through the decision.
    assert rows[1].evidence["chosen"]["stop_reason"] == "success"
    assert rows[1].evidence["rejected"]["stop_reason"] == "wrong"
    [one], _ = build_pairs(group(*runs), LOOSE.model_copy(update={"min_margin": 0.6}))
    assert one.margin == 0.75


def test_step_pairs_come_from_later_states_and_from_other_policies() -> None:
    """Both siblings of p1 share s0; the state s1 was reached by p2 as well, whose other decision there failed."""
    first = rollout([("s0", A), ("s1", B)], True)
    other = rollout([("s0", A), ("s1", C)], False, policy="p2", sibling=1)
    rows, stats = build_pairs([first, other], LOOSE)
    [row] = rows
    assert (row.level, row.chosen, row.rejected, row.state_hash) == ("step", B, C, "s1")
    assert stats.refused["no_sibling"] == 2 and stats.groups == 0


def test_the_same_decision_in_other_words_is_never_a_pair() -> None:
    bracket, plain = "thought: one\naction: click([1])", "<think>two</think> click('1', button='left')"
    rows, stats = build_pairs(group(([("s0", bracket)], True), ([("s0", plain)], False)), LOOSE)
    assert rows == []
    assert stats.refused == {"same_action": 1}


def test_the_commonest_wording_is_quoted() -> None:
    rare, common = say('click("1")', "rare"), say('click("1")', "common")
    runs = [([("s0", rare)], True), ([("s0", common)], True), ([("s0", common)], True), ([("s0", B)], False)]
    [row], _ = build_pairs(group(*runs), LOOSE)
    assert row.chosen == common


def test_groups_without_contrast_or_with_another_start_are_refused() -> None:
    runs = [
        *group(([("s0", A)], True), ([("s0", B)], True), seed=1),
        *group(([("s0", A)], False), ([("s0", B)], False), seed=2),
        *group(([("s0", A)], True), ([("x0", B)], False), seed=3),
        *group(([("s0", A)], True), seed=4),
    ]
    rows, stats = build_pairs(runs, LOOSE, sources=["outcome"])
    assert rows == []
    assert stats.refused == {"same_outcome": 2, "start_hash_differs": 1, "no_sibling": 1}
    assert (stats.groups, stats.mixed_groups) == (2, 0)


def test_other_words_in_the_history_make_an_outcome_pair_only() -> None:
    """Same actions and pages, but another thought is in the history: another prompt, the same decision to take."""
    wordy = say('click("1")', "because")
    runs = group(([("s0", A), ("s1", B)], True), ([("s0", wordy), ("s1", C)], False), ([("s0", A), ("s1", B)], True))
    [row], stats = build_pairs(runs, LOOSE)
    assert (row.level, row.chosen, row.rejected, row.state_hash) == ("outcome", B, C, "s1")
    assert row.messages == runs[0].steps[1].messages != runs[1].steps[1].messages
    assert (row.evidence["same_prompt"], row.evidence["chosen"]["n"]) == (False, 2)
    assert stats.refused == {"context_differs": 1}


def test_equal_actions_that_lead_elsewhere_are_refused() -> None:
    runs = group(([("s0", A), ("s1", B)], True), ([("s0", A), ("s9", C)], False))
    assert build_pairs(runs, LOOSE)[1].refused == {"state_differs": 1}


def test_failures_unscored_and_held_out_trajectories_are_never_used() -> None:
    runs = [
        rollout([("s0", A)], True),
        rollout([("s0", B)], None, sibling=1, failure="browser_lost: gone"),
        rollout([("s0", B)], None, sibling=2),
        *group(([("s0", A)], True), ([("s0", B)], False), seed=2, split="val"),
        *group(([("s0", A)], True), ([("s0", B)], False), seed=3, split="test"),
    ]
    rows, stats = build_pairs(runs, LOOSE)
    assert rows == []
    assert stats.refused == {"failure": 1, "unscored": 1, "held_out": 4, "no_sibling": 1}
    assert (stats.trajectories, stats.used, stats.mean_margin) == (7, 1, None)


def test_unreadable_text_can_only_be_rejected() -> None:
    nonsense, other = "thought: hm", "action: jump(1)"
    [row], stats = build_pairs(group(([("s0", A)], True), ([("s0", nonsense)], False)), LOOSE)
    assert (row.rejected, row.evidence["rejected"]["action"]) == (nonsense, UNREADABLE)
    assert stats.unreadable_rejected == 1
    # It once led to success (a later step saved it): still nothing to imitate.
    saved = [("s0", nonsense), ("s0", A)]
    rows, stats = build_pairs(group((saved, True), ([("s0", B)], False)), LOOSE)
    assert rows == [] and stats.refused["chosen_unreadable"] == 2
    # Two unreadable texts are one decision.
    assert build_pairs(group((saved, True), ([("s0", other)], False)), LOOSE)[0] == []


def test_the_share_of_unreadable_rejected_texts_is_capped() -> None:
    runs = []
    for seed in range(20):
        bad = B if seed < 9 else "nonsense"
        runs += group(([(f"s{seed}", A)], True), ([(f"s{seed}", bad)], False), seed=seed)
    rows, stats = build_pairs(runs, LOOSE.model_copy(update={"max_parse_error_share": 0.1}))
    assert (len(rows), stats.unreadable_rejected, stats.refused["unreadable_cap"]) == (10, 1, 10)
    rows, stats = build_pairs(runs, LOOSE.model_copy(update={"max_parse_error_share": 0.0}))
    assert (len(rows), stats.unreadable_rejected) == (9, 0)


def test_equal_effect_of_single_tries_is_refused_but_hidden_state_is_believed() -> None:
    """Both clicks leave the page as it is. Tried once each, the later step made the difference; tried twice each with
    clear outcomes, the page remembers something it does not show."""
    won, lost = [("s0", A), ("s1", A)], [("s0", B), ("s1", B)]
    rows, stats = build_pairs(group((won, True), (lost, False)), LOOSE)
    assert rows == [] and stats.refused["same_effect"] == 2
    rows, _ = build_pairs(group((won, True), (won, True), (lost, False), (lost, False)), LOOSE)
    assert [(row.state_hash, row.chosen, row.rejected) for row in rows] == [("s0", A, B)]


def test_steps_without_prompt_are_passed_over() -> None:
    bare = Step(observation=Observation(goal="g", state_hash="s0"), action=parse_action('click("1")'))
    won = rollout([("s0", A)], True).model_copy(update={"steps": (bare,)})
    rows, stats = build_pairs([won, rollout([("s0", B)], False, sibling=1)], LOOSE)
    assert rows == [] and stats.refused == {"no_prompt": 2}  # said by both sources
    assert successes_as_samples([won]) == []


def test_caps_per_state_and_per_task() -> None:
    """Per seed one good decision and four bad ones: four pairs a state."""
    runs = []
    for seed in range(6):
        bad = [([(f"s{seed}", say(f'click("{ref}")'))], False) for ref in range(10, 14)]
        runs += group(([(f"s{seed}", A)], True), *bad, seed=seed)
    every, _ = build_pairs(runs, LOOSE)
    assert len(every) == 24
    two, stats = build_pairs(runs, LOOSE.model_copy(update={"max_per_state": 2}))
    assert len(two) == 12 and stats.refused["state_cap"] == 12
    assert set(Counter(row.seed for row in two).values()) == {2}
    # Nine of a task: every seed gives one before any gives two.
    nine, stats = build_pairs(runs, LOOSE.model_copy(update={"max_per_task": 9}))
    assert len(nine) == 9 and stats.refused["task_cap"] == 15
    assert sorted(Counter(row.seed for row in nine).values()) == [1, 1, 1, 2, 2, 2]


def preference(chosen: str, rejected: str, margin: float = 1.0) -> Preference:
    messages = (Message(role="user", content="p"),)
    identity = digest(messages, chosen, rejected)
    return Preference(
        id=identity, messages=messages, chosen=chosen, rejected=rejected, level="text", source="human", margin=margin
    )


def test_contradictions_lose_to_the_larger_margin() -> None:
    refused: Counter[str] = Counter()
    rows = [preference("a", "b", 0.9), preference("b", "a", 0.4), preference("c", "d"), preference("d", "c")]
    assert filters.drop_contradictions(rows, refused) == rows[:1]
    assert refused == {"contradiction": 3}


def test_split_is_by_seed_and_stable() -> None:
    splits = {seed: filters.split_of("click-link", seed, 0.1) for seed in range(5000)}
    share = sum(split == "val" for split in splits.values()) / 5000
    assert 0.085 < share < 0.115
    assert filters.split_of("click-link", 7, 0.0) == "train"
    # The same in every process, whatever its hash seed.
    script = (
        "from dpo_driver.preferences.filters import split_of as f; print([f('click-link', s, .1) for s in range(40)])"
    )
    told = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=60)
    assert told.stdout.strip() == str([splits[seed] for seed in range(40)])


def test_no_seed_is_in_both_splits() -> None:
    runs = []
    for seed in range(60):
        bad = [([(f"s{seed}", say(f'click("{ref}")'))], False) for ref in range(10, 13)]
        runs += group(([(f"s{seed}", A)], True), *bad, seed=seed)
    rows, stats = build_pairs(runs, LOOSE.model_copy(update={"val_fraction": 0.3}))
    assert len(rows) == 180
    by_split = {split: {row.seed for row in rows if row.split == split} for split in ("train", "val")}
    assert by_split["train"] and by_split["val"] and not by_split["train"] & by_split["val"]
    assert stats.by_split == dict(sorted(Counter(row.split for row in rows).items()))
    samples = successes_as_samples(runs, val_fraction=0.3)
    assert {sample.seed for sample in samples if sample.split == "val"} == by_split["val"]


def test_a_prompt_that_several_seeds_share_is_kept_once_and_on_one_side() -> None:
    """Pages repeat: 40 seeds show the same page, each with another wrong click; seeds 0 and 1 with the same one."""
    runs = []
    for seed in range(40):
        runs += group(([("s0", A)], True), ([("s0", say(f'click("{max(seed, 1) + 10}")'))], False), seed=seed)
    config = LOOSE.model_copy(update={"val_fraction": 0.3})
    rows, stats = build_pairs(runs, config, sources=["step"])
    held = sum(filters.split_of("click-link", seed, 0.3) == "val" for seed in range(40) if seed != 1)
    assert held > 3
    assert stats.refused == {"duplicate": 1, "leak": held}
    assert {row.split for row in rows} == {"train"} and len(rows) == 39 - held


def test_unknown_source() -> None:
    with pytest.raises(UnknownNameError, match="outcome"):
        build_pairs(group(([("s0", A)], True), ([("s0", B)], False)), LOOSE, sources=["outcom"])


actions = st.sampled_from([A, say('click("1")', "other words"), B, say('fill("4", "x")'), "nonsense"])
paths = st.lists(actions, min_size=1, max_size=3).map(lambda texts: [(f"s{i}", text) for i, text in enumerate(texts)])
worlds = st.lists(st.tuples(st.integers(0, 3), paths, st.booleans()), min_size=2, max_size=24)


@settings(max_examples=60, deadline=None)
@given(worlds, st.integers(0, 1000))
def test_every_pair_is_sound_and_order_does_not_matter(world: list[tuple[int, list, bool]], shuffle: int) -> None:
    runs = [rollout(path, won, seed=seed, sibling=i) for i, (seed, path, won) in enumerate(world)]
    config = PairConfig(min_margin=0.5, max_per_state=2, max_per_task=8, max_parse_error_share=0.2)
    rows, stats = build_pairs(runs, config)
    by_id = {run.id: run for run in runs}
    for row in rows:
        good, bad = row.evidence["chosen"], row.evidence["rejected"]
        winner, loser = by_id[good["trajectory"]], by_id[bad["trajectory"]]
        assert winner.success is True and loser.success is False
        chosen, rejected = winner.steps[good["step"]], loser.steps[bad["step"]]
        assert chosen.messages == row.messages
        assert row.evidence["same_prompt"] == (chosen.messages == rejected.messages)
        assert row.evidence["same_prompt"] or row.level == "outcome"
        before = [[step.action for step in run.steps[: side["step"]]] for run, side in ((winner, good), (loser, bad))]
        assert before[0] == before[1]
        assert chosen.observation.state_hash == rejected.observation.state_hash == row.state_hash
        assert (chosen.completion, rejected.completion) == (row.chosen, row.rejected)
        assert chosen.action is not None and chosen.action != rejected.action
        assert row.margin == pytest.approx(good["value"] - bad["value"]) and row.margin >= 0.5
        assert good["action"] == format_action(chosen.action)
    assert len({row.id for row in rows}) == len(rows) == stats.pairs <= 8
    assert stats.unreadable_rejected <= 0.2 * max(1, len(rows))
    assert max(Counter(row.messages for row in rows).values(), default=0) <= 2
    assert set(stats.refused) <= set(REASONS) and all(stats.refused.values())
    again, stats_again = build_pairs(random.Random(shuffle).sample(runs, len(runs)), config)
    assert (again, stats_again) == (rows, stats)


def test_successes_as_samples_takes_readable_steps_of_successes_once() -> None:
    saved = [("s0", "nonsense"), ("s0", A)]
    runs = [
        *group((saved, True), ([("s0", B), ("s1", C)], True), ([("s0", B)], False), ([("s0", B), ("s1", C)], True)),
        rollout([("s0", A)], True, seed=2, split="test"),
        rollout([("s0", A)], None, seed=3, failure="gone"),
    ]
    refused: Counter[str] = Counter()
    samples = successes_as_samples(runs, refused=refused)
    assert [sample.completion for sample in samples] == [A, B, C]  # the third success repeats the second's rows
    assert refused == {"held_out": 1, "failure": 1}
    assert {(sample.source, sample.task_name, sample.seed) for sample in samples} == {("replay", "click-link", 1)}


def test_replay_is_balanced_over_tasks_and_seeds() -> None:
    runs = []
    for name, seeds in (("big", 30), ("mid", 10), ("small", 2)):
        for seed in range(seeds):
            path = [("s0", say('click("1")', f"{name}{seed}")), ("s1", say('click("2")', f"{name}{seed}"))]
            runs.append(rollout(path, True, name=name, seed=seed))
    assert Counter(s.task_name for s in successes_as_samples(runs)) == {"big": 60, "mid": 20, "small": 4}
    capped = successes_as_samples(runs, max_per_task=12)
    assert Counter(s.task_name for s in capped) == {"big": 12, "mid": 12, "small": 4}
    assert len({s.seed for s in capped if s.task_name == "big"}) == 12  # one row from each of twelve seeds
    limited = successes_as_samples(runs, limit=30)
    assert Counter(s.task_name for s in limited) == {"big": 13, "mid": 13, "small": 4}
    assert limited == successes_as_samples(runs[::-1], limit=30)


@given(
    st.dictionaries(st.text(max_size=3), st.integers(0, 50), max_size=6),
    st.none() | st.integers(0, 30),
    st.integers(0, 120),
)
def test_shares_fill_the_limit_evenly(available: dict[str, int], cap: int | None, limit: int) -> None:
    shares = share_out(available, cap, limit)
    room = {name: n if cap is None else min(n, cap) for name, n in available.items()}
    assert sum(shares.values()) == min(limit, sum(room.values()))
    assert all(shares[name] <= room[name] for name in available)
    short = [name for name in available if shares[name] < room[name]]
    if short:  # whoever was cut gets at least as much as anyone else, to one row
        assert min(shares[name] for name in short) >= max(shares.values()) - 1


async def test_pairs_from_real_rollouts_prefer_what_the_goal_asks_for() -> None:
    """A guessing policy in the toy world, eight siblings a seed: in "press" and "wizard" only one click is right, so
    every chosen action must name an element of the goal and every rejected one must not."""

    def guess(messages: Sequence[Message], sampling: Sampling) -> str:
        page = messages[-1].content
        refs = re.findall(r"^button (\w+)\[(\d+)\]", page, flags=re.MULTILINE)
        name, ref = random.Random(f"{sampling.seed}").choice(refs)
        return f"thought: button {name}\naction: click([{ref}])"

    found: list[Trajectory] = []
    tasks = [make_task(name, seed) for name in ("press", "wizard") for seed in range(100, 125)]

    async def factory() -> ToyEnvironment:
        return ToyEnvironment()

    agent = PolicyAgent(ScriptedPolicy(guess), profile="pocket", sampling=Sampling(temperature=1.0, seed=1))
    await rollout_pool(
        tasks, agent, environments=factory, stage="collect/1", on_trajectory=found.append, workers=4, group_size=8
    )
    rows, stats = build_pairs(found, PairConfig(min_margin=0.25, val_fraction=0.2))
    assert stats.trajectories == stats.used == 400 and stats.groups == 50
    assert stats.by_task["press"] >= 30 and stats.by_task["wizard"] >= 4 and len(rows) == stats.pairs
    goals = {trajectory.task.id: trajectory.task.goal for trajectory in found}
    for row in rows:
        goal = goals[row.evidence["task_id"]]
        chosen, rejected = parse_completion(row.chosen)[0], parse_completion(row.rejected)[0]
        assert goal is not None and chosen.split()[1] in goal
        # A wizard asks for three words, one a page; on the page of the pair only the chosen one is right.
        assert rejected.split()[1] not in goal
    wins = [trajectory for trajectory in found if trajectory.success]
    assert len(successes_as_samples(found)) == len({(s.messages, s.completion) for t in wins for s in t.steps})


def test_trajectory_pairs_hold_every_turn() -> None:
    """Two successes (2 and 3 steps) and two failures (1 and 2 steps): shortest with shortest, then the next two."""
    a, b, c = say('click("1")'), say('click("2")'), say('click("3")')
    runs = [
        rollout([("s0", a), ("s1", b), ("s2", c)], True, sibling=0),
        rollout([("s0", a), ("s1", c)], True, sibling=1),
        rollout([("s0", b)], False, sibling=2),
        rollout([("s0", a), ("s1", a)], False, sibling=3),
    ]
    rows, stats = build_pairs(runs, LOOSE, sources=("trajectory",))
    assert stats.by_level == {"trajectory": 2}
    by_length = {1 + len(row.chosen_more): row for row in rows}
    short, long = by_length[2], by_length[3]
    assert [short.chosen, *[turn.completion for turn in short.chosen_more]] == [a, c]
    assert [short.rejected, *[turn.completion for turn in short.rejected_more]] == [b]
    assert [long.rejected, *[turn.completion for turn in long.rejected_more]] == [a, a]
    assert long.chosen == long.rejected == a  # they part later
    assert long.chosen_more[0].messages == runs[0].steps[1].messages
    assert build_pairs(runs, LOOSE)[1].by_level.get("trajectory") is None  # only where it is asked for
