"""Memory: what is found again and what never is, how it stands in the prompt, pairs of rollouts with and without."""

from __future__ import annotations

import asyncio
import io
import pickle
import subprocess
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from rich.console import Console

from dpo_driver.agents.memory import Memory, MemoryAgent
from dpo_driver.agents.oracle import OracleAgent
from dpo_driver.agents.prompt import PROFILES, Example, example_of, get_profile, render, with_memory
from dpo_driver.core import plugins
from dpo_driver.core.actions import Click, DragAndDrop, Fill, Noop
from dpo_driver.core.config import PairConfig
from dpo_driver.core.errors import DataError, StoreError
from dpo_driver.core.records import Element, Message, Observation, Sampling, Step, StopReason, Task, Trajectory
from dpo_driver.envs.toy import ToyEnvironment, make_task
from dpo_driver.flywheel.context import open_run
from dpo_driver.flywheel.memory import FILE, memorize
from dpo_driver.policies.scripted import ScriptedPolicy
from dpo_driver.preferences import build_pairs
from dpo_driver.preferences.memory import build
from dpo_driver.rollout.episode import run_episode
from dpo_driver.testing.check_agent import check_agent
from toy_reasoning import EXPERTS, config, record

CommandLine = Callable[..., "subprocess.CompletedProcess[str]"]
PAGE = (Element(ref="1", role="textbox", name="User"), Element(ref="2", role="button", name="Log in"),
        Element(ref=None, role="heading", name="Shop"))  # fmt: skip


def solved(
    family: str, seed: int, goal: str, *, split: str = "train", won: bool = True, start: str = "", extra: int = 0
) -> Trajectory:
    """A hand-made success: one text filled in, a button clicked, and perhaps more clicks."""
    seen = Observation(goal=goal, title="Shop", elements=PAGE, state_hash=start or f"{family}/{seed}")
    actions = [Fill(ref="1", value="bob"), Click(ref="2"), *[Click(ref="2")] * extra]
    task = Task(id=f"shop.{family}/{seed}", env="shop", name=family, seed=seed, split=split)  # type: ignore[arg-type]
    steps = tuple(Step(observation=seen, action=action, completion="x") for action in actions)
    reason = StopReason.SUCCESS if won else StopReason.WRONG
    return Trajectory(id=f"demos/{task.id}/{extra}", task=task, agent="oracle", steps=steps, stop_reason=reason,
                      reward=float(won), success=won)  # fmt: skip


def asked(family: str, seed: int, goal: str, start: str = "new") -> tuple[Task, Observation]:
    task = Task(id=f"shop.{family}/{seed}", env="shop", name=family, seed=seed, split="test")
    return task, Observation(goal=goal, title="Shop", elements=PAGE, state_hash=start)


@pytest.fixture
def memory(tmp_path: Path) -> Memory:
    return Memory(tmp_path / "memory.db")


# -- what is found -----------------------------------------------------------------------------------------------------


def test_the_most_alike_is_found_first(memory: Memory) -> None:
    shown = [solved("order-food", n, f"Order {thing} for Ann.") for n, thing in enumerate(("pizza", "noodles", "rice"))]
    shown += [solved("book-table", n, f"Book a table in {town}.") for n, town in enumerate(("Rome", "Oslo"))]
    assert memory.add(shown) == len(memory) == 5
    found = memory.find(*asked("order-food", 9, "Order noodles for Bob."), 3)
    assert [one.trajectory for one in found] == [
        "demos/shop.order-food/1/0", "demos/shop.order-food/0/0", "demos/shop.order-food/2/0",
    ]  # fmt: skip
    assert [one.score for one in found] == sorted(one.score for one in found)
    # Words of the goal carry over where no task of the kind is known.
    assert memory.recall(*asked("reserve", 1, "Reserve a table in Oslo."), 1)[0].goal == "Book a table in Oslo."
    assert len(memory.recall(*asked("order-food", 9, "Order rice."), 9)) == 5
    assert memory.recall(*asked("order-food", 9, "Order rice."), 0) == []
    odd = 'Order "rice" OR (NOT *) : {goal} ^ -- \' ; NEAR(a b)'
    assert memory.recall(*asked("order-food", 9, odd), 1)[0].goal == "Order rice for Ann."


def test_what_is_told_once_is_not_told_twice(memory: Memory) -> None:
    memory.add(solved("order-food", n, "Order pizza.") for n in range(4))
    assert len(memory) == 4 and len(memory.recall(*asked("order-food", 9, "Order pizza."), 3)) == 1


def test_nothing_of_the_task_itself_is_found(memory: Memory) -> None:
    memory.add([solved("order-food", 7, "Order pizza.", start="p"), solved("order-food", 8, "Order rice.", start="r")])

    def goals(task: Task, page: Observation) -> list[str]:
        return [one.goal for one in memory.recall(task, page, 5)]

    assert goals(*asked("order-food", 9, "Order pizza.")) == ["Order pizza.", "Order rice."]
    task, page = asked("order-food", 7, "Order pizza.")
    assert goals(task, page) == ["Order rice."]  # its id
    assert goals(task.model_copy(update={"id": "shop.order-food/7?lang=en"}), page) == ["Order rice."]  # its seed
    assert goals(*asked("order-food", 9, "Order pizza.", start="p")) == ["Order rice."]  # a page that looks the same


@pytest.mark.parametrize("split", ["val", "test"])
def test_a_memory_learns_from_no_held_out_page(memory: Memory, split: str) -> None:
    with pytest.raises(DataError, match=f"no {split} page") as caught:
        memory.add([solved("order-food", 1, "Order rice."), solved("order-food", 2, "Order pizza.", split=split)])
    assert caught.value.where == "demos/shop.order-food/2/0"
    assert len(memory) == 0  # all or nothing


def test_only_successes_are_kept_and_of_each_task_the_shortest(memory: Memory) -> None:
    memory.add([solved("a", 1, "Do one.", won=False), solved("a", 2, "Do two.", extra=2)])
    assert len(memory) == 1
    before = memory.digest()
    memory.add([solved("a", 2, "Do two."), solved("a", 2, "Do two.", extra=1)])
    [found] = memory.find(*asked("a", 9, "Do."), 5)
    assert len(found.example.done) == 2 and found.trajectory == "demos/shop.a/2/0" and memory.digest() != before
    memory.add([solved("a", 2, "Do two.", extra=2)])
    assert len(memory.recall(*asked("a", 9, "Do."), 5)[0].done) == 2


def test_the_file_is_kept_and_read_by_others(memory: Memory, tmp_path: Path) -> None:
    memory.add([solved("a", 1, "Do one.")])
    other = pickle.loads(pickle.dumps(memory))  # noqa: S301  what goes to another process
    assert other.recall(*asked("a", 9, "Do."), 1) == memory.recall(*asked("a", 9, "Do."), 1) != []
    nowhere = Memory()  # without a file, all that it knows goes along
    nowhere.add([solved("a", 1, "Do one.")])
    again = pickle.loads(pickle.dumps(nowhere))  # noqa: S301
    assert again.digest() == nowhere.digest() == memory.digest() and again.path is None
    assert again.recall(*asked("a", 9, "Do."), 1) == memory.recall(*asked("a", 9, "Do."), 1)
    with pytest.raises(StoreError, match="readonly"):
        other.add([solved("a", 2, "Do two.")])
    with pytest.raises(StoreError, match="there is no memory"):
        Memory(tmp_path / "none.db", "read")
    (tmp_path / "broken.db").write_text("no database at all, and long enough to be looked at" * 100)
    with pytest.raises(StoreError, match="not a database"):
        Memory(tmp_path / "broken.db")


# -- how it stands in the prompt ---------------------------------------------------------------------------------------


def test_an_example_names_elements_by_what_they_are_called() -> None:
    assert example_of(solved("a", 1, "Do it.").steps) == Example(
        "Do it.", ('fill("textbox User", "bob")', 'click("button Log in")')
    )
    seen = Observation(goal="g", elements=PAGE)
    rest = [Step(observation=seen, action=DragAndDrop(from_ref="1", to_ref="9")), Step(observation=seen),
            Step(observation=seen, action=Noop())]  # fmt: skip
    assert example_of(rest).done == ('drag_and_drop("textbox User", "element")', "noop()")
    assert example_of([]).done == ()


def test_examples_by_hand() -> None:
    examples = [Example("Do one.", ('click("button A")',)), Example("Do two.", ("noop()",)), Example("Do 3.", ())]
    seen = Observation(goal="Do it.", url="u", title="Shop", elements=PAGE[:2])
    past = [Step(observation=seen, action=Click(ref="2"), thought="button Log in", completion="c")]
    pocket = with_memory(get_profile("pocket"), 2)
    assert render(pocket, seen, past, examples)[0].content == (
        'solved: Do one.\ndid: click("button A")\nsolved: Do two.\ndid: noop()\n'
        "textbox User[1]\nbutton Log in[2]\npast: button Log in; click([2])\ngoal: Do it.\n"
    )
    told = '# A task like it, solved: Do one.\nclick("button A")\n'
    page = '# Page: Shop (u)\n[1] textbox "User"\n[2] button "Log in"\n'
    chat = with_memory(get_profile("chat"), 1)
    assert render(chat, seen, [], examples)[1].content == f"{told}{page}# Goal: Do it."
    turns = render(with_memory(get_profile("chat-turns"), 1), seen, past, examples)
    assert [message.role for message in turns] == ["system", "user", "assistant", "user"]
    assert turns[1].content == f"{told}# Goal: Do it.\n{page}".rstrip("\n")


@pytest.mark.parametrize("name", [name for name in PROFILES if "memory" not in name])
def test_every_profile_has_a_variant_with_examples_that_says_so(name: str) -> None:
    plain, seen = get_profile(name), Observation(goal="Do it.", elements=PAGE)
    variant = with_memory(plain, 3)
    base = name.removesuffix("-no-thought")
    assert variant.name == name.replace(base, f"{base}-memory") and variant.name in PROFILES
    assert variant.id == plain.id.replace(f"{name}-v", f"{variant.name}-v").replace(")", ",x3)")
    assert with_memory(variant, 3) == variant and variant.thought == plain.thought
    assert render(variant, seen, []) == render(plain, seen, [])  # an empty memory says nothing
    assert render(plain, seen, [], [Example("Do one.", ())]) == render(plain, seen, [])


async def test_the_agent_shows_the_model_what_was_solved(memory: Memory) -> None:
    expert = OracleAgent("pocket", EXPERTS)
    shown = [await run_episode(ToyEnvironment(), expert, make_task("wizard", seed, "demo")) for seed in range(4)]
    memory.add(shown)
    prompts: list[str] = []

    def first(messages: Sequence[Message], sampling: Sampling) -> str:
        prompts.append(messages[0].content)
        return "thought: t\naction: noop()"

    agent = plugins.load("agent", "memory")(ScriptedPolicy(first), memory, "pocket", examples=2)
    assert isinstance(agent, MemoryAgent) and agent.context_policy == "pocket-memory-v1(e80,c60,h6,x2)"
    played = await run_episode(ToyEnvironment(), agent, make_task("wizard", 9, "test"))
    assert [step.messages[0].content for step in played.steps] == prompts and len(prompts) == 6
    head = prompts[0].partition("heading Step 1 of 3")[0]
    assert head.count("solved: Choose ") == 2 and head.count("did: click(") == 6
    assert all(prompt.startswith(head) for prompt in prompts)  # the same examples as long as it lasts
    await check_agent(MemoryAgent(ScriptedPolicy(first), memory))


# -- pairs -------------------------------------------------------------------------------------------------------------

A, B, C = (f'thought: t\naction: click("{n}")' for n in "123")


def decided(text: str, state: str, prompt: str, ref: str | None = None) -> Step:
    return Step(observation=Observation(goal="g", state_hash=state), messages=(Message(role="user", content=prompt),),
                completion=text, thought="t", action=Click(ref=ref or text[-3]))  # fmt: skip


def group(
    stage: str, *ways: tuple[Sequence[tuple[str, str]], bool], start: str = "s", seed: int = 1
) -> list[Trajectory]:
    """Siblings; the prompt says whether there was a memory."""
    task = Task(id=f"miniwob.click-link/{seed}", env="miniwob", name="click-link", seed=seed)
    policy = "pocket" if stage == "collect/1" else "pocket-memory"
    found = []
    for number, (way, won) in enumerate(ways):
        steps = tuple(decided(text, state if at else start, f"{policy}|{' '.join(t for _, t in way[:at])}|{state}")
                      for at, (state, text) in enumerate(way))  # fmt: skip
        found.append(Trajectory(id=f"{stage}/{task.id}/{number}", task=task, agent="a", policy_version="w", success=won,
                                steps=steps, context_policy=policy, reward=float(won),
                                stop_reason=StopReason.SUCCESS if won else StopReason.WRONG))  # fmt: skip
    return found


def test_what_memory_taught_is_a_pair_under_the_prompt_without_it() -> None:
    without = group("collect/1", ([("s", A), ("t", B)], False), ([("s", A), ("t", B)], False))
    helped = group("remember/1", ([("s", A), ("t", C)], True))
    refused: Counter[str] = Counter()
    [row] = build(without, helped, PairConfig(), refused)
    assert (row.chosen, row.rejected, row.source, row.level, row.margin) == (C, B, "memory", "outcome", 1.0)
    assert row.messages == without[0].steps[1].messages and "memory" not in row.messages[0].content
    assert (row.task_name, row.seed, row.state_hash) == ("click-link", 1, "t") and +refused == {}
    assert row.evidence["taught_by_memory"] is True
    assert (row.evidence["context_policy"], row.evidence["with_memory"]) == ("pocket", "pocket-memory")
    assert row.evidence["chosen"] == {
        "trajectory": "remember/1/miniwob.click-link/1/0", "step": 1, "policy_version": "w", "stop_reason": "success",
        "action": 'click("3")', "value": 1.0, "n": 1,
    }  # fmt: skip
    assert row.evidence["rejected"]["trajectory"] == "collect/1/miniwob.click-link/1/0"


def test_where_memory_misled_the_way_without_it_is_chosen() -> None:
    without, helped = group("collect/1", ([("s", A)], True)), group("remember/1", ([("s", B)], False))
    [row] = build(without, helped, PairConfig(), Counter())
    assert (row.chosen, row.rejected, row.evidence["taught_by_memory"]) == (A, B, False)
    assert row.messages == without[0].steps[0].messages


@pytest.mark.parametrize(
    ("without", "helped", "why"),
    [
        (([("s", A)], True), ([("s", B)], True), {"same_outcome": 1}),
        (([("s", A)], True), ([("s", A)], False), {"same_action": 1}),
        (([("s", A), ("t", A)], True), ([("s", A), ("u", B)], False), {"state_differs": 1}),
    ],
)
def test_what_makes_no_pair_is_counted(without: object, helped: object, why: dict[str, int]) -> None:
    refused: Counter[str] = Counter()
    one, other = group("collect/1", without), group("remember/1", helped)  # type: ignore[arg-type]
    assert build(one, other, PairConfig(), refused) == [] and +refused == why


def test_only_equal_starts_are_compared() -> None:
    without = group("collect/1", ([("s", A)], True)) + group("collect/1", ([("s", A)], True), seed=2)
    helped = group("remember/1", ([("s", B)], False), start="other")
    refused: Counter[str] = Counter()
    assert build(without, helped, PairConfig(), refused) == []
    assert refused == {"start_hash_differs": 1, "no_memory": 1}


def test_values_decide_and_must_lie_apart() -> None:
    without = group("collect/1", *[([("s", A)], won) for won in (True, False, False)])
    helped = group("remember/1", *[([("s", B)], won) for won in (True, True, False)])
    [row] = build(without, helped, PairConfig(min_margin=0.3), Counter())
    assert (row.chosen, row.rejected, row.margin) == (B, A, pytest.approx(1 / 3))
    refused: Counter[str] = Counter()
    assert build(without, helped, PairConfig(min_margin=0.4), refused) == [] and refused["margin_too_small"] == 1


def test_rollouts_with_memory_are_read_by_no_other_source() -> None:
    config = PairConfig(val_fraction=0.0, max_per_state=9)
    without = group("collect/1", ([("s", A)], False))
    helped = group("remember/1", ([("s", B)], True), ([("s", C)], False))
    rows, stats = build_pairs(without, config, sources=["step", "outcome", "memory"], remembering=helped)
    assert [(row.source, row.chosen, row.rejected) for row in rows] == [("memory", B, A)]
    assert (stats.trajectories, stats.used, stats.by_source) == (3, 3, {"memory": 1})
    assert build_pairs(without, config, sources=["step", "outcome"], remembering=helped)[0] == []


def test_memory_and_environment_meet_in_one_training() -> None:
    """The pair that both find is the environment's own, where that is named first."""
    config = PairConfig(val_fraction=0.0, max_per_state=9)
    without = group("collect/1", ([("s", A)], True), ([("s", B)], False))
    helped = group("remember/1", ([("s", A)], True), ([("s", C)], True))
    rows, stats = build_pairs(without, config, sources=["outcome", "memory"], remembering=helped)
    assert [(row.source, row.chosen, row.rejected) for row in rows] == [("environment", A, B), ("memory", C, B)]
    assert stats.refused["duplicate"] == 1


def test_many_look_things_up_at_once(memory: Memory) -> None:
    """An agent is asked in an event loop, and others of its process at the same time."""
    memory.add(solved("a", n, f"Do {n}.") for n in range(50))

    async def many() -> list[list[Example]]:
        page = asked("a", 99, "Do 7.")
        return await asyncio.gather(*(asyncio.to_thread(memory.recall, *page, 2) for _ in range(40)))

    assert len({str(found) for found in asyncio.run(many())}) == 1


def test_a_run_remembers_its_training_pages_and_a_sealed_one_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DPO_DRIVER_KEY", "a long enough passphrase")
    for name, encrypt in (("plain", False), ("sealed", True)):
        settings = config(tmp_path / name, project={"run_dir": tmp_path / name, "encrypt": encrypt})
        record(settings)
        with open_run(settings, console=Console(file=io.StringIO())) as ctx:
            memory = memorize(ctx, 1)
            assert len(memory) == 9
            ctx.store.add_trajectories("collect/1", [solved("a", 1, "Do one."), solved("a", 2, "Do two.", split="val")])
            assert len(memorize(ctx, 1)) == 10 and len(memorize(ctx, 0)) == 9
        assert (memory.path is None) == encrypt
        assert (tmp_path / name / FILE).is_file() != encrypt and not list((tmp_path / name).glob(".memory*"))
    with open_run(config(tmp_path / "new"), console=Console(file=io.StringIO())) as ctx:
        with pytest.raises(DataError, match="nothing to remember"):
            memorize(ctx, 1)
        assert not (tmp_path / "new" / FILE).exists()


def test_the_command_says_what_has_to_be_there_first(cli: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(
        "project: {name: c}\nenv: {name: toy, tasks: [press]}\npair: {sources: [memory]}\ntracking: {mlflow: false}\n"
    )
    done = cli("remember", "c.yaml")
    assert done.returncode == 2 and "round 1 has no rollouts to repeat with memory" in done.stderr, done.stderr
    done = cli("pair", "c.yaml")
    assert done.returncode == 2 and "round 1 has no rollouts to pair" in done.stderr, done.stderr
