"""Is the task solved? Conditions by address, text, element, script, the site's own state, or the agent's answer.

Everything is read from outside the page's own world: scripts run in an isolated one, the site is asked from this
process. Used by environment.py only.
"""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from dpo_driver.browser.session import ScriptError, Session
from dpo_driver.core.errors import ConfigError, RolloutFailure
from dpo_driver.core.records import Element
from dpo_driver.envs.website.parameters import Parameters
from dpo_driver.envs.website.schema import Check, ElementCheck
from dpo_driver.envs.website.tasks import Family, line_in
from dpo_driver.envs.website.visit import Visit

SOLVED = 0.99
_MISSING = object()


@dataclass(frozen=True)
class Verdict:
    """How many of the conditions hold, and whether the episode is over either way."""

    held: float
    total: int
    done: bool

    @property
    def solved(self) -> bool:
        return self.total > 0 and self.held >= self.total * SOLVED

    @property
    def share(self) -> float:
        """The share of conditions that hold, below what counts as success unless all do."""
        return 1.0 if self.solved else min(self.held / self.total if self.total else 0.0, SOLVED - 0.01)


class Judge:
    """Reads the conditions of one episode, again after every action."""

    def __init__(self, family: Family, session: Session, visit: Visit) -> None:
        self._family, self._session, self._visit = family, session, visit
        self._parameters: Parameters = visit.parameters
        self._asked: dict[str, Any] = {}

    async def verdict(self) -> Verdict:
        """What holds now.

        Raises:
            ConfigError: a condition or function of the task is broken.
            RolloutFailure: the page or the site broke.
        """
        says = self._family.says
        self._asked = {}
        parts = [part for check in says.success for part in await self._holds(check, "success")]
        held, total = float(sum(parts)), len(parts)
        own = self._family.functions.get("check")
        if own is not None:
            held, total = held + await self._own(own), total + 1
        done = [all(await self._holds(check, "done")) for check in says.done]
        answered = self._visit.answer is not None and any(check.answer is not None for check in says.success)
        return Verdict(held, total, any(done) or answered)

    async def _own(self, function: Any) -> float:
        value = await call_own(self._family, "check", function, self._visit)
        if not isinstance(value, bool | int | float) or not 0 <= value <= 1:
            raise ConfigError(f"check gives {value!r}", where=str(self._family.path),
                              remedy="give True, False, or a number from 0 to 1")  # fmt: skip
        return float(value)

    async def _holds(self, check: Check, key: str) -> list[float]:
        """One condition as parts: a state of several keys counts for each of them."""
        fill = self._family.text
        if check.url is not None:
            return [float(self._url_holds(check.url, key))]
        if check.text is not None:
            wanted = _squash(fill(check.text, self._parameters, key))
            script = "document.body ? document.body.innerText : ''"
            return [float(wanted in _squash(str(await self._session.isolated(script))))]
        if check.element is not None:
            return [float(self._element_holds(check.element, key))]
        if check.script is not None:
            return [await self._script_holds(check.script, key)]
        if check.answer is not None:
            return [float(_same_answer(fill(check.answer, self._parameters, key), self._visit.answer))]
        assert check.state is not None
        path = fill(check.state.get, self._parameters, key)
        if path not in self._asked:
            self._asked[path] = await asyncio.to_thread(self._visit.get, path)
        wanted_values = self._family.filled(check.state.equals, self._parameters, key)
        return [float(_equal(_dig(self._asked[path], dotted), value)) for dotted, value in wanted_values.items()]

    def _url_holds(self, pattern: str, key: str) -> bool:
        pieces = [self._family.text(piece, self._parameters, key) for piece in pattern.split("*")]
        url = urlsplit(self._visit.url)
        seen = url.path or "/"
        if "?" in pattern:
            seen += f"?{url.query}"
        if pattern.startswith("http"):
            seen = f"{url.scheme}://{url.netloc}{seen}"
        return re.fullmatch(".*".join(map(re.escape, pieces)), seen) is not None

    def _element_holds(self, wanted: ElementCheck, key: str) -> bool:
        said = self._family.filled(wanted.model_dump(exclude={"there"}, exclude_none=True), self._parameters, key)

        def is_it(element: Element) -> bool:
            return (
                said.get("role", element.role) == element.role
                and ("name" not in said or _squash(str(said["name"])) == _squash(element.name))
                and ("value" not in said or _squash(str(said["value"])) == _squash(element.value or ""))
                and ("state" not in said or said["state"] in element.states)
            )

        return any(map(is_it, self._visit.elements)) == wanted.there

    async def _script_holds(self, script: str, key: str) -> float:
        expression = f"((params) => Number({script}))({json.dumps(self._parameters)})"
        try:
            value = await self._session.isolated(expression)
        except ScriptError as error:
            if str(error).startswith("TypeError"):  # such as reading an element that is not on this page
                return 0.0
            raise ConfigError(f"the script of {key} fails: {str(error).splitlines()[0]}", where=str(self._family.path),
                              remedy=f"it is read as one expression: {script[:80]}") from error  # fmt: skip
        return min(max(float(value), 0.0), 1.0) if isinstance(value, int | float) else 0.0


async def call_own(family: Family, kind: str, function: Any, visit: Visit) -> Any:
    """Call a function of the task's file, in a thread: it may speak to the site.

    Raises:
        ConfigError: it raised, or did not come back.
        RolloutFailure: the site did not answer it.
    """
    try:
        return await asyncio.wait_for(asyncio.to_thread(function, visit), 6 * visit.timeout_s)
    except RolloutFailure:
        raise
    except TimeoutError:
        raise ConfigError(f"{kind} does not come back", where=str(family.path)) from None
    except Exception as error:  # the function is the user's: whatever it raises is told with its place
        line = line_in(family.path, error)
        where = f"{family.path}:{line}" if line else str(family.path)
        raise ConfigError(f"{kind} fails: {type(error).__name__}: {error}", where=where) from error


def _squash(text: str) -> str:
    return " ".join(text.split())


def _same_answer(wanted: str, given: str | None) -> bool:
    """Equal but for case, white space and a full stop at the end."""
    if given is None:
        return False
    return _squash(wanted).casefold().rstrip(".") == _squash(given).casefold().rstrip(".")


def _dig(data: Any, dotted: str) -> Any:
    for part in dotted.split("."):
        if isinstance(data, list) and part.isdigit() and int(part) < len(data):
            data = data[int(part)]
        elif isinstance(data, dict) and part in data:
            data = data[part]
        else:
            return _MISSING
    return data


def _equal(found: Any, wanted: Any) -> bool:
    """Equal, and a number in a text equals the number: forms send texts."""
    if found is _MISSING:
        return False
    if isinstance(found, str) and isinstance(wanted, int | float) and not isinstance(wanted, bool):
        return found == str(wanted)
    if isinstance(wanted, str) and isinstance(found, int | float) and not isinstance(found, bool):
        return str(found) == wanted
    return bool(found == wanted) and isinstance(found, bool) == isinstance(wanted, bool)
