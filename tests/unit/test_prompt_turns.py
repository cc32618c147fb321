"""The profile chat-turns: conversations by hand, what is left out of them, and the same in serving as in training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from dpo_driver.agents.llm import PolicyAgent
from dpo_driver.agents.prompt import get_profile, render, since_new_step, step_heading
from dpo_driver.core.actions import Click, Fill
from dpo_driver.core.config import load_config
from dpo_driver.core.records import Element, Message, Observation, Sampling, Step, TrainingSample, Trajectory
from dpo_driver.core.schema_training import ModelConfig
from dpo_driver.envs.toy import ToyEnvironment, make_task
from dpo_driver.policies.encoding import encode_completion, encode_prompt
from dpo_driver.policies.hf import HFPolicy
from dpo_driver.policies.scripted import ScriptedPolicy
from dpo_driver.rollout.episode import run_episode
from dpo_driver.testing.check_agent import check_agent
from dpo_driver.testing.tiny_models import tiny_model
from dpo_driver.training.attention import tree_attention
from dpo_driver.training.experience import _part, as_tokens
from dpo_driver.training.logprobs import tree_scores, unshared_scores
from dpo_driver.training.rows import encode_rows
from dpo_driver.training.tree import pack, plant

TURNS = get_profile("chat-turns")
# As many models are trained with.
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] }}<eos>{{ '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def page(heading: str | None, *names: str, error: str | None = None) -> Observation:
    elements = [Element(ref=None, role="heading", name=heading)] if heading else []
    elements += [Element(ref=str(n), role="button", name=name) for n, name in enumerate(names, 1)]
    return Observation(
        goal="Finish.", url="http://x/", title="Gauntlet", elements=tuple(elements), last_error=error, state_hash="h"
    )


def did(observation: Observation, ref: str, thought: str = "it", completion: str | None = None) -> Step:
    written = f'thought: {thought}\naction: click("{ref}")' if completion is None else completion
    return Step(observation=observation, completion=written, thought=thought, action=Click(ref=ref))


def said(messages: Sequence[Message]) -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in messages[1:]]


# --- by hand ----------------------------------------------------------------------------------------------------------


def test_a_conversation_by_hand() -> None:
    first, second = page("Step 1 of 30", "Show"), page("Step 1 of 30", "Show", "Submit", error="no element 9")
    messages = render(TURNS, second, [did(first, "1", "the button")])
    assert messages[0] == render(get_profile("chat"), first, [])[0]  # the same instructions
    assert said(messages) == [
        (
            "user",
            '# Goal: Finish.\n# Page: Gauntlet (http://x/)\n    heading "Step 1 of 30"\n[1] button "Show"',
        ),
        ("assistant", 'thought: the button\naction: click("1")'),
        (
            "user",
            '# Page: Gauntlet (http://x/)\n    heading "Step 1 of 30"\n[1] button "Show"\n[2] button "Submit"\n'
            "# The last action failed: no element 9",
        ),
    ]
    assert said(render(TURNS, first, [])) == said(messages)[:1]
    silent = render(get_profile("chat-turns-no-thought"), first, [])
    assert silent[0].content != messages[0].content and said(silent) == said(messages)[:1]


def test_the_next_prompt_is_this_one_the_answer_and_the_new_page() -> None:
    pages = [page("Step 2 of 30", f"button {n}") for n in range(6)]
    history = [did(each, "1", f"thought {n}") for n, each in enumerate(pages[:-1])]
    prompts = [render(TURNS, pages[n], history[:n]) for n in range(6)]
    for n in range(5):
        answer = Message(role="assistant", content=history[n].completion)
        assert prompts[n + 1][:-1] == (*prompts[n], answer)
    assert [message.role for message in prompts[5][1:]] == ["user", "assistant"] * 5 + ["user"]


def test_texts_stay_word_for_word_and_no_turn_is_empty() -> None:
    start = page(None, "Go")
    history = [
        did(start, "1", completion="I would rather not"),
        did(start, "1", completion="  \n").model_copy(update={"action": None}),
        did(start, "1", "what a script did", completion=""),
        Step(observation=start, completion="thought: x\naction: fill([1], 'it''s')", action=Fill(ref="1", value="its")),
    ]
    answers = [content for role, content in said(render(TURNS, start, history)) if role == "assistant"]
    assert answers == [
        "I would rather not",
        "(nothing)",
        'thought: what a script did\naction: click("1")',
        "thought: x\naction: fill([1], 'it''s')",
    ]


# --- what is left out -------------------------------------------------------------------------------------------------


def test_the_oldest_turns_go_first_and_the_task_stays() -> None:
    pages = [page("Step 1 of 2", f"button {n}") for n in range(5)]
    history = [did(each, "1", f"thought {n}") for n, each in enumerate(pages[:-1])]
    whole = render(TURNS, pages[4], history)
    size = sum(len(message.content) for message in whole)
    turn = sum(len(content) for _, content in said(whole)[:2]) - len("# Goal: Finish.\n")
    for chars, kept in ((size, 4), (size - 1, 3), (size - turn, 3), (size - turn - 1, 2), (size - 4 * turn, 0), (1, 0)):
        found = render(replace(TURNS, most_chars=chars), pages[4], history)
        assert len(found) == 2 + 2 * kept
        assert sum(len(message.content) for message in found) <= max(chars, size - 4 * turn)
        # What is left is the end of the whole conversation, with the task before it.
        oldest = said(whole)[8 - 2 * kept]
        begin = ("user", "# Goal: Finish.\n" + oldest[1].removeprefix("# Goal: Finish.\n"))
        assert said(found) == [begin, *said(whole)[9 - 2 * kept :]]


def test_no_more_turns_than_the_profile_has() -> None:
    start = page(None, "Go")
    found = render(replace(TURNS, max_history=3), start, [did(start, "1", str(n)) for n in range(9)])
    answers = [content for role, content in said(found) if role == "assistant"]
    assert answers == [f'thought: {n}\naction: click("1")' for n in (6, 7, 8)]


def test_a_new_step_begins_a_new_conversation() -> None:
    opening, other_tab = page(None, "START"), page(None, "a picture")
    one, two = page("Step 1 of 30", "a"), page("Now: step 2 / 30", "b")
    history = [did(opening, "1"), did(one, "1"), did(other_tab, "1"), did(one, "1"), did(two, "1"), did(other_tab, "1")]

    def kept(now: Observation, until: int) -> list[int]:
        found = since_new_step(now, history[:until])
        assert found == history[until - len(found) : until]
        return list(range(until - len(found), until))

    assert kept(opening, 0) == []
    assert kept(one, 1) == []  # the start page is no part of step 1
    assert kept(other_tab, 2) == [1]
    assert kept(one, 3) == [1, 2]
    assert kept(two, 4) == []
    assert kept(two, 6) == [4, 5]
    assert kept(other_tab, 6) == [4, 5]
    assert kept(page("Step 3 of 30"), 6) == []
    assert len(render(TURNS, two, history)) == 2 + 2 * 2


@pytest.mark.parametrize(
    ("name", "wanted"),
    [("Step 3 of 30", (3, 30)), ("STEP 12/30", (12, 30)), ("Puzzle, step 4 of 9: slider", (4, 9)), ("Steps", None),
     ("Results 1 of 20", None), ("Footstep 1 of 2", None)],
)  # fmt: skip
def test_headings(name: str, wanted: tuple[int, int] | None) -> None:
    assert step_heading(page(name)) == wanted
    text = Observation(goal="g", elements=(Element(ref=None, role="text", name=name),))
    assert step_heading(text) is None  # only a heading counts


def test_the_profile_is_named_in_records_and_can_be_configured() -> None:
    assert TURNS.id == "chat-turns-v1(e400,c300,h30,t16000)"
    assert get_profile("chat").id == "chat-v2(e400,c300,h10)"
    assert get_profile("pocket").id == "pocket-v1(e80,c60,h6)"
    assert ModelConfig(name="x", profile="chat-turns", thought=False).prompt_profile == "chat-turns-no-thought"
    assert load_config("configs/pocket.yaml", ["model.profile=chat-turns"]).model.prompt_profile == "chat-turns"


# --- served as trained ------------------------------------------------------------------------------------------------


def wizard(messages: Sequence[Message], sampling: Sampling) -> str:
    return f"thought: turn {len(messages) // 2}\naction: click([1])"


async def test_agents_conform_with_it() -> None:
    longest = 0
    for trajectory in await check_agent(PolicyAgent(ScriptedPolicy(wizard), "chat-turns")):
        steps = trajectory.steps
        for n, step in enumerate(steps):
            assert step.messages == render(TURNS, step.observation, steps[:n])  # what is recorded is what was sent
            turn = 1 + len(since_new_step(step.observation, steps[:n]))
            assert step.completion == f"thought: turn {turn}\naction: click([1])"
            longest = max(longest, turn)
    assert longest >= 5


def chat_model() -> tuple[object, object]:
    """A small model with room for a conversation in characters, and a template of turns."""
    model, tokenizer = tiny_model()
    model.config.max_position_embeddings = 16_384
    tokenizer.chat_template = CHATML
    return model, tokenizer


async def played() -> Trajectory:
    model, tokenizer = chat_model()
    policy = HFPolicy(model=model, tokenizer=tokenizer, max_length=16_384)
    how = Sampling(temperature=0.8, top_p=0.9, repetition_penalty=1.15, max_new_tokens=6, seed=1)
    return await run_episode(ToyEnvironment(), PolicyAgent(policy, "chat-turns", how), make_task("wizard", 1))


def test_several_turns_as_tokens_by_hand() -> None:
    _, tokenizer = chat_model()
    messages = (
        Message(role="system", content="S"),
        Message(role="user", content="one"),
        Message(role="assistant", content='thought: a\naction: click("1")'),
        Message(role="user", content="two"),
    )
    text = (
        "<|im_start|>system\nS<eos>\n<|im_start|>user\none<eos>\n"
        '<|im_start|>assistant\nthought: a\naction: click("1")<eos>\n'
        "<|im_start|>user\ntwo<eos>\n<|im_start|>assistant\n"
    )
    ids = encode_prompt(tokenizer, messages)
    assert tokenizer.decode(ids) == text  # type: ignore[attr-defined]
    before = encode_prompt(tokenizer, messages[:2]) + encode_completion(tokenizer, messages[2].content)
    assert ids[: len(before)] == before  # a turn goes on where the one before it ended


async def test_training_computes_turns_on_one_tree_with_the_probabilities_that_were_sampled() -> None:
    model, tokenizer = chat_model()
    trajectory = await played()
    assert len(trajectory.steps) == 3 and trajectory.failure is None  # unreadable, three times
    rollout = as_tokens(trajectory, tokenizer, reward="strict", gamma=1.0)
    assert [len(decided.prompt) for decided in rollout.decisions] == [
        step.generation.prompt_tokens for step in trajectory.steps if step.generation
    ]
    part = _part(range(3), rollout.decisions)
    assert part.forest.size == 1  # later prompts go on from earlier ones: computed once
    assert part.forest.tokens < sum(len(d.prompt) for d in rollout.decisions) / 2
    sampled = torch.tensor([logp for decided in rollout.decisions for logp in decided.logps])
    with tree_attention(model), torch.no_grad():  # type: ignore[arg-type]
        found = tree_scores(model, part.forest, part.sampled).logps_N[part.token_K]  # type: ignore[arg-type]
    assert (found - sampled).exp().sub(1).abs().max() < 1e-4


async def test_rows_of_conversations_are_trained_on() -> None:
    model, tokenizer = chat_model()
    steps = (await played()).steps
    rows = [
        TrainingSample(id=str(n), messages=step.messages, completion=f"thought: t{n}\naction: noop()", source="test")
        for n, step in enumerate(steps)
    ]
    again = [TrainingSample.model_validate_json(row.model_dump_json()) for row in rows]  # as a file keeps them
    encoded = encode_rows(tokenizer, again, max_length=16_384)
    assert [e.prompt for e in encoded.examples] == [tuple(encode_prompt(tokenizer, s.messages)) for s in steps]
    trees, _ = plant([branch for example in encoded.examples for branch in example.branches])
    with tree_attention(model), torch.no_grad():  # type: ignore[arg-type]
        shared = tree_scores(model, pack(trees)).logps_N  # type: ignore[arg-type]
    with torch.no_grad():
        plain = unshared_scores(model, pack(trees)).logps_N  # type: ignore[arg-type]
    assert len(shared) == sum(len(example.chosen) for example in encoded.examples)
    assert (shared - plain).abs().max() < 1e-4
