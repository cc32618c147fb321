"""One goal on a live page of any site: what ``dpo-driver act`` and the MCP server run.

    done = await act(agent, Wish("https://shop.example", "Find the price of the red shoes"), ask=ask, tell=print)

What a page says is data. Three things hold whatever it says: only actions of the grammar are carried out; nothing
leaves the allow-list of origins, decided on the parsed host, in the browser and again in a proxy; and what cannot
be taken back (consent.py) waits for a person's yes. Of policies it knows the budget's error. Must not import agents.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from dpo_driver.browser.browser import Browser
from dpo_driver.browser.egress import AllowList, OriginGateway, parse_url
from dpo_driver.core import redact
from dpo_driver.core.actions import SendMsgToUser, format_action
from dpo_driver.core.errors import ConfigError, RolloutFailure
from dpo_driver.core.protocols import Agent, Move
from dpo_driver.core.records import Observation, Step, StopReason, Task, Trajectory
from dpo_driver.core.store import RunStore
from dpo_driver.policies.budget import BudgetError
from dpo_driver.rollout.consent import Answer
from dpo_driver.rollout.episode import run_episode
from dpo_driver.rollout.live_page import LivePage, Question

ENV = "live"
STAGE = "act"


@dataclass(frozen=True)
class Asked:
    """A question with its answer. ``by``: "person", "--yes", "nobody" (there was none to ask) or "always" (an earlier
    answer of the person)."""

    question: Question
    answer: Answer
    by: str
    step: int


Ask = Callable[[Question], Awaitable[Answer]]
Tell = Callable[[str, str], None]  # kind ("sees", "thinks", "does", "result", "consent", "end"), text


@dataclass(frozen=True)
class Wish:
    """What is wanted, and within which limits.

    Args:
        url: where it begins; its own origin is allowed.
        goal: in words.
        allow: more origins, such as ``https://*.example.org``.
        max_steps: most decisions.
        deadline_s: seconds for all of it, a person's time to answer included.
        yes: nobody is asked; everything is done.
        secrets: values by name; the model knows them as ``[secret:NAME]``.
        pictures: a screenshot is kept with every step.
        trace: file for Playwright's trace viewer.
        headed: show a window.
        private: allowed names may lead to private networks.
    """

    url: str
    goal: str
    allow: tuple[str, ...] = ()
    max_steps: int = 15
    deadline_s: float = 600.0
    yes: bool = False
    secrets: Mapping[str, str] = field(default_factory=dict)
    pictures: bool = False
    trace: Path | None = None
    headed: bool = False
    private: bool = False

    @property
    def origins(self) -> tuple[str, ...]:
        """The allow-list: the address's own origin, then the others.

        Raises:
            ConfigError: the address, or an entry, is none.
        """
        parsed = parse_url(self.url)
        if parsed is None or parsed[0] not in ("http", "https"):
            raise ConfigError("this is no address that a browser can open", where=self.url[:200],
                              remedy="write it in plain ASCII, as in https://shop.example/page")  # fmt: skip
        scheme, host, port = parsed
        found = (f"{scheme}://{host}:{port}", *self.allow)
        AllowList(found)  # names the wrong entry
        return found


@dataclass(frozen=True)
class Done:
    """How it went. ``trajectory`` is without secrets; ``answer`` is what the agent said to the person at the end;
    ``refused``: addresses outside the allow-list that the page or the agent asked for."""

    trajectory: Trajectory
    answer: str
    asked: tuple[Asked, ...]
    refused: tuple[str, ...]
    pictures: Mapping[str, bytes]

    def told(self) -> dict[str, Any]:
        """As JSON."""
        t = self.trajectory
        steps = [
            {"url": s.observation.url, "thought": s.thought, "action": s.action and format_action(s.action),
             "unreadable": s.parse_error}
            for s in t.steps
        ]  # fmt: skip
        return {"id": t.id, "goal": t.task.goal, "stop_reason": t.stop_reason.value, "answer": self.answer,
                "failure": t.failure, "steps": steps, "consents": [asdict(each) for each in self.asked],
                "refused": list(self.refused), "model": t.policy_version, "seconds": round(t.seconds, 2)}  # fmt: skip


async def act(agent: Agent, wish: Wish, *, ask: Ask | None = None, tell: Tell = lambda _kind, _text: None) -> Done:
    """Pursue a goal on a live page until the agent answers, gives up, or runs out of steps or time.

    Args:
        agent: decides.
        ask: puts a question to a person; None: there is nobody, and what would be asked about is not done.
        tell: what happens, as it happens, without secrets.

    Raises:
        ConfigError: the address or the allow-list cannot be used.
        BrowserMissingError: there is no Chromium.
    """
    origins = wish.origins
    task = _task(wish)
    secrets = redact.declare(task.id, wish.secrets)
    blobs: dict[str, bytes] = {}

    def put(picture: bytes) -> str:
        name = hashlib.sha256(picture).hexdigest()
        blobs[name] = picture
        return name

    def covered(kind: str, text: str) -> None:
        tell(kind, secrets.cover(text))

    consents = _Consents(wish.yes, ask, covered, secrets.cover)
    with OriginGateway(origins, private=wish.private) as gateway:
        browser = await Browser.launch(headed=wish.headed)
        page = LivePage(browser, gateway, wish.url, secrets, consents.may, covered, traced=wish.trace is not None)
        try:
            trajectory = await run_episode(
                page, _Narrated(agent, covered, consents), task, trajectory_id=f"{STAGE}/{task.id}",
                screenshots="all" if wish.pictures else "none", put_blob=put, deadline_s=wish.deadline_s,
            )  # fmt: skip
            if wish.trace is not None:
                await page.save_trace(wish.trace, redact.secrets_of(trajectory) | secrets)
        finally:
            with suppress(RolloutFailure):
                await page.close()
            await browser.close()
        refused = tuple(dict.fromkeys([*page.refused, *map(secrets.cover, gateway.refused)]))
    # Nothing here measures success: a person says it, or nobody.
    params = {**trajectory.task.params, "consents": [asdict(each) for each in consents.asked]}
    kept = trajectory.model_copy(update={"reward": None, "success": None,
                                         "task": trajectory.task.model_copy(update={"params": params})})  # fmt: skip
    kept = redact.redacted(kept)
    covered("end", kept.failure or _ending(kept))
    return Done(kept, _said(kept), tuple(consents.asked), refused, blobs)


def keep(done: Done, root: str | Path = "runs") -> Path:
    """Write the record and its pictures into a folder of their own below ``<root>/act``; gives the folder.

    Raises:
        StoreError: it cannot be written.
    """
    folder = Path(root) / STAGE / done.trajectory.task.id.rpartition("/")[2]
    with RunStore(folder) as store:
        for picture in done.pictures.values():
            store.put_blob(picture)
        store.add_trajectory(STAGE, done.trajectory)
    return folder


def film(done: Done, file: Path) -> None:
    """The pictures as an animated GIF."""
    from dpo_driver.browser.film import Film

    trajectory = done.trajectory
    reel = Film(trajectory.task.goal or "", f"{trajectory.agent}: {trajectory.task.params['url']}")
    last = b""
    for number, step in enumerate(trajectory.steps, 1):
        picture = done.pictures.get(step.observation.screenshot or "")
        if picture is None:
            continue
        last = picture
        wanted = getattr(step.action, "ref", None)
        box = next((e.box for e in step.observation.elements if e.ref == wanted and e.box), None) if wanted else None
        point = (box[0] + box[2] / 2, box[1] + box[3] / 2) if box else None
        caption = format_action(step.action) if step.action is not None else "unreadable"
        reel.add(picture, f"step {number} of {len(trajectory.steps)}: {step.thought}", caption, point)
    last = done.pictures.get(trajectory.final_screenshot or "", last)
    if not last:
        raise ConfigError("there are no pictures", where=trajectory.id, remedy="nothing was seen before it ended")
    reel.end(last, done.answer or _ending(trajectory), good=trajectory.failure is None)
    draft = file.with_name(f".{file.name}.{uuid.uuid4().hex[:6]}")
    reel.save(draft)
    draft.replace(file)


def _task(wish: Wish) -> Task:
    host = (parse_url(wish.url) or ("", "page", 0))[1]
    stamp = f"{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:6]}"
    goal = wish.goal
    if wish.secrets:
        marks = ", ".join(f"[secret:{name}]" for name in wish.secrets)
        goal += f" (Write {marks} where such a value belongs; it is filled in.)"
    return Task(id=f"{ENV}.{host}/{stamp}", env=ENV, name=host, seed=0, goal=goal, max_steps=wish.max_steps,
                params={"url": wish.url, "allow": list(wish.allow)})  # fmt: skip


def _said(trajectory: Trajectory) -> str:
    last = trajectory.steps[-1].action if trajectory.steps else None
    if isinstance(last, SendMsgToUser):
        return last.text
    return str(getattr(last, "reason", "")) if trajectory.stop_reason is StopReason.INFEASIBLE else ""


def _ending(trajectory: Trajectory) -> str:
    words = {StopReason.ANSWERED: "the agent answered", StopReason.INFEASIBLE: "the agent says that it cannot be done",
             StopReason.MAX_STEPS: f"stopped after {len(trajectory.steps)} steps",
             StopReason.PARSE_ERRORS: "stopped: what the model wrote could not be read",
             StopReason.CONTEXT_OVERFLOW: "stopped: the page is too long for the model"}  # fmt: skip
    return words.get(trajectory.stop_reason, trajectory.stop_reason.value)


class _Consents:
    """Asks, remembers what was answered with "always", and keeps account."""

    def __init__(self, yes: bool, ask: Ask | None, tell: Tell, cover: Callable[[str], str]) -> None:
        self._yes, self._ask, self._tell, self._cover = yes, ask, tell, cover
        self._always: set[tuple[str, ...]] = set()
        self.asked: list[Asked] = []
        self.step = 0

    async def may(self, question: Question, key: tuple[str, ...]) -> str | None:
        """None when it may be done, else what the agent is told.

        Raises:
            RolloutFailure: CANCELLED when the person ends it.
        """
        cover = self._cover
        question = Question(cover(question.action), cover(question.element), cover(question.url),
                            cover(question.title), tuple(map(cover, question.why)))  # fmt: skip
        answer: Answer
        if self._yes:
            answer, by = "yes", "--yes"
        elif key in self._always:
            answer, by = "yes", "always"
        elif self._ask is None:
            answer, by = "no", "nobody"
        else:
            answer, by = await self._ask(question), "person"
        self.asked.append(Asked(question, answer, by, self.step))
        self._tell("consent", f"{question.action} on {question.element}: {', '.join(question.why)} -> {answer} ({by})")
        if answer == "always":
            self._always.add(key)
        if answer == "stop":
            raise RolloutFailure(StopReason.CANCELLED, "the person stopped it")
        if answer in ("yes", "always"):
            return None
        who = "nobody can be asked" if by == "nobody" else "the person said no"
        return f"not done, because it {', and '.join(question.why)}; {who}"


class _Narrated:
    """An agent whose decisions are told as they come; a spent budget ends the episode instead of losing its record."""

    def __init__(self, agent: Agent, tell: Tell, consents: _Consents) -> None:
        self._agent, self._tell, self._consents = agent, tell, consents

    @property
    def name(self) -> str:
        return self._agent.name

    @property
    def policy_version(self) -> str:
        return self._agent.policy_version

    @property
    def context_policy(self) -> str:
        return self._agent.context_policy

    async def act(self, task: Task, observation: Observation, history: Sequence[Step]) -> Move:
        self._consents.step = len(history) + 1
        self._tell("sees", f"{observation.title or '-'} ({observation.url}), {len(observation.elements)} elements")
        try:
            move = await self._agent.act(task, observation, history)
        except BudgetError as error:
            raise RolloutFailure(StopReason.POLICY_ERROR, f"the budget is used up: {error.what}") from error
        if move.thought:
            self._tell("thinks", move.thought)
        self._tell("does", format_action(move.action) if move.action else f"unreadable: {move.parse_error}")
        return move


async def see(wish: Wish) -> Observation:
    """What an agent would see of a page; nothing is done to it.

    Raises:
        ConfigError: the address cannot be used. RolloutFailure: the page cannot be opened.
    """
    task = _task(wish)
    secrets = redact.declare(task.id, wish.secrets)

    async def never(_question: Question, _key: tuple[str, ...]) -> str | None:
        return "nothing is done here"

    with OriginGateway(wish.origins, private=wish.private) as gateway:
        browser = await Browser.launch(headed=wish.headed)
        page = LivePage(browser, gateway, wish.url, secrets, never, lambda _kind, _text: None)
        try:
            async with asyncio.timeout(wish.deadline_s):
                return await page.reset(task)
        finally:
            await page.close()
            await browser.close()
