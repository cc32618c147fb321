"""Carries out the audit: every attack on every type, in one browser, and the figures of it.

``await audit(types, seeds)`` gives the result as JSON values; cli/gauntlet.py shows it. A leak is described so that it
can be made to happen again. An attack that could not be carried out is no attack: it is listed as failed, and an audit
with one is not clean.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field
from typing import Any

from dpo_driver.browser.browser import Browser
from dpo_driver.browser.egress import OriginGateway
from dpo_driver.core.errors import UnknownNameError
from dpo_driver.envs.gauntlet.audit.adversary import Adversary, Scene
from dpo_driver.envs.gauntlet.audit.judge import Leak
from dpo_driver.envs.gauntlet.audit.table import APART, FAMILIES, Attack, all_attacks
from dpo_driver.envs.gauntlet.puzzles import TYPES
from dpo_driver.envs.gauntlet.serve import GauntletServer
from dpo_driver.envs.gauntlet.server import Site

ATTACK_S = 60.0
Say = Callable[[str], None]


@dataclass
class Count:
    tries: int = 0
    leaks: int = 0


@dataclass
class Result:
    """What an audit has found so far."""

    attacks: dict[str, Count] = field(default_factory=dict)
    types: dict[str, Count] = field(default_factory=dict)
    found: list[Leak] = field(default_factory=list)
    gains: list[Leak] = field(default_factory=list)  # of families that are reported apart
    failed: list[dict[str, str]] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def add(self, attack: Attack, scene: Scene, tries: int, leaks: Sequence[str]) -> None:
        """What one attack came to in one scene."""
        said = [
            Leak(attack.name, scene.type, scene.seed, scene.difficulty, scene.skin, what, attack.tries)
            for what in leaks
        ]
        (self.found if attack.counts else self.gains).extend(said)
        counts = [self.attacks.setdefault(attack.name, Count())]
        if attack.counts:
            counts.append(self.types.setdefault(scene.type, Count()))
        for count in counts:
            count.tries += tries
            count.leaks += len(leaks)

    def values(self, table: Sequence[Attack]) -> dict[str, Any]:
        """As JSON."""
        counted = {attack.name for attack in table if attack.counts}
        words = {attack.name: attack.tries for attack in table}
        by_family: dict[str, Count] = {}
        for name, count in self.attacks.items():
            family = by_family.setdefault(name.partition("/")[0], Count())
            family.tries += count.tries
            family.leaks += count.leaks
        shown = {name: asdict(count) | {"what": words[name]} for name, count in self.attacks.items()}
        apart = {
            name: {"why": why, "tries": by_family[name].tries, "gains": by_family[name].leaks,
                   "by_attack": {n: {**_gains(v)} for n, v in shown.items() if n.startswith(f"{name}/")}}
            for name, why in APART.items() if name in by_family
        }  # fmt: skip
        return {
            "attempts": sum(count.tries for name, count in self.attacks.items() if name in counted),
            "leaks": len(self.found),
            "failed": len(self.failed),
            "by_family": {n: asdict(c) for n, c in by_family.items() if n not in APART},
            "by_attack": {n: v for n, v in shown.items() if n in counted},
            "by_type": {name: asdict(count) for name, count in self.types.items()},
            "apart": apart,
            "found": [asdict(leak) | {"again": leak.again} for leak in self.found],
            "gains": [asdict(leak) for leak in self.gains],
            "failures": self.failed,
            "figures": self.figures,
            "seconds_by_attack": {
                name: round(spent, 2) for name, spent in sorted(self.seconds.items(), key=lambda one: -one[1])
            },
        }


def _gains(count: dict[str, Any]) -> dict[str, Any]:
    return {"tries": count["tries"], "gains": count["leaks"], "what": count["what"]}


async def audit(
    types: Sequence[str] = (),
    seeds: Sequence[int] = (1,),
    *,
    difficulty: int | None = None,
    skin: str | None = None,
    attacks: Sequence[str] = (),
    server: GauntletServer | None = None,
    browser: Browser | None = None,
    jobs: int = 1,
    say: Say = lambda _text: None,
) -> dict[str, Any]:
    """Try everything on every type.

    Args:
        types: none: all.
        seeds: of the puzzles' content. With the seed and the type's place in the table, difficulty and skin change.
        difficulty, skin: one for all.
        attacks: families ("stores") or single ones ("stores/visit-from-a-script"); none: all.
        server: what is attacked, with ``inside=True``; None: one of our own, for the length of the audit.
        browser: None: one of our own.
        jobs: types that are attacked at the same time.
        say: is told how it goes.

    Raises:
        UnknownNameError: a type or an attack that there is not.
    """
    for name in types:
        if name not in TYPES:
            raise UnknownNameError("type of puzzle", name, TYPES)
    table = _chosen(attacks)
    scenes = [
        Scene(kind, seed, difficulty or 1 + (seed + place) % 3, skin or "ab"[(seed + place // 3) % 2])
        for seed in seeds
        for place, kind in enumerate(types or TYPES)
    ]
    began, result = time.monotonic(), Result()
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # it warns of each request that is none
    async with AsyncExitStack() as stack:
        if server is None:
            server = stack.enter_context(GauntletServer(inside=True))
        assert server.site is not None
        gateway = stack.enter_context(OriginGateway([server.base_url]))
        if browser is None:
            browser = await Browser.launch()
            stack.push_async_callback(browser.close)
        keys = watch_keys(server.site)
        free = asyncio.Semaphore(jobs)
        firsts = {next(scene for scene in scenes if scene.seed == seed) for seed in seeds}

        async def play(scene: Scene) -> None:
            async with free:
                spent = time.monotonic()
                it = Adversary(server, browser, gateway.url, scene, keys)
                chosen = [one for one in table if (not one.once or scene in firsts)
                          and (not one.types or scene.type in one.types)]  # fmt: skip
                await _scene(it, chosen, result)
                for leak in result.found:
                    if (leak.type, leak.seed) == (scene.type, scene.seed):
                        say(f"LEAK {leak.attack}: {leak.what}")
                say(f"{scene.type} (seed {scene.seed}, difficulty {scene.difficulty}, skin {scene.skin}): "
                    f"{len(result.found)} leaks so far, {time.monotonic() - spent:.1f} s")  # fmt: skip

        await asyncio.gather(*(play(scene) for scene in scenes))
    spent = {
        "seconds": round(time.monotonic() - began, 1),
        "types": len({s.type for s in scenes}),
        "seeds": list(seeds),
    }
    return result.values(table) | spent


def _chosen(names: Sequence[str]) -> list[Attack]:
    table = all_attacks()
    known = {*FAMILIES, *(one.name for one in table)}
    for name in names:
        if name not in known:
            raise UnknownNameError("attack", name, sorted(known))
    return [one for one in table if not names or one.family in names or one.name in names]


def watch_keys(site: Site) -> set[str]:
    """All keys that a site gives out from now on."""
    keys: set[str] = set()
    issue = site._issue

    def watched(line: Any, key: str) -> None:
        keys.add(key)
        issue(line, key)

    site._issue = watched  # type: ignore[method-assign]
    return keys


async def _scene(it: Adversary, attacks: Sequence[Attack], result: Result) -> None:
    """All attacks on one type; the page must still listen at the end."""
    try:
        await it.begin()
        if attacks and not await it.listens():
            raise RuntimeError("the page does not listen")
        it.signals.clear()
        for attack in attacks:
            await _one(it, attack, result)
        await it.reopen()
        if not await it.listens():
            raise RuntimeError("the page does not listen any more: later attacks may have found it deaf")
    except Exception as error:  # noqa: BLE001  as in _one
        result.failed.append({"attack": "", "type": it.scene.type, "seed": str(it.scene.seed), "error": _words(error)})
    finally:
        result.figures |= it.figures
        await it.close()


async def _one(it: Adversary, attack: Attack, result: Result) -> None:
    began = time.monotonic()
    tries, broken = 0, ""
    try:
        async with asyncio.timeout(ATTACK_S):
            tries = await attack.run(it) or 0
            await it.settle()
    except Exception as error:  # noqa: BLE001  an attack that breaks has not been made: it is listed
        broken = _words(error)
        result.failed.append(
            {"attack": attack.name, "type": it.scene.type, "seed": str(it.scene.seed), "error": broken}
        )
    leaks = it.judged() if attack.counts else _own(it)
    result.add(attack, it.scene, tries, leaks)
    if leaks and attack.counts:
        await it.begin()  # what was won must not help the next
    elif attack.spoils or broken:
        await it.reopen()
    it.signals.clear()
    result.seconds[attack.name] = result.seconds.get(attack.name, 0.0) + time.monotonic() - began


def _own(it: Adversary) -> list[str]:
    """What an attack of a family that does not count says of itself; what it did with trusted input is forgotten."""
    won = list(it.took.won)
    it.judged()
    return won


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:400]
