"""Work on a registry in processes that are killed, as a program: ``python registry_kills.py TEMPLATE FOLDER WORK...``.

Each process is forked from this one, which has MLflow loaded, and works on a copy of the template. It stops where
something has just been committed or is about to be removed, the first process at the first such moment, the second at
the second, and so on, for ``demote:2`` no further; there it gets SIGKILL from outside. One JSON line for each: where it
stopped, what the registry says then, and what it says after the same work once more. The work ``race`` has two
processes write history at once.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Engine
from sqlalchemy.orm import Session

from dpo_driver.registry import Move, Registry
from dpo_driver.registry.leftovers import leftovers, remove
from dpo_driver.registry.moves import demote, promote_by_hand, roll_back

REMOVALS = ("os.rename", "shutil.rmtree", "os.rmdir")  # reported by Python before it touches a folder
RACERS = 2
NOTES = 15

WORKS: dict[str, Callable[[Registry], object]] = {
    "promote": lambda registry: promote_by_hand(registry, "p/c", "tried"),
    "rollback": lambda registry: roll_back(registry, "p", "slower"),
    "demote": lambda registry: demote(registry, None, "fails"),
    "gc": lambda registry: remove(registry, leftovers(registry, keep=0)),
}


def kills(template: Path, folder: Path, *works: str) -> dict[str, list[dict[str, Any]]]:
    """Run this file as a program; its lines by the work's name."""
    command = [sys.executable, __file__, str(template), str(folder), *works]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return {line["work"]: [one for one in lines if one["work"] == line["work"]] for line in lines}


def _stop_at(point: int, say: int) -> None:
    seen = 0

    def count(moment: str) -> None:
        nonlocal seen
        seen += 1
        if seen == point:
            os.write(say, moment.encode())
            signal.pause()

    written: list[str] = []

    def executed(_c: object, _u: object, statement: str, *_: object) -> None:
        if statement.startswith(("INSERT", "UPDATE", "DELETE")):
            written.append(" ".join(statement.split()[:3]))

    def committed(_: object) -> None:
        if written:
            count(written.pop())
            written.clear()

    sys.addaudithook(lambda name, _: count(name) if name in REMOVALS else None)
    event.listen(Engine, "after_cursor_execute", executed)
    event.listen(Session, "after_commit", committed)


def _fork(work: Callable[[], object]) -> int:
    if pid := os.fork():
        return pid
    status = 1
    try:
        work()
        status = 0
    except BaseException:  # noqa: BLE001 - a forked process must not go on as if it were the first
        traceback.print_exc()
    os._exit(status)


def _killed_at(root: Path, work: Callable[[Registry], object], point: int) -> str:
    """Where it stopped; "" if it came to its end before."""
    reached, say = os.pipe()

    def stopping() -> None:
        os.close(reached)
        registry = Registry(root)
        registry.list()  # opens MLflow
        _stop_at(point, say)
        work(registry)

    pid = _fork(stopping)
    os.close(say)
    moment = os.read(reached, 100).decode()
    os.close(reached)
    if moment:
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    assert status == (signal.SIGKILL if moment else 0)
    return moment


def _state(registry: Registry) -> dict[str, Any]:
    folders = [path for name in ("models", "checkpoints") for path in (registry.root / "p" / name).glob("*")]
    return {
        "aliases": registry.aliases(),
        "moves": [(move.kind, move.before, move.after) for move in registry.history("p")],
        "removed": [version.name for version in registry.list() if registry.removed(version)],
        "decided": [version.name for version in registry.list() if registry.decision(version)],
        "folders": sorted(str(path.relative_to(registry.root / "p")) for path in folders),
    }


def _race(root: Path) -> None:
    def write(racer: int) -> None:
        registry = Registry(root)
        for number in range(NOTES):
            registry.note(Move("refuse", "p", "", f"{racer}/{number}", "it is a race"))

    pids = [_fork(lambda racer=racer: write(racer)) for racer in range(RACERS)]
    assert [os.waitpid(pid, 0)[1] for pid in pids] == [0] * RACERS


def _kills(template: Path, folder: Path, name: str, most: int) -> None:
    for point in range(1, most + 1):
        root = folder / f"{name}-{point}"
        shutil.copytree(template, root)
        moment = _killed_at(root, WORKS[name], point)
        if not moment:
            return
        registry = Registry(root)
        then = _state(registry)
        WORKS[name](registry)
        print(json.dumps({"work": name, "at": moment, "then": then, "after": _state(registry)}), flush=True)


if __name__ == "__main__":
    template, folder = Path(sys.argv[1]), Path(sys.argv[2])
    for work in sys.argv[3:]:
        name, _, most = work.partition(":")
        if name in WORKS:
            _kills(template, folder, name, int(most or 100))
        else:
            shutil.copytree(template, folder / "race")
            _race(folder / "race")
            print(json.dumps({"work": name, "after": _state(Registry(folder / "race"))}), flush=True)
