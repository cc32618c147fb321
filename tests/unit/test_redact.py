"""Secrets typed into pages: out of every record that is kept, and a task's own passwords left alone."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote_plus

import pytest
import zstandard

from dpo_driver.agents.experts.page import Page
from dpo_driver.agents.oracle import OracleAgent
from dpo_driver.agents.prompt import get_profile, parse_completion, render, render_completion
from dpo_driver.core import redact
from dpo_driver.core.actions import (
    Action,
    Clear,
    Click,
    Fill,
    KeyboardPress,
    KeyboardType,
    Press,
    SendMsgToUser,
    Type,
    format_action,
)
from dpo_driver.core.errors import ConfigError
from dpo_driver.core.protocols import Outcome
from dpo_driver.core.records import (
    Element,
    Generation,
    Message,
    Observation,
    Preference,
    Step,
    StopReason,
    Task,
    Trajectory,
    state_hash,
)
from dpo_driver.core.secrets import Secrets, known, named
from dpo_driver.core.store import RunStore
from dpo_driver.envs.toy import ToyEnvironment, make_task
from dpo_driver.flywheel.shares import Spool
from dpo_driver.rollout.episode import run_episode
from dpo_driver.rollout.recorder import Recordings, done_in, prove

SECRET = 'pa"ss\\wörd & 7'
PROFILE = get_profile("chat")


def page(goal: str = "Log in.", *more: Element, error: str | None = None, shown: str = "") -> Observation:
    """A page with a user's and a password's field, and what else is given."""
    elements = (
        Element(ref="1", role="textbox", name="User", tag="input"),
        Element(ref="2", role="textbox", name="Second word", tag="input", value=shown or None, secret=True),
        Element(ref="3", role="button", name="Log in", tag="button"),
        *more,
    )
    return Observation(goal=goal, url="http://site/login", title="Site", elements=elements, last_error=error,
                       state_hash=state_hash(goal, "/login", elements))  # fmt: skip


def played(
    actions: Sequence[Action], pages: Sequence[Observation] | None = None, *, env: str = "website", name: str = "t/1/0"
) -> Trajectory:
    """A trajectory with prompts, answers and tokens as agents leave them."""
    pages = pages or [page()] * len(actions)
    steps: list[Step] = []
    for seen, action in zip(pages, actions, strict=True):
        completion = render_completion(PROFILE, "log in", action)
        generation = Generation(text=completion, token_ids=(1, 2), logprobs=(-0.1, -0.2))
        steps.append(Step(observation=seen, messages=render(PROFILE, seen, steps), completion=completion,
                          thought="log in", action=action, generation=generation))  # fmt: skip
    task = Task(id="site.login/1", env=env, name="login", seed=1, goal=pages[0].goal)
    return Trajectory(id=name, task=task, agent="human", steps=tuple(steps), stop_reason=StopReason.SUCCESS, reward=1.0,
                      success=True)  # fmt: skip


def text_of(trajectory: Trajectory) -> str:
    return json.dumps(trajectory.model_dump(mode="json"), ensure_ascii=False)


def everything(folder: Path) -> bytes:
    """All bytes under a folder, and what they are when they are unpacked."""
    found = b""
    for path in folder.rglob("*"):
        if path.is_file():
            found += path.read_bytes()
    with RunStore(folder, "read") as store:
        for identity in store.trajectory_ids():
            (body,) = store._rows("SELECT body FROM trajectories WHERE id=?", (identity,))[0]
            found += zstandard.decompress(body)
    return found


# -- what is secret ----------------------------------------------------------------------------------------------------


def test_what_is_typed_into_a_password_field_is_taken_out_everywhere() -> None:
    echo = Element(ref=None, role="text", name=f"Your word is {SECRET}.")
    told = f"could not send {json.dumps(SECRET)} to http://site/?w={quote_plus(SECRET)}"
    pages = [page(), page(shown="••••"), page("Log in.", echo, error=told), page("Log in.", echo)]
    actions = [Fill(ref="1", value="bob"), Fill(ref="2", value=SECRET), Click(ref="3"), SendMsgToUser(text=SECRET)]
    before = played(actions, pages)
    after = redact.redacted(before)
    assert "ss\\\\w" in text_of(before)
    for form in ("wörd", "w%C3%B6rd", "ss\\\\w", "&amp; 7"):
        assert form not in text_of(after)
    assert after.steps[0].action == actions[0], "a user's name is not a secret"
    assert after.steps[1].action == Fill(ref="2", value="[secret:1]")
    assert parse_completion(after.steps[1].completion) == ("log in", after.steps[1].action)
    assert after.steps[2].observation.elements[-1].name == "Your word is [secret:1]."
    assert after.steps[2].observation.last_error is not None and "[secret:1]" in after.steps[2].observation.last_error
    assert 'fill("2", "[secret:1]")' in after.steps[2].messages[-1].content, "the history in prompts"
    generation = after.steps[1].generation
    assert generation is not None and (generation.token_ids, generation.logprobs) == ((), ())
    untouched = after.steps[2].generation
    assert untouched is not None and untouched.token_ids == (1, 2), "tokens that say nothing stay"
    assert [step.observation.state_hash for step in after.steps] == [one.state_hash for one in pages]
    assert redact.redacted(after) == after


def test_the_same_secret_has_the_same_placeholder_and_another_one_another() -> None:
    again = [Fill(ref="2", value="first-one"), Fill(ref="2", value="other-one"), Fill(ref="2", value="first-one")]
    typed = [step.action.value for step in redact.redacted(played(again)).steps if isinstance(step.action, Fill)]
    assert typed == ["[secret:1]", "[secret:2]", "[secret:1]"]


def test_what_the_goal_or_the_page_said_before_is_a_tasks_datum() -> None:
    from_goal = played([Fill(ref="2", value="x2Ab")], [page('Enter the password "x2Ab" into the field.')])
    assert redact.redacted(from_goal) is from_goal
    note = Element(ref=None, role="text", name="Today's word: tulip")
    from_page = played([Fill(ref="2", value="tulip")], [page("Log in.", note)])
    assert redact.redacted(from_page) is from_page
    part = played([Fill(ref="2", value="x2")], [page('Enter the password "x2Ab".')])
    assert redact.redacted(part) is not part, "a part of a word is another word"
    late = played([Fill(ref="2", value="tulip"), Click(ref="3")], [page(), page("Log in.", note)])
    assert "tulip" not in text_of(redact.redacted(late)), "said only after it was typed"
    field = Element(ref="4", role="textbox", name="Again", value="tulip")
    typed = played([Fill(ref="4", value="tulip"), Fill(ref="2", value="tulip")], [page("", field), page("", field)])
    assert "tulip" not in text_of(redact.redacted(typed)), "what a field holds may have been typed"


def test_pages_that_are_made_up_keep_what_a_model_types_wrongly() -> None:
    for env in sorted(redact.MADE_UP):
        wrong = played([Fill(ref="2", value="x2A")], [page('Enter the password "x2Ab".')], env=env)
        assert redact.redacted(wrong) is wrong


@pytest.mark.parametrize(
    ("field", "secret"),
    [
        (Element(ref="9", role="textbox", name="Kennung", secret=True), True),
        (Element(ref="9", role="textbox", name="Kennung", value="•••"), True),
        (Element(ref="9", role="textbox", name="Your Password"), True),
        (Element(ref="9", role="textbox", name="密码"), True),
        (Element(ref="9", role="button", name="Forgot password"), False),
        (Element(ref="9", role="textbox", name="Spinning wheel"), False),
        (Element(ref="9", role="textbox", name="Search"), False),
    ],
    ids=lambda value: value.name if isinstance(value, Element) else str(value),
)
def test_what_counts_as_a_password_field(field: Element, secret: bool) -> None:
    assert redact.is_password(field) is secret


def test_every_way_to_type() -> None:
    focused = page().elements[1].model_copy(update={"states": ("focused",)})
    seen = page().model_copy(update={"elements": (page().elements[0], focused, page().elements[2])})
    ways: list[list[Action]] = [
        [Type(ref="2", text="hun"), Type(ref="2", text="ter2")],
        [KeyboardType(text="hunter2")],
        [Fill(ref="2", value="wrong"), Clear(ref="2"), Type(ref="2", text="hunter2")],
    ]
    for actions in ways:
        echo = seen.model_copy(update={"title": "hunter2"})
        kept = text_of(redact.redacted(played([*actions, Click(ref="3")], [*[seen] * len(actions), echo])))
        assert "hunter2" not in kept and '"hun"' not in kept and "ter2" not in kept, actions


def test_a_password_typed_key_by_key() -> None:
    keys: list[Action] = [Press(ref="2", key=key) for key in "s3cr"]
    after = redact.redacted(played([*keys, Press(ref="2", key="Enter")]))
    assert [step.action.key for step in after.steps if isinstance(step.action, Press)] == ["[secret:key]"] * 4 + [
        "Enter"
    ]
    for key in keys:
        assert format_action(key) not in text_of(after) and json.dumps(format_action(key))[1:-1] not in text_of(after)
    assert redact.is_lost(after)
    said = played(keys, [page('The word is "s3cr".')] * 4)
    assert redact.redacted(said) is said, "the goal says it"
    focused = page().elements[1].model_copy(update={"states": ("focused",)})
    seen = page().model_copy(update={"elements": (focused,)})
    after = redact.redacted(played([KeyboardPress(key="x"), KeyboardPress(key="y")], [seen, seen]))
    assert [step.action.key for step in after.steps if isinstance(step.action, KeyboardPress)] == ["[secret:key]"] * 2


def test_short_secrets_are_not_found_inside_other_words_and_long_ones_are() -> None:
    secrets = Secrets({"cat": "[secret:1]", "password": "[secret:2]"})
    assert secrets.cover("cat, concatenate, cat7, -cat-") == "[secret:1], concatenate, cat7, -[secret:1]-"
    assert secrets.cover("mypassword1") == "my[secret:2]1"


def test_a_secret_that_a_prompt_cut_short_is_covered_too() -> None:
    secrets = Secrets({"correct-horse-battery": "[secret:1]"})
    assert secrets.cover("word correct-hor… more") == "word [secret:1]… more"
    assert secrets.cover("cor… and …") == "cor… and …"


def test_names_are_left_alone() -> None:
    value = {"stop_reason": "success", "id": "success", "text": "a success", "inner": [{"kind": "success"}, "success"]}
    covered = Secrets({"success": "[secret:1]"}).cover_json(value)
    assert covered == {"stop_reason": "success", "id": "success", "text": "a [secret:1]",
                       "inner": [{"kind": "success"}, "[secret:1]"]}  # fmt: skip


# -- what is known to be secret ----------------------------------------------------------------------------------------


def test_secrets_of_the_surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    for written, expected in (
        ("", {}),
        ("one\n\n two \n", {"one": "[secret:known-1]", "two": "[secret:known-2]"}),
        ('["a=b", "c"]', {"a=b": "[secret:known-1]", "c": "[secret:known-2]"}),
        ('{"a b": "x", "all": ["y", "z"]}', {"x": "[secret:a-b]", "y": "[secret:all.1]", "z": "[secret:all.2]"}),
    ):  # fmt: skip
        monkeypatch.setenv("DPO_DRIVER_SECRETS", written)
        assert known().values == expected
    monkeypatch.setenv("DPO_DRIVER_SECRETS", '{"broken')
    with pytest.raises(ConfigError, match="no JSON") as raised:
        known()
    assert "broken" not in str(raised.value)


def test_a_listed_value_goes_even_where_the_goal_says_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DPO_DRIVER_SECRETS", '{"shop": "hunter2"}')
    goal = "Log in with hunter2."
    for env in ("website", "toy"):
        trajectory = played([Fill(ref="1", value="hunter2"), Click(ref="3")], [page(goal)] * 2, env=env)
        after = redact.redacted(trajectory)
        assert "hunter2" not in text_of(after)
        assert after.task.goal == "Log in with [secret:shop]."
        assert after.steps[0].action == Fill(ref="1", value="[secret:shop]")
        assert not redact.is_lost(after)
    row = Preference(id="p", messages=(Message(role="user", content=goal),), chosen="hunter2", rejected="no",
                     level="text", source="import", evidence={"metadata": {"why": "hunter2"}})  # fmt: skip
    with RunStore(tmp_path) as store:
        store.add_preferences(1, [row])
        store.set_fact("note", {"said": "hunter2"})
        kept = store.preferences()[0]
        assert (kept.chosen, kept.evidence) == ("[secret:shop]", {"metadata": {"why": "[secret:shop]"}})
        assert store.get_fact("note") == {"said": "[secret:shop]"}


def test_what_an_environment_declares_of_a_task_is_that_tasks_only() -> None:
    secrets = redact.declare("site.login/1", {"password": "open sesame", "pins": ["4711", "0815"]})
    assert secrets.values == {"open sesame": "[secret:password]", "4711": "[secret:pins.1]", "0815": "[secret:pins.2]"}
    mine = played([Fill(ref="1", value="open sesame")])
    other = mine.model_copy(update={"task": mine.task.model_copy(update={"id": "site.login/2"}), "id": "t/2/0"})
    try:
        assert redact.redacted(mine).steps[0].action == Fill(ref="1", value="[secret:password]")
        assert redact.redacted(other) is other
        assert redact.acted(Fill(ref="1", value="[secret:password]"), secrets) == Fill(ref="1", value="open sesame")
        assert redact.acted(Fill(ref="1", value="[secret:unknown]"), secrets) == Fill(ref="1", value="[secret:unknown]")
    finally:
        redact.declare("site.login/1", {})


# -- where it is kept --------------------------------------------------------------------------------------------------


def test_no_file_of_a_run_holds_it(tmp_path: Path) -> None:
    trajectory = played([Fill(ref="2", value="hunter2-hunter2"), Click(ref="3")], name="collect/1/site.login/1/0")
    with RunStore(tmp_path) as store:
        store.add_trajectory("collect/1", trajectory)
        with Spool(tmp_path / "spool" / "collect_1.1.jsonl") as spool:
            spool.add(trajectory)
        recordings = Recordings(store)
        assert recordings.add(trajectory) and not recordings.add(trajectory)
        assert recordings.waiting()[0].steps[0].action == Fill(ref="2", value="[secret:1]")
    kept = everything(tmp_path)
    assert b"secret:1" in kept and b"hunter2" not in kept
    with RunStore(tmp_path) as store:  # what it was done by is told from what is kept, not from the secret
        assert not Recordings(store).add(trajectory)
        assert done_in(redact.redacted(trajectory)) in {fact["done"] for fact in Recordings(store)._facts.values()}


class Door(ToyEnvironment):
    """A page whose word is not on it."""

    word = "hunter2-hunter2"

    def __init__(self) -> None:
        self._typed = ""

    async def reset(self, task: Task) -> Observation:
        self._typed = ""
        return page()

    async def step(self, action: Action) -> Outcome:
        if isinstance(action, Fill):
            self._typed = action.value
        shown = page(shown="•" * len(self._typed))
        if action.kind != "click":
            return Outcome(shown)
        right = self._typed == self.word
        return Outcome(shown, float(right), StopReason.SUCCESS if right else StopReason.WRONG)


class Knowing(OracleAgent):
    """Types the word that it knows."""

    def __init__(self) -> None:
        super().__init__("pocket", {"login": lambda seen: ("go in", Click(ref="3") if seen.history else
                                                           Fill(ref="2", value=Door.word))})  # fmt: skip


async def test_a_recording_is_proven_in_the_process_that_knows_and_said_to_be_lost_in_others(tmp_path: Path) -> None:
    task = Task(id="site.login/1", env="website", name="login", seed=1)
    trajectory = await run_episode(Door(), Knowing(), task)
    assert trajectory.success
    with RunStore(tmp_path) as store:
        recordings = Recordings(store)
        assert recordings.add(trajectory)
        waiting = recordings.waiting()[0]
        assert Door.word not in text_of(waiting)
        proof = await prove(waiting, Door())
        assert (proof.how, proof.reason) == ("states", None)
        recordings.settle(waiting, proof)
        assert [one.id for one in recordings.proven()] == [waiting.id]
    assert Door.word.encode() not in everything(tmp_path)
    stranger = waiting.model_copy(update={"id": "unknown here"})  # as another process would see it
    proof = await prove(stranger, Door())
    assert proof.how is None and "secret that was kept nowhere" in str(proof.reason)


async def test_what_real_toy_rollouts_leave_is_not_touched(tmp_path: Path) -> None:
    """The toy's login asks for a password that the goal says, as MiniWoB++'s do."""
    task = make_task("login", 3, "train")
    words = re.compile(r'Log in as "(.+)" with "(.+)"')

    def expert(seen: Page) -> tuple[str, Action]:
        found = words.search(seen.observation.goal)
        assert found
        done = len(seen.history)
        return "log in", Click(ref="3") if done == 2 else Fill(ref=str(done + 1), value=found[done + 1])

    trajectory = await run_episode(ToyEnvironment(), OracleAgent("pocket", {"login": expert}), task)
    assert trajectory.success
    assert redact.redacted(trajectory) is trajectory
    elsewhere = trajectory.model_copy(update={"task": trajectory.task.model_copy(update={"env": "website"})})
    assert redact.redacted(elsewhere) is elsewhere


def test_a_trace_is_written_anew_without_it(tmp_path: Path) -> None:
    picture = bytes(range(256))
    trace = tmp_path / "trace.zip"
    with zipfile.ZipFile(trace, "w") as file:
        file.writestr("trace.trace", json.dumps({"snapshot": ["INPUT", {"value": SECRET}]}))
        file.writestr("trace.network", "body=user%3Dbob%26word%3D" + "pa%22ss%5Cw%C3%B6rd%20%26%207")
        file.writestr("resources/page.jpeg", picture)
    named({"word": SECRET}).cover_zip(trace)
    with zipfile.ZipFile(trace) as file:
        assert json.loads(file.read("trace.trace")) == {"snapshot": ["INPUT", {"value": "[secret:word]"}]}
        assert file.read("trace.network") == b"body=user%3Dbob%26word%3D[secret:word]"
        assert file.read("resources/page.jpeg") == picture
    assert [path.name for path in tmp_path.iterdir()] == ["trace.zip"]
