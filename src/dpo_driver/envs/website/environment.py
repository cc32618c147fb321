"""Any web site as an Environment: a fresh browser context for each episode, success read from outside the page.

``environments("examples/shop/tasks")`` keeps site, gateway and browser running and gives the factory that rollouts ask
for. Listed in core/plugins.py; called by rollout/.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from urllib.parse import urljoin, urlsplit

from dpo_driver.browser.browser import Browser
from dpo_driver.browser.egress import OriginGateway
from dpo_driver.browser.execute import Grants, execute
from dpo_driver.browser.observe import Limits, PageView, observe
from dpo_driver.browser.session import Session
from dpo_driver.core import redact
from dpo_driver.core.actions import Action, SendMsgToUser
from dpo_driver.core.errors import ActionError, ConfigError, RolloutFailure
from dpo_driver.core.protocols import Outcome
from dpo_driver.core.records import Observation, StopReason, Task, state_hash
from dpo_driver.core.secrets import Secrets
from dpo_driver.envs.website.checks import Judge, Verdict, call_own
from dpo_driver.envs.website.site import Site
from dpo_driver.envs.website.tasks import Family
from dpo_driver.envs.website.visit import Visit
from dpo_driver.envs.website.watch import Watch

LIMITS = Limits()


@dataclass
class _Play:
    """What belongs to the episode that is running."""

    task: Task
    family: Family
    visit: Visit
    session: Session
    watch: Watch
    judge: Judge
    goal: str
    secrets: Secrets
    steps: int = 0


class WebsiteEnvironment:
    """One page of one site, one episode at a time, each in a context of its own.

    Args:
        site: the folder of tasks.
        browser: shared with other environments.
        gateway: the proxy that lets the site's origins through and nothing else.
    """

    def __init__(self, site: Site, browser: Browser, gateway: str) -> None:
        self._site, self._browser, self._gateway = site, browser, gateway
        self._session: Session | None = None
        self._play: _Play | None = None

    @property
    def session(self) -> Session | None:
        """The browser session of the moment; None before the first reset and after a failure."""
        return self._session if self._session is not None and self._session.failure is None else None

    async def reset(self, task: Task) -> Observation:
        """Begin the seeded episode: reset hook, fresh context, start page, settled. Equal task and seed give equal
        goals and, if the site does its part, equal state hashes.

        Raises:
            UnknownNameError: there is no such task family.
            ConfigError: the task is solved before it begins, or its file is wrong.
            RolloutFailure: the site, the page or the browser broke.
        """
        family = self._site.family(task.name)
        await self._leave()
        visit = self._site.visit(family, task.seed)
        await self._begin_anew(family, visit)
        session = self._session = await self._browser.new_context(
            gateway=self._gateway, viewport=self._site.says.viewport, call_s=self._site.says.call_s
        )
        start = urljoin(visit.base_url + "/", family.text(family.says.start, visit.parameters, "start"))
        if visit.cookies:
            async with session.deadline("handing over cookies"):
                await session.page.context.add_cookies(
                    [{"name": name, "value": value, "url": visit.base_url} for name, value in visit.cookies.items()]
                )
        watch = await Watch.open(session, self._site.allows)
        await session.goto(start)
        goal = family.text(family.says.goal, visit.parameters, "goal")
        secrets = redact.declare(task.id, self._site.secrets_of(family, visit))
        play = _Play(task, family, visit, session, watch, Judge(family, session, visit), goal, secrets)
        view = await self._look(play, fresh=True)
        if (await self._judge(play)).solved:
            raise ConfigError(f"the task is solved before it begins, with seed {task.seed}", where=str(family.path),
                              remedy="give it a reset hook, or a success condition that does not hold yet")  # fmt: skip
        session.take_events()
        self._play = play
        return self._observation(play, view)

    async def step(self, action: Action) -> Outcome:
        """Carry out one action and read what came of it, once the page has settled. The reward comes with the end: 1
        for a solved task, else 0, or the share of conditions that hold if the task gives partial credit.

        Raises:
            RolloutFailure: the site, the page or the browser broke.
            RuntimeError: no episode is running.
        """
        play = self._play
        if play is None:
            raise RuntimeError("step before reset, or after the end of the episode")
        play.steps += 1
        error = await self._act(play, action)
        view = await self._look(play)
        verdict = await self._judge(play)
        stop = _ending(verdict, action, last=play.steps >= play.task.max_steps)
        observation = self._observation(play, view, error or _told(play))
        if stop is None:
            return Outcome(observation)
        self._play = None
        partial_credit = verdict.share if play.family.says.partial else 0.0
        return Outcome(observation, 1.0 if verdict.solved else partial_credit, stop)

    async def screenshot(self) -> bytes:
        """JPEG of the viewport."""
        session = self.session
        if session is None:
            raise RolloutFailure(StopReason.BROWSER_LOST, "there is no page to take a picture of")
        return await session.screenshot((0, 0, *session.viewport))

    async def close(self) -> None:
        await self._leave()

    async def _leave(self) -> None:
        session, self._session, self._play = self._session, None, None
        if session is not None:
            await session.close()

    async def _begin_anew(self, family: Family, visit: Visit) -> None:
        """The reset hooks: the site's own endpoint, then the task's function. Either may add parameters."""
        hook = family.says.reset or self._site.says.reset
        if hook is not None:
            answer = await call_own(
                family, "reset", lambda to: to.post(hook.post, family.filled(hook.json_, to.parameters, "reset")), visit
            )
            for name in hook.gives:
                if not isinstance(answer, dict) or name not in answer:
                    raise ConfigError(f"{hook.post} gives no {name!r}", where=f"{family.path}, reset.gives",
                                      remedy=f"it answered {str(answer)[:120]!r}")  # fmt: skip
                visit.parameters[name] = answer[name]
        own = family.functions.get("reset")
        if own is not None:
            visit.parameters |= await call_own(family, "reset", own, visit) or {}

    async def _act(self, play: _Play, action: Action) -> str | None:
        """Carry an action out; what could not be done, or what the agent is to be told."""
        allowed = self._site.actions_of(play.family)
        action = redact.acted(action, play.secrets)
        try:
            if action.kind not in allowed:
                raise ActionError(f"{action.kind} is not allowed here; use {', '.join(sorted(allowed))}")
            if isinstance(action, SendMsgToUser):
                play.visit.answer = action.text
            grants = Grants(files=self._site.uploads, js_eval=True, allows=self._site.allows)
            return await execute(play.session, action, grants)
        except ActionError as problem:
            return str(problem)

    async def _look(self, play: _Play, *, fresh: bool = False) -> PageView:
        """The page once it has settled. Where it is must be a page of the site."""
        says, watch, visit = self._site.says, play.watch, play.visit
        await watch.settle(says.quiet_ms, says.settle_s)
        view = await observe(play.session, LIMITS, fresh=fresh)
        if view.url.startswith("chrome-error:") or (watch.status or 0) >= 500:
            answered = f"answered {watch.status}" if (watch.status or 0) >= 500 else "does not answer"
            raise RolloutFailure(StopReason.SERVER_ERROR, f"the site {answered}")
        if not self._site.allows(view.url):
            raise RolloutFailure(StopReason.NAVIGATED_AWAY, f"the page went to {view.url[:200]}")
        visit.url, visit.title, visit.elements = view.url, view.title, view.elements
        return view

    async def _judge(self, play: _Play) -> Verdict:
        if play.family.asks_the_site:
            async with play.session.deadline("reading cookies"):
                cookies = await play.session.page.context.cookies(play.visit.base_url)
            play.visit.cookies = {cookie["name"]: cookie["value"] for cookie in cookies}
        return await play.judge.verdict()

    def _observation(self, play: _Play, view: PageView, error: str | None = None) -> Observation:
        """The record that agents get. What differs by nature, such as session ids, is left out of its hash. Secrets do
        not stand in it: nobody sends them to a model, and nobody keeps them."""
        goal, cover = play.goal, play.secrets.cover
        if play.secrets:
            goal, error = cover(goal), error and cover(error)
            elements = redact.covered_observation(view.observation(""), play.secrets).elements
            view = replace(view, url=cover(view.url), title=cover(view.title), elements=elements)
        observation = view.observation(goal, error)
        if not self._site.says.ignore:
            return observation
        hide = partial(re.sub, "|".join(f"(?:{pattern})" for pattern in self._site.says.ignore), "*")
        elements = tuple(
            element.model_copy(update={"name": hide(element.name), "value": element.value and hide(element.value),
                                       "options": tuple(map(hide, element.options))})
            for element in view.elements
        )  # fmt: skip
        hashed = state_hash(hide(goal), hide(urlsplit(view.url).path), elements)
        return observation.model_copy(update={"state_hash": hashed})


def _ending(verdict: Verdict, action: Action, *, last: bool) -> StopReason | None:
    if verdict.solved:
        return StopReason.SUCCESS
    if verdict.done:
        return StopReason.WRONG
    if action.kind == "report_infeasible":
        return StopReason.INFEASIBLE
    return StopReason.MAX_STEPS if last else None


def _told(play: _Play) -> str | None:
    """What the page did besides, in words for the agent."""
    said = [f'the page opened a {event.kind}: "{event.text}"' for event in play.session.take_events()]
    said += [f"{url[:120]} is not part of this site and was not opened" for url in play.watch.take_refused()]
    return "; ".join(said) or None


def environments(place: str) -> Callable[[], AbstractAsyncContextManager[Callable[[], Awaitable[WebsiteEnvironment]]]]:
    """What opens the environments of a folder of tasks (``"FOLDER"`` or ``"FOLDER@BASE_URL"``) for a rollout.

    Raises:
        ConfigError: the folder or a task in it says something that it cannot.
    """
    return partial(source, Site.open(place))


@asynccontextmanager
async def source(
    site: Site, *, executable: Path | None = None, headed: bool = False
) -> AsyncIterator[Callable[[], Awaitable[WebsiteEnvironment]]]:
    """Site, gateway and browser for as long as the block lasts, and the factory of environments.

    Raises:
        ConfigError: the site does not answer, and cannot be started.
        BrowserMissingError: there is no Chromium, or it does not start.
    """
    with site.running(), OriginGateway(allowed=site.origins) as gateway:
        browser = await Browser.launch(executable, headed=headed)
        try:

            async def make() -> WebsiteEnvironment:
                return WebsiteEnvironment(site, browser, gateway.url)

            yield make
        finally:
            await browser.close()
