"""The server's routes: chat completions, models, feedback, health, metrics. Called by server.py.

A request is read, let in, routed to a version and answered; what it was is remembered until its outcome is reported.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from dpo_driver.core.errors import DriverError, ModelError, StoreError
from dpo_driver.core.records import Generation, Interaction, Message
from dpo_driver.flywheel.inbox import Inbox
from dpo_driver.serve import protocol
from dpo_driver.serve.backend import Backend
from dpo_driver.serve.engine import TooLate
from dpo_driver.serve.health import Health
from dpo_driver.serve.limits import Limits, Tokens, Turnstile
from dpo_driver.serve.metrics import CONTENT_TYPE, Metrics
from dpo_driver.serve.protocol import ChatRequest, RequestError
from dpo_driver.serve.routing import Choice, Router

REMEMBERED = 10_000  # answers whose outcome may still be reported
ARM, SESSION, ROLE, VERSION = "x-model-arm", "x-session-id", "x-role", "x-model-version"
LEFT = 499  # nginx's number for a client that went away


@dataclass(frozen=True)
class Remembered:
    """An answer that was given."""

    version: str
    arm: str
    role: str
    session: str
    messages: tuple[Message, ...]
    response: str


class Site:
    """The server as an ASGI application: ``Site(...).app``.

    Args:
        backend: gives answers.
        router: says who gives them.
        health: knows how they have been doing.
        inbox: keeps outcomes.
        tokens: lets requests in.
        limits: how much at once.
        shadow: an arm that answers everything too, unseen; "" for none.
        log: told a line for each request.
    """

    def __init__(
        self, backend: Backend, router: Router, health: Health, inbox: Inbox, tokens: Tokens, limits: Limits, *,
        metrics: Metrics, shadow: str = "", log: Callable[[str], None] = lambda line: None,
    ) -> None:  # fmt: skip
        self._backend, self._router, self._health, self._inbox = backend, router, health, inbox
        self._tokens, self._limits, self._shadow, self._log = tokens, limits, shadow, log
        self._turnstile, self._metrics = Turnstile(limits), metrics
        self._remembered: OrderedDict[str, Remembered] = OrderedDict()
        self._beside: set[asyncio.Task[None]] = set()
        self._began = time.time()
        routes = [
            Route("/v1/chat/completions", self.chat, methods=["POST"]),
            Route("/v1/models", self.models),
            Route("/v1/feedback", self.feedback, methods=["POST"]),
            Route("/v1/episodes", self.episodes, methods=["POST"]),
            Route("/v1/load_lora_adapter", self.load, methods=["POST"]),
            Route("/v1/unload_lora_adapter", self.unload, methods=["POST"]),
            Route("/v1/restore", self.restore, methods=["POST"]),
            Route("/health", self.health),
            Route("/metrics", self.metrics),
        ]
        refusals: Any = {RequestError: _refusal, ModelError: _model_error, StoreError: _store_error, 404: _missing,
                         405: _missing}  # fmt: skip
        self.app = Starlette(routes=routes, exception_handlers=refusals)

    # -- answers -----------------------------------------------------------------------------------------------------

    async def chat(self, request: Request) -> Response:
        """OpenAI's chat completions."""
        holder, began = self._tokens.holder(request.headers.get("authorization", "")), time.monotonic()
        with contextlib.ExitStack() as place:
            place.enter_context(self._turnstile.enter(holder))
            limits = self._limits
            body = await _body(request, limits.body)
            asked = protocol.parse_chat(body, default_tokens=limits.default_tokens, most_tokens=limits.most_tokens)
            session = request.headers.get(SESSION, "") or asked.user
            choice = self._router.choose(asked.model, self._backend.names(), key=session,
                                         forced=request.headers.get(ARM, ""))  # fmt: skip
            name = protocol.new_id()
            about = _About(name, choice, holder, request.headers.get(ROLE, ""), session, began)
            if asked.stream:
                return await self._streamed(about, asked, place)
            task = asyncio.create_task(self._answer(about, asked, None))
            answers = await self._unless_left(task, request, about)
            texts = [text for text, _ in answers]
            details = [self._logprobs(choice.version, answer) if asked.logprobs else None for _, answer in answers]
            content = protocol.completion(name, asked.model, texts, [answer for _, answer in answers], details)
            return JSONResponse(content, headers=about.headers)

    async def _answer(
        self, about: _About, asked: ChatRequest, told: Callable[[int, str], None] | None
    ) -> list[tuple[str, Generation]]:
        """Ask the backend, and write down how it went."""
        version, status = about.choice.version, 500
        try:
            answers = await self._backend.answer(version, asked, self._limits.timeout, told)
            status = 200
        except TooLate:
            status = 504
            raise RequestError(504, f"no answer within {self._limits.timeout:.0f} s", "timeout") from None
        except RequestError as error:
            status = error.status
            raise
        except ModelError as error:
            # A prompt that is too long is the client's own; what else goes wrong is the version's.
            status = 400 if "leaves no room" in str(error) else 500
            raise RequestError(
                status, str(error), "context_length_exceeded" if status == 400 else "model_error"
            ) from None
        except asyncio.CancelledError:
            status = LEFT
            raise
        finally:
            self._note(about, status)
        for text, answer in answers[:1]:
            self._remember(about, asked, text)
            self._metrics.tokens.labels(version, "prompt").inc(answer.prompt_tokens)
        self._metrics.tokens.labels(version, "completion").inc(sum(len(answer.token_ids) for _, answer in answers))
        if self._shadow:
            self._start_shadow(about, asked, answers[0][0])
        return answers

    def _note(self, about: _About, status: int) -> None:
        version, arm = about.choice.version, about.choice.arm
        seconds = time.monotonic() - about.began
        self._metrics.requests.labels(version, arm, str(status)).inc()
        if status == 200:
            self._metrics.seconds.labels(version).observe(seconds)
        instead = f" instead of {about.choice.instead_of}" if about.choice.instead_of else ""
        self._log(f"{status} {seconds * 1000:.0f} ms {version} ({arm}{instead}) {about.holder} {about.name}")
        if status in (200, 500, 502, 504):
            self._tripped(version, self._health.answered(version, status == 200))

    def _tripped(self, version: str, why: str) -> None:
        if why:
            self._metrics.fallbacks.labels(version).inc()
            self._log(f"{version} is passed over from now on: {why}")

    def _remember(self, about: _About, asked: ChatRequest, text: str) -> None:
        choice = about.choice
        self._remembered[about.name] = Remembered(choice.version, choice.arm, about.role, about.session,
                                                  asked.messages, text)  # fmt: skip
        while len(self._remembered) > REMEMBERED:
            self._remembered.popitem(last=False)

    async def _unless_left(
        self, task: asyncio.Task[list[tuple[str, Generation]]], request: Request, about: _About
    ) -> list[tuple[str, Generation]]:
        """The answer, unless the client goes away before."""
        leaving = asyncio.create_task(_left(request))
        try:
            await asyncio.wait({task, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise RequestError(LEFT, "the client went away", "client_closed_request")
            return task.result()
        finally:
            for each in (task, leaving):
                each.cancel()

    async def _streamed(self, about: _About, asked: ChatRequest, place: contextlib.ExitStack) -> Response:
        """Server-sent events. The stream takes the request's place at the turnstile with it."""
        pieces: asyncio.Queue[tuple[int, str] | None] = asyncio.Queue()
        task = asyncio.create_task(self._answer(about, asked, lambda index, text: pieces.put_nowait((index, text))))
        task.add_done_callback(lambda _: pieces.put_nowait(None))
        try:
            first = await pieces.get()  # what goes wrong before the first word is an answer with its own status
            if first is None and (error := task.exception()) is not None:
                raise error
        except BaseException:
            task.cancel()
            raise

        async def events() -> AsyncIterator[bytes]:
            for index in range(asked.choices):
                yield protocol.chunk(about.name, asked.model, index, {"role": "assistant", "content": ""})
            piece = first
            while piece is not None:
                yield protocol.chunk(about.name, asked.model, piece[0], {"content": piece[1]})
                piece = await pieces.get()
            for event in self._last(about, asked, task):
                yield event

        kept = place.pop_all()
        kept.callback(task.cancel)
        return _Stream(events(), kept, about.headers)

    def _last(self, about: _About, asked: ChatRequest, task: asyncio.Task[list[tuple[str, Generation]]]) -> list[bytes]:
        error = task.exception()
        if isinstance(error, RequestError):
            return [protocol.event(error.body), protocol.DONE]
        answers = task.result()
        events = [
            protocol.chunk(about.name, asked.model, index, {}, answer.finish_reason)
            for index, (_, answer) in enumerate(answers)
        ]
        if asked.usage_in_stream:
            usage = protocol.usage_of([answer for _, answer in answers])
            events.append(protocol.chunk(about.name, asked.model, 0, None, usage=usage))
        return [*events, protocol.DONE]

    def _logprobs(self, version: str, answer: Generation) -> dict[str, Any] | None:
        shelf = getattr(self._backend, "shelf", None)
        served = shelf.get(version) if shelf is not None else None
        if served is None or not answer.logprobs:
            return None
        pairs = zip(served.tokens(answer.token_ids), answer.logprobs, strict=True)
        return {"content": [{"token": token, "logprob": logp, "bytes": list(token.encode()), "top_logprobs": []}
                            for token, logp in pairs]}  # fmt: skip

    def _start_shadow(self, about: _About, asked: ChatRequest, shown: str) -> None:
        version = self._router.aliases.get(self._shadow, self._shadow)
        if version == about.choice.version or version not in self._backend.names():
            return

        async def beside() -> None:
            try:
                [(text, _), *_] = await self._backend.answer(version, asked, self._limits.timeout, None)
            except (RequestError, DriverError, TooLate):
                self._tripped(version, self._health.answered(version, False))
                return
            self._metrics.shadows.labels(version, "yes" if text == shown else "no").inc()
            kept = Interaction(
                id=f"{about.name}-shadow", at=time.time(), role=about.role, source="serve", model=version,
                messages=asked.messages, response=text,
                metadata={"shadow_of": about.name, "shown": shown, "shown_by": about.choice.version},
            )  # fmt: skip
            await asyncio.to_thread(self._inbox.append, kept)

        task = asyncio.create_task(beside())
        self._beside.add(task)
        task.add_done_callback(self._beside.discard)

    # -- outcomes ------------------------------------------------------------------------------------------------------

    async def feedback(self, request: Request) -> Response:
        """``{"id": "chatcmpl-...", "success": true}`` in, ``{"kept": 7}`` out once it is on disk. Also ``reward``,
        ``rating`` from -1 to 1, ``preferred`` (a better answer), ``role`` and ``metadata``."""
        self._tokens.holder(request.headers.get("authorization", ""))
        given = await _object(request, self._limits.body)
        known = self._remembered.get(str(given.get("id", "")))
        if known is None:
            raise RequestError(404, "no such answer, or it is too long ago; send the whole to /v1/episodes",
                               "completion_not_found", "id")  # fmt: skip
        about = {"arm": known.arm, "session": known.session, **_mapping(given.get("metadata"))}
        values = {key: given[key] for key in ("success", "reward", "rating", "preferred") if given.get(key) is not None}
        if not values:
            raise RequestError(400, "there is no outcome: success, reward, rating or preferred", "missing_outcome")
        # An answer may be reported on more than once (a rating now, the outcome later): each report is a row.
        name = (
            f"{given['id']}-{protocol.new_id()[-8:]}" if not given.get("report") else f"{given['id']}-{given['report']}"
        )
        kept = _interaction(
            id=name, at=time.time(), role=str(given.get("role", known.role)), source="serve", model=known.version,
            messages=known.messages, response=known.response, metadata={"completion": given["id"], **about}, **values,
        )  # fmt: skip
        return await self._keep(kept)

    async def episodes(self, request: Request) -> Response:
        """An ``Interaction`` as JSON, from anywhere."""
        self._tokens.holder(request.headers.get("authorization", ""))
        given = await _object(request, 20 * self._limits.body)
        given = {"at": time.time(), **given, "source": "http"}
        return await self._keep(_interaction(**given))

    async def _keep(self, kept: Interaction) -> Response:
        number = await asyncio.to_thread(self._inbox.append, kept)
        if kept.success is not None and kept.model:
            self._metrics.feedback.labels(kept.model, str(kept.success).lower()).inc()
            why = self._health.reported(kept.model, kept.success, self._router.before(kept.model))
            self._tripped(kept.model, why)
        return JSONResponse({"kept": number, "id": kept.id})

    # -- models --------------------------------------------------------------------------------------------------------

    async def models(self, request: Request) -> Response:
        """Names that can be asked for: versions, and aliases with the version that they mean."""
        self._tokens.holder(request.headers.get("authorization", ""))
        names = self._backend.names()
        rows = [{"id": name, "object": "model", "created": int(self._began), "owned_by": "dpo-driver", "root": name}
                for name in sorted(names)]  # fmt: skip
        rows += [{"id": alias, "object": "model", "created": int(self._began), "owned_by": "dpo-driver",
                  "root": version} for alias, version in sorted(self._router.aliases.items())
                 if version in names and alias not in names]  # fmt: skip
        return JSONResponse({"object": "list", "data": rows})

    async def load(self, request: Request) -> Response:
        """``{"lora_name": ..., "lora_path": ...}``: an adapter, or a whole model, while the server goes on."""
        self._tokens.holder(request.headers.get("authorization", ""))
        given = await _object(request, self._limits.body)
        name, path = str(given.get("lora_name", "")), str(given.get("lora_path", ""))
        if not name or not path:
            raise RequestError(400, "lora_name and lora_path are needed", "invalid_value")
        try:
            await self._backend.load(name, path)
        except ModelError as error:
            raise RequestError(400, str(error), "load_failed") from None
        self._log(f"loaded {name} from {path}")
        return JSONResponse({"loaded": name})

    async def unload(self, request: Request) -> Response:
        """``{"lora_name": ...}``."""
        self._tokens.holder(request.headers.get("authorization", ""))
        name = str((await _object(request, self._limits.body)).get("lora_name", ""))
        if name in self._router.aliases.values():
            raise RequestError(409, f"{name} is what an alias means", "in_use", "lora_name")
        try:
            await self._backend.unload(name)
        except ModelError as error:
            raise RequestError(404, str(error), "model_not_found", "lora_name") from None
        self._log(f"unloaded {name}")
        return JSONResponse({"unloaded": name})

    async def restore(self, request: Request) -> Response:
        """``{"model": ...}``: a version that tripped is asked again."""
        self._tokens.holder(request.headers.get("authorization", ""))
        name = str((await _object(request, self._limits.body)).get("model", ""))
        self._health.restore(self._router.aliases.get(name, name))
        self._log(f"{name} is asked again")
        return JSONResponse({"restored": name})

    async def health(self, request: Request) -> Response:
        """Whether it serves, whom aliases mean, and who was passed over and why."""
        standings = self._health.all()
        ready = bool(self._backend.names())
        body = {
            "status": "ok" if ready else "no model is loaded",
            "seconds": round(time.time() - self._began, 1),
            "aliases": self._router.aliases,
            "split": dict(self._router.split.shares) if self._router.split else {},
            "passed_over": {name: each.tripped for name, each in standings.items() if each.tripped},
            "versions": {name: {"answers": each.errors.n, "errors": each.errors.success,
                                "outcomes": each.success.n, "success": each.success.success}
                         for name, each in standings.items()},
            "inside": self._turnstile.inside, "waiting": self._backend.waiting(),
        }  # fmt: skip
        return JSONResponse(body, 200 if ready else 503)

    async def metrics(self, request: Request) -> Response:
        """Prometheus' text form."""
        content = self._metrics.page(self._turnstile.inside, self._backend.waiting(), self._health.all())
        return Response(content, media_type=CONTENT_TYPE)

    async def close(self) -> None:
        """Wait for shadows, a moment."""
        if self._beside:
            await asyncio.wait(set(self._beside), timeout=2.0)


@dataclass(frozen=True)
class _About:
    """A request, apart from what it asks."""

    name: str
    choice: Choice
    holder: str
    role: str
    session: str
    began: float

    @property
    def headers(self) -> dict[str, str]:
        return {VERSION: self.choice.version, ARM: self.choice.arm, "cache-control": "no-store"}


class _Stream(StreamingResponse):
    """Gives its place back however it ends, also where the client left before the first byte."""

    def __init__(self, events: AsyncIterator[bytes], place: contextlib.ExitStack, headers: dict[str, str]) -> None:
        super().__init__(events, media_type="text/event-stream", headers=headers)
        self._place = place

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._place:
            await super().__call__(scope, receive, send)


async def _left(request: Request) -> None:
    """Returns when the client has gone."""
    while not await request.is_disconnected():
        await asyncio.sleep(0.1)


async def _body(request: Request, most: int) -> bytes:
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > most:
            raise RequestError(413, f"the request is larger than {most} bytes", "request_too_large")
        parts.append(part)
    return b"".join(parts)


async def _object(request: Request, most: int) -> dict[str, Any]:
    try:
        given = json.loads(await _body(request, most))
    except ValueError:
        given = None
    if not isinstance(given, dict):
        raise RequestError(400, "the body is no JSON object", "invalid_json")
    return given


def _mapping(given: Any) -> dict[str, Any]:
    if given is None:
        return {}
    if not isinstance(given, dict):
        raise RequestError(400, "metadata is no object", "invalid_type", "metadata")
    return given


def _interaction(**values: Any) -> Interaction:
    try:
        return Interaction.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        param = ".".join(map(str, first["loc"]))
        raise RequestError(400, f"{param}: {first['msg']}", "invalid_value", param) from None


def _refusal(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError)
    headers = {"retry-after": str(max(1, round(error.retry_s)))} if error.retry_s else {}
    if error.status == 401:
        headers["www-authenticate"] = "Bearer"
    return JSONResponse(error.body, error.status, headers)


def _model_error(request: Request, error: Exception) -> Response:
    return JSONResponse(RequestError(500, str(error), "model_error").body, 500)


def _store_error(request: Request, error: Exception) -> Response:
    body = RequestError(503, str(error), "not_kept").body
    return JSONResponse(body, 503, {"retry-after": "1"})


def _missing(request: Request, error: Exception) -> Response:
    status = getattr(error, "status_code", 404)
    words = "no such address" if status == 404 else "no such method here"
    return JSONResponse(RequestError(status, words, "not_found").body, status)
