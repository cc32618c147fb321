"""The one renderer: task + history + observation -> messages, and the one parser back.

Collection, SFT, DPO, GRPO, search and serving all use it, so what is trained is what is served. A *profile* fixes the
context policy (what the model sees and how it is trimmed) and is recorded by name with every sample:

* ``chat``: hub models. System prompt with the action list, one user turn with page, history and goal.
* ``chat-turns``: the same as a conversation. The first user turn begins with the goal; every earlier decision is a user
  turn with its page and the assistant's own text. The oldest go first where it grows too long, and a new step of a
  puzzle site ("Step 3 of 30") begins a new conversation.
* ``pocket``: the small model. One compact user turn; the element's number comes after its text and the goal last,
  because copying is then one hop of attention.

A model thinks before it acts: the assistant text is ``thought: <what it looks for>`` and ``action: <one call>``. Each
profile has a variant without, such as ``chat-no-thought``: the action alone, in the answer and in the history. Each has
a variant with worked examples at its head, such as ``chat-memory``: how tasks like this one were solved, as
agents/memory.py finds them. Must not import torch, playwright or any environment.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from dpo_driver.core.actions import REF_FIELDS, Action, describe_actions, format_action, parse_action
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
    most_chars: int = 0  # of a conversation, all messages together; 0: history is lines in one user turn
    examples: int = 0  # most worked examples at the head of the prompt

    @property
    def id(self) -> str:
        sizes = f"e{self.max_elements},c{self.max_name_chars},h{self.max_history}"
        sizes += f",t{self.most_chars}" if self.most_chars else ""
        sizes += f",x{self.examples}" if self.examples else ""
        return f"{self.name}-v{self.version}({sizes})"


@dataclass(frozen=True)
class Example:
    """How a task was solved: its goal, and each action with its elements by what they are called, because the numbers
    are those of other pages: ``Example('Press "Save".', ('click("button Save")',))``."""

    goal: str
    done: tuple[str, ...]


_THINKING = (
    Profile("chat", max_elements=400, max_name_chars=300, max_history=10, bracket_refs=False, version=2),
    # 16,000 characters of pages are less than 5,000 tokens: with an answer they fit into 6,144.
    Profile("chat-turns", max_elements=400, max_name_chars=300, max_history=30, bracket_refs=False, most_chars=16_000),
    Profile("pocket", max_elements=80, max_name_chars=60, max_history=6, bracket_refs=True, compact=True),
)
NO_THOUGHT = "-no-thought"  # ends the name of a profile's variant without thought
MEMORY = "-memory"  # ends the name of one with worked examples, or comes before NO_THOUGHT
EXAMPLES = 2  # of such a profile, where nobody says how many
_EITHER = (*_THINKING, *(replace(one, name=one.name + MEMORY, examples=EXAMPLES) for one in _THINKING))
PROFILES = {profile.name: profile for profile in _EITHER} | {
    profile.name + NO_THOUGHT: replace(profile, name=profile.name + NO_THOUGHT, thought=False) for profile in _EITHER
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


def with_memory(profile: Profile, examples: int = EXAMPLES) -> Profile:
    """The variant of a profile with so many worked examples."""
    name = profile.name.removesuffix(NO_THOUGHT).removesuffix(MEMORY) + MEMORY
    return replace(PROFILES[name if profile.thought else name + NO_THOUGHT], examples=examples)


def render(
    profile: Profile, observation: Observation, history: Sequence[Step], examples: Sequence[Example] = ()
) -> tuple[Message, ...]:
    """Messages for the next decision. ``history`` are the steps already taken, oldest first; ``examples`` the best one
    first, of which a profile shows as many as it says."""
    head = [line for example in examples[: profile.examples] for line in _example(profile, example)]
    if profile.most_chars:
        return _conversation(profile, observation, history, head)
    past = [past_line(profile, step) for step in history[-profile.max_history :]]
    if profile.compact:
        return (Message(role="user", content="\n".join([*head, pocket_prompt(observation, past)])),)
    before = ["# What you did so far", *past] if past else []
    lines = [*head, *_chat_page(profile, observation, before), f"# Goal: {observation.goal}"]
    return (_chat_system(profile), Message(role="user", content="\n".join(lines)))


def _example(profile: Profile, example: Example) -> list[str]:
    done = [_cut(action, MAX_VALUE_CHARS) for action in example.done[: profile.max_history]]
    if profile.compact:
        return [f"solved: {example.goal}", *(f"did: {action}" for action in done)]
    return [f"# A task like it, solved: {example.goal}", *done]


def example_of(steps: Sequence[Step]) -> Example:
    """What is told of a solved task. Steps at which nothing readable was done are left out."""
    acted = [(step.action, {e.ref: e.label for e in step.observation.elements}) for step in steps if step.action]
    done = []
    for action, labels in acted:
        called = {key: labels.get(getattr(action, key), "element") for key in action.arguments if key in REF_FIELDS}
        done.append(format_action(action.model_copy(update=called)))
    return Example(steps[0].observation.goal if steps else "", tuple(done))


def _chat_system(profile: Profile) -> Message:
    form = _THOUGHT_AND_ACTION if profile.thought else _ACTION_ALONE
    return Message(role="system", content=_CHAT_SYSTEM.format(form=form, actions=describe_actions()))


def _chat_page(profile: Profile, observation: Observation, before: Sequence[str] = ()) -> list[str]:
    """A page in lines; ``before`` is what was done to get there."""
    lines = [f"# Page: {observation.title or '-'} ({observation.url})"]
    shown = observation.elements[: profile.max_elements]
    lines += [chat_line(element, profile.max_name_chars) for element in shown]
    left_out = len(observation.elements) - len(shown) + observation.truncated
    if left_out:
        lines.append(f"... {left_out} more elements not shown")
    lines += before
    if observation.last_error:
        lines.append(f"# The last action failed: {observation.last_error}")
    return lines


def _conversation(
    profile: Profile, observation: Observation, history: Sequence[Step], head: Sequence[str]
) -> tuple[Message, ...]:
    """A user turn for each page and an assistant turn for each decision, so the next prompt is this one, the answer and
    the new page. Templates that want turns to alternate get what they want."""
    system, task = _chat_system(profile), "".join(f"{line}\n" for line in (*head, f"# Goal: {observation.goal}"))
    now = "\n".join(_chat_page(profile, observation))
    room = profile.most_chars - len(system.content) - len(task) - len(now)
    turns: list[tuple[str, str]] = []
    for step in reversed(since_new_step(observation, history)[-profile.max_history :]):
        page, answer = "\n".join(_chat_page(profile, step.observation)), _answer(profile, step)
        room -= len(page) + len(answer)
        if room < 0:
            break
        turns.insert(0, (page, answer))
    users = [*(page for page, _ in turns), now]
    users[0] = task + users[0]
    messages = [system, Message(role="user", content=users[0])]
    for (_, answer), page in zip(turns, users[1:], strict=True):
        messages += [Message(role="assistant", content=answer), Message(role="user", content=page)]
    return tuple(messages)


def _answer(profile: Profile, step: Step) -> str:
    """What was written at a step, word for word. Some endpoints refuse empty turns."""
    if step.completion.strip():
        return step.completion
    return "(nothing)" if step.action is None else render_completion(profile, step.thought, step.action)


_STEP_HEADING = re.compile(r"\bstep\s+(\d+)\s*(?:of|/)\s*(\d+)", re.IGNORECASE)


def step_heading(observation: Observation) -> tuple[int, int] | None:
    """(3, 30) on a page whose heading says "Step 3 of 30"; None elsewhere."""
    headings = (element.name for element in observation.elements if element.role == "heading")
    found = next(filter(None, map(_STEP_HEADING.search, headings)), None)
    return None if found is None else (int(found[1]), int(found[2]))


def since_new_step(observation: Observation, history: Sequence[Step]) -> list[Step]:
    """The part of a history that belongs to the step which the page shows. A page without such a heading (another tab,
    a dialog in front) belongs to the step before it, so on sites that have none everything does."""
    headings = [step_heading(step.observation) for step in history]
    now = step_heading(observation) or next((heading for heading in reversed(headings) if heading), None)
    begin = len(history)
    while begin and headings[begin - 1] in (None, now):
        begin -= 1
    if now is not None:
        while begin < len(history) and headings[begin] is None:
            begin += 1
    return list(history[begin:])


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
