"""The agent that a model drives: prompt, policy, parser. Built by the flywheel, the command line and serving.

One :class:`PolicyAgent` serves many episodes at once. Calls of ``act`` that wait at the same time become one batched
``policy.generate`` in a worker thread; the next batch forms meanwhile. A remote policy is asked for each by itself.
Knows the policy by its protocol only: must not import torch or any policy.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from dpo_driver.agents.prompt import get_profile, parse_completion, render
from dpo_driver.core.errors import ActionError, DriverError, RolloutFailure
from dpo_driver.core.protocols import Move, Policy, RemotePolicy
from dpo_driver.core.records import Generation, Message, Observation, Sampling, Step, StopReason, Task

# How a model on this machine writes when it solves: `dpo-driver solve --mode local`.
LOCAL_SAMPLING = Sampling(temperature=0.7, top_p=0.9, repetition_penalty=1.15, max_new_tokens=512)


@dataclass
class _Request:
    messages: tuple[Message, ...]
    sampling: Sampling
    answer: asyncio.Future[Generation]


class PolicyAgent:
    """Prompt + policy + parser.

    Args:
        policy: generates; called from one thread at a time.
        profile: prompt profile by name, such as "chat", "chat-turns" or "pocket".
        sampling: how tokens are drawn. Each decision gets its own seed, derived from ``sampling.seed``, the task, the
            sibling's number and the step, so a rollout can be repeated as far as batching is bit-stable.
        max_batch: most prompts in one ``generate`` call.
        linger_s: seconds to wait for company before a batch starts. Workers come back from their pages a few
            milliseconds apart; without it every second batch would hold one prompt.
        name: recorded with every trajectory.
    """

    def __init__(
        self,
        policy: Policy,
        profile: str = "chat",
        sampling: Sampling | None = None,
        *,
        max_batch: int = 32,
        linger_s: float = 0.004,
        name: str = "policy",
    ) -> None:
        self._policy = policy
        self._remote = policy if isinstance(policy, RemotePolicy) else None
        self._profile = get_profile(profile)
        self._sampling = sampling or Sampling()
        self._max_batch = max_batch
        self._linger_s = linger_s
        self._name = name
        self._waiting: list[_Request] = []
        self._runner: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="generate")
        self._members = 0  # episodes that go in step; 0: each at its own pace
        self._news = asyncio.Event()

    def join(self, count: int) -> None:
        """From now on ``count`` episodes go in step: a batch is what all of them ask for next, in a fixed order. So the
        rows that share a product, and with them the last bits of every number, are the same each time."""
        self._members += count
        self._news.set()

    def leave(self) -> None:
        """One episode less to wait for."""
        self._members -= 1
        self._news.set()

    @property
    def name(self) -> str:
        return self._name

    @property
    def policy_version(self) -> str:
        return self._policy.version

    @property
    def context_policy(self) -> str:
        return self._profile.id

    async def act(self, task: Task, observation: Observation, history: Sequence[Step]) -> Move:
        """Decide. Text that cannot be read comes back as a Move without action; a policy that breaks is a
        RolloutFailure."""
        messages = self._prompt(task, observation, history)
        sampling = self._sampling.model_copy(update={"seed": decision_seed(self._sampling.seed, task, len(history))})
        started = time.monotonic()
        generation = await self._generate(messages, sampling)
        seconds = time.monotonic() - started
        thought, action, parse_error = "", None, None
        if generation.finish_reason == "error":
            parse_error = "the prompt does not fit the model"
        else:
            try:
                thought, action = parse_completion(generation.text)
            except ActionError as error:
                parse_error = str(error)
        return Move(
            action=action,
            thought=thought,
            completion=generation.text,
            messages=messages,
            generation=generation,
            parse_error=parse_error,
            policy_seconds=seconds,
        )

    def _prompt(self, task: Task, observation: Observation, history: Sequence[Step]) -> tuple[Message, ...]:
        """What the model is shown. An agent that shows more (agents/memory.py) has its own."""
        return render(self._profile, observation, history)

    async def _generate(self, messages: tuple[Message, ...], sampling: Sampling) -> Generation:
        if self._remote is not None:
            try:
                return await self._remote.answer(messages, sampling)
            except (DriverError, RolloutFailure):
                raise
            except Exception as error:  # the boundary to the model, as in _answer
                raise _broken(error) from error
        request = _Request(messages, sampling, asyncio.get_running_loop().create_future())
        self._waiting.append(request)
        self._news.set()
        if self._runner is None or self._runner.done():
            self._runner = asyncio.create_task(self._run(), name="policy-batches")
        return await request.answer

    async def _run(self) -> None:
        """Answer what waits, batch by batch, until nothing does."""
        loop = asyncio.get_running_loop()
        batch: list[_Request] = []
        try:
            while self._waiting:
                in_step = self._members > 0
                if in_step:
                    await self._everybody()
                elif len(self._waiting) < self._max_batch:
                    await asyncio.sleep(self._linger_s)
                # An episode that was cancelled while it waited needs no answer.
                self._waiting = [request for request in self._waiting if not request.answer.done()]
                most = len(self._waiting) if in_step else self._max_batch
                if in_step:
                    self._waiting.sort(key=lambda request: request.sampling.seed or 0)
                batch, self._waiting = self._waiting[:most], self._waiting[most:]
                if batch:
                    await self._answer(loop, batch)
        finally:
            for request in (*batch, *self._waiting):
                request.answer.cancel()
            self._waiting = []

    async def _everybody(self) -> None:
        """Until each episode that goes in step asks for something or has left."""
        while len(self._waiting) < self._members:
            self._news.clear()
            await self._news.wait()

    async def _answer(self, loop: asyncio.AbstractEventLoop, batch: Sequence[_Request]) -> None:
        prompts = [request.messages for request in batch]
        sampling = [request.sampling for request in batch]
        try:
            answers = await loop.run_in_executor(self._thread, self._policy.generate, prompts, sampling)
            if len(answers) != len(batch):
                raise RuntimeError(f"{len(answers)} generations for {len(batch)} prompts")
        except (DriverError, RolloutFailure) as error:
            _fail(batch, error)
        except Exception as error:  # noqa: BLE001  the boundary to the model: what breaks there is recorded
            _fail(batch, _broken(error))
        else:
            for request, generation in zip(batch, answers, strict=True):
                if not request.answer.done():
                    request.answer.set_result(generation)


def _broken(error: Exception) -> RolloutFailure:
    return RolloutFailure(StopReason.POLICY_ERROR, f"{type(error).__name__}: {error}")


def _fail(batch: Sequence[_Request], error: Exception) -> None:
    for request in batch:
        if not request.answer.done():
            request.answer.set_exception(error)


def decision_seed(base: int | None, task: Task, step: int) -> int:
    """A 48-bit seed for one decision, from the run's seed, the task, the sibling's number and the step."""
    text = f"{base}/{task.id}/{task.seed}/{task.params.get('sibling', 0)}/{step}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big")
