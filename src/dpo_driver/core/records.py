"""The records that every layer exchanges: frozen, strict, versioned. Imports pydantic and the action union only.

A record is data without behaviour; ``None`` is not zero: a reward that was never measured is ``None``. Arrays are
tuples, times are seconds, rates are fractions. Each docstring shows a worked example.
"""

from __future__ import annotations

import hashlib
import json
from enum import StrEnum
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer

from dpo_driver.core.actions import Action

SCHEMA_VERSION = 1
Split = Literal["demo", "train", "val", "test"]
# Pixels of a screenshot for each CSS pixel, by environment; 1 where none is named. MiniWoB++'s small task area is taken
# at twice its size.
PICTURE_SCALES = {"miniwob": 2.0}
# Who can prefer one answer to another.
PreferenceSource = Literal["environment", "search", "human", "teacher", "heuristic", "memory", "import"]


class Record(BaseModel):
    """Base of all records."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class StopReason(StrEnum):
    """Why a trajectory ended. The first block is the agent's own doing and may carry a reward; the second is a
    failure of the world: retried, counted, excluded, and never a reward."""

    SUCCESS = "success"
    WRONG = "wrong"  # the environment ended the episode without full reward
    MAX_STEPS = "max_steps"
    INFEASIBLE = "infeasible"  # the agent reported that the task cannot be done
    ANSWERED = "answered"  # the agent said that it is done, where nothing but a person can tell
    PARSE_ERRORS = "parse_errors"  # too many unreadable actions in a row
    CONTEXT_OVERFLOW = "context_overflow"  # the prompt no longer fits the model

    RENDERER_CRASH = "renderer_crash"
    BROWSER_LOST = "browser_lost"
    PAGE_HUNG = "page_hung"
    NAVIGATED_AWAY = "navigated_away"
    SERVER_ERROR = "server_error"
    POLICY_ERROR = "policy_error"
    START_MISMATCH = "start_mismatch"
    CANCELLED = "cancelled"

    @property
    def is_failure(self) -> bool:
        return self in _FAILURES


_FAILURES = frozenset(
    {
        StopReason.RENDERER_CRASH,
        StopReason.BROWSER_LOST,
        StopReason.PAGE_HUNG,
        StopReason.NAVIGATED_AWAY,
        StopReason.SERVER_ERROR,
        StopReason.POLICY_ERROR,
        StopReason.START_MISMATCH,
        StopReason.CANCELLED,
    }
)


class Task(Record):
    """One seeded problem. ``Task(id="miniwob.click-button/7", env="miniwob", name="click-button", seed=7,
    split="test", max_steps=5)``. ``goal`` is filled in once the page has said it."""

    schema_version: Literal[1] = 1
    id: str
    env: str
    name: str
    seed: int
    goal: str | None = None
    params: dict[str, Any] = Field(default_factory=dict)
    split: Split = "train"
    max_steps: int = Field(default=10, ge=1)


class Element(Record):
    """One visible thing on a page, in document order. ``Element(ref="3", role="textbox", name="User", value="bob",
    states=("focused",))``. ``ref`` is None for running text that cannot be acted on; refs are stable within an
    episode. ``box`` is (left, top, width, height) in CSS pixels of the viewport. ``secret``: what is typed into it is
    not to be seen."""

    ref: str | None
    role: str
    name: str = ""
    value: str | None = None
    states: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    tag: str = ""
    box: tuple[float, float, float, float] | None = None
    nth: int = 1  # 2 for the second element with the same role and name, and so on
    secret: bool = False

    @property
    def label(self) -> str:
        """What an agent calls the element: role, name, and ``#2`` for the second of its like."""
        ordinal = f" #{self.nth}" if self.nth > 1 else ""
        return (f"{self.role} {self.name}" if self.name else self.role) + ordinal


class Observation(Record):
    """What an agent sees of a page. ``state_hash`` covers url path, goal and elements (not geometry, not focus), so
    two observations with equal hashes look the same to a text agent."""

    goal: str
    url: str = ""
    title: str = ""
    elements: tuple[Element, ...] = ()
    truncated: int = 0  # elements left out by the node cap
    last_error: str | None = None
    state_hash: str = ""
    screenshot: str | None = None  # sha256 of a blob in the run's store


def state_hash(goal: str, url_path: str, elements: tuple[Element, ...]) -> str:
    """Hash of what matters for "the same state": 16 hex digits of SHA-256."""
    visible = [
        (e.ref, e.role, e.name, e.value, [s for s in e.states if s != "focused"], e.options, e.nth) for e in elements
    ]
    text = json.dumps([goal, url_path, visible], ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class ToolCall(Record):
    """One call of a function by an assistant: ``ToolCall(name="click", arguments='{"ref": "3"}')``. ``arguments`` is
    the JSON text of an object; ``id`` is what a tool message answers to."""

    name: str
    arguments: str = "{}"
    id: str | None = None


class Message(Record):
    """One chat message: ``Message(role="user", content="...")``.

    ``tools`` stands on a prompt's first message only: the JSON text of the list of function schemas that the model is
    offered. ``tool_calls`` are what an assistant called earlier in the conversation; ``name`` and ``tool_call_id`` say
    which call a tool message answers."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str
    tools: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    name: str | None = None
    tool_call_id: str | None = None

    @model_serializer(mode="wrap")
    def _without_what_is_empty(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Nearly all messages are a role and a content, and are written as just that."""
        return {key: value for key, value in dump(self).items() if value or key in ("role", "content")}


class Sampling(Record):
    """How tokens were drawn. Temperature 0 is greedy. ``repetition_penalty`` acts on the raw scores of what stands in
    the prompt or was written already, as in transformers; 1 is off."""

    temperature: float = Field(default=0.0, ge=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    repetition_penalty: float = Field(default=1.0, gt=0)
    max_new_tokens: int = Field(default=64, ge=1)
    seed: int | None = None


class Usage(Record):
    """What a call of a remote model took: ``Usage(input_tokens=812, output_tokens=31, cost=0.0005)``. ``cost`` is in US
    dollars, None where no price is known; ``estimated``: the server did not say, or not all of it."""

    input_tokens: int = 0
    output_tokens: int = 0
    cost: float | None = None
    estimated: bool = False


class Generation(Record):
    """Text that a policy produced. ``logprobs[i]`` is the natural-log probability of ``token_ids[i]`` under the very
    distribution it was drawn from (after penalty, temperature and masks). ``prompt_tokens`` is the prompt's length. A
    remote model gives text and ``usage``, and no tokens."""

    text: str
    prompt_tokens: int = 0
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()
    kept: tuple[tuple[int, ...], ...] = ()  # for each token the ids that could be drawn; empty: all of them
    sampling: Sampling = Sampling()
    finish_reason: Literal["stop", "length", "error"] = "stop"
    policy_version: str = ""
    usage: Usage | None = None


class Timing(Record):
    """Seconds spent in one step."""

    policy: float = 0.0
    browser: float = 0.0


class Step(Record):
    """One decision: what was seen, what was written, what was done, what the environment gave for it."""

    observation: Observation
    messages: tuple[Message, ...] = ()
    generation: Generation | None = None
    completion: str = ""  # the assistant text: "thought: ...\\naction: ..."
    thought: str = ""
    action: Action | None = None
    parse_error: str | None = None
    reward: float | None = None
    timing: Timing = Timing()


class Trajectory(Record):
    """The record of one rollout. ``success`` and ``reward`` are None when ``failure`` is set: a dead browser is no
    score. ``reward`` is the raw environment reward; ``success`` is strict (raw >= 0.99)."""

    schema_version: Literal[1] = 1
    id: str
    task: Task
    agent: str
    policy_version: str = ""
    context_policy: str = ""
    steps: tuple[Step, ...] = ()
    stop_reason: StopReason
    reward: float | None = None
    success: bool | None = None
    failure: str | None = None
    attempts: int = 1
    final_screenshot: str | None = None
    seconds: float = 0.0

    @property
    def start_hash(self) -> str:
        return self.steps[0].observation.state_hash if self.steps else ""

    @property
    def positive(self) -> bool | None:
        """BrowserGym's rule: any positive raw reward counts."""
        return None if self.reward is None else self.reward > 0


class TrajectoryGroup(Record):
    """Siblings: same task, seed, start-state hash and policy. Refused at construction if they differ."""

    trajectories: tuple[Trajectory, ...]

    def model_post_init(self, _context: Any) -> None:
        keys = {(t.task.id, t.start_hash, t.policy_version) for t in self.trajectories if t.failure is None}
        if len(keys) > 1:
            raise ValueError(f"siblings differ in task, start state or policy: {sorted(keys)}")


class Comparison(Record):
    """Two continuations of the same prompt, put up for judgement. Completions are assistant texts.

    ``Comparison(id="5f...", messages=(...), first="...", second="...", state_hash="9a...", task=Task(...))``. ``role``
    is whose answers they are, where there are several agents ("CEO"); text that no page belongs to has neither state
    hash nor task. ``evidence`` names the trajectories and steps of either side."""

    id: str
    messages: tuple[Message, ...]
    first: str
    second: str
    role: str = ""
    state_hash: str = ""
    task: Task | None = None
    evidence: dict[str, Any] = Field(default_factory=dict)


class Label(Record):
    """One judgement of a comparison: ``Label(comparison="5f...", preferred="first", source="human", rater="ann")``.
    ``confidence`` is the rater's own, None where none was given."""

    comparison: str
    preferred: Literal["first", "second", "tie", "both_bad"]
    source: str
    rater: str = ""
    confidence: float | None = Field(default=None, ge=0, le=1)
    evidence: dict[str, Any] = Field(default_factory=dict)


class Turn(Record):
    """What an agent was shown and what it wrote: one decision of a trajectory that is compared as a whole."""

    messages: tuple[Message, ...]
    completion: str


class Preference(Record):
    """``chosen`` is better than ``rejected`` as a continuation of ``messages``; both are assistant texts.

    ``level`` is "step" (two actions from one state hash), "outcome" (first differing action of two sibling
    trajectories), "trajectory" (everything that two siblings wrote; the turns after the first are ``chosen_more`` and
    ``rejected_more``) or "text" (imported). ``source`` is who preferred it: environment, search, human, teacher,
    heuristic, memory, import. ``role`` is whose answers they are, where several agents learn from one file ("CEO").
    ``evidence`` names the trajectories and steps it came from, or the labels."""

    schema_version: Literal[1] = 1
    id: str
    messages: tuple[Message, ...]
    chosen: str
    rejected: str
    level: Literal["step", "outcome", "trajectory", "text"]
    source: str
    role: str = ""
    chosen_more: tuple[Turn, ...] = ()
    rejected_more: tuple[Turn, ...] = ()
    task_name: str = ""
    seed: int | None = None
    split: Literal["train", "val"] = "train"
    state_hash: str = ""
    margin: float = 1.0
    weight: float = 1.0
    evidence: dict[str, Any] = Field(default_factory=dict)


class TrainingSample(Record):
    """One prompt and the assistant text to learn: an SFT row."""

    id: str
    messages: tuple[Message, ...]
    completion: str
    source: str
    task_name: str = ""
    seed: int | None = None
    split: Literal["train", "val"] = "train"
    weight: float = 1.0


class ModelVersion(Record):
    """A registered model: where it lies, what it came from, what made it."""

    schema_version: Literal[1] = 1
    name: str  # "pocket/sft", "pocket/dpo-2", ...
    version: int
    path: str
    parent: str | None  # content hash of the parent version
    base_model: str
    algorithm: str
    content_hash: str
    config_hash: str = ""
    data_hash: str = ""
    prompt_profile: str = ""  # what writes its prompts (agents/prompt.py); empty: not recorded, or it reads none
    adapter: bool = False
    metrics: dict[str, float] = Field(default_factory=dict)
    created: str = ""
    git: str = ""  # commit of the code that made it, "-dirty" behind it if the work tree differed


class Interaction(Record):
    """Something an agent did for somebody, and what came of it: ``Interaction(id="chatcmpl-7", at=1790000000.0,
    role="support", source="serve", model="support/dpo-1", messages=(...), response="...", rating=1.0)``.

    Either a trajectory on pages or an answer to messages. ``role`` is empty for the browser agent; ``at`` in seconds
    since 1970; ``rating`` from -1 to 1; ``preferred`` is an answer that would have been better than ``response``."""

    schema_version: Literal[1] = 1
    id: str
    at: float
    role: str = ""
    source: Literal["python", "http", "serve", "act"] = "python"
    model: str = ""
    trajectory: Trajectory | None = None
    messages: tuple[Message, ...] = ()
    response: str = ""
    success: bool | None = None
    reward: float | None = None
    rating: float | None = Field(default=None, ge=-1, le=1)
    preferred: str = ""
    metadata: dict[str, Any] = Field(default_factory=dict)


class Job(Record):
    """A piece of work that goes on by itself: ``Job(id="20261126-171200-support-dpo", role="support", kind="dpo",
    state="running", phase="train", progress=0.4, created=1790000000.0, pid=4711)``.

    ``role`` is empty for the browser agent, and names several with commas between them; times are in seconds since
    1970; ``request`` is what was asked for, ``result`` what came of it."""

    schema_version: Literal[1] = 1
    id: str
    role: str
    kind: str
    state: Literal["queued", "running", "done", "refused", "failed", "cancelled"] = "queued"
    phase: str = ""
    progress: float = Field(default=0.0, ge=0, le=1)
    message: str = ""
    created: float
    started: float | None = None
    ended: float | None = None
    pid: int | None = None
    error: str = ""
    request: dict[str, Any] = Field(default_factory=dict)
    result: dict[str, Any] = Field(default_factory=dict)


class Rate(Record):
    """A success rate with its Wilson 95 % interval; ``excluded`` counts failures left out of ``n``."""

    success: float | None
    low: float | None
    high: float | None
    n: int
    excluded: int = 0


class PairedDifference(Record):
    """Mean of paired differences with a bootstrap 95 % interval and the exact McNemar p-value."""

    mean: float | None
    low: float | None
    high: float | None
    n: int
    wins: int = 0
    losses: int = 0
    p_mcnemar: float | None = None


class EvalReport(Record):
    """One agent's held-out evaluation: overall and per task, strict and positive, with what was left out."""

    schema_version: Literal[1] = 1
    agent: str
    policy_version: str
    split: Split
    seeds: tuple[int, int]  # first and last seed of the block, inclusive
    strict: Rate
    positive: Rate
    tasks: dict[str, Rate]
    mean_steps: float | None = None
    stop_reasons: dict[str, int] = Field(default_factory=dict)
    seconds: float = 0.0


class Decision(Record):
    """The gate's answer: promoted or refused, and why, in words a person can check."""

    promoted: bool
    candidate: str
    champion: str
    reasons: tuple[str, ...]
    gain: PairedDifference | None = None
