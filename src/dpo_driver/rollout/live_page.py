"""A live page as an Environment: no task files, no reset of the site, no measured success. Used by rollout/live.py.

Every action goes through three gates before the browser gets it: secrets are only typed on the origin where it began,
consent.py's rules, and the executor with the allow-list. After it, forms that a script wanted to send and questions of
the page (dialogs) that had no consent are found to be stopped, and asked about. Must not import agents or policies.
"""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dpo_driver.browser.browser import Browser
from dpo_driver.browser.egress import OriginGateway, parse_url
from dpo_driver.browser.execute import Grants, execute
from dpo_driver.browser.observe import PageView, observe
from dpo_driver.browser.session import ScriptError, Session
from dpo_driver.core import redact
from dpo_driver.core.actions import Action, format_action
from dpo_driver.core.errors import ActionError, RolloutFailure
from dpo_driver.core.protocols import Outcome
from dpo_driver.core.records import Observation, StopReason, Task
from dpo_driver.core.secrets import Secrets
from dpo_driver.envs.website.watch import Watch
from dpo_driver.rollout.consent import FACTS_SCRIPT, HARMLESS, Facts, reasons

QUIET_MS, SETTLE_S = 150.0, 8.0
CALL_S = 30.0  # of one call; pages out there are slower than our own


@dataclass(frozen=True)
class Question:
    """What a person is asked: the action, what it touches, on which page, and why it is asked about."""

    action: str
    element: str
    url: str
    title: str
    why: tuple[str, ...]


May = Callable[[Question, tuple[str, ...]], Awaitable[str | None]]
_BOTH = {"drag_and_drop": ("from_ref", "to_ref")}


class _Gate(Watch):
    """Also stops documents that are asked for by anything but GET, unless the action of the moment has consent."""

    sending = False
    granted: frozenset[str] = frozenset()  # "POST https://...", without what follows the question mark
    _stopped: tuple[str, ...] = ()

    def _paused(self, event: dict[str, Any]) -> None:
        request = event["request"]
        form = f"{request['method']} {request['url']}"
        free = self.sending or form.partition("?")[0] in self.granted
        if request["method"] in ("GET", "HEAD") or free or not self._allows(request["url"]):
            super()._paused(event)
            return
        self._stopped = (*self._stopped, form)
        failed = {"requestId": event["requestId"], "errorReason": "Aborted"}
        self._later(self._cdp.send("Fetch.failRequest", failed))

    def take_stopped(self) -> list[str]:
        """Forms that were stopped since the last call."""
        stopped, self._stopped = self._stopped, ()
        return list(stopped)


class LivePage:
    """One page, one goal.

    Args:
        browser: shared.
        gateway: holds the allow-list; what it refuses cannot be reached.
        url: where it begins.
        secrets: covered in what is shown, filled in in what is typed.
        may: asks for consent; None means yes, a text is for the agent.
        tell: progress.
        traced: record a trace.
    """

    def __init__(
        self, browser: Browser, gateway: OriginGateway, url: str, secrets: Secrets, may: May,
        tell: Callable[[str, str], None], *, traced: bool = False,
    ) -> None:  # fmt: skip
        self._browser, self._gateway, self._url, self._secrets, self._may = browser, gateway, url, secrets, may
        self._tell, self._traced = tell, traced
        self._session: Session | None = None
        self._watch: _Gate | None = None
        self._task: Task | None = None
        self._view: PageView | None = None
        self._open = False  # the action of the moment has consent
        self._questions: list[tuple[str, str]] = []  # dialogs that were declined
        self._granted: set[tuple[str, ...]] = set()  # what may happen when it comes again
        self.refused: list[str] = []

    @property
    def session(self) -> Session | None:
        """The browser session; None before the page is open."""
        return self._session

    async def reset(self, task: Task) -> Observation:
        """Open the page.

        Raises:
            RolloutFailure: it cannot be opened, or leads away from the allowed origins.
        """
        session = self._session = await self._browser.new_context(gateway=self._gateway.url, call_s=CALL_S)
        session.accepts = self._dialog
        if self._traced:
            # No pictures in it where there are secrets: text can be covered afterwards, pixels cannot.
            await session.page.context.tracing.start(screenshots=not self._secrets, snapshots=True)
        self._watch = await _Gate.open(session, self._gateway.allows)
        self._task = task
        try:
            await session.goto(self._url)
        except RolloutFailure as failure:
            led = self._watch.take_refused()
            self.refused += led
            if led:
                raise RolloutFailure(failure.kind, f"it leads to {led[0][:200]}, which is not allowed") from failure
            raise
        view = await self._look(fresh=True)
        session.take_events()
        return self._observation(view, None)

    async def step(self, action: Action) -> Outcome:
        """Carry out one action, if it may be."""
        error = await self._act(action)
        view = await self._look()
        error = "; ".join(filter(None, (error, await self._afterwards())))
        self._tell("result", error or "done")
        stop = {"send_msg_to_user": StopReason.ANSWERED, "report_infeasible": StopReason.INFEASIBLE}.get(action.kind)
        return Outcome(self._observation(view, error or None), None, stop)

    async def screenshot(self) -> bytes:
        """JPEG of the viewport, with what shows a secret painted over."""
        session = self._alive()
        picture = await session.screenshot((0, 0, *session.viewport))
        if not self._secrets or self._view is None:
            return picture
        whole = (0.0, 0.0, float(session.viewport[0]), float(session.viewport[1]))
        cover = self._secrets.cover
        shown = [e.box or whole for e in self._view.elements
                 if cover(e.name) != e.name or (e.value and cover(e.value) != e.value)]  # fmt: skip
        return await asyncio.to_thread(_painted_over, picture, shown) if shown else picture

    async def save_trace(self, file: Path, secrets: Secrets) -> None:
        """Write the trace, without secrets in whatever in it is text."""
        session = self._session
        if session is None or session.failure is not None:
            return
        draft = file.with_name(f".{file.name}.draft")
        async with session.deadline("the trace", seconds=60):
            await session.page.context.tracing.stop(path=draft)
        await asyncio.to_thread(secrets.cover_zip, draft)
        draft.replace(file)

    async def close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    # -- one action ---------------------------------------------------------------------------------------------------

    async def _act(self, action: Action) -> str | None:
        session, watch = self._alive(), self._gate()
        typed = redact.acted(action, self._secrets)
        holds_secret = typed != action
        if holds_secret and (action.kind == "goto" or parse_url(session.page.url) != parse_url(self._url)):
            return f"not done: a secret is only typed into fields of {self._url[:80]}"
        self._open = watch.sending = False
        try:
            found = await self._facts(action)
            for facts in found:
                why = reasons(action, facts, types_secret=holds_secret)
                if not why:
                    continue
                said = await self._consent(format_action(action), facts, why)
                if said is not None:
                    return said
                self._open = watch.sending = True
            if self._open and [each and each.key for each in await self._facts(action)] != [f and f.key for f in found]:
                return "not done: the page changed while it was asked about"
            return await execute(session, typed, Grants(allows=self._gateway.allows))
        except ActionError as problem:
            return str(problem)

    async def _facts(self, action: Action) -> list[Facts | None]:
        """Of everything that the action touches; one entry at least."""
        kind, session = action.kind, self._alive()
        if kind in HARMLESS:
            return [None]
        places: list[dict[str, Any]]
        if kind in _BOTH:
            places = [{"ref": getattr(action, name)} for name in _BOTH[kind]]
        elif kind == "mouse_drag_and_drop":
            places = [{"x": getattr(action, f"{end}_x"), "y": getattr(action, f"{end}_y")} for end in ("from", "to")]
        elif hasattr(action, "ref"):
            places = [{"ref": action.ref}]
        elif hasattr(action, "x"):
            places = [{"x": action.x, "y": getattr(action, "y", 0)}]
        else:
            places = [{"focus": True}]
        return [await self._fact(session, place) for place in places]

    async def _fact(self, session: Session, place: dict[str, Any]) -> Facts | None:
        try:
            told = await session.isolated(f"({FACTS_SCRIPT})({json.dumps(place)})")
        except ScriptError:
            return Facts(hidden=True)  # nothing is known of it: ask
        return Facts.read(told) if told else None

    async def _consent(self, action: str, facts: Facts | None, why: tuple[str, ...]) -> str | None:
        session = self._alive()
        label = facts.label if facts is not None else "the page"
        key = facts.key if facts is not None else (action,)
        title = self._view.title if self._view is not None else ""
        return await self._may(Question(action, label, session.page.url, title, why), (*key, *why))

    async def _afterwards(self) -> str | None:
        """What the page wanted besides, and did not get; what is granted now may happen when it comes again."""
        said: list[str] = []
        session, watch = self._alive(), self._gate()
        for form in watch.take_stopped():
            key = ("form", form.partition("?")[0])
            refused = await self._consent_to(form, "a script of the page", ("sends a form",), key)
            said.append(refused or f"{form[:120]} was stopped at first and may be sent now: repeat the action")
        questions, self._questions = self._questions, []
        for kind, text in questions:
            why = ("leaves the page and loses what was typed",) if kind == "beforeunload" else ("answers OK",)
            refused = await self._consent_to(text or "leave this page?", f"{kind} of the page", why, (kind, text))
            said.append(f'the page asked "{text[:200]}", which was cancelled'
                        + (f"; {refused}" if refused else "; OK may be answered: repeat the action"))  # fmt: skip
        asked = {text for _kind, text in questions}
        said += [f'the page opened a {event.kind}: "{event.text[:200]}"' for event in session.take_events()
                 if event.text not in asked]  # fmt: skip
        left_out = watch.take_refused()
        self.refused += map(self._secrets.cover, left_out)
        said += [f"{url[:120]} is not among the allowed origins and was not opened" for url in left_out]
        return "; ".join(said) or None

    async def _consent_to(self, action: str, element: str, why: tuple[str, ...], key: tuple[str, ...]) -> str | None:
        title = self._view.title if self._view is not None else ""
        refused = await self._may(Question(action, element, self._alive().page.url, title, why), key)
        if refused is None:
            self._granted.add(key)
            self._gate().granted = frozenset(each[1] for each in self._granted if each[0] == "form")
        return refused

    def _dialog(self, kind: str, text: str) -> bool:
        """Whether a dialog is answered with OK. Called by the browser's events, so nobody can be asked right now."""
        if kind == "alert":
            return True
        if kind != "prompt" and (kind, text) in self._granted:
            return True
        if kind != "prompt":
            self._questions.append((kind, text))
        return False

    async def _look(self, *, fresh: bool = False) -> PageView:
        session, watch = self._alive(), self._gate()
        await watch.settle(QUIET_MS, SETTLE_S)
        view = await observe(session, fresh=fresh)
        if view.url.startswith("chrome-error:"):
            raise RolloutFailure(StopReason.SERVER_ERROR, "the page cannot be opened")
        if not self._gateway.allows(view.url) and view.url != "about:blank":
            raise RolloutFailure(StopReason.NAVIGATED_AWAY, f"the page went to {view.url[:200]}")
        self._view = view
        return view

    def _observation(self, view: PageView, error: str | None) -> Observation:
        assert self._task is not None
        seen = view.observation(self._task.goal or "", error)
        return redact.covered_observation(seen, self._secrets)

    def _alive(self) -> Session:
        if self._session is None:
            raise RolloutFailure(StopReason.BROWSER_LOST, "there is no page")
        return self._session

    def _gate(self) -> _Gate:
        assert self._watch is not None
        return self._watch


def _painted_over(picture: bytes, boxes: Sequence[tuple[float, float, float, float]]) -> bytes:
    """A JPEG with places painted over: those where a secret is shown."""
    from PIL import Image, ImageDraw

    image = Image.open(io.BytesIO(picture)).convert("RGB")
    for left, top, width, height in boxes:
        ImageDraw.Draw(image).rectangle((left - 2, top - 2, left + width + 2, top + height + 2), fill="black")
    out = io.BytesIO()
    image.save(out, format="JPEG", quality=70)
    return out.getvalue()
