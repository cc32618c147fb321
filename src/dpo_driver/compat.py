"""The older Python face: ``AgentModel`` and ``EnvironmentInterface`` as scripts of the first version call them.

    agent = AgentModel("pocket").load_adapter("models/dpo_v1_adapter")
    environment = EnvironmentInterface()
    observation = environment.reset("click-button-v1")
    observation, reward, done, info = environment.step(agent.predict(observation["prompt"])["action"])

Everything behind it is today's: HFPolicy, the MiniWoB++ environment and the one renderer. New code uses these directly.
Nothing heavy is loaded before it is used. Nothing else in the package imports this module.
"""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from dpo_driver.agents.prompt import get_profile, parse_completion, render
from dpo_driver.core.actions import Action, parse_action
from dpo_driver.core.errors import ActionError, ModelError, RolloutFailure
from dpo_driver.core.protocols import Environment, Policy
from dpo_driver.core.records import Element, Message, Observation, Sampling, Step, StopReason, Task

FIRST_SEED = 10_000  # of the training block: calling the older face never looks at a held-out seed
CALL_S = 60.0  # seconds for one call, browser start included
MAX_NEW_TOKENS = 256

Result = TypeVar("Result")
OpenEnvironment = Callable[[], Awaitable[Environment]]


class AgentModel:
    """A model that turns an instruction into a thought and an action.

    Args:
        model_name: ``pocket``, a folder, or a hub id. The model is loaded when it is first asked.
        policy: use this policy instead of loading a model.
    """

    def __init__(self, model_name: str, *, policy: Policy | None = None) -> None:
        if not isinstance(model_name, str) or not model_name:
            raise ValueError(f"a model name is needed, not {model_name!r}")
        self.model_name = model_name
        self._adapter: Path | None = None
        self._policy = policy

    @classmethod
    def from_sft_adapter(cls, base_model_name: str, adapter_path: str | Path) -> AgentModel:
        """``AgentModel(base_model_name).load_adapter(adapter_path)``."""
        return cls(base_model_name).load_adapter(adapter_path)

    def load_adapter(self, path: str | Path) -> AgentModel:
        """Put a PEFT adapter on the model, instead of any before it; gives the agent back.

        Raises:
            ModelError: the folder holds no adapter, or only pickled weights.
        """
        folder = Path(path)
        if not (folder / "adapter_config.json").is_file():
            remedy = "give the folder that holds adapter_config.json and adapter_model.safetensors"
            raise ModelError("no adapter here", where=str(folder), remedy=remedy)
        if not (folder / "adapter_model.safetensors").is_file():
            remedy = "save it again with safetensors; pickled weights (.bin) are never loaded"
            raise ModelError("the adapter has no adapter_model.safetensors", where=str(folder), remedy=remedy)
        self._adapter, self._policy = folder, None
        return self

    def generate_completion(self, prompt: str) -> str:
        """The model's whole answer to a prompt, decoded greedily.

        Raises:
            ModelError: the model cannot be loaded, or the prompt does not fit into it.
        """
        if self._policy is None:
            from dpo_driver.policies.hf import HFPolicy

            self._policy = HFPolicy(self.model_name, self._adapter)
        sampling = Sampling(temperature=0.0, max_new_tokens=MAX_NEW_TOKENS)
        [generation] = self._policy.generate([[Message(role="user", content=prompt)]], [sampling])
        if generation.finish_reason == "error":
            what = f"the prompt of {generation.prompt_tokens} tokens does not fit into the model"
            raise ModelError(what, where=self.model_name, remedy="shorten the page")
        return generation.text

    def predict(self, instruction: str) -> dict[str, str]:
        """``{"thought": ..., "action": ...}`` for a prompt: an observation's ``prompt``, or any page and goal text.

        The action is one call such as ``click("12")``, ready for :meth:`EnvironmentInterface.step`. It is empty when
        the answer cannot be read, and the thought is then the whole answer.
        """
        completion = self.generate_completion(instruction)
        try:
            thought, _ = parse_completion(completion)
        except ActionError:
            return {"thought": completion.strip(), "action": ""}
        written = re.split(r"(?:^|\n)\s*action\s*:\s*|</think>", completion, flags=re.IGNORECASE)[-1]
        return {"thought": thought, "action": written.strip()}


class EnvironmentInterface:
    """MiniWoB++ without asyncio: one page, one episode at a time. Also a context manager.

    Observations are dicts: ``utterance`` (the goal), ``prompt`` (what a model is shown, history included), ``url``,
    ``title``, ``elements`` (dicts with ref, role, name, value, ...), ``last_error`` and ``state_hash``.

    Args:
        task_id: for resets that name none, such as ``click-button-v1``, ``miniwob/click-button-v1``, ``click-button``.
        profile: how ``prompt`` is written: "pocket" for the pocket model, "chat" for others.
        open_environment: opens another environment than MiniWoB++.
        make_task: gives its tasks from a name and a seed.
    """

    def __init__(
        self,
        task_id: str | None = None,
        *,
        profile: str = "pocket",
        open_environment: OpenEnvironment | None = None,
        make_task: Callable[[str, int], Task] | None = None,
    ) -> None:
        self.task_id = task_id
        self._profile = get_profile(profile)
        self._open = open_environment or _open_miniwob
        self._make_task = make_task or _miniwob_task
        self._environment: Environment | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._next_seed = FIRST_SEED
        self._task: Task | None = None
        self._observation: Observation | None = None
        self._history: list[Step] = []

    def reset(self, task_id: str | None = None, seed: int | None = None) -> dict[str, Any]:
        """Start an episode and give its first observation. Without a seed each reset takes the next one.

        Raises:
            UnknownNameError: there is no such task.
            BrowserMissingError: there is no Chromium.
            RolloutFailure: the page or the browser broke; the next reset starts afresh.
        """
        name = task_id or self.task_id
        if name is None:
            raise ValueError("reset needs a task id, such as reset('click-button-v1')")
        if seed is None:
            seed, self._next_seed = self._next_seed, self._next_seed + 1
        task = self._make_task(name, seed)
        if self._environment is None:
            self._environment = self._wait(self._open())
        self.task_id, self._task, self._history = name, None, []
        self._observation = self._wait(self._environment.reset(task))
        self._task = task
        return self._shown(self._observation)

    def step(self, action: str) -> tuple[dict[str, Any], float, bool, dict[str, Any]]:
        """Carry out one written action.

        Args:
            action: today's grammar, the older ``CLICK(selector="...")``, or a whole answer with thought and action. An
                older selector is looked up on the page, see :func:`find_by_selector`.

        Returns:
            ``(observation, reward, done, info)``. The reward is 0.0 until the environment has measured one. An action
            that cannot be read or carried out changes nothing on the page; ``info["error"]`` says why. ``info`` also
            has ``success`` (None while it goes on) and ``stop_reason``.

        Raises:
            RolloutFailure: the page or the browser broke. RuntimeError: no episode is running.
        """
        task, before, environment = self._task, self._observation, self._environment
        if task is None or before is None or environment is None:
            raise RuntimeError("step before reset, or after the end of the episode")
        thought, parsed, error = "", None, None
        reward: float | None = None
        stop: StopReason | None = None
        try:
            thought, parsed = _read(action, before)
        except ActionError as problem:
            error = str(problem)
            self._observation = before.model_copy(update={"last_error": error})
        else:
            outcome = self._wait(environment.step(parsed))
            self._observation, reward, stop = outcome.observation, outcome.reward, outcome.stop
            error = outcome.observation.last_error
        self._history.append(Step(observation=before, completion=action, thought=thought, action=parsed))
        if stop is None and len(self._history) >= task.max_steps:
            stop = StopReason.MAX_STEPS
        if stop is not None:
            self._task = None
        info = {
            "success": None if stop is None else stop is StopReason.SUCCESS,
            "stop_reason": None if stop is None else str(stop),
            "error": error,
            "seed": task.seed,
        }
        return self._shown(self._observation), 0.0 if reward is None else float(reward), stop is not None, info

    def close(self) -> None:
        """Close the page and the browser. A later reset opens them again."""
        environment, self._environment = self._environment, None
        loop, self._task = self._loop, None
        try:
            if environment is not None:
                self._wait(environment.close())
        finally:
            self._loop = None
            if loop is not None and self._thread is not None:
                loop.call_soon_threadsafe(loop.stop)
                self._thread.join(CALL_S)

    def __enter__(self) -> EnvironmentInterface:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def _shown(self, observation: Observation) -> dict[str, Any]:
        return {
            "utterance": observation.goal,
            "prompt": render(self._profile, observation, self._history)[-1].content,
            "url": observation.url,
            "title": observation.title,
            "elements": [element.model_dump() for element in observation.elements],
            "last_error": observation.last_error,
            "state_hash": observation.state_hash,
        }

    def _wait(self, work: Awaitable[Result]) -> Result:
        """Run on a loop of our own in a thread of its own: the caller may sit inside a running loop (notebooks do)."""
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(target=_run_loop, args=(self._loop,), name="environment", daemon=True)
            self._thread.start()
        done = asyncio.run_coroutine_threadsafe(_with_deadline(work), self._loop)
        try:
            return done.result()
        except TimeoutError:
            self._task = None
            raise RolloutFailure(StopReason.PAGE_HUNG, f"no answer within {CALL_S:g} s") from None
        except RolloutFailure:
            self._task = None
            raise


async def _with_deadline(work: Awaitable[Result]) -> Result:
    return await asyncio.wait_for(work, CALL_S)


def _run_loop(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


def _open_miniwob() -> Coroutine[Any, Any, Environment]:
    from dpo_driver.envs.miniwob.environment import MiniwobEnvironment

    return MiniwobEnvironment.create()


def _miniwob_task(name: str, seed: int) -> Task:
    from dpo_driver.envs.miniwob.tasks import make_task

    return make_task(name, seed, "train")


def _read(text: str, observation: Observation) -> tuple[str, Action]:
    """Thought and action of a written step, with an older selector replaced by the number of the element it means."""
    try:
        thought, action = parse_completion(text)
    except ActionError:
        thought, action = "", parse_action(text)
    ref = getattr(action, "ref", None)
    if ref is None or ref.isdigit() or any(element.ref == ref for element in observation.elements):
        return thought, action
    element = find_by_selector(ref, observation)
    return thought, action.model_copy(update={"ref": element.ref})


_TAG = re.compile(r"[a-zA-Z][\w-]*")
_PART = re.compile(
    r"\[\s*([\w-]+)\s*(?:([*^$~|]?=)\s*(?:'([^']*)'|\"([^\"]*)\"|([^\]\s]*))\s*i?\s*)?\]"  # [name*='user' i]
    r"|:contains\(\s*(?:'([^']*)'|\"([^\"]*)\"|([^)]*))\s*\)"
)
_TAG_ROLES = {"button": "button", "a": "link", "select": "combobox", "textarea": "textarea", "option": "option"}
_INPUT_ROLES = {
    "text": "textbox", "email": "textbox", "search": "textbox", "tel": "textbox", "password": "textbox",
    "checkbox": "checkbox", "radio": "radio", "submit": "button", "button": "button", "range": "slider",
    "number": "number", "date": "date", "time": "time", "color": "color", "file": "file",
}  # fmt: skip
_NAMING = frozenset({"name", "id", "placeholder", "title", "aria-label", "value", "alt"})


def find_by_selector(selector: str, observation: Observation) -> Element:
    """The first element with a number that an older selector means.

    The page is seen as roles and names, so a selector is read as that: tags, ``[role=...]``, ``[type=...]``,
    ``:contains('...')`` and attributes that name things (``name``, ``id``, ``placeholder``, ``title``, ``aria-label``,
    ``value``), which are compared with the element's name. Alternatives are tried in order; of a path only the last
    part counts. Classes, ``#id`` and styles are not seen by a text agent.

    Raises:
        ActionError: nothing on the page fits, or no alternative can be read.
    """
    readable = False
    for alternative in _split(selector, ","):
        tests = _compile(_split(alternative, " +>~")[-1])
        if tests is None:
            continue
        readable = True
        for element in observation.elements:
            if element.ref is not None and all(test(element) for test in tests):
                return element
    if not readable:
        raise ActionError(f"the selector {selector!r} cannot be read here; use an element's number")
    raise ActionError(f"no element fits the selector {selector!r}")


def _split(text: str, separators: str) -> list[str]:
    """The parts between separators that stand outside quotes and brackets; at least one, without outer space."""
    parts, depth, quote = [""], 0, ""
    for char in text.strip():
        if quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        elif char in separators and depth == 0:
            parts.append("")
            continue
        else:
            depth += (char in "[(") - (char in "])")
        parts[-1] += char
    return [part.strip() for part in parts if part.strip()] or [""]


def _compile(compound: str) -> list[Callable[[Element], bool]] | None:
    """Tests for one compound selector; None when a part of it cannot be seen by a text agent."""
    tests: list[Callable[[Element], bool]] = []
    position = 0
    if named := _TAG.match(compound):
        tag, position = named[0].lower(), named.end()
        tests.append(lambda element: element.tag.lower() == tag or element.role == _TAG_ROLES.get(tag, ""))
    while position < len(compound):
        part = _PART.match(compound, position)
        if part is None:
            return None
        position = part.end()
        attribute, operator, *texts = part.groups()
        wanted = next((text for text in texts if text is not None), "")
        test = _attribute(attribute.lower(), operator or "", wanted) if attribute else _named(wanted, exact=False)
        if test is None:
            return None
        tests.append(test)
    return tests or None


def _attribute(name: str, operator: str, wanted: str) -> Callable[[Element], bool] | None:
    if name == "role":
        return lambda element: element.role == wanted.lower()
    if name == "type":
        role = _INPUT_ROLES.get(wanted.lower())
        return lambda element: element.role == role
    if name in _NAMING and wanted:
        return _named(wanted, exact=operator == "=")
    return None


def _named(wanted: str, *, exact: bool) -> Callable[[Element], bool]:
    folded = wanted.strip().casefold()

    def fits(element: Element) -> bool:
        name = element.name.strip().casefold()
        return name == folded if exact else folded in name

    return fits
