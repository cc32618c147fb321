"""Annotation against a real server that fails on request: what is asked, kept, refused and trained on. The
demonstrations are real ones of the browserless toy environment."""

from __future__ import annotations

import io
import re
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from rich.console import Console

from dpo_driver.agents.prompt import get_profile, parse_completion
from dpo_driver.agents.reasoning_check import problems
from dpo_driver.core.config import RunConfig
from dpo_driver.core.errors import DataError
from dpo_driver.core.records import Message, Sampling, Usage
from dpo_driver.core.store import RunStore
from dpo_driver.flywheel.annotate import STAGE, annotated, cut_short
from dpo_driver.flywheel.answers import FOLDER, Answer, Answers, address
from dpo_driver.flywheel.context import open_run
from dpo_driver.flywheel.sweep_share import keys
from dpo_driver.flywheel.train import as_rows, demonstrations, sft
from dpo_driver.policies.budget import Price
from dpo_driver.policies.endpoint import EndpointPolicy
from dpo_driver.testing.fault_endpoint import Fault, FaultEndpoint, broken_json, rate_limited, server_error, too_long
from toy_reasoning import PER_TASK, QUESTIONS, QUICK, annotate, config, files, good, next_of, record, thoughts, wrong


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    return record(config(tmp_path / "run"))


# -- asking and keeping ------------------------------------------------------------------------------------------------


def test_good_answers_are_kept_and_a_second_call_asks_nothing(run_dir: Path) -> None:
    with RunStore(run_dir, mode="read") as store:
        before = store.trajectories("demos")
    with FaultEndpoint(good) as server:
        policy = EndpointPolicy(server.provider(price=Price(1, 2)), patience=QUICK)
        account = annotate(run_dir, policy).account
        assert (account.questions, account.steps, account.trajectories) == (QUESTIONS, QUESTIONS, 9)
        assert (account.accepted, account.template, account.unanswered) == (QUESTIONS, 0, 0)
        assert account.calls == len(server.asked) == len(files(run_dir)) == QUESTIONS
        words = sum(len(each.content.split()) for asked in server.asked for each in asked.messages)
        assert account.usage.input_tokens == words
        assert account.usage.cost == pytest.approx((words + 2 * account.usage.output_tokens) / 1e6)
        again = annotate(run_dir, EndpointPolicy(server.provider(price=Price(1, 2)), patience=QUICK)).account
        assert (again.calls, again.accepted, len(server.asked)) == (0, QUESTIONS, QUESTIONS)
        assert again.usage.model_dump() == pytest.approx(account.usage.model_dump())
    with RunStore(run_dir, mode="read") as store:
        assert store.trajectories("demos") == before
        after = store.trajectories(STAGE)
        assert [one.id for one in after] == [one.id.replace("demos/", "annotated/") for one in before]
        assert store.get_fact("annotate")["accepted"] == QUESTIONS
    for old, new in zip(before, after, strict=True):
        for index, (was, step) in enumerate(zip(old.steps, new.steps, strict=True)):
            assert (step.action, step.observation) == (was.action, was.observation)
            assert step.thought.startswith("The goal asks for this, and the page has it. So I ")
            assert parse_completion(step.completion) == (step.thought, was.action)
            assert step.action is not None
            assert problems(step.thought, step.observation, step.action, new.steps[:index]) == ()
        assert all(past.thought in new.steps[-1].messages[-1].content for past in new.steps[:-1])


def test_several_questions_are_asked_at_once(run_dir: Path) -> None:
    together = threading.Barrier(4, timeout=20)

    def script(messages: Sequence[Message], sampling: Sampling) -> str:
        if len(server.asked) <= 4:
            together.wait()
        return good(messages, sampling)

    with FaultEndpoint(script) as server:
        assert annotate(run_dir, EndpointPolicy(server.provider(), patience=QUICK)).account.accepted == QUESTIONS


def test_equal_decisions_are_asked_once_and_another_model_anew(run_dir: Path) -> None:
    with RunStore(run_dir, mode="write") as store:
        twins = [t.model_copy(update={"id": t.id[:-1] + "1"}) for t in store.trajectories("demos")]
        store.add_trajectories("demos", twins)
    with FaultEndpoint(good, models=["one"]) as server:
        account = annotate(run_dir, EndpointPolicy(server.provider(), patience=QUICK)).account
        assert (account.questions, account.steps, len(server.asked)) == (QUESTIONS, 2 * QUESTIONS, QUESTIONS)
    with FaultEndpoint(good, models=["two"]) as server:
        other = annotate(run_dir, EndpointPolicy(server.provider(), patience=QUICK)).account
        assert (other.calls, len(files(run_dir))) == (QUESTIONS, 2 * QUESTIONS)


def test_an_address_hangs_on_everything_that_was_asked() -> None:
    asked = (Message(role="user", content="a"),)
    every = {
        address("m", 1, asked, "noop()"),
        address("n", 1, asked, "noop()"),
        address("m", 2, asked, "noop()"),
        address("m", 1, (Message(role="user", content="b"),), "noop()"),
        address("m", 1, asked, "noop(5)"),
    }
    assert len(every) == 5 and all(re.fullmatch("[0-9a-f]{64}", each) for each in every)


def test_answers_are_whole_or_absent_and_a_foreign_one_is_named(tmp_path: Path) -> None:
    answers, key = Answers(tmp_path), "ab" + "c" * 62
    assert answers.get(key) == []
    kept = [Answer(None, "stop", Usage(cost=None)), Answer("x", "length", Usage(input_tokens=3, cost=0.5))]
    answers.put(key, "m", "noop()", kept)
    assert answers.get(key) == kept
    assert [path.name for path in (tmp_path / FOLDER / "ab").iterdir()] == ["c" * 62 + ".json"]
    files(tmp_path)[0].write_text("{")
    with pytest.raises(DataError, match="cannot be read") as caught:
        answers.get(key)
    assert caught.value.where == str(files(tmp_path)[0])


# -- refusing ----------------------------------------------------------------------------------------------------------


def test_an_answer_that_names_another_action_is_refused_and_asked_again(run_dir: Path) -> None:
    seen: set[str] = set()

    def script(messages: Sequence[Message], sampling: Sampling) -> str:
        question = messages[-1].content.partition("\n# An earlier answer")[0]
        first = question not in seen
        seen.add(question)
        return wrong(messages, sampling) if first else good(messages, sampling)

    with FaultEndpoint(script) as server:
        account = annotate(run_dir, EndpointPolicy(server.provider(), patience=QUICK), jobs=1).account
        assert len(server.asked) == 2 * QUESTIONS
        repeated = [asked for asked in server.asked if "# An earlier answer" in asked.messages[-1].content]
        assert len(repeated) == QUESTIONS and {asked.sampling.seed for asked in repeated} == {1}
        assert all("could not be used: it named" in asked.messages[-1].content for asked in repeated)
    assert (account.accepted, account.template, account.refused["action"]) == (QUESTIONS, 0, QUESTIONS)
    assert all(text.startswith("The goal asks for this") for text in thoughts(run_dir))


def test_what_is_refused_three_times_keeps_the_experts_thought(run_dir: Path) -> None:
    def script(messages: Sequence[Message], sampling: Sampling) -> str:
        fills = next_of(messages)[0].startswith("fill")
        return "I type it." if fills else good(messages, sampling)

    fills = 2 * PER_TASK
    with FaultEndpoint(script) as server:
        account = annotate(run_dir, EndpointPolicy(server.provider(), patience=QUICK)).account
        assert len(server.asked) == QUESTIONS + 2 * fills
        assert (account.accepted, account.template) == (QUESTIONS - fills, fills)
        assert account.refused == {"sentences": 3 * fills}
        assert annotate(run_dir, EndpointPolicy(server.provider(), patience=QUICK)).account.calls == 0
    kept = [text for text in thoughts(run_dir) if not text.startswith("The goal asks")]
    assert sorted(set(kept)) == ["textbox Password", "textbox User"] and len(kept) == fills


def test_an_answer_that_was_cut_off_or_a_prompt_that_does_not_fit(run_dir: Path) -> None:
    def long(messages: Sequence[Message], sampling: Sampling) -> str:
        return good(messages, sampling) + " and so" * 300

    with FaultEndpoint(long) as server:
        account = annotate(run_dir, EndpointPolicy(server.provider(), patience=QUICK)).account
        assert (account.template, account.refused, account.calls) == (QUESTIONS, {"cut": 63}, 63)
        assert "it was too long" in server.asked[-1].messages[-1].content
    with FaultEndpoint(good, lambda number, messages: too_long(), models=["short"]) as server:
        account = annotate(run_dir, EndpointPolicy(server.provider(), patience=QUICK)).account
        assert (account.template, account.refused, account.calls) == (QUESTIONS, {"prompt": 21}, 21)


# -- what breaks -------------------------------------------------------------------------------------------------------


def test_it_survives_what_a_server_does(run_dir: Path) -> None:
    faults: list[Fault | None] = [rate_limited(0.05), server_error(500), broken_json(), None, server_error(503)]
    with FaultEndpoint(good, faults) as server:
        account = annotate(run_dir, EndpointPolicy(server.provider(), patience=QUICK)).account
        assert len(server.asked) == QUESTIONS + 4
    assert (account.accepted, account.unanswered, account.problem) == (QUESTIONS, 0, None)


def test_one_lost_question_loses_no_other_and_is_asked_again(run_dir: Path) -> None:
    def faults(number: int, messages: Sequence[Message]) -> Fault | None:
        return server_error() if next_of(messages)[1] == "Password" else None

    with FaultEndpoint(good, faults) as server:
        account = annotate(run_dir, EndpointPolicy(server.provider(), patience=QUICK)).account
        assert (account.unanswered, account.accepted) == (PER_TASK, QUESTIONS - PER_TASK) and "500" in account.lost
    with RunStore(run_dir, mode="read") as store:
        assert store.count(STAGE) == 9 - PER_TASK  # the logins wait for their answers
    with FaultEndpoint(good) as server:
        assert annotate(run_dir, EndpointPolicy(server.provider(), patience=QUICK)).account.calls == PER_TASK
    with RunStore(run_dir, mode="read") as store:
        assert store.count(STAGE) == 9


def test_a_dead_endpoint_ends_it(run_dir: Path) -> None:
    with FaultEndpoint(good, lambda number, messages: server_error()) as server:
        account = annotate(run_dir, EndpointPolicy(server.provider(), patience=QUICK), jobs=1).account
        assert len(server.asked) == 5 * QUICK.tries
    assert "the endpoint does not answer" in str(account.problem) and account.unanswered == QUESTIONS


# -- training ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def reasoned(run_dir: Path) -> Iterator[Path]:
    """A run directory that was annotated."""
    with FaultEndpoint(good) as server:
        annotate(run_dir, EndpointPolicy(server.provider(), patience=QUICK))
        yield run_dir


def test_rows_of_sft_carry_the_annotated_thoughts(reasoned: Path, tmp_path: Path) -> None:
    plain = config(reasoned)
    rich = config(reasoned, demos={"per_task": PER_TASK, "thoughts": "annotated"})
    with RunStore(reasoned, mode="read") as store:
        labels, texts = as_rows(store, plain), as_rows(store, rich)
        assert as_rows(store, None) == labels
    assert len(labels) == len(texts) == QUESTIONS
    assert [(row.task_name, row.seed, row.split) for row in labels] == [(r.task_name, r.seed, r.split) for r in texts]
    for label, text in zip(labels, texts, strict=True):
        (short, action), (thought, same) = parse_completion(label.completion), parse_completion(text.completion)
        assert action == same and len(short.split()) <= 3 and thought.startswith("The goal asks for this")
        assert (label.source, text.source) == ("oracle", "annotated")
    past = [row for row in texts if "past: The goal asks for this" in row.messages[-1].content]
    assert len(past) == 4 * PER_TASK  # the second and third decision of login and wizard


def test_another_run_and_another_profile_learn_from_the_same_annotations(reasoned: Path, tmp_path: Path) -> None:
    demos = {"per_task": 2, "thoughts": "annotated", "annotations": str(reasoned)}
    other = config(tmp_path / "other", demos=demos, model={"name": "pocket", "profile": "chat-turns"})
    record(other)
    with open_run(other, console=Console(file=io.StringIO())) as ctx:
        rows = demonstrations(ctx)
        assert len(rows) == 2 * 7 and ctx.store.count(STAGE) == 0
        (last,) = [row for row in rows if row.task_name == "login" and row.seed == 1 and len(row.messages) == 2 + 4]
        assert [m.role for m in last.messages] == ["system", "user", "assistant", "user", "assistant", "user"]
        assert last.messages[2].content.startswith("thought: The goal asks for this")
        assert {one.context_policy for one in annotated(ctx.store, other)} == {get_profile("chat-turns").id}


def test_missing_annotations_are_named_with_the_command(run_dir: Path, tmp_path: Path) -> None:
    with RunStore(run_dir, mode="read") as store, pytest.raises(DataError, match="9 demonstrations have no") as caught:
        as_rows(store, config(run_dir, demos={"thoughts": "annotated"}))
    assert caught.value.remedy == f"dpo-driver annotate {run_dir} --provider NAME"


def test_the_keys_of_the_configuration(tmp_path: Path) -> None:
    plain, rich = RunConfig(), RunConfig.model_validate({"demos": {"thoughts": "annotated"}})
    assert plain.hash() == RunConfig.model_validate({"demos": {"annotations": "x"}}).hash() != rich.hash()
    with pytest.raises(ValueError, match=r"demos\.thoughts: annotated needs thoughts"):
        RunConfig.model_validate({"demos": {"thoughts": "annotated"}, "model": {"thought": False}})
    before, after = keys(plain), keys(rich)
    changed = {stage for stage in before if before[stage] != after[stage]}
    assert {"sft", "sft-best/1", "collect/1"} <= changed
    assert not {"demos", "evaluate/test/oracle", "evaluate/test/base"} & changed


def test_answers_that_generation_would_cut_are_warned_of(tmp_path: Path) -> None:
    settings = config(tmp_path, evaluate={"max_new_tokens": 5}, collect={"max_new_tokens": 3}, rounds=1)
    words = lambda text: len(text.split())  # noqa: E731
    assert cut_short(["a b c", "a"], settings, words) is None
    said = cut_short(["a b c d", "a", "a b c d e f"], settings, words)
    assert said is not None and said.startswith("2 of 3 answers to learn are longer than 3 tokens, the longest 6")
    assert said.endswith("raise evaluate.max_new_tokens, collect.max_new_tokens")
    grpo = config(tmp_path, grpo={"episodes": 9, "max_completion_length": 2})
    assert "grpo.max_completion_length" in str(cut_short(["a b c"], grpo, words))


@pytest.mark.slow
def test_sft_trains_on_them_and_warns(reasoned: Path, tmp_path: Path) -> None:
    small = {"max_new_tokens": 16, "choose_per_task": 1, "agents": ["sft"]}
    demos = {"per_task": 2, "thoughts": "annotated", "annotations": str(reasoned)}
    settings = config(tmp_path / "trained", demos=demos, evaluate=small, sft={"max_steps": 1, "eval_steps": 1},
                      env={"name": "toy", "tasks": ["press"], "workers": 1})  # fmt: skip
    record(settings)
    with open_run(settings, console=Console(file=io.StringIO())) as ctx:
        facts = sft(ctx)
    assert sum(facts["rows"].values()) == 2
    (warning,) = [text for text in facts["warnings"] if "longer than 16 tokens" in text]
    assert warning.startswith("2 of 2 answers to learn") and "evaluate.max_new_tokens" in warning
