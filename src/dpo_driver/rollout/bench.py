"""How many real episodes a second this machine makes, ours and side by side with the peers.

Called by ``dpo-driver bench env`` and benchmarks/env.py. Nothing is cut short: the oracle reads each observation and
acts, every episode is the same ``run_episode`` that training uses, and success is strict. Browser start and the first
page load are left out of the time, for everybody. What is measured is a table of engines (rollout/engines.py).
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack
from statistics import median
from typing import Any

from dpo_driver.agents.oracle import ORACLES
from dpo_driver.core.errors import UnknownNameError
from dpo_driver.core.plugins import load
from dpo_driver.rollout.engines import ENGINES, NEVER, PEERS, Block, Engine, check_peers

MANY = 1_000_000
REPEATS = 5


def bench_env(
    task: str | Sequence[str] = "click-button",
    seconds: float = 15.0,
    workers: int | Sequence[int] = 4,
    *,
    episodes: int | None = None,
    engine: str = "trusted",
) -> dict[str, Any]:
    """Run the oracle for a while, over tasks and worker counts.

    Args:
        task: families that the oracle knows.
        seconds: how long to measure each task with each number of workers.
        workers: concurrent contexts in one browser.
        episodes: measure so many episodes of each task instead of ``seconds``.
        engine: a name in ``ENGINES``.

    Returns:
        ``rows``, one for each task and number of workers, and ``by_workers``: all tasks together, with total episodes
        over total seconds. ``episodes_per_second``, ``steps_per_second``, ``seconds`` and ``workers`` are those of the
        fastest number of workers; ``correct``, ``total`` and ``stop_reasons`` count everything.

    Raises:
        UnknownNameError: no such family or engine.
        BrowserMissingError: no Chromium.
        PeersMissingError: a peer is asked for that was not set up.
    """
    tasks = _known(_listed(task))
    if engine not in ENGINES:
        raise UnknownNameError("engine", engine, ENGINES)
    if engine in PEERS:
        check_peers()
    return asyncio.run(_bench(tasks, seconds, [max(1, count) for count in _listed(workers)], episodes, engine))


def bench_peers(
    task: str | Sequence[str] = "click-button",
    seconds: float = 15.0,
    *,
    workers: int = 4,
    peer_workers: int = 1,
    repeats: int = REPEATS,
    ours: Sequence[str] = ("trusted",),
) -> dict[str, Any]:
    """Ours and the peers in the same run: blocks of ``seconds`` a task, the engines taking turns, their order moved on
    by one in each repeat; equal seeds, and the same oracle deciding.

    Args:
        workers: of our engines. ``peer_workers``: processes of each peer's.
        repeats: blocks of each engine and task; the spread is over them.

    Returns:
        As :func:`bench_env` for the first of ``ours``, and ``peers`` (``engines``: rate with spread, per task and
        overall, where overall is for equal numbers of episodes of each task; ``ratios``: of ours to each peer, within
        each repeat; ``same``: of the episodes that ours and a peer both played, how many began with the same goal and
        how many saw the same actions).

    Raises:
        PeersMissingError: benchmarks/peers/setup has not been run. Nothing was started.
    """
    tasks = _known(_listed(task))
    check_peers()
    counts = dict.fromkeys(ours, workers) | dict.fromkeys(PEERS, peer_workers)
    played = asyncio.run(_take_turns(tasks, seconds, counts, repeats))
    rows = [_row("all", counts[ours[0]], [b for repeat in played for b in repeat[ours[0]].values()])]
    ratios = {mine: {peer: _ratio(played, mine, peer) for peer in PEERS} for mine in ours}
    return {
        **_summary(tasks, rows, rows, ours[0]),
        "peers": {
            "repeats": repeats,
            "seconds_per_block": seconds,
            "engines": {name: _engine_row(name, count, played) for name, count in counts.items()},
            "ratios": ratios,
            "same": {peer: _same(played, ours[0], peer) for peer in PEERS},
        },
    }


def oracle_tasks() -> tuple[str, ...]:
    """Every family that the oracle plays."""
    return tuple(ORACLES)


# -- measuring -------------------------------------------------------------------------------------------------------


async def _bench(
    tasks: Sequence[str], seconds: float, workers: Iterable[int], episodes: int | None, engine: str
) -> dict[str, Any]:
    rows, totals = [], []
    for count in workers:
        blocks = []
        async with ENGINES[engine](count) as player:
            for task in tasks:
                await player.warm_up(task)
                limit = NEVER if episodes is not None else seconds
                blocks.append(await player.play(task, range(MANY if episodes is None else episodes), limit))
                rows.append(_row(task, count, blocks[-1:]))
        totals.append(_row("all", count, blocks))
    return _summary(tasks, rows, totals, engine)


async def _take_turns(
    tasks: Sequence[str], seconds: float, counts: dict[str, int], repeats: int
) -> list[dict[str, dict[str, Block]]]:
    """For each repeat: engine -> task -> block."""
    played: list[dict[str, dict[str, Block]]] = []
    async with AsyncExitStack() as stack:
        engines: dict[str, Engine] = {}
        for name, count in counts.items():
            engines[name] = await stack.enter_async_context(ENGINES[name](count))
        order = list(engines)
        for repeat in range(repeats):
            blocks: dict[str, dict[str, Block]] = {name: {} for name in engines}
            seeds = range(repeat * MANY, (repeat + 1) * MANY)
            for task in tasks:
                for name in order:
                    await engines[name].warm_up(task)
                    blocks[name][task] = await engines[name].play(task, seeds, seconds)
            played.append(blocks)
            order = [*order[1:], order[0]]
    return played


# -- adding up -------------------------------------------------------------------------------------------------------


def _row(task: str, workers: int, blocks: Sequence[Block]) -> dict[str, Any]:
    episodes, seconds = sum(block.episodes for block in blocks), sum(block.seconds for block in blocks)
    steps = sum(block.steps for block in blocks)
    return {
        "task": task,
        "workers": workers,
        "episodes_per_second": round(episodes / seconds, 2) if seconds else 0.0,
        "steps_per_second": round(steps / seconds, 2) if seconds else 0.0,
        "correct": sum(block.correct for block in blocks),
        "total": episodes,
        "stop_reasons": dict(sum((block.stops for block in blocks), Counter())),
        "seconds": round(seconds, 2),
    }


def _summary(
    tasks: Sequence[str], rows: list[dict[str, Any]], totals: list[dict[str, Any]], engine: str
) -> dict[str, Any]:
    best = max(totals, key=lambda row: row["episodes_per_second"])
    stops = sum((Counter(row["stop_reasons"]) for row in totals), Counter[str]())
    return {
        **best,
        "task": tasks[0] if len(tasks) == 1 else f"{len(tasks)} tasks",
        "engine": engine,
        "correct": sum(row["correct"] for row in totals),
        "total": sum(row["total"] for row in totals),
        "stop_reasons": dict(stops),
        "rows": rows,
        "by_workers": totals,
    }


def _overall(blocks: dict[str, Block]) -> float:
    """Episodes a second over equal numbers of episodes of each task; 0 if one of them gave none."""
    rates = [block.episodes_per_second for block in blocks.values()]
    return len(rates) / sum(1 / rate for rate in rates) if all(rates) else 0.0


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": round(median(values), 3), "low": round(min(values), 3), "high": round(max(values), 3)}


def _engine_row(name: str, workers: int, played: Sequence[dict[str, dict[str, Block]]]) -> dict[str, Any]:
    blocks = [block for repeat in played for block in repeat[name].values()]
    tasks = played[0][name]
    return {
        "workers": workers,
        "episodes_per_second": _spread([_overall(repeat[name]) for repeat in played]),
        "correct": sum(block.correct for block in blocks),
        "total": sum(block.episodes for block in blocks),
        "steps": sum(block.steps for block in blocks),
        "stop_reasons": dict(sum((block.stops for block in blocks), Counter())),
        "tasks": {task: _spread([repeat[name][task].episodes_per_second for repeat in played]) for task in tasks},
    }


def _ratio(played: Sequence[dict[str, dict[str, Block]]], ours: str, peer: str) -> dict[str, float] | None:
    """How many times faster, within each repeat; None where the peer finished nothing."""
    pairs = [(_overall(repeat[ours]), _overall(repeat[peer])) for repeat in played]
    return _spread([mine / theirs for mine, theirs in pairs]) if all(theirs for _, theirs in pairs) else None


def _same(played: Sequence[dict[str, dict[str, Block]]], ours: str, peer: str) -> dict[str, int]:
    pairs = [
        (repeat[ours][task].plays[seed], theirs)
        for repeat in played
        for task, block in repeat[peer].items()
        for seed, theirs in block.plays.items()
        if seed in repeat[ours][task].plays
    ]
    return {
        "episodes": len(pairs),
        "goals": sum(mine[0] == theirs[0] for mine, theirs in pairs),
        "actions": sum(mine == theirs for mine, theirs in pairs),
    }


# -- arguments -------------------------------------------------------------------------------------------------------


def _listed(given: Any) -> list[Any]:
    return [given] if isinstance(given, str | int) else list(given)


def _known(tasks: Sequence[str]) -> list[str]:
    """Families by their own names; one that is unknown or has no expert is told before a browser starts."""
    names = [load("make_task", "miniwob")(task, 0).name for task in tasks]
    for name in names:
        if name not in ORACLES:
            raise UnknownNameError("oracle", name, ORACLES)
    return names
