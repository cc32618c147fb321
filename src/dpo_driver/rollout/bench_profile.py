"""Where an episode's time goes, against the floor: what the page itself costs.

Called by ``dpo-driver bench env --profile``. One context, one task. The floor is the page's own start and read inside
one evaluation, many times over, without input. Then episodes are played by hand, part after part, with a clock at each,
and then by ``run_episode``, which overlaps some of the parts. All in milliseconds, medians.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from statistics import median
from typing import Any, TypeVar

from dpo_driver.browser.browser import Browser
from dpo_driver.browser.execute import execute
from dpo_driver.browser.observe import asked, view_of
from dpo_driver.browser.session import Session
from dpo_driver.core.plugins import load
from dpo_driver.envs.miniwob.environment import ASIDE, BRIDGE_SCRIPT, LIMITS, VIEWPORT
from dpo_driver.envs.miniwob.server import BASE_URL, MiniwobServer
from dpo_driver.rollout.engines import ENGINES, NEVER

ROUNDS = 200
WARM_UP = 10
START = "function (seed) { return this.start(seed); }"
READ = "function () { return this.read(); }"
OBSERVE = "dpoDriver.observe(" + json.dumps({**asked(LIMITS), "fresh": True}) + ")"
# In the page's own world, with its own clock: start and read, no input, no round trip between.
PAGE_ALONE = """function (rounds) {
  const began = performance.now();
  for (let seed = 1; seed <= rounds; seed++) { this.start(seed); this.read(); }
  return (performance.now() - began) / rounds;
}"""
DISTILLER = f"""((rounds) => {{
  const began = performance.now();
  for (let i = 0; i < rounds; i++) {OBSERVE};
  return (performance.now() - began) / rounds;
}})"""

T = TypeVar("T")


def profile_env(task: str = "click-button", rounds: int = ROUNDS) -> dict[str, Any]:
    """Measure the parts of an episode's first step.

    Args:
        task: a family that the oracle knows and that restarts in place.
        rounds: how many episodes, by hand and by ``run_episode``.

    Returns:
        ``floor_ms``: start + read in the page, in one evaluation, no input; ``distiller_ms``: reading the page once,
        inside it; ``round_trip_ms``: a CDP command that does nothing. ``parts_ms``: what each part of a one-step
        episode takes, one after the other, with their ``sum``. ``episode_ms`` and ``steps``: whole episodes, one
        worker, with ``correct`` of ``total``. ``times_floor``: ``episode_ms`` / ``floor_ms``.

    Raises:
        UnknownNameError: no such family or oracle.
        BrowserMissingError: no Chromium.
    """
    load("make_task", "miniwob")(task, 0)
    return asyncio.run(_profile(task, rounds))


async def _profile(task: str, rounds: int) -> dict[str, Any]:
    by_hand = await _by_hand(task, rounds)
    async with ENGINES["trusted"](1) as engine:
        await engine.warm_up(task)
        block = await engine.play(task, range(rounds), NEVER)
    episode_ms = 1000 * block.seconds / block.episodes
    return {
        "task": task,
        "rounds": rounds,
        "correct": block.correct,
        "total": block.episodes,
        "steps": round(block.steps / block.episodes, 2),
        "episode_ms": round(episode_ms, 3),
        "times_floor": round(episode_ms / by_hand["floor_ms"], 1),
        **by_hand,
    }


async def _by_hand(task: str, rounds: int) -> dict[str, Any]:
    async with AsyncExitStack() as stack:
        server = stack.enter_context(MiniwobServer())
        browser = await Browser.launch()
        stack.push_async_callback(browser.close)
        session = await browser.new_context(gateway=server.gateway, viewport=VIEWPORT)
        await session.goto(f"{BASE_URL}{task}.html")
        bridge = await session.handle(BRIDGE_SCRIPT)
        await session.call_on(bridge, "function () { return this.prepare(); }")
        spent: dict[str, list[float]] = defaultdict(list)
        for seed in range(WARM_UP):
            await _episode(session, bridge, task, seed, defaultdict(list))
        for seed in range(WARM_UP, WARM_UP + rounds):
            await _episode(session, bridge, task, seed, spent)
        for _ in range(rounds):
            await _clocked(spent, "round_trip", lambda: session.cdp("Runtime.evaluate", expression="1"))
        parts = {name: round(median(values), 3) for name, values in spent.items()}
        round_trip = parts.pop("round_trip")
        return {
            "floor_ms": round(float(await session.call_on(bridge, PAGE_ALONE, rounds)), 3),
            "distiller_ms": round(float(await session.isolated(f"{DISTILLER}({rounds})")), 3),
            "round_trip_ms": round_trip,
            "parts_ms": {**parts, "sum": round(sum(parts.values()), 3)},
        }


async def _episode(session: Session, bridge: str, task: str, seed: int, spent: dict[str, list[float]]) -> None:
    """The first step of an episode, with a clock at each part."""
    agent, made = load("agent", "oracle")(), load("make_task", "miniwob")(task, seed)
    x, y = ASIDE
    aside = {"type": "mouseMoved", "x": x, "y": y}
    await _clocked(spent, "pointer aside", lambda: session.cdp("Input.dispatchMouseEvent", **aside))
    state = await _clocked(spent, "start", lambda: session.call_on(bridge, START, seed))
    text = await _clocked(spent, "observe", lambda: session.isolated(OBSERVE))
    began = time.perf_counter()
    observation = view_of(text).observation(state["goal"])
    spent["records"].append(1000 * (time.perf_counter() - began))
    move = await _clocked(spent, "decide", lambda: agent.act(made, observation, ()))
    await _clocked(spent, "act", lambda: execute(session, move.action))
    await _clocked(spent, "read", lambda: session.call_on(bridge, READ))
    await _clocked(spent, "observe again", lambda: session.isolated(OBSERVE))


async def _clocked(spent: dict[str, list[float]], name: str, call: Callable[[], Awaitable[T]]) -> T:
    began = time.perf_counter()
    result = await call()
    spent[name].append(1000 * (time.perf_counter() - began))
    return result
