"""The pocket tokenizer round-trips, and every synthetic decision is right for its page."""

from __future__ import annotations

import random

import pytest

from dpo_driver.agents.prompt import PROFILES, parse_completion, pocket_prompt, render_completion
from dpo_driver.core.records import Observation
from dpo_driver.policies.pocket import MAX_REF, build_tokenizer
from dpo_driver.training.synthetic.goals import Branch, branches
from dpo_driver.training.synthetic.scenes import Scene, scene

POCKET = PROFILES["pocket"]


@pytest.fixture(scope="module")
def tokenizer():  # type: ignore[no-untyped-def]
    return build_tokenizer()


@pytest.mark.parametrize(
    "text",
    [
        "button ok[1]\ngoal: Tap it.\n",
        'thought: textbox #2\naction: fill([3], "é € 漢字 \\" x")',
        "  (checked)  ",
        "[7][120][121]",
    ],
)
def test_any_text_round_trips(tokenizer, text: str) -> None:  # type: ignore[no-untyped-def]
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text


def test_numbers_roles_and_actions_are_single_tokens(tokenizer) -> None:  # type: ignore[no-untyped-def]
    def count(text: str) -> int:
        return len(tokenizer(text, add_special_tokens=False)["input_ids"])

    assert [count(t) for t in ("[1]", f"[{MAX_REF}]", "click(", "button", " (checked)", "thought: ")] == [1] * 6
    assert count("buttons") == 7  # a longer word is spelled out, letter by letter


def test_the_template_adds_nothing_but_the_end(tokenizer) -> None:  # type: ignore[no-untyped-def]
    turns = [{"role": "user", "content": "goal: x\n"}, {"role": "assistant", "content": "thought: a"}]
    assert tokenizer.apply_chat_template(turns[:1], tokenize=False, add_generation_prompt=True) == "goal: x\n"
    assert tokenizer.apply_chat_template(turns, tokenize=False) == "goal: x\nthought: a<eos>"


def _samples(count: int) -> list[tuple[Scene, Branch]]:
    rng = random.Random(3)
    out: list[tuple[Scene, Branch]] = []
    while len(out) < count:
        page = scene(rng, rng.randint(2, 8))
        out += [(page, branch) for branch in branches(rng, page, 6)]
    return out


def test_every_decision_names_the_element_it_acts_on() -> None:
    kinds = set()
    for page, branch in _samples(2000):
        ref = branch.action.ref  # type: ignore[union-attr]
        target = next(e for e in page.elements if e.ref == ref)
        assert branch.thought == target.label
        assert parse_completion(render_completion(POCKET, branch.thought, branch.action)) == (
            branch.thought,
            branch.action,
        )
        kinds.add(branch.kind)
    assert len(kinds) == 7


def test_a_decision_is_never_already_done() -> None:
    for page, branch in _samples(2000):
        position = next(i for i, e in enumerate(page.elements) if e.ref == branch.action.ref)  # type: ignore[union-attr]
        element, widget = page.elements[position], page.widgets[position]
        if branch.action.kind == "fill":
            assert branch.action.value != widget.truth
        elif branch.action.kind == "select_option":
            assert branch.action.options[0] != widget.truth
        elif branch.kind == "tick_set" and element.role == "checkbox":
            assert "checked" not in element.states


def test_references_are_unique_and_pages_repeat_by_seed() -> None:
    for page, _ in _samples(300):
        refs = [e.ref for e in page.elements if e.ref is not None]
        assert len(set(refs)) == len(refs)
    assert scene(random.Random(5), 6) == scene(random.Random(5), 6)


def test_the_prompt_ends_with_the_goal() -> None:
    page, branch = _samples(1)[0]
    text = pocket_prompt(Observation(goal=branch.goal, elements=page.elements), ["button ok; click([1])"])
    assert text.endswith(f"past: button ok; click([1])\ngoal: {branch.goal}\n")
