"""The agent that solves puzzles without a model: closes what covers the page, knows the type, acts, enters the code.

Stateless: everything follows from the page and from what was done on it. One read of the page when a step begins ranks
the types (detector.py); the first keeps the page as long as it gets on, then the next has its turn. A page of no known
type is passed on after a few looks. ``EXPERTS`` is the same as a table of experts, for demonstrations. Listed in
core/plugins.py; called by rollouts, the hybrid agent and the command line. Must not import environments or policies.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from dpo_driver.agents.experts.page import Decision, Page
from dpo_driver.agents.oracle import Expert
from dpo_driver.agents.prompt import get_profile, render, render_completion
from dpo_driver.agents.solver import distractors
from dpo_driver.agents.solver.detector import TRIPS, TYPES, UNKNOWN, Signal, first_look
from dpo_driver.agents.solver.page import PuzzlePage, step_number
from dpo_driver.core.actions import Action, Noop, Press, ReportInfeasible, Scroll, format_action
from dpo_driver.core.protocols import Move
from dpo_driver.core.records import Observation, Step, Task

LOOKS = 3  # at a page that nobody recognises, before it is passed on
LOOK_MS = 300.0
# A wait after a solver lost its way is known by its length: the next call sees nothing but the history.
LOST_MS = 240.0
LOST_WAITS = 2
ANSWER_MS = 150.0
ANSWER_WAITS = 6  # for the page's answer to a code
REPEATS = 3  # of one action in one state: it leads nowhere
WAITING_REPEATS = 20  # the same for waiting
IN_A_ROW = 12  # one click again and again, whatever the page shows besides
REFUSALS = 2  # codes that were not taken, before another type has its turn
SAME_CODE = 2  # times that one code is sent off
BEGIN = re.compile(r"^\W*(?:start|begin|enter|go|play|set (?:out|off)|let'?s go|step in)\b", re.IGNORECASE)


class Unknown(Exception):
    """The page is of no type that is known, or none gets on with it."""


def decide(observation: Observation, history: Sequence[Step]) -> Decision:
    """The next decision.

    Raises:
        Unknown: nothing recognises the page, or whoever does is lost.
    """
    page = PuzzlePage.of(observation, history)
    reflex = reflexes(page, history)
    if reflex is not None:
        return reflex
    ranked = candidates(page)
    turn = setbacks(page)
    first = ranked[turn % len(ranked)] if ranked else None
    if first is None or not first.enters:
        entering = enter_revealed(page)
        if entering is not None:
            return entering
    if first is None:
        raise Unknown("nothing recognises this page")
    for offset in range(len(ranked)):
        try:
            decision = ranked[(turn + offset) % len(ranked)].solver.solve(page)
        except TRIPS as error:
            reason = str(error) or type(error).__name__
        else:
            return distractors.clear_the_way(page, decision[1]) or _pointer_aside(page) or decision
        if offset == 0 and _trailing(page.history, LOST_MS) < LOST_WAITS:
            return page.wait(LOST_MS, f"lost: {reason}")
    raise Unknown(f"lost: {reason}")


def _pointer_aside(page: PuzzlePage) -> Decision | None:
    """The pointer onto the puzzle's last words where two strides of the wheel did nothing: what it rests on, such as a
    button that moves, may keep the wheel to itself."""
    last = page.history[-2:]
    same = all(step.observation.state_hash == page.observation.state_hash for step in last)
    if len(last) < 2 or not same or not all(isinstance(step.action, Scroll) for step in last):
        return None
    elements = page.observation.elements
    end = elements.index(page.code_field) if page.all("textbox") else len(elements)
    words = [e for e in elements[:end] if e.ref is not None and e.role in ("text", "heading", "listitem")]
    return page.hover(words[-1]) if words else None


def reflexes(page: PuzzlePage, history: Sequence[Step]) -> Decision | None:
    """What is right on any page: begin, close what lies over the page, wait for the answer to a code."""
    if step_number(page.observation) is None and all(step_number(step.observation) is None for step in history):
        buttons = [e for e in page.all("button", "link", "clickable") if BEGIN.search(e.name)]
        if buttons and not page.all("textbox") and _count(history, buttons[0].ref) < LOOKS:
            return distractors.close(page) or page.click(buttons[0])
    closing = distractors.close(page)
    if closing is not None:
        return closing
    return page.wait(ANSWER_MS, "wait for the answer") if _unanswered(page) else None


def enter_revealed(page: PuzzlePage) -> Decision | None:
    """Enter a code that has appeared since the step began."""
    sent = Counter(page.submissions())
    for code in page.revealed():
        if sent[code] < SAME_CODE:
            return page.enter(code)
    return None


def candidates(page: PuzzlePage) -> Sequence[Signal]:
    """The types for this step, as the first look saw them that recognised anything."""
    seen = [step.observation for step in page.history]
    for observation in (*seen, page.observation):
        ranked = first_look(observation)
        if ranked:
            return ranked
    return ()


def setbacks(page: PuzzlePage) -> int:
    """How often whoever had the turn got nowhere on this step."""
    count = refused = row = 0
    seen: Counter[tuple[str, str]] = Counter()
    sent = len(page.submissions()) - _unanswered(page)
    last: Action | None = None
    for step in page.history:
        if step.action is None:
            continue
        waits = isinstance(step.action, Noop)
        key = (step.observation.state_hash, format_action(step.action))
        seen[key] += 1
        row = row + 1 if step.action == last and not waits and not isinstance(step.action, Press) else 1
        last = step.action
        if seen[key] >= (WAITING_REPEATS if waits else REPEATS) or row >= IN_A_ROW:
            count, row = count + 1, 0
            seen.clear()
    refused = sent // REFUSALS
    return count + refused


def _unanswered(page: PuzzlePage) -> bool:
    """Whether a code was sent off just now and the page shows no answer yet."""
    waits = _trailing(page.history, ANSWER_MS)
    if waits >= ANSWER_WAITS or len(page.history) <= waits or page.observation.last_error:
        return False
    step = page.history[-1 - waits]
    action = step.action
    if not isinstance(action, Press) or action.key != "Enter" or not page.submissions():
        return False
    in_field = any(field.ref == action.ref for field in page.all("textbox"))
    return in_field and step.observation.state_hash == page.observation.state_hash


def _trailing(history: Sequence[Step], milliseconds: float) -> int:
    """How many waits of this length were the last steps."""
    count = 0
    for step in reversed(history):
        if step.action != Noop(wait_ms=milliseconds):
            break
        count += 1
    return count


def _count(history: Sequence[Step], ref: str | None) -> int:
    return sum(getattr(step.action, "ref", None) == ref for step in history)


def solve(page: Page) -> Decision:
    """The solver as an expert: plays any puzzle. What it does not know it passes on after a few looks."""
    try:
        return decide(page.observation, page.history)
    except Unknown as error:
        thought = f"{UNKNOWN}: {error}"
        if _trailing(page.history, LOOK_MS) < LOOKS:
            return thought, Noop(wait_ms=LOOK_MS)
        return thought, ReportInfeasible(reason=thought)


class _Families(Mapping[str, Expert]):
    """Every family of the gauntlet, whatever its suffixes, has the same expert."""

    _NAME = re.compile(r"(?:run|step-[a-z]+)(?:-\w+)*")

    def __getitem__(self, name: str) -> Expert:
        if not self._NAME.fullmatch(name):
            raise KeyError(name)
        return solve

    def __iter__(self) -> Iterator[str]:
        yield "run"
        yield from (f"step-{name}" for name in TYPES)

    def __len__(self) -> int:
        return 1 + len(TYPES)


EXPERTS: Mapping[str, Expert] = _Families()


class SolverAgent:
    """``SolverAgent()`` plays runs and single steps alike, on this site or one of its kind. ``profile`` says how its
    decisions are written down, so that its trajectories are demonstrations for a model of that profile."""

    def __init__(self, profile: str = "pocket") -> None:
        self._profile = get_profile(profile)

    @property
    def name(self) -> str:
        return "solver"

    @property
    def families(self) -> frozenset[str]:
        """What it can play, suffixes aside."""
        return frozenset(EXPERTS)

    @property
    def policy_version(self) -> str:
        return "solver"

    @property
    def context_policy(self) -> str:
        return self._profile.id

    async def act(self, task: Task, observation: Observation, history: Sequence[Step]) -> Move:
        """The next move, whatever the task; on a page that it does not know a look, and after a few of them
        ``report_infeasible``."""
        return self.written(*solve(Page(observation, history)), observation, history)

    def written(self, thought: str, action: Action, observation: Observation, history: Sequence[Step]) -> Move:
        """A decision as the profile writes it down."""
        return Move(
            action=action,
            thought=thought if self._profile.thought else "",
            completion=render_completion(self._profile, thought, action),
            messages=render(self._profile, observation, history),
        )
