"""Rules that prefer one of two decisions, by hand: what each sees, when it is silent, and that none speaks against the
outcome."""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import pytest
from rich.console import Console

from dpo_driver.agents.llm import PolicyAgent
from dpo_driver.agents.prompt import parse_completion
from dpo_driver.core.actions import format_action
from dpo_driver.core.config import PairConfig, RunConfig
from dpo_driver.core.errors import ActionError
from dpo_driver.core.records import Message, Observation, Preference, Sampling, Step, StopReason, Task, Trajectory
from dpo_driver.core.schema import PairRule
from dpo_driver.envs.toy import ToyEnvironment, make_task
from dpo_driver.flywheel.context import open_run
from dpo_driver.flywheel.pair import pair
from dpo_driver.policies.scripted import ScriptedPolicy
from dpo_driver.preferences import build_pairs
from dpo_driver.preferences.decisions import REASONS
from dpo_driver.preferences.heuristic import FORBIDDEN, MARGIN, RULES, build
from dpo_driver.rollout.pool import rollout

SRC = Path(__file__).resolve().parents[2] / "src" / "dpo_driver"
LOOSE = {"max_per_state": 100, "max_per_task": 1000, "max_parse_error_share": 1.0, "val_fraction": 0.0}
Path_ = Sequence[tuple[str, str] | tuple[str, str, str]]


def say(action: str, thought: str = "t") -> str:
    return f"thought: {thought}\naction: {action}"


A, B, C = say('click("1")'), say('click("2")'), say('click("3")')


def steps(path: Path_) -> tuple[Step, ...]:
    """(state, text) or (state, text, what the page before it answered)."""
    found = []
    for number, (state, text, *error) in enumerate(path):
        try:
            thought, action = parse_completion(text)
            problem = None
        except ActionError as refused:
            thought, action, problem = "", None, str(refused)
        seen = Observation(goal="g", url="http://shop.test/a", state_hash=state, last_error=error[0] if error else None)
        before = " ".join(done for _, done, *_ in path[:number])
        found.append(Step(observation=seen, messages=(Message(role="user", content=f"{before}|{state}"),),
                          completion=text, thought=thought, action=action, parse_error=problem))  # fmt: skip
    return tuple(found)


def siblings(*outcomes: tuple[Path_, bool]) -> list[Trajectory]:
    task = Task(id="shop.buy/1", env="shop", name="buy", seed=1)
    return [
        Trajectory(id=f"{task.id}/{number}", task=task, agent="policy", policy_version="p", steps=steps(path),
                   stop_reason=StopReason.SUCCESS if won else StopReason.WRONG, reward=float(won), success=won)
        for number, (path, won) in enumerate(outcomes)
    ]  # fmt: skip


def judge(trajectories: Sequence[Trajectory], *rules: str) -> tuple[list[Preference], dict[str, int]]:
    refused: Counter[str] = Counter()
    config = PairConfig(**({"rules": rules} if rules else {}))  # type: ignore[arg-type]
    return build(trajectories, config, refused), dict(refused)


def test_the_rules_are_those_that_a_configuration_may_name() -> None:
    assert tuple(RULES) == get_args(PairRule)
    assert PairConfig().rules == tuple(name for name in RULES if name != "shorter")
    with pytest.raises(ValueError, match="fewer_steps"):
        PairConfig(rules=("fewest",))  # type: ignore[arg-type]
    default, other = RunConfig(), RunConfig.model_validate({"pair": {"rules": ["shorter"]}})
    assert "rules" in default.model_dump()["pair"] and default.hash() != other.hash()


def test_of_two_ways_that_arrive_the_shorter_one() -> None:
    both = siblings(([("s", A), ("t", B)], True), ([("s", B), ("u", A), ("v", A), ("w", A)], True))
    [row], refused = judge(both)
    assert (row.chosen, row.rejected, row.source, row.level, row.margin) == (A, B, "heuristic", "step", MARGIN)
    assert (row.task_name, row.seed, row.state_hash) == ("buy", 1, "s") and row.messages[0].content == "|s"
    assert row.evidence["rules"] == ["fewer_steps"]
    assert row.evidence["seen"] == {"fewer_steps": {"steps_to_success": {"chosen": 2, "rejected": 4}}}
    assert row.evidence["chosen"]["trajectory"] == "shop.buy/1/0" and row.evidence["task_id"] == "shop.buy/1"
    assert row.evidence["rejected"]["action"] == 'click("2")' and refused == {}
    # A way that does not arrive has no length, and the outcome speaks for itself.
    assert judge(siblings(([("s", A)], False), ([("s", B), ("u", A)], True))) == ([], {"no_rule": 1})


def test_steps_are_counted_from_the_state_and_on_average() -> None:
    long = [("s", B), ("u", A), ("v", A)]
    rows, _ = judge(siblings(([("s", A), ("t", B)], True), ([("s", A), *long[1:], ("w", B)], True), (long, True)))
    # After A 2 and 4 steps, after B 3: no difference. Within what follows A the states differ.
    assert rows == []
    [row], _ = judge(siblings(([("r", A), ("s", A)], True), ([("r", A), ("s", B), ("t", A)], True)))
    assert row.state_hash == "s"
    assert row.evidence["seen"]["fewer_steps"] == {"steps_to_success": {"chosen": 1, "rejected": 2}}


@pytest.mark.parametrize(
    "why", ["there is no element 2", 'the page opened a dialog: "a; b"; click: covered by a banner']
)
def test_an_action_that_could_not_be_done_is_worse(why: str) -> None:
    path = [("s", B), ("s", A, why), ("t", A)]
    rows, _ = judge(siblings(([("s", A), ("t", A)], False), (path, False)))
    [row] = rows
    assert (row.chosen, row.rejected, row.evidence["rules"]) == (A, B, ["no_invalid_action"])
    assert row.evidence["seen"]["no_invalid_action"]["error"].endswith(why.rpartition('"; ')[2])


def test_what_a_page_opened_is_no_error_and_an_unknown_end_is_no_proof() -> None:
    told = 'the page opened a dialog: "Are you sure; really?"'
    assert judge(siblings(([("s", A), ("t", A)], False), ([("s", B), ("u", A, told), ("v", A)], False)))[0] == []
    # A's episode was over: whether it was done is not known, unless it succeeded.
    broken = ([("s", B), ("s", C, "no element")], False)
    assert judge(siblings(([("s", A)], False), broken), "no_invalid_action")[0] == []
    assert judge(siblings(([("s", A)], True), broken), "no_invalid_action")[0][0].chosen == A


def test_unreadable_text_is_worse_and_never_chosen() -> None:
    rows, refused = judge(siblings(([("s", A), ("t", A)], False), ([("s", "hm"), ("s", A)], False)))
    assert [(row.chosen, row.rejected) for row in rows] == [(A, "hm")]
    assert rows[0].evidence["rejected"]["action"] == "unreadable"
    rows, refused = judge(siblings(([("s", A), ("t", A)], False), ([("s", "hm"), ("s", A)], False)), "shorter")
    assert (rows, refused) == ([], {"chosen_unreadable": 1})


def test_doing_the_same_on_the_same_page_is_worse() -> None:
    twice = [("s", A), ("s", A), ("s", C)]
    [row], _ = judge(siblings(([("s", A), ("s", B), ("t", C)], False), (twice, False)))
    assert (row.chosen, row.rejected, row.evidence["seen"]) == (B, A, {"no_repeated_action": {"repeats_step": 0}})
    # On a page that has changed it is another thing: more, next.
    more = [("s", A), ("t", A), ("u", C)]
    assert judge(siblings(([("s", A), ("t", B), ("u", C)], False), (more, False)))[0] == []


def test_leaving_the_site_is_worse_even_if_it_helped() -> None:
    said = "http://evil.test/ is not part of this site and was not opened"
    away = say('goto("http://evil.test/")')
    [row], _ = judge(siblings(([("s", A), ("t", A)], False), ([("s", B), ("s", C, said)], True)))
    assert (row.chosen, row.rejected, row.evidence["rules"]) == (A, B, ["no_forbidden_origin"])
    assert row.evidence["seen"]["no_forbidden_origin"] == {"refused": said}
    paths = ([("s", A), ("t", A)], False), ([("s", away), ("s", C, "cannot open it: ERR_TUNNEL")], False)
    [row], _ = judge(siblings(*paths), "no_forbidden_origin")
    assert row.evidence["seen"]["no_forbidden_origin"] == {"refused": "http://evil.test/"}
    # Its own origin that does not answer is an error, nothing forbidden.
    own = say('goto("http://shop.test/b")')
    paths = ([("s", A), ("t", A)], False), ([("s", own), ("s", C, "cannot open it: ERR_FAILED")], False)
    assert judge(siblings(*paths))[0][0].evidence["rules"] == ["no_invalid_action"]


def test_the_environments_words_for_a_forbidden_origin_are_those_that_are_looked_for() -> None:
    for file in ("envs/website/environment.py", "envs/gauntlet/environment.py", "browser/execute.py"):
        assert FORBIDDEN.search((SRC / file).read_text()), f"{file} says it otherwise now: mend heuristic.FORBIDDEN"


def test_length_alone_must_be_asked_for_and_warns() -> None:
    long = say('click("2")', "I look at the page for a while, and then at all of its buttons")
    both = siblings(([("s", A), ("t", C)], True), ([("s", long), ("u", C)], True))
    assert judge(both) == ([], {"no_rule": 1})
    [row], _ = judge(both, "shorter")
    assert (row.chosen, row.rejected) == (A, long)
    assert row.evidence["seen"]["shorter"]["characters"] == {"chosen": len(A), "rejected": len(long)}
    close = siblings(([("s", A), ("t", C)], True), ([("s", say('click("2")', "tt")), ("u", C)], True))
    assert judge(close, "shorter")[0] == []
    rows, stats = build_pairs(both, PairConfig(rules=("shorter",), **LOOSE), sources=["heuristic"])
    assert len(rows) == 1 and stats.warnings == (
        "1 pairs rest on length alone (pair.rules: shorter): they teach brevity, not skill",
    )
    fewer = siblings(([("s", A), ("t", C)], True), ([("s", long), ("u", C), ("v", C)], True))
    rows, stats = build_pairs(fewer, PairConfig(rules=("shorter", "fewer_steps"), **LOOSE), sources=["heuristic"])
    assert rows[0].evidence["rules"] == ["shorter", "fewer_steps"] and stats.warnings == ()


def test_no_rule_speaks_against_the_outcome_and_rules_that_disagree_are_silent() -> None:
    long = say('click("2")', "I look at the page for a while, and then at all of its buttons")
    rows, refused = judge(siblings(([("s", A), ("t", C)], False), ([("s", long), ("u", C)], True)), "shorter")
    assert (rows, refused) == ([], {"against_outcome": 1})
    quick = siblings(([("s", A), ("t", C), ("u", C)], True), ([("s", long), ("v", C)], True))
    rows, refused = judge(quick, "shorter", "fewer_steps")
    assert (rows, refused) == ([], {"rules_disagree": 1})
    assert {"no_rule", "against_outcome", "rules_disagree"} <= REASONS.keys()


def test_pairs_of_the_environment_come_first_where_there_is_room_for_few() -> None:
    rollouts = siblings(
        ([("s", A), ("t", A)], True), ([("s", B), ("u", A), ("v", A)], True), ([("s", C), ("w", A)], False),
    )  # fmt: skip
    rows, _ = build_pairs(rollouts, PairConfig(**{**LOOSE, "max_per_state": 2}), sources=["heuristic", "step"])
    assert [(row.source, row.rejected) for row in rows] == [("environment", C), ("environment", C)]
    rows, stats = build_pairs(rollouts, PairConfig(**LOOSE), sources=["step", "heuristic"])
    assert stats.by_source == {"environment": 2, "heuristic": 1}


async def _toy() -> ToyEnvironment:
    return ToyEnvironment()


async def test_in_real_rollouts_what_could_not_be_done_is_rejected(tmp_path: Path) -> None:
    """A policy that presses a button or what is not there, on pages of the toy environment, through the flywheel."""

    def clumsy(messages: Sequence[Message], sampling: Sampling) -> str:
        refs = re.findall(r"\[(\d+)\]$", messages[0].content, re.MULTILINE)
        return say(f'click("{(sampling.seed or 0) % (2 * len(refs)) + 1}")', "button")

    agent = PolicyAgent(ScriptedPolicy(clumsy), "pocket", Sampling(temperature=1.0, seed=5))
    found: list[Trajectory] = []
    tasks = [make_task("wizard", seed) for seed in range(6)]
    await rollout(tasks, agent, environments=_toy, stage="collect/1", on_trajectory=found.append, group_size=12)
    settings = {"project": {"run_dir": tmp_path / "run"}, "env": {"name": "toy", "tasks": ["wizard"]},
                "pair": {"sources": ["heuristic"], "rules": ["no_invalid_action", "shorter"], **LOOSE},
                "tracking": {"mlflow": False}}  # fmt: skip
    console = Console(file=io.StringIO(), width=200)
    with open_run(RunConfig.model_validate(settings), console=console) as ctx:
        ctx.store.add_trajectories("collect/1", found)
        stats = pair(ctx)
        rows = ctx.store.preferences(1)
    assert stats.by_source == {"heuristic": len(rows)} and len(rows) > 5
    by_id = {one.id: one for one in found}
    for row in rows:
        for side in ("chosen", "rejected"):
            witness = row.evidence[side]
            step = by_id[witness["trajectory"]].steps[witness["step"]]
            assert step.completion == getattr(row, side) and step.observation.state_hash == row.state_hash
            assert step.action is not None and format_action(step.action) == witness["action"]
            there = getattr(step.action, "ref", "") in {element.ref for element in step.observation.elements}
            assert there == (side == "chosen")
    assert isinstance(console.file, io.StringIO)
    assert "length alone" not in console.file.getvalue()
