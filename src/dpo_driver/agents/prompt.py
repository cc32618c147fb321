"""The one renderer: task + history + observation -> messages, and the one parser back.

Collection, SFT, DPO, GRPO, search and serving all use it, so what is trained is what is served. A *profile* fixes the
context policy (what the model sees and how it is trimmed) and is recorded by name with every sample:

* ``chat``: hub models. System prompt with the action list, one user turn with page, history and goal.
* ``pocket``: the small model. One compact user turn; the element's number comes after its text and the goal last,
  because copying is then one hop of attention.

A model thinks before it acts: the assistant text is ``thought: <what it looks for>`` and ``action: <one call>``. Each
profile has a variant without, ``chat-no-thought`` and ``pocket-no-thought``: the action alone, in the answer and in the
history. Must not import torch, playwright or any environment.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from dpo_driver.core.actions import Action, describe_actions, format_action, parse_action
from dpo_driver.core.errors import ActionError, UnknownNameError
from dpo_driver.core.records import Element, Message, Observation, Step

MAX_VALUE_CHARS = 200


@dataclass(frozen=True)
class Profile:
    """A context policy. ``id`` goes into every record; change a field and you change the id."""

    name: str
    max_elements: int
    max_name_chars: int
    max_history: int
    bracket_refs: bool
    compact: bool = False  # the pocket layout: one user turn and no list of actions
    version: int = 1
    thought: bool = True  # written before the action

    @property
    def id(self) -> str:
        return f"{self.name}-v{self.version}(e{self.max_elements},c{self.max_name_chars},h{self.max_history})"


_THINKING = (
    Profile("chat", max_elements=400, max_name_chars=300, max_history=10, bracket_refs=False, version=2),
    Profile("pocket", max_elements=80, max_name_chars=60, max_history=6, bracket_refs=True, compact=True),
)
NO_THOUGHT = "-no-thought"  # ends the name of a profile's variant without thought
PROFILES = {profile.name: profile for profile in _THINKING} | {
    profile.name + NO_THOUGHT: replace(profile, name=profile.name + NO_THOUGHT, thought=False) for profile in _THINKING
}

_CHAT_SYSTEM = """You operate a web page. You see the page as a list of elements, each with its number in brackets.
{form} and holds exactly one of these calls:
{actions}
Refer to elements by their number."""
_THOUGHT_AND_ACTION = """First write one line that starts with "thought:" and says what you are looking for, then one \
line that starts with "action:\""""
_ACTION_ALONE = """Write nothing but one line that starts with "action:\""""


def get_profile(name: str) -> Profile:
    """Profile by name; UnknownNameError lists the known ones."""
    if name not in PROFILES:
        raise UnknownNameError("prompt profile", name, PROFILES)
    return PROFILES[name]


def render(profile: Profile, observation: Observation, history: Sequence[Step]) -> tuple[Message, ...]:
    """Messages for the next decision. ``history`` are the steps already taken, oldest first."""
    past = [past_line(profile, step) for step in history[-profile.max_history :]]
    if profile.compact:
        return (Message(role="user", content=pocket_prompt(observation, past)),)
    lines = [f"# Page: {observation.title or '-'} ({observation.url})"]
    shown = observation.elements[: profile.max_elements]
    lines += [chat_line(element, profile.max_name_chars) for element in shown]
    left_out = len(observation.elements) - len(shown) + observation.truncated
    if left_out:
        lines.append(f"... {left_out} more elements not shown")
    if past:
        lines += ["# What you did so far", *past]
    if observation.last_error:
        lines.append(f"# The last action failed: {observation.last_error}")
    lines.append(f"# Goal: {observation.goal}")
    form = _THOUGHT_AND_ACTION if profile.thought else _ACTION_ALONE
    system = _CHAT_SYSTEM.format(form=form, actions=describe_actions())
    return (Message(role="system", content=system), Message(role="user", content="\n".join(lines)))


def pocket_prompt(observation: Observation, past: Sequence[str]) -> str:
    """The pocket profile's user turn: page, past, error, goal. The synthetic pages of pretraining use it too."""
    profile = PROFILES["pocket"]
    lines = [pocket_line(element, profile.max_name_chars) for element in observation.elements[: profile.max_elements]]
    lines += [f"past: {line}" for line in past]
    if observation.last_error:
        lines.append("failed")
    lines.append(f"goal: {observation.goal}\n")
    return "\n".join(lines)


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def pocket_line(element: Element, max_name_chars: int) -> str:
    """``checkbox Milk (checked)[4]``; running text has no number."""
    head = element.role if not element.name else f"{element.role} {_cut(element.name, max_name_chars)}"
    if element.nth > 1:
        head += f" #{element.nth}"
    if element.value:
        head += f" = {_cut(element.value, max_name_chars)}"
    for state in element.states:
        if state != "focused":
            head += f" ({state})"
    if element.ref is not None:
        head += f"[{element.ref}]"
    return "\n".join([head, *(f"option {_cut(option, max_name_chars)}" for option in element.options)])


def chat_line(element: Element, max_name_chars: int) -> str:
    """``[4] checkbox "Milk" checked``."""
    parts = [f"[{element.ref}]" if element.ref is not None else "   ", element.role]
    if element.name:
        parts.append(f'"{_cut(element.name, max_name_chars)}"')
    if element.nth > 1:
        parts.append(f"#{element.nth}")
    if element.value is not None:
        parts.append(f'value="{_cut(element.value, MAX_VALUE_CHARS)}"')
    parts += element.states
    if element.options:
        parts.append("options: " + " | ".join(element.options))
    return " ".join(parts)


def past_line(profile: Profile, step: Step) -> str:
    """One earlier decision, in the words it was made in."""
    if step.action is None:
        return "unreadable"
    action = format_action(step.action, bracket_refs=profile.bracket_refs)
    return f"{step.thought}; {action}" if profile.thought else action


def render_completion(profile: Profile, thought: str, action: Action) -> str:
    """The assistant text for a decision; ``parse_completion`` reads it back. Without the thought where the profile has
    none."""
    written = f"action: {format_action(action, bracket_refs=profile.bracket_refs)}"
    return f"thought: {thought}\n{written}" if profile.thought else written


_ACTION_LINE = re.compile(r"(?:^|\n)\s*action\s*:\s*", re.IGNORECASE)
_THOUGHT = re.compile(r"^\s*thought\s*:\s*", re.IGNORECASE)
_THINK_TAGS = re.compile(r"<think>(.*?)</think>", re.DOTALL | re.IGNORECASE)


def parse_completion(text: str) -> tuple[str, Action]:
    """Split an assistant text into thought and action.

    Reads ``thought: ...`` / ``action: ...`` and ``<think>...</think>`` followed by an action, with or without a code
    fence.

    Raises:
        ActionError: there is no readable action; the text is meant for the agent.
    """
    thought = ""
    tags = _THINK_TAGS.search(text)
    if tags:
        thought = tags.group(1).strip()
        text = text[: tags.start()] + text[tags.end() :]
    parts = _ACTION_LINE.split(text)
    if len(parts) > 1:
        thought = thought or _THOUGHT.sub("", parts[0]).strip()
        written = parts[-1]
    elif tags:
        written = text
    else:
        raise ActionError('no line starts with "action:"')
    written = written.strip().removeprefix("```python").removeprefix("```").removesuffix("```").strip()
    return thought, parse_action(written)
