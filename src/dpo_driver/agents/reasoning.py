"""Reasoning for actions that were taken: what a model is asked, how it is read, and decisions rewritten with it.

An expert's thought is the label of what it acts on. A model that is shown page, goal, past actions and the action can
say in a few sentences what leads there; agents/reasoning_check.py refuses what does not. Called by flywheel/annotate.py
and by training, which reads demonstrations with such thoughts. Must not import policies or environments.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from dpo_driver.agents.prompt import NO_THOUGHT, PROFILES, Profile, chat_line, get_profile, render, render_completion
from dpo_driver.core.actions import REF_FIELDS, Action, format_action
from dpo_driver.core.records import Element, Message, Observation, Step, Trajectory

PROMPT_VERSION = 1  # part of every cached answer's address: change the words below and raise it
# The page, the actions so far and the goal as a chat model sees them, without anybody's thoughts: the question is then
# the same for every profile, and no answer hangs on another.
_SEEN = get_profile(f"chat{NO_THOUGHT}")
_SYSTEM = """You put into words what somebody thinks who operates a web page. You are shown the page as a list of \
elements, what was done before, the goal, and what this person does next. Write the reasoning that leads there, as it \
is thought before the decision.
- 2 to 4 short sentences in one paragraph of plain text: first person, present tense.
- Begin with what on the page matters for the goal and why. The last sentence says what you do now and to which element.
- Name elements by the words on the page, never by their numbers, and write no calls such as click("12").
- It is one action only: name nothing else as the thing to do now.
- Use nothing but what is shown, and invent no codes or values.
- It is your own decision: never hint that it was known, given or shown before."""
_AGAIN = "# An earlier answer could not be used: {}. Write it anew without that."


def question(observation: Observation, history: Sequence[Step], action: Action) -> tuple[Message, ...]:
    """What is asked about one decision. ``history`` are the steps before it, of which only the actions are shown."""
    page = render(_SEEN, observation, history)[-1].content
    lines = [page, f"# What you do next: {format_action(action)}"]
    lines += [chat_line(element, _SEEN.max_name_chars) for element in targets(observation, action)]
    return (Message(role="system", content=_SYSTEM), Message(role="user", content="\n".join(lines)))


def asked_again(messages: Sequence[Message], reasons: Sequence[str]) -> tuple[Message, ...]:
    """The same question once more, with what was wrong with the answers before. Without them: an answer that holds
    what it must not is not repeated."""
    if not reasons:
        return tuple(messages)
    last = messages[-1]
    content = f"{last.content}\n{_AGAIN.format('; '.join(dict.fromkeys(reasons)))}"
    return (*messages[:-1], last.model_copy(update={"content": content}))


def targets(observation: Observation, action: Action) -> list[Element]:
    """The elements that an action names, in the order of its arguments; none for keys, points and waits."""
    by_ref = {element.ref: element for element in observation.elements if element.ref is not None}
    refs = [getattr(action, key) for key in action.arguments if key in REF_FIELDS]
    return [by_ref[ref] for ref in refs if ref in by_ref]


def template_thought(observation: Observation, action: Action) -> str:
    """What experts write, where a trajectory was recorded without thoughts: the labels of what is acted on."""
    return ", ".join(element.label for element in targets(observation, action)) or action.kind


_TAGS = re.compile(r"<think>.*?</think>", re.DOTALL | re.IGNORECASE)
_FENCE = re.compile(r"```\w*")
_HEAD = re.compile(r"^(?:\W*(?:thought|reasoning|answer)\W*:)+\s*", re.IGNORECASE)
_STRAIGHT = str.maketrans({"“": '"', "”": '"', "„": '"', "‘": "'", "’": "'"})


def cleaned(text: str) -> str:
    """A model's answer as one line of plain text: without its own hidden thinking, headings, marks and line breaks."""
    text = _FENCE.sub(" ", _TAGS.sub(" ", text)).translate(_STRAIGHT).replace("**", "")
    text = " ".join(_HEAD.sub("", text.strip()).split())
    if len(text) > 1 and text[0] == text[-1] == '"' and text.count('"') == 2:
        text = text[1:-1].strip()
    return text


def thinking(profile: Profile) -> Profile:
    """The variant of a profile that has thoughts."""
    return PROFILES[profile.name.removesuffix(NO_THOUGHT)]


def with_thoughts(trajectory: Trajectory, thoughts: Sequence[str | None], profile: Profile) -> Trajectory:
    """The same decisions as if they had been made with these thoughts: completions and, because prompts tell of earlier
    thoughts, prompts are written anew. None keeps a step's own thought.

    Args:
        trajectory: any; its observations and actions stay as they are.
        thoughts: one for each step.
        profile: how it is written down.
    """
    steps: list[Step] = []
    for step, given in zip(trajectory.steps, thoughts, strict=True):
        changed: dict[str, object] = {"messages": render(profile, step.observation, steps)}
        if step.action is not None:
            thought = given or step.thought or template_thought(step.observation, step.action)
            changed["thought"] = thought if profile.thought else ""
            changed["completion"] = render_completion(profile, thought, step.action)
        steps.append(step.model_copy(update=changed))
    return trajectory.model_copy(update={"steps": tuple(steps), "context_policy": profile.id})
