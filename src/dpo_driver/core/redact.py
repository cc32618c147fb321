"""Secrets typed into pages, taken out of records before they are kept: ``[secret:1]`` stands for each.

Three things are secret: what was typed into a password field, unless goal or page had said it (then it is a task's
datum, which a model has to learn to type); what an environment declares of a task; what ``DPO_DRIVER_SECRETS`` lists
(core/secrets.py). The same value has the same placeholder throughout a trajectory. The values stay in this process's
memory, for replays. Called by core/store.py, the spool of shared rollouts, replays and environments. Must not import
any other layer.
"""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from dpo_driver.core.actions import Action, format_action
from dpo_driver.core.records import Element, Generation, Observation, Record, Step, Trajectory
from dpo_driver.core.secrets import PLACEHOLDER, Secrets, known, named, placeholder

# Their pages are made up from seeds: nothing typed there is anybody's secret, and a model's wrong password is a lesson.
MADE_UP = frozenset({"miniwob", "gauntlet", "toy"})
REMEMBERED = 10_000  # tasks and trajectories whose values are kept in memory
_KEY = placeholder("key")  # a password typed key by key
_LOST = re.compile(r"\[secret:(?:(?:known-)?\d+|key)\]")
# An accessibility tree does not say which field is for a password, its name mostly does.
_SAYS_PASSWORD = re.compile(
    r"pass\s?(?:word|phrase|code)|\bpin\b|passwort|mot de passe|contrase|one[- ]time|\b(?:otp|cvv|cvc)\b|密码|口令",
    re.IGNORECASE,
)
_FIELDS = frozenset({"textbox", "textarea", "number", "spinbutton"})
_TEXTS = frozenset({"value", "text", "key", "code", "reason", "url"})  # of an action
_LISTS = frozenset({"options", "file"})
_TYPED = {"fill": "value", "type": "text", "keyboard_type": "text", "keyboard_insert_text": "text"}
_KEYS = frozenset({"press", "keyboard_press"})
Cover = Callable[[str], str]
Keys = Mapping[int, tuple[Action, Action]]  # step -> the action that pressed a key, and what is kept of it
Model = TypeVar("Model", bound=Record)

_lock = threading.Lock()
_declared: OrderedDict[str, Secrets] = OrderedDict()  # by task id
_covered: OrderedDict[str, Secrets] = OrderedDict()  # by trajectory, see _key_of


# -- what is known ----------------------------------------------------------------------------------------------------


def declare(task_id: str, values: Mapping[str, Any]) -> Secrets:
    """Say which values of a task are secret, by name. Returns these and those known anyway, for an environment that
    covers what it shows and fills in what it is told to type."""
    secrets = named(values)
    _remember(_declared, task_id, secrets)
    return known() | secrets


def _said_to_be(task_id: str) -> Secrets:
    with _lock:
        declared = _declared.get(task_id)
    return known() | (declared or Secrets())


def secrets_of(trajectory: Trajectory) -> Secrets:
    """All that this process knows to be secret in a kept trajectory: what its placeholders stand for."""
    secrets = _said_to_be(trajectory.task.id)
    with _lock:
        covered = _covered.get(_key_of(trajectory)) if _covered else None
    return secrets | (covered or Secrets())


def _key_of(trajectory: Trajectory) -> str:
    """Other runs of this process have trajectories of the same ids."""
    done = [format_action(step.action) if step.action is not None else "" for step in trajectory.steps]
    return "\n".join([trajectory.id, *done])


def is_lost(trajectory: Trajectory) -> bool:
    """Whether an action typed a secret that nobody can fill in any more, so that it cannot be repeated. Those with
    names come from the environment or from ``DPO_DRIVER_SECRETS``."""
    secrets = secrets_of(trajectory)
    texts = (text for step in trajectory.steps if step.action is not None for text in _texts(step.action))
    return any(_LOST.search(secrets.reveal(text)) for text in texts)


def _remember(where: OrderedDict[str, Secrets], key: str, secrets: Secrets) -> None:
    with _lock:
        where[key] = secrets
        where.move_to_end(key)
        while len(where) > REMEMBERED:
            where.popitem(last=False)


# -- covering ----------------------------------------------------------------------------------------------------------


def redacted(trajectory: Trajectory) -> Trajectory:
    """The trajectory without secrets; the very same where it has none. Doing it twice changes nothing more."""
    secrets, keys = _said_to_be(trajectory.task.id), dict[int, tuple[Action, Action]]()
    if trajectory.task.env not in MADE_UP:
        typing = _Typing(trajectory, secrets)
        secrets, keys = secrets | Secrets(typing.found), typing.keys
    if not secrets:
        return trajectory
    cover = _cover_with(secrets, keys)
    task = trajectory.task
    goal, params = task.goal and cover(task.goal), secrets.cover_json(task.params)
    steps = (_covered_step(step, keys.get(number), secrets, cover) for number, step in enumerate(trajectory.steps))
    kept = trajectory.model_copy(
        update={
            "task": task.model_copy(update={"goal": goal, "params": params}),
            "steps": tuple(steps),
            "failure": trajectory.failure and cover(trajectory.failure),
        }
    )
    _remember(_covered, _key_of(kept), secrets)
    return kept


def covered(record: Model) -> Model:
    """A preference or another record without what ``DPO_DRIVER_SECRETS`` lists."""
    secrets = known()
    return type(record).model_validate(secrets.cover_json(record.model_dump(mode="json"))) if secrets else record


def covered_observation(observation: Observation, secrets: Secrets) -> Observation:
    """An observation without secrets. Its state hash stays: it is of the page as it was."""
    if not secrets:
        return observation
    cover = secrets.cover
    elements = tuple(
        element.model_copy(update={"name": cover(element.name), "value": element.value and cover(element.value),
                                   "options": tuple(map(cover, element.options))})
        for element in observation.elements
    )  # fmt: skip
    more = {name: cover(getattr(observation, name)) for name in ("goal", "url", "title")}
    error = observation.last_error and cover(observation.last_error)
    return observation.model_copy(update={**more, "elements": elements, "last_error": error})


def acted(action: Action, secrets: Secrets) -> Action:
    """An action as it is carried out: with the values that its placeholders stand for."""
    return _mapped(action, secrets.reveal) if secrets else action


def _cover_with(secrets: Secrets, keys: Keys) -> Cover:
    """Covers what prompts and answers say of keys that were pressed one by one, too."""
    swaps = [(format_action(old, bracket_refs=bracket), format_action(new, bracket_refs=bracket))
             for old, new in keys.values() for bracket in (False, True)]  # fmt: skip

    def cover(text: str) -> str:
        text = secrets.cover(text)
        for old, new in swaps:
            text = text.replace(old, new)
        return text

    return cover


def _covered_step(step: Step, key: tuple[Action, Action] | None, secrets: Secrets, cover: Cover) -> Step:
    action = key[1] if key else step.action and _mapped(step.action, secrets.cover)
    messages = []
    for message in step.messages:
        calls = tuple(one.model_copy(update={"arguments": cover(one.arguments)}) for one in message.tool_calls)
        more = {"content": cover(message.content), "tools": cover(message.tools), "tool_calls": calls}
        messages.append(message.model_copy(update=more))
    return step.model_copy(
        update={
            "observation": covered_observation(step.observation, secrets),
            "messages": tuple(messages),
            "generation": step.generation and _covered_generation(step.generation, cover),
            "completion": cover(step.completion),
            "thought": cover(step.thought),
            "action": action,
            "parse_error": step.parse_error and cover(step.parse_error),
        }
    )


def _covered_generation(generation: Generation, cover: Cover) -> Generation:
    """Token ids say the same as the text, so they go where it changes."""
    text = cover(generation.text)
    if text == generation.text:
        return generation
    return generation.model_copy(update={"text": text, "token_ids": (), "logprobs": (), "kept": ()})


def _texts(action: Action) -> Iterator[str]:
    for name in action.arguments:
        value = getattr(action, name)
        if name in _TEXTS:
            yield value
        elif name in _LISTS:
            yield from value


def _mapped(action: Action, change: Cover) -> Action:
    """An action with its texts changed; what it acts on and how stay."""
    more: dict[str, Any] = {}
    for name in action.arguments:
        value = getattr(action, name)
        if name in _TEXTS:
            more[name] = change(value)
        elif name in _LISTS:
            more[name] = tuple(map(change, value))
    return action.model_copy(update=more) if more else action


# -- what was typed into password fields -------------------------------------------------------------------------------


@dataclass
class _Field:
    """A password field as far as it was typed into; ``said`` is how much had been said before its first key."""

    content: str = ""
    pressed: list[tuple[int, Action]] = field(default_factory=list)
    said: int = 0


class _Typing:
    """Goes through a trajectory and finds what was typed into password fields and had not been said before.

    ``found``: values with their placeholders. ``keys``: presses of single keys, with what is kept of them.
    """

    def __init__(self, trajectory: Trajectory, already: Secrets) -> None:
        self.found: dict[str, str] = {}
        self.keys: dict[int, tuple[Action, Action]] = {}
        self._already = already.values
        self._said = [trajectory.task.goal or ""]
        self._fields: dict[str, _Field] = {}
        for number, step in enumerate(trajectory.steps):
            seen = step.observation
            # What fields hold is not the page's own word: it may have been typed.
            self._said += [seen.goal, *(text for each in seen.elements for text in (each.name, *each.options))]
            if step.action is not None:
                target = _password_field(step.action, seen)
                if target is not None:
                    self._take(number, step.action, self._fields.setdefault(target.ref or "", _Field()))
        for each in self._fields.values():
            self._end_keys(each)

    def _take(self, number: int, action: Action, into: _Field) -> None:
        if action.kind in _TYPED:
            text = getattr(action, _TYPED[action.kind])
            self._end_keys(into)
            into.content = text if action.kind == "fill" else into.content + text
            self._secret(text, len(self._said))
            self._secret(into.content, len(self._said))
        elif action.kind == "clear":
            self._end_keys(into)
            into.content = ""
        elif action.kind in _KEYS and len(getattr(action, "key", "")) == 1:
            into.said = into.said if into.pressed else len(self._said)
            into.content += getattr(action, "key", "")
            into.pressed.append((number, action))

    def _end_keys(self, of: _Field) -> None:
        """Keys are judged by the whole that they made."""
        if of.pressed and self._secret(of.content, of.said):
            self.keys |= {number: (action, action.model_copy(update={"key": _KEY})) for number, action in of.pressed}
        of.pressed = []

    def _secret(self, value: str, said: int) -> bool:
        """Note a value unless it was said. Whether it is secret."""
        if value in self._already or value in self.found:
            return True
        if not value.strip() or PLACEHOLDER.search(value) or _is_said(value, self._said[:said]):
            return False
        taken = {*self.found.values(), *self._already.values()}
        number = next(n for n in range(1, len(taken) + 2) if placeholder(str(n)) not in taken)
        self.found[value] = placeholder(str(number))
        return True


def _is_said(value: str, said: Iterable[str]) -> bool:
    pattern = re.compile(rf"(?<!\w){re.escape(value)}(?!\w)")
    return any(pattern.search(text) for text in said)


def _password_field(action: Action, seen: Observation) -> Element | None:
    """The password field that an action types into, if it does: the one it names, else the one that has the focus."""
    if action.kind in ("fill", "type", "clear", "press"):
        ref = getattr(action, "ref", None)
        target = next((element for element in seen.elements if element.ref == ref), None)
    elif action.kind in _TYPED or action.kind in _KEYS:
        target = next((element for element in seen.elements if "focused" in element.states), None)
    else:
        return None
    return target if target is not None and is_password(target) else None


def is_password(element: Element) -> bool:
    """Whether what is typed into an element is not to be seen: the page hides it, or its name says so."""
    if element.secret or (element.value and set(element.value) == {"•"}):
        return True
    return element.role in _FIELDS and _SAYS_PASSWORD.search(element.name) is not None
