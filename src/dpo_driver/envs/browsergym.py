"""Any registered BrowserGym task as our environment: played in a process of its own, in BrowserGym's own venv.

BrowserGym pins a Playwright that we cannot use, so the two never share a process. ``benchmarks/peers/setup`` makes the
virtual environment; ``DPO_DRIVER_PEERS`` names another one in which BrowserGym is installed. Observations come from
BrowserGym's accessibility tree with its bids as element numbers, actions go back in its grammar. Reward is MiniWoB++'s
raw reward where the task tells it, else BrowserGym's; success is strict, as everywhere. Called by rollout/. Must
not import browsergym or playwright.
"""

from __future__ import annotations

import asyncio
import base64
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from dpo_driver.core.actions import Action, Clear, Noop, Type, format_action
from dpo_driver.core.errors import DriverError, RolloutFailure, UnknownNameError
from dpo_driver.core.protocols import Outcome
from dpo_driver.core.records import Element, Observation, Split, StopReason, Task, state_hash
from dpo_driver.envs.worker import Answer, WorkerProcess

ENVIRONMENT_VARIABLE = "DPO_DRIVER_PEERS"
SCRIPT = Path(__file__).with_name("browsergym_worker.py")
RESET_S, STEP_S, PICTURE_S = 90.0, 45.0, 10.0
SUCCESS_REWARD = 0.99
MAX_STEPS = 10
TASK_NAME = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_.-]+)?\Z")
SCALED = frozenset({"x", "y", "from_x", "from_y", "to_x", "to_y"})
TASKS: dict[str, str] = {}  # which tasks there are is known in the other environment only; any name may be asked for
WriteAction = Callable[[Action, float], str]


class PeersMissingError(DriverError):
    """The virtual environment with BrowserGym and the Selenium gym has not been made."""

    def __init__(self, folder: Path) -> None:
        super().__init__(
            "the environment of the peers (BrowserGym, the Selenium gym) has not been made",
            where=str(folder),
            remedy=f"run benchmarks/peers/setup, or point {ENVIRONMENT_VARIABLE} at an environment that has them",
        )


def peers_folder() -> Path:
    """The peers' virtual environment: ``DPO_DRIVER_PEERS``, else ``.venv-peers`` in the repository.

    Raises:
        PeersMissingError: there is none.
    """
    named = os.environ.get(ENVIRONMENT_VARIABLE)
    folder = Path(named) if named else Path(__file__).resolve().parents[3] / ".venv-peers"
    if not os.access(folder / "bin" / "python", os.X_OK):
        raise PeersMissingError(folder)
    return folder


def peers_command(folder: Path, script: Path) -> tuple[list[str], dict[str, str]]:
    """Command and variables that run a script with the peers' interpreter and browser."""
    # -P: a script's folder must not come before the packages; ours holds a browsergym.py.
    environment = {"PYTHONPATH": "", "OMP_NUM_THREADS": "1"}
    if (folder / "browsers").is_dir():
        browsers = folder / "browsers"
        environment |= {
            "PLAYWRIGHT_BROWSERS_PATH": str(browsers),
            "MINIWOB_CHROME_BINARY": str(browsers / "chrome"),
            "MINIWOB_CHROMEDRIVER": str(browsers / "chromedriver"),
        }
    return [str(folder / "bin" / "python"), "-P", str(script)], environment


def make_task(name: str, seed: int, split: Split = "train") -> Task:
    """``make_task("miniwob.click-test", 7).id == "browsergym/miniwob.click-test/7"``. Whether BrowserGym knows the name
    is found out at reset."""
    short = name.removeprefix("browsergym/")
    if not TASK_NAME.match(short):
        raise UnknownNameError("BrowserGym task", name, ["miniwob.click-test", "miniwob.click-button", "openended"])
    return Task(
        id=f"browsergym/{short}/{seed}", env="browsergym", name=short, seed=seed, split=split, max_steps=MAX_STEPS
    )


def write_action(action: Action, scale: float = 1.0) -> str:
    """An action in BrowserGym's grammar. ``scale`` is how much larger its pictures are than CSS pixels: its coordinates
    are those of the picture."""
    if isinstance(action, Noop):
        return f"noop({action.wait_ms:g})"  # without a number BrowserGym waits a second
    if isinstance(action, Type):  # BrowserGym types into what has the focus
        return f"focus({action.ref!r})\nkeyboard_press('End')\nkeyboard_type({action.text!r})"
    if isinstance(action, Clear):
        return f"clear({action.ref!r})"
    points = {key: getattr(action, key) * scale for key in SCALED & set(type(action).model_fields)}
    return format_action(action.model_copy(update=points) if points else action)


class BrowserGymEnvironment:
    """One BrowserGym environment in a process of its own. After a RolloutFailure the next reset starts a new process.

    Args:
        options: extra arguments of ``gymnasium.make``, such as ``{"slow_mo": 0, "pre_observation_delay": 0}``.
        script: what runs in the other environment; another gym may be served by another script.
        write: how an action is written for that script.
        reset_s, step_s: deadlines in seconds. BrowserGym starts two browsers at every reset.

    ``engine_seconds`` is the time spent inside the other environment's own reset and step, its start not included.
    """

    def __init__(
        self,
        *,
        options: Mapping[str, Any] | None = None,
        script: Path = SCRIPT,
        write: WriteAction = write_action,
        reset_s: float = RESET_S,
        step_s: float = STEP_S,
    ) -> None:
        self._command, self._variables = peers_command(peers_folder(), script)
        self._options, self._write = dict(options or {}), write
        self._reset_s, self._step_s = reset_s, step_s
        self._worker: WorkerProcess | None = None
        self._running = False
        self._scale = 1.0
        self.engine_seconds = 0.0

    @classmethod
    @asynccontextmanager
    async def source(cls, **arguments: Any) -> AsyncIterator[Callable[[], Awaitable[BrowserGymEnvironment]]]:
        """The factory that rollouts ask for: a process for each worker.

        Raises:
            PeersMissingError: BrowserGym's environment has not been made.
        """
        peers_folder()

        async def make() -> BrowserGymEnvironment:
            return cls(**arguments)

        yield make

    @classmethod
    async def create(cls, **arguments: Any) -> BrowserGymEnvironment:
        """A single environment, ended by ``close``."""
        return cls(**arguments)

    @property
    def pid(self) -> int | None:
        """Process id of the other process; None while there is none."""
        return self._worker.pid if self._worker is not None else None

    async def reset(self, task: Task) -> Observation:
        """Start the seeded task. ``task.params["options"]`` adds arguments of ``gymnasium.make``.

        Raises:
            UnknownNameError: BrowserGym has no such task.
            RolloutFailure: the other process or its browser broke.
        """
        self._running = False
        if self._worker is None or not self._worker.alive:
            self._worker = await asyncio.to_thread(WorkerProcess, self._command, self._variables)
        options = {**self._options, **task.params.get("options", {})}
        try:
            answer = await self._call("reset", self._reset_s, task=task.name, seed=task.seed, options=options)
        except LookupError as error:
            raise UnknownNameError("BrowserGym task", task.name, error.args[1]) from None
        self._running = True
        return _observation(answer)

    async def step(self, action: Action) -> Outcome:
        """Carry out one action. The reward is given when it ends the episode.

        Raises:
            RolloutFailure: the other process or its browser broke.
            RuntimeError: no episode is running.
        """
        if self._worker is None or not self._running:
            raise RuntimeError("step before reset, or after the end of the episode")
        written = self._write(action, self._scale)
        answer = await self._call("step", self._step_s, action=written)
        stop: StopReason | None = None
        if action.kind == "report_infeasible":
            stop = StopReason.INFEASIBLE
        elif answer["done"]:
            stop = StopReason.SUCCESS if answer["reward"] >= SUCCESS_REWARD else StopReason.WRONG
        elif answer["cut"]:
            stop = StopReason.MAX_STEPS
        self._running = stop is None
        return Outcome(_observation(answer), answer["reward"] if stop is not None else None, stop)

    async def screenshot(self) -> bytes:
        """PNG of the page at the last observation, as BrowserGym's agents see it."""
        answer = await self._call("screenshot", PICTURE_S)
        return base64.b64decode(answer["picture"])

    async def close(self) -> None:
        worker, self._worker, self._running = self._worker, None, False
        if worker is not None:
            await asyncio.to_thread(worker.close)

    async def _call(self, operation: str, deadline_s: float, **request: Any) -> Answer:
        worker = self._worker
        if worker is None:
            raise RolloutFailure(StopReason.BROWSER_LOST, "there is no process to ask")
        try:
            answer = await asyncio.to_thread(worker.call, operation, deadline_s, **request)
        except RolloutFailure:
            await asyncio.to_thread(worker.kill)
            self._worker, self._running = None, False
            raise
        except asyncio.CancelledError:  # the thread that waits for the answer ends with the process
            worker.kill()
            self._worker, self._running = None, False
            raise
        self._scale = answer.get("scale", self._scale)
        self.engine_seconds += answer.get("seconds", 0.0)
        return answer


def _observation(answer: Answer) -> Observation:
    counts: dict[tuple[str, str], int] = {}
    elements = []
    for fields in answer["elements"]:
        key = (fields["role"], fields["name"])
        counts[key] = counts.get(key, 0) + 1
        box = fields.get("box")
        elements.append(Element(**{**fields, "box": tuple(box) if box else None}, nth=counts[key]))
    seen = tuple(elements)
    return Observation(
        goal=answer["goal"],
        url=answer["url"],
        title=answer["title"],
        elements=seen,
        truncated=answer["truncated"],
        last_error=answer["last_error"],
        state_hash=state_hash(answer["goal"], urlsplit(answer["url"]).path, seen),
    )
