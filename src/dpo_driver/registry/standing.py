"""Who holds a model's aliases, and the history of how that came about. Both change together or not at all.

MLflow moves one alias in a call. A change of several is therefore first written down whole, in one call, as the model's
tag ``pending``: from then on it counts. Readers take the tag over the aliases, and the next writer finishes what a
killed one began. Writers of all processes take turns by a file lock. Called by versions.py.
"""

from __future__ import annotations

import contextlib
import fcntl
import getpass
import json
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from dpo_driver.core.errors import ModelError

Alias = Literal["champion", "candidate", "previous"]
ALIASES: tuple[Alias, ...] = ("champion", "candidate", "previous")
MoveKind = Literal["set", "promote", "refuse", "demote", "rollback", "remove"]

LOCK = "registry.lock"
PENDING = "pending"
_MOVE = "move."
_LONGEST_WHY = 2000  # characters
_WAIT_S = 60.0  # for other writers; each needs a tenth of a second
_LOOK_S = 0.02


@dataclass(frozen=True)
class Move:
    """What became of a model: ``Move("promote", "pocket", "pocket/sft", "pocket/dpo-1", "+19.3 % ...")``.

    ``before`` and ``after`` are the champions' names, ``""`` for none. ``set`` is a champion without a decision, such
    as a run's first. Of a refusal ``after`` is who was refused, of a removal who was removed. ``at`` in UTC.
    """

    kind: MoveKind
    model: str
    before: str
    after: str
    why: str
    who: str = ""
    at: str = ""


class Standing:
    """Aliases and history of the models below one root.

    Args:
        root: folder of the lock.
        client: gives MLflow's client; called on first use.
    """

    def __init__(self, root: Path, client: Callable[[], Any]) -> None:
        self._root, self._client = root, client
        self._mutex = threading.RLock()
        self._depth = 0

    # -- reading -----------------------------------------------------------------------------------------------------

    def aliases(self, model: str) -> dict[str, int]:
        """Version number by alias; {} for a model that nobody registered."""
        before = None
        while (found := self._look(model)) is not None:
            aliases = {alias: int(number) for alias, number in found.aliases.items()}
            if PENDING in found.tags:
                planned = json.loads(found.tags[PENDING])["aliases"]
                return {alias: number for alias, number in (aliases | planned).items() if number is not None}
            # MLflow reads aliases and tags one after the other: two equal looks did not fall into a change.
            if aliases == before:
                return aliases
            before = aliases
        return {}

    def history(self, model: str) -> tuple[Move, ...]:
        """What became of a model, oldest first."""
        if (found := self._look(model)) is None:
            return ()
        moves = {key: json.loads(value) for key, value in found.tags.items() if key.startswith(_MOVE)}
        if PENDING in found.tags:
            change = json.loads(found.tags[PENDING])
            moves[change["key"]] = change["move"]
        return tuple(Move(**moves[key]) for key in sorted(moves))

    def known(self, model: str) -> bool:
        """Whether MLflow has a model of this name."""
        return self._look(model) is not None

    def _look(self, model: str) -> Any:
        if not plain(model):  # could not be registered, and would break MLflow's search
            return None
        return next(iter(self._client().search_registered_models(f"name='{model}'")), None)

    # -- writing -----------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """The one writer of this root, until the end of the block. May be nested; the kernel ends a dead writer's turn.

        Raises:
            ModelError: another writer did not finish in a minute, or the root cannot be written.
        """
        with self._mutex:
            self._depth += 1
            descriptor = None
            try:
                descriptor = self._take_lock() if self._depth == 1 else None
                yield
            finally:
                self._depth -= 1
                if descriptor is not None:
                    os.close(descriptor)

    def _take_lock(self) -> int:
        path = self._root / LOCK
        try:
            self._root.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise ModelError(f"the registry cannot be written: {error.strerror}", where=str(path),
                             remedy="check the folder's rights and space") from None  # fmt: skip
        deadline = time.monotonic() + _WAIT_S
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return descriptor
            except BlockingIOError:
                if time.monotonic() < deadline:
                    time.sleep(_LOOK_S)
                    continue
                os.close(descriptor)
                raise ModelError("another process has been changing the registry for a minute", where=str(path),
                                 remedy="wait for it or stop it, and repeat the command") from None  # fmt: skip

    def set_alias(self, model: str, alias: Alias, number: int) -> None:
        """Point one alias at a version: one call, and no entry in the history."""
        with self.turn():
            self.finish(model)
            self._client().set_registered_model_alias(model, alias, str(number))

    def note(self, move: Move) -> Move:
        """Add to the history what moves no alias; who and when are filled in."""
        with self.turn():
            self.finish(move.model)
            filled = _filled(move)
            self._client().set_registered_model_tag(move.model, self._key(move.model), _json(asdict(filled)))
            return filled

    def change(
        self, move: Move, aliases: Mapping[Alias, int | None], tags: Mapping[int, Mapping[str, str]] | None = None
    ) -> Move:
        """Move aliases, set tags of versions and add to the history: all of it once this was written down, or nothing.

        Args:
            move: for the history; who and when are filled in.
            aliases: the new holder's number of each, None for nobody; others stay.
            tags: of versions, by number.
        """
        with self.turn():
            self.finish(move.model)
            filled = _filled(move)
            plan = {"key": self._key(move.model), "move": asdict(filled), "aliases": dict(aliases), "tags": tags or {}}
            self._client().set_registered_model_tag(move.model, PENDING, _json(plan))
            self.finish(move.model)
            return filled

    def finish(self, model: str) -> Move | None:
        """Carry out the change that is written down; the move of one that a killed process left, or None."""
        found = self._look(model)
        if found is None or PENDING not in found.tags:
            return None
        with self.turn():
            found, client = self._look(model), self._client()
            if found is None or PENDING not in found.tags:  # its own process was alive and has done it
                return None
            plan = json.loads(found.tags[PENDING])
            for alias, number in plan["aliases"].items():
                if number is not None:
                    client.set_registered_model_alias(model, alias, str(number))
                elif alias in found.aliases:
                    client.delete_registered_model_alias(model, alias)
            for number, tags in plan["tags"].items():
                for key, value in tags.items():
                    client.set_model_version_tag(model, str(number), key, value)
            client.set_registered_model_tag(model, plan["key"], _json(plan["move"]))
            client.delete_registered_model_tag(model, PENDING)
            return Move(**plan["move"])

    def _key(self, model: str) -> str:
        """Of the next entry: its number for the order, and something that no other writer has."""
        found = self._look(model)
        numbers = [int(key.split(".")[1]) for key in (found.tags if found else ()) if key.startswith(_MOVE)]
        return f"{_MOVE}{max(numbers, default=0) + 1:06d}.{secrets.token_hex(4)}"


def plain(model: str) -> bool:
    """Whether a text can be the name of a model: printable, and without what separates the parts of a reference."""
    return bool(model) and model.isprintable() and not any(sign in model for sign in ":@'/\\")


def now() -> str:
    """UTC, to the second."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def _filled(move: Move) -> Move:
    return Move(**{**asdict(move), "why": move.why[:_LONGEST_WHY], "who": move.who or _user(),
                   "at": move.at or now()})  # fmt: skip


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user id without a name, as in some containers
        return ""


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
