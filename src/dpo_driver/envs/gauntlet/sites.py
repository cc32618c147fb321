"""Who serves the gauntlet that an environment plays: a server of our own, or somebody else's site of the same kind.

Of our own everything is known from outside the page: a signed start opens a visit where the task wants it, and what has
been solved is asked of the server with the admin's token (:class:`OwnSite`). Of a site of somebody else there is only
what its pages show, so progress is read from them and is worth as much as they are (:class:`ForeignSite`). Used by
environment.py. Must not import the browser's sessions.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import random
import re
import secrets
from collections.abc import Mapping
from typing import Any, Protocol
from urllib.parse import urlsplit

from dpo_driver.browser.egress import parse_url
from dpo_driver.browser.observe import PageView
from dpo_driver.core.errors import ConfigError, RolloutFailure
from dpo_driver.core.records import StopReason, Task
from dpo_driver.envs.gauntlet.serve import GauntletServer
from dpo_driver.envs.gauntlet.tasks import FAMILIES, RUNS, STEPS, Family, Setting
from dpo_driver.envs.website.serve import answers

# Codes and the names of parts follow from this and the task, so that siblings, replays and other machines meet equal
# pages. Pages never see it; whoever holds it and the task could compute the codes, but an agent has the page only. A
# site for people (`dpo-driver gauntlet serve`) draws a secret of its own.
SECRET = b"dpo-driver's gauntlet, as an environment"

_STEP = re.compile(
    r"\b(?:step|challenge|level|puzzle|stage)\s*(?P<k>\d{1,3})\s*(?:of|/)\s*(?P<n>\d{1,3})\b", re.IGNORECASE
)
_PATH = re.compile(r"/(?:step|challenge|level|puzzle|stage)[/-]?(?P<k>\d{1,3})(?:/|$)", re.IGNORECASE)
_END_PATH = re.compile(r"/(?:finish|finished|complete|completed|done|end|success)/?$", re.IGNORECASE)
_END = re.compile(
    r"\bcongratulations\b|\bsolved (?:all|every)\b|\ball (?:of )?(?:the )?(?:\d+ )?(?:steps|challenges|puzzles|levels) "
    r"(?:are |were |have been )?(?:solved|done|complete|completed|passed)\b|\b(?:challenge|gauntlet|run) complete[d!]?",
    re.IGNORECASE,
)  # fmt: skip


class Line(Protocol):
    """What went over the line between a page and its server, as the browser saw it."""

    @property
    def connected(self) -> bool: ...

    @property
    def sent(self) -> int: ...

    @property
    def received(self) -> int: ...


class Visit(Protocol):
    """One episode's dealings with a site."""

    url: str  # where it begins

    async def in_step(self, line: Line) -> bool:
        """Whether the server has dealt with all that the page has sent, and the page shows what came of it."""
        ...

    async def solved(self, view: PageView) -> int:
        """Steps that are solved. RolloutFailure when the site is broken."""
        ...

    @property
    def count(self) -> int | None:
        """Steps of a whole run, where known."""
        ...


class GauntletSite(Protocol):
    """What an environment needs of whoever serves the gauntlet."""

    @property
    def base_url(self) -> str: ...

    @property
    def families(self) -> Mapping[str, Family]: ...

    async def visit(self, task: Task, setting: Setting) -> Visit: ...

    async def close(self) -> None: ...


class OwnSite:
    """A server of our own, in a process beside this one. One that has died comes back at the same address.

    Args:
        secret: codes and tokens follow from it and the task.
    """

    families = FAMILIES

    def __init__(self, secret: bytes = SECRET) -> None:
        self._secret, self._starting = secret, asyncio.Lock()
        self.server = GauntletServer(secret=secret)

    async def open(self) -> OwnSite:
        """Start the server. Raises ConfigError when it does not come up."""
        await asyncio.to_thread(self.server.__enter__)
        return self

    @property
    def base_url(self) -> str:
        return self.server.base_url

    async def visit(self, task: Task, setting: Setting) -> OwnVisit:
        """A new visit, not opened by any page yet.

        Raises:
            RolloutFailure: SERVER_ERROR when the server is gone and does not come back.
        """
        async with self._starting:
            if not await asyncio.to_thread(answers, f"{self.base_url}/health"):
                await self._start_again()
        return OwnVisit(self.server, start_of(task, setting, self._secret))

    async def _start_again(self) -> None:
        gone, port = self.server, urlsplit(self.base_url).port or 0
        await asyncio.to_thread(gone.close)
        self.server = GauntletServer(secret=self._secret, port=port)
        try:
            await asyncio.to_thread(self.server.__enter__)
        except ConfigError as error:
            self.server = gone  # the address is still the one to ask for
            raise RolloutFailure(StopReason.SERVER_ERROR, f"the gauntlet's server is gone: {error.what}") from error

    async def close(self) -> None:
        await asyncio.to_thread(self.server.close)


def start_of(task: Task, setting: Setting, secret: bytes) -> dict[str, Any]:
    """The signed start of a task. A step family's step stands anywhere in a run that has its type only."""
    key = hmac.new(secret, f"start/{task.id}".encode(), hashlib.sha256).hexdigest()
    how: dict[str, Any] = {
        "seed": task.seed, "steps": STEPS, "order": setting.order, "difficulty": setting.difficulty,
        "skin": setting.skin, "held_out": setting.held_out, "key": key, "step": 0,
    }  # fmt: skip
    if setting.family.kind == "step":
        how["types"] = (setting.family.type,)
        how["step"] = random.Random(f"gauntlet/{setting.family.type}/{task.seed}/step").randint(1, STEPS)
    return how


class OwnVisit:
    """A visit of our own server, known by an id that no page is told."""

    count = STEPS

    def __init__(self, server: GauntletServer, how: dict[str, Any]) -> None:
        self._server, self._id = server, secrets.token_urlsafe(16)
        self._said: dict[str, Any] = {}
        self.url = server.start_url(**how, visit=self._id)

    async def in_step(self, line: Line) -> bool:
        said = self._said = await self._status()
        if said.get("error"):
            raise RolloutFailure(StopReason.SERVER_ERROR, f"the puzzle broke: {said['error']}")
        if not line.connected:
            return bool(said["told"])  # a page of the puzzle's own, in another tab; at the very start: not yet
        return bool(said["heard"] >= line.sent and line.received >= said["told"] > 0)

    async def solved(self, view: PageView) -> int:
        """As the server said when the page was last in step with it."""
        return len(self._said["solved"])

    async def _status(self) -> dict[str, Any]:
        return await asyncio.to_thread(self._server.status, self._id)


class ForeignSite:
    """A site of somebody else: pages only, from its front page on.

    Args:
        base_url: where it is; nothing else can be reached from its pages.
    """

    families = RUNS

    def __init__(self, base_url: str) -> None:
        if parse_url(base_url) is None or not base_url.startswith(("http://", "https://")):
            raise ConfigError("no address of a site", where=base_url, remedy="write gauntlet:http://HOST:PORT")
        self.base_url = base_url.rstrip("/")

    async def open(self) -> ForeignSite:
        """Raises ConfigError when nothing answers there."""
        if not await asyncio.to_thread(answers, f"{self.base_url}/"):
            raise ConfigError("the site does not answer", where=self.base_url, remedy="start it, or mend the address")
        return self

    async def visit(self, task: Task, setting: Setting) -> ForeignVisit:
        return ForeignVisit(f"{self.base_url}/")

    async def close(self) -> None:
        """It is not ours to end."""


class ForeignVisit:
    """Progress as the pages tell it: "Step k of n" in a line of text or in the address, and a page that says it is the
    end. What has been reached stays reached."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.count: int | None = None
        self._at = self._solved = 0

    async def in_step(self, line: Line) -> bool:
        return True

    async def solved(self, view: PageView) -> int:
        if view.url.startswith("chrome-error:"):
            raise RolloutFailure(StopReason.SERVER_ERROR, "the site does not answer")
        path = urlsplit(view.url).path
        number = next((found for element in view.elements if (found := _STEP.search(element.name))), None)
        if number is not None:
            self._at, self.count = int(number["k"]), int(number["n"])
        elif (placed := _PATH.search(path)) is not None:
            self._at = int(placed["k"])
        elif self._at and (_END_PATH.search(path) or any(_END.search(element.name) for element in view.elements)):
            self._at = (self.count or self._at) + 1
        self._solved = max(self._solved, self._at - 1)
        return self._solved
