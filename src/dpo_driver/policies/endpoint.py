"""The policy that is elsewhere: any OpenAI-compatible chat endpoint, or Anthropic's own.

    policy = EndpointPolicy(provider("google"), budget=Budget(dollars=1.0))
    policy.generate([messages], [Sampling(max_new_tokens=512)])

Called through core.protocols.Policy by agents, search and annotation. Requests run at once, each under deadlines and
with repetitions of its own (policies/calls.py). Must not import torch, agents or environments.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

from dpo_driver.core.errors import DriverError
from dpo_driver.core.records import Generation, Message, Sampling, Usage
from dpo_driver.policies.budget import Budget, Meter, Price, tokens_in
from dpo_driver.policies.calls import Line, Patience, PromptTooLong, Trouble, background_loop, patiently
from dpo_driver.policies.dialects import DIALECTS
from dpo_driver.policies.dialects.common import Answer, Asking, EndpointError
from dpo_driver.policies.providers import Provider

T = TypeVar("T")
PER_MESSAGE = 4  # tokens of a message beside its text, roughly


class EndpointPolicy:
    """Generates by asking an endpoint. Texts come without tokens: ``token_ids`` and ``logprobs`` are empty, and
    ``usage`` says what a call took.

    Args:
        provider: of :func:`dpo_driver.policies.providers.provider`.
        budget: stops the run with a BudgetError before a call that could overspend it.
        price: dollars a million tokens; the table's when None.
        patience: deadlines and repetitions.
        concurrency: most calls at once.
        meter: shared with other policies, in place of ``budget``.

    Raises:
        ConfigError: a budget in money for a model without a known price, an unusable proxy.
        EndpointError: no model was named, and the server does not have just one.
    """

    def __init__(
        self,
        provider: Provider,
        *,
        budget: Budget | None = None,
        price: Price | None = None,
        patience: Patience | None = None,
        concurrency: int = 8,
        meter: Meter | None = None,
    ) -> None:
        self._provider, self._patience = provider, patience or Patience()
        self._dialect = DIALECTS[provider.dialect]
        self._line = Line(provider, provider.auth or self._dialect.auth, self._dialect.headers, concurrency)
        self._free = asyncio.Semaphore(concurrency)
        self.meter = meter or Meter(budget)
        self._model = provider.model or self._wait(self._only_model())
        self._price = price or provider.price_of(self._model)
        self.meter.check_price(self._price, self._model)

    def __repr__(self) -> str:
        return f"EndpointPolicy({self.version!r}, {self._provider.base_url!r})"

    @property
    def version(self) -> str:
        """``provider:model``, the name that is known of what cannot be hashed."""
        return f"{self._provider.name}:{self._model}"

    @property
    def usage(self) -> Usage:
        """What all calls took until now."""
        return self.meter.total

    def generate(self, prompts: Sequence[Sequence[Message]], sampling: Sequence[Sampling]) -> list[Generation]:
        """One generation per prompt, in order; see :class:`dpo_driver.core.protocols.Policy`. If one cannot be had, the
        calls that are still under way are given up.

        Raises:
            EndpointError: a key, an address, a model or a setting is wrong.
            EndpointFailure: the endpoint does not answer.
            BudgetError: another call could overspend the budget.
        """
        pairs = list(zip(prompts, sampling, strict=True))
        return self._wait(self._all(pairs)) if pairs else []

    async def answer(self, messages: Sequence[Message], sampling: Sampling) -> Generation:
        """One generation, for an agent that waits for it alone. May be awaited in any event loop."""
        call = asyncio.run_coroutine_threadsafe(self._generation(messages, sampling), background_loop())
        return await asyncio.wrap_future(call)

    def close(self) -> None:
        """End the connections."""
        self._wait(self._line.close())

    # --- inside the background loop ---

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        call = asyncio.run_coroutine_threadsafe(work, background_loop())
        try:
            return call.result()
        except BaseException:
            call.cancel()  # Ctrl-C: nothing goes on that nobody waits for
            raise

    async def _all(self, pairs: Sequence[tuple[Sequence[Message], Sampling]]) -> list[Generation]:
        try:
            async with asyncio.TaskGroup() as group:
                calls = [group.create_task(self._generation(*pair)) for pair in pairs]
        except BaseExceptionGroup as failed:
            # What a person can mend says more than what broke beside it.
            errors = sorted(failed.exceptions, key=lambda error: not isinstance(error, DriverError))
            raise errors[0] from None
        return [call.result() for call in calls]

    async def _generation(self, messages: Sequence[Message], sampling: Sampling) -> Generation:
        provider = self._provider
        asking = Asking(self._model, messages, sampling, provider.limit_key, provider.spare, provider.knows,
                        provider.extra)  # fmt: skip
        body = self._dialect.body(asking)
        given = sum(tokens_in(len(message.content)) + PER_MESSAGE for message in messages)
        shared = {"sampling": sampling, "policy_version": self.version}

        async def attempt(seconds: float) -> Generation:
            answer, usage = await self._metered(body, given, asking.limit, seconds)
            return Generation(text=answer.text, prompt_tokens=usage.input_tokens, finish_reason=answer.finish,
                              usage=usage, **shared)  # fmt: skip

        async with self._free:
            try:
                return await patiently(attempt, self._patience, self._line)
            except PromptTooLong:
                return Generation(text="", prompt_tokens=given, finish_reason="error", **shared)

    async def _metered(self, body: Any, given: int, limit: int, seconds: float) -> tuple[Answer, Usage]:
        """One call, held against the budget. A call that was sent and whose answer was lost is counted with its input:
        it may well be billed."""
        began = time.monotonic()
        reserved = await self.meter.reserve(self._used(given, limit, estimated=True))
        took: Usage | None = self._used(given, 0, estimated=True)
        try:
            left = seconds - (time.monotonic() - began)
            data = await self._line.once("POST", self._dialect.path, body, left)
            try:
                answer = self._dialect.read(data)
            except ValueError as error:
                raise Trouble(f"the answer is JSON but no answer: {error}") from None
            took = self._used(
                given if answer.input_tokens is None else answer.input_tokens,
                tokens_in(len(answer.text)) if answer.output_tokens is None else answer.output_tokens,
                estimated=answer.input_tokens is None or answer.output_tokens is None,
            )
            return answer, took
        except Trouble as trouble:
            took = took if trouble.billed else None
            raise
        except (EndpointError, PromptTooLong):
            took = None
            raise
        finally:
            self.meter.settle(reserved, took)

    def _used(self, given: int, made: int, *, estimated: bool) -> Usage:
        cost = None if self._price is None else self._price.of(given, made)
        return Usage(input_tokens=given, output_tokens=made, cost=cost, estimated=estimated)

    async def _only_model(self) -> str:
        """The model of a server that has one."""

        async def attempt(seconds: float) -> Any:
            return await self._line.once("GET", "/models", None, seconds)

        data = await patiently(attempt, self._patience, self._line)
        listed = data.get("data") if isinstance(data, dict) else None
        names = [str(each["id"]) for each in listed or [] if isinstance(each, dict) and "id" in each]
        if len(names) != 1:
            remedy = f"choose one with --model: {', '.join(names[:20])}" if names else "name it with --model"
            raise EndpointError(f"the server lists {len(names)} models", where=self._line.where, remedy=remedy)
        return names[0]
