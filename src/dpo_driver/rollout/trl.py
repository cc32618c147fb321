"""Our environments for TRL: ``GRPOTrainer(environment_factory=environment_factory("miniwob.click-button"), ...)``.

The factory makes objects whose ``reset`` starts a seeded episode and whose public methods are actions, each of which
returns the page as it is then; TRL offers these methods to the model as tools. All objects of a factory share a
browser, which runs in an event loop of its own thread, since TRL calls tools synchronously. Called by people's scripts
and examples/trl_grpo.py; needs nothing of TRL itself.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable, Coroutine, Iterable, Sequence
from contextlib import AsyncExitStack, suppress
from typing import Any, Literal, TypeVar, get_args, get_origin

from dpo_driver.agents.prompt import get_profile, render
from dpo_driver.core.actions import ACTIONS, parse_action
from dpo_driver.core.errors import ActionError, ConfigError, RolloutFailure, UnknownNameError
from dpo_driver.core.plugins import load, names
from dpo_driver.core.protocols import Environment, Outcome
from dpo_driver.core.records import Observation, StopReason, Task

# What most pages need. Every further action makes the prompt longer by its schema.
USUAL_ACTIONS = ("click", "fill", "select_option", "press", "scroll", "drag_and_drop")
PROMPT = "Reach the goal on this page by calling the tools. Refer to elements by their number."
OPEN_S = 60.0
CALL_S = 60.0
STARTS = 3  # tries of a reset; a page that broke is replaced in between
OVER = "The episode is over."
RewardKind = Literal["strict", "positive", "dense"]
_ARGUMENTS = {
    "ref": "number of the element, as the page shows it in brackets",
    "from_ref": "number of the element to take",
    "to_ref": "number of the element to drop it on",
    "value": "the new content",
    "text": "the text",
    "key": "a key or a combination, such as Enter or Control+a",
    "options": "labels or values to choose",
    "file": "names of files",
    "button": "button of the mouse",
    "modifiers": "keys to hold meanwhile",
    "delta_x": "pixels to the right",
    "delta_y": "pixels down",
    "x": "pixels from the left",
    "y": "pixels from the top",
    "from_x": "pixels from the left, where to take it",
    "from_y": "pixels from the top, where to take it",
    "to_x": "pixels from the left, where to drop it",
    "to_y": "pixels from the top, where to drop it",
    "wait_ms": "milliseconds to wait",
    "index": "number of the tab, from 0",
    "url": "address to go to",
    "code": "a JavaScript expression",
    "reason": "why it cannot be done",
}
T = TypeVar("T")


def environment_factory(
    task: str,
    *,
    environment: str | None = None,
    actions: Iterable[str] = USUAL_ACTIONS,
    reward: RewardKind = "strict",
    profile: str = "chat",
    max_steps: int | None = None,
) -> EnvironmentFactory:
    """What ``GRPOTrainer(environment_factory=...)`` takes. Starts no browser yet.

    Args:
        task: family, with or without its environment: "miniwob.click-button". A row may name another in ``task``.
        environment: name in the table of environments, or ``website:FOLDER``; said by ``task`` when not given.
        actions: kinds that the model may use, each a tool: names of the action language.
        reward: "strict" gives 1 for success and 0 else; "positive" 1 for any raw reward above 0; "dense" the raw one.
        profile: how pages are written: a prompt profile, "chat" or the shorter "pocket".
        max_steps: actions that end an episode; the family's own limit when not given.

    Raises:
        UnknownNameError: there is no such environment, family, action, reward or profile.
    """
    if reward not in get_args(RewardKind):
        raise UnknownNameError("reward", reward, get_args(RewardKind))
    return EnvironmentFactory(task, environment, tuple(actions), reward, profile, max_steps)


def episode_rows(task: str, seeds: Iterable[int], prompt: str = PROMPT) -> list[dict[str, Any]]:
    """Rows of a training dataset, one for each seed: ``Dataset.from_list(episode_rows("click-button", range(8)))``.

    The columns are ``prompt``, to which TRL adds what ``reset`` returns, and ``task`` and ``seed``, which reset reads.
    """
    return [{"prompt": [{"role": "user", "content": prompt}], "task": task, "seed": seed} for seed in seeds]


def reward_from_environment(environments: Sequence[Any], **columns: Any) -> list[float | None]:
    """A reward function for TRL: what each rollout's environment measured; None where the world broke."""
    return [environment.reward for environment in environments]


class EnvironmentFactory:
    """Makes environments that share a browser, and closes them all: use it in a ``with`` block, or call ``close``. What
    is left open ends with the process, as all browsers of ours do. See :func:`environment_factory`."""

    def __init__(
        self, task: str, environment: str | None, actions: tuple[str, ...], reward: RewardKind, profile: str,
        max_steps: int | None,
    ) -> None:  # fmt: skip
        head, dot, rest = task.partition(".")
        named = bool(dot) and head in names("environments")
        self.source = environment or (head if named else "miniwob")
        self._prefix = f"{self.source.partition(':')[0]}."
        self.task = rest if named and environment is None else task
        self.reward: RewardKind = reward
        self._profile = get_profile(profile)
        self._max_steps = max_steps
        self._make_task = load("make_task", self.source)
        self.make_task(None, 0)  # an unknown family is told before a browser starts
        self._open = load("environments", self.source)
        self._kind = _tools_class(actions)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stack = AsyncExitStack()
        self._make: Callable[[], Coroutine[Any, Any, Environment]] | None = None

    def __call__(self) -> BrowserTools:
        """A new environment; its page is opened by its first reset."""
        return self._kind(self)

    def __enter__(self) -> EnvironmentFactory:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """End all pages and the browser. A later reset opens them anew."""
        if self._loop is None:
            return
        try:
            self.run(self._stack.aclose(), OPEN_S)
        finally:
            loop, self._loop, self._make = self._loop, None, None
            loop.call_soon_threadsafe(loop.stop)
            self._thread.join(CALL_S)
            loop.close()

    def make_task(self, family: str | None, seed: int) -> Task:
        """The seeded task of a row. UnknownNameError lists the families."""
        task: Task = self._make_task((family or self.task).removeprefix(self._prefix), seed)
        return task if self._max_steps is None else task.model_copy(update={"max_steps": self._max_steps})

    def open(self) -> Environment:
        """A page of its own, in the browser that all share."""
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(target=self._loop.run_forever, name="dpo-driver-trl", daemon=True)
            self._thread.start()
        if self._make is None:
            self._make = self.run(self._stack.enter_async_context(self._open()), OPEN_S)
        page = self.run(self._make(), OPEN_S)
        self._stack.push_async_callback(_closed, page)
        return page

    def run(self, call: Coroutine[Any, Any, T], deadline_s: float = CALL_S) -> T:
        """Wait for something that happens in the browser's event loop."""
        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(asyncio.wait_for(call, deadline_s), self._loop).result()

    def written(self, observation: Observation) -> str:
        """The page as our own agents see it, without a list of actions: the tools say that."""
        return render(self._profile, observation, ())[-1].content


class BrowserTools:
    """One rollout's environment. Everything public but ``reset`` and the properties is a tool: TRL looks for methods.

    ``reward`` is None while the world is broken, else what the episode has earned so far (0 before it ends);
    ``success``, ``stop`` and ``steps`` are as in a trajectory's record.
    """

    def __init__(self, factory: EnvironmentFactory) -> None:
        self._factory = factory
        self._page: Environment | None = None
        self._task: Task | None = None
        self._begin()

    def _begin(self) -> None:
        self.steps = 0
        self.stop: StopReason | None = None
        self.failure: str | None = None
        self.raw_reward: float | None = None

    def reset(self, seed: int | None = None, task: str | None = None, **columns: Any) -> str:
        """Start the episode of a dataset's row; all rollouts of a row start alike.

        Args:
            seed: of the episode.
            task: family, when it is not the factory's.
            columns: whatever else the row has.

        Raises:
            ConfigError: the row has no seed. UnknownNameError: there is no such family.
            RolloutFailure: no page could be opened.
        """
        if seed is None:
            remedy = "give the dataset a column seed; episode_rows(task, seeds) makes such rows"
            raise ConfigError("without a seed the rollouts of a prompt would not start alike", remedy=remedy)
        self._task = self._factory.make_task(task, int(seed))
        for start in range(1, STARTS + 1):
            self._begin()
            try:
                self._page = self._page or self._factory.open()
                return "\n" + self._factory.written(self._factory.run(self._page.reset(self._task)))
            except (RolloutFailure, TimeoutError) as error:
                self._fail(error)
                if start == STARTS:
                    raise
        raise AssertionError("unreachable")

    @property
    def success(self) -> bool | None:
        """Strict success; None if the world broke."""
        return None if self.failure else self.stop is StopReason.SUCCESS

    @property
    def reward(self) -> float | None:
        """What the episode has earned, of the factory's kind; None if the world broke."""
        if self.failure:
            return None
        raw = self.raw_reward or 0.0
        if self._factory.reward == "dense":
            return raw
        return float(raw > 0 if self._factory.reward == "positive" else self.stop is StopReason.SUCCESS)

    def _act(self, kind: str, arguments: dict[str, Any]) -> str:
        """Do one action, written as a model would write it, so that it is read by the same rules."""
        if self.failure:
            raise ActionError(f"the page is broken: {self.failure}")
        if self._task is None or self._page is None:
            raise ActionError("there is no episode yet: reset comes first")
        if self.stop is not None:
            return OVER
        action = parse_action(f"{kind}({', '.join(f'{name}={value!r}' for name, value in arguments.items())})")
        try:
            outcome: Outcome = self._factory.run(self._page.step(action))
        except (RolloutFailure, TimeoutError) as error:
            self._fail(error)
            raise ActionError(f"the page is broken: {self.failure}") from error
        self.steps += 1
        if outcome.reward is not None:
            self.raw_reward = (self.raw_reward or 0.0) + outcome.reward
        self.stop = outcome.stop
        if self.stop is None and action.kind == "report_infeasible":
            self.stop = StopReason.INFEASIBLE
        if self.stop is None and self.steps >= self._task.max_steps:
            self.stop = StopReason.MAX_STEPS
        return self._factory.written(outcome.observation) if self.stop is None else OVER

    def _fail(self, error: Exception) -> None:
        """The world broke: no score, and another page for the next episode."""
        self.failure = str(error) or type(error).__name__
        page, self._page = self._page, None
        if page is not None:
            with suppress(TimeoutError):
                self._factory.run(_closed(page))


async def _closed(page: Environment) -> None:
    """End a page, whatever state it is in: what cannot be closed goes with its browser."""
    with suppress(RolloutFailure):
        await page.close()


def _tools_class(actions: Sequence[str]) -> type[BrowserTools]:
    """A class with a method for each action: TRL looks for tools on the class."""
    unknown = next((kind for kind in actions if kind not in ACTIONS), None)
    if unknown is not None:
        raise UnknownNameError("action", unknown, ACTIONS)
    return type("BrowserTools", (BrowserTools,), {kind: _tool(kind) for kind in actions})


def _tool(kind: str) -> Callable[..., str]:
    """The method of an action, with the signature, types and docstring that its schema is made from."""
    model = ACTIONS[kind]
    fields = {name: model.model_fields[name] for name in model.arguments}
    hints = {name: _hint(field.annotation) for name, field in fields.items()}
    keyword = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = [inspect.Parameter("self", keyword)]
    for name, field in fields.items():
        default = inspect.Parameter.empty if field.is_required() else _plain(field.default)
        parameters.append(inspect.Parameter(name, keyword, default=default, annotation=hints[name]))
    signature = inspect.Signature(parameters, return_annotation=str)

    def tool(self: BrowserTools, *values: Any, **named: Any) -> str:
        bound = dict(signature.bind(self, *values, **named).arguments)
        del bound["self"]
        return self._act(kind, bound)

    said = (model.__doc__ or "").strip().replace("``", "")
    described = [f"    {name}: {_ARGUMENTS[name]}" for name in fields]
    tool.__name__ = tool.__qualname__ = kind
    tool.__doc__ = "\n".join(
        [said, *(["", "Args:", *described] if fields else []), "", "Returns:", "    The page then."]
    )
    tool.__annotations__ = {**hints, "return": str}
    tool.__signature__ = signature  # type: ignore[attr-defined]
    return tool


def _hint(annotation: Any) -> Any:
    """A field's type as schemas of tools know it: lists for tuples."""
    if get_origin(annotation) is tuple:
        return list[get_args(annotation)[0]]  # type: ignore[misc]
    return annotation


def _plain(default: Any) -> Any:
    return list(default) if isinstance(default, tuple) else default
