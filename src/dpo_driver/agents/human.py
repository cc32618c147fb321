"""A person as the agent: sees the very prompt that a model would see, and types actions in the same grammar.

Whatever is typed is parsed by the same white-list. A line that cannot be read is asked for again and costs no step:
a slip of the fingers is no decision. Called by ``dpo-driver play``. Must not import environments or policies.
"""

from __future__ import annotations

import asyncio
import codecs
import os
import threading
from collections.abc import Awaitable, Callable, Sequence

from dpo_driver.agents.prompt import get_profile, render, render_completion
from dpo_driver.core.actions import REF_FIELDS, Action, describe_actions, parse_action
from dpo_driver.core.errors import ActionError, RolloutFailure
from dpo_driver.core.protocols import Move
from dpo_driver.core.records import Observation, Step, StopReason, Task

ReadLine = Callable[[str], Awaitable[str | None]]
HELP = """Type one action a line, as the agent would write it, or one of:
  thought: TEXT   what you are looking for, kept with the next action (else the element's label is)
  page            show the page again
  help            show this
  quit            leave; Ctrl-D does the same
Actions:
"""


class HumanAgent:
    """``HumanAgent(read, show)``.

    Args:
        read: given a prompt such as ``"action> "``, the next line; None when there are no more.
        show: prints a block of text.
        profile: prompt profile by name; decides what is shown and how the decisions are written down.
    """

    def __init__(self, read: ReadLine, show: Callable[[str], None], profile: str = "chat") -> None:
        self._read, self._show = read, show
        self._profile = get_profile(profile)

    @property
    def name(self) -> str:
        return "human"

    @property
    def policy_version(self) -> str:
        return "human"

    @property
    def context_policy(self) -> str:
        return self._profile.id

    async def act(self, task: Task, observation: Observation, history: Sequence[Step]) -> Move:
        """What the person types.

        Raises:
            RolloutFailure: CANCELLED when there are no more lines, or the person leaves.
        """
        messages = render(self._profile, observation, history)
        page = messages[-1].content.strip()
        self._show(f"--- step {len(history) + 1} of {task.max_steps} ---\n{page}")
        if observation.last_error and observation.last_error not in page:
            self._show(f"({observation.last_error})")  # the pocket profile only says that it failed
        thought = ""
        while True:
            line = await self._read("action> ")
            if line is None or line.strip() in {"quit", "exit"}:
                raise RolloutFailure(StopReason.CANCELLED, "the person left")
            line = line.strip()
            if line == "page":
                self._show(page)
            elif line in {"help", "?"}:
                self._show(HELP + describe_actions())
            elif line.lower().startswith("thought:"):
                thought = line[len("thought:") :].strip()
            elif line:
                written = line[len("action:") :] if line.lower().startswith("action:") else line
                try:
                    action = parse_action(written)
                except ActionError as error:
                    self._show(f"! {error}")
                    continue
                thought = thought or _label(action, observation)
                completion = render_completion(self._profile, thought, action)
                return Move(action=action, thought=thought, completion=completion, messages=messages)


def _label(action: Action, observation: Observation) -> str:
    """What the experts of the oracle think as well: the label of what they act on."""
    refs = [getattr(action, field) for field in action.arguments if field in REF_FIELDS]
    labels = [element.label for ref in refs for element in observation.elements if element.ref == ref]
    return " to ".join(labels) or action.kind.replace("_", " ")


class TypedLines:
    """Lines of a file descriptor for a program that runs an event loop: ``await TypedLines(0).read("> ")``.

    A daemon thread reads, so that the loop goes on while a person thinks and Ctrl-C need not wait for Enter. It reads
    the descriptor itself: a daemon thread that holds ``sys.stdin``'s lock would stop the interpreter from ending.
    """

    def __init__(self, descriptor: int, show_prompt: Callable[[str], None] = lambda _text: None) -> None:
        self._descriptor, self._show_prompt = descriptor, show_prompt
        self._lines: asyncio.Queue[str | None] = asyncio.Queue()
        self._thread: threading.Thread | None = None
        self._ended = False

    async def read(self, prompt: str) -> str | None:
        """The next line without its end; None after the last."""
        if self._ended:
            return None
        if self._thread is None:
            loop = asyncio.get_running_loop()
            self._thread = threading.Thread(target=self._pump, args=(loop,), name="typed-lines", daemon=True)
            self._thread.start()
        self._show_prompt(prompt)
        line = await self._lines.get()
        self._ended = line is None
        return line

    def _pump(self, loop: asyncio.AbstractEventLoop) -> None:
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        rest = ""
        while True:
            try:
                chunk = os.read(self._descriptor, 65_536)
            except OSError:
                chunk = b""
            *lines, rest = (rest + decoder.decode(chunk, final=not chunk)).split("\n")
            if not chunk and rest:
                lines.append(rest)
            try:
                for line in lines:
                    loop.call_soon_threadsafe(self._lines.put_nowait, line)
                if not chunk:
                    loop.call_soon_threadsafe(self._lines.put_nowait, None)
            except RuntimeError:
                return  # the loop was closed: nobody waits any more
            if not chunk:
                return
