"""Where answers come from: models in this process, or a vLLM server that has them by name. Called by app.py."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import httpx

from dpo_driver.core.errors import ModelError
from dpo_driver.core.records import Generation
from dpo_driver.serve.engine import Engine
from dpo_driver.serve.protocol import ChatRequest, RequestError

if TYPE_CHECKING:  # it needs torch, and a server in front of vLLM does not
    from dpo_driver.serve.models import Shelf

Told = Callable[[int, str], None]  # a choice's number, and its next piece of text
LOAD_S = 300.0


class Backend(Protocol):
    """What the server asks."""

    def names(self) -> set[str]:
        """Versions that can answer."""

    async def load(self, name: str, folder: str) -> None:
        """Make a version ready. ModelError where it cannot be."""

    async def unload(self, name: str) -> None:
        """Let go of a version. ModelError where there is none."""

    async def answer(
        self, version: str, request: ChatRequest, timeout: float, told: Told | None
    ) -> list[tuple[str, Generation]]:
        """The choices; cancelled with the task. TooLate, ModelError or RequestError where there is no answer."""

    def waiting(self) -> int:
        """Rows that have not begun, as far as it is known."""

    async def close(self) -> None:
        """The end."""


class Local:
    """Models in this process."""

    def __init__(self, shelf: Shelf, engine: Engine) -> None:
        self.shelf, self._engine = shelf, engine

    def names(self) -> set[str]:
        return set(self.shelf.names())

    async def load(self, name: str, folder: str) -> None:
        await asyncio.to_thread(self.shelf.load, name, folder)

    async def unload(self, name: str) -> None:
        self.shelf.unload(name)

    async def answer(
        self, version: str, request: ChatRequest, timeout: float, told: Told | None
    ) -> list[tuple[str, Generation]]:
        served = self.shelf.get(version)
        if served is None:  # it was unloaded a moment ago
            raise RequestError(404, f"no model {version!r}", "model_not_found", "model")
        rows = []
        for number in range(request.choices):
            seed = request.sampling.seed
            sampling = request.sampling if seed is None else request.sampling.model_copy(update={"seed": seed + number})
            tell = None if told is None else (lambda text, number=number: told(number, text))
            rows.append(self._engine.submit(served, request.messages, sampling, stop=request.stop, timeout=timeout,
                                            told=tell))  # fmt: skip
        try:
            return list(await asyncio.gather(*(row.done for row in rows)))
        finally:
            for row in rows:
                row.cancelled = True  # those that are done do not mind

    def waiting(self) -> int:
        return self._engine.waiting

    async def close(self) -> None:
        await asyncio.to_thread(self._engine.close)


class VLLM:
    """A vLLM server with ``--enable-lora`` and ``VLLM_ALLOW_RUNTIME_LORA_UPDATING=1``.

    Args:
        url: such as ``http://127.0.0.1:8000/v1``.
        key: its bearer token, or "".
    """

    def __init__(self, url: str, key: str = "") -> None:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._client = httpx.AsyncClient(base_url=url.rstrip("/") + "/", headers=headers, timeout=LOAD_S)
        self._names: set[str] = set()

    def names(self) -> set[str]:
        return set(self._names)

    async def refresh(self) -> None:
        """Ask it what it has."""
        answer = await self._send("GET", "models", None, 10.0)
        self._names = {str(each["id"]) for each in answer.json()["data"]}

    async def load(self, name: str, folder: str) -> None:
        await self._send("POST", "load_lora_adapter", {"lora_name": name, "lora_path": folder}, LOAD_S)
        self._names.add(name)

    async def unload(self, name: str) -> None:
        await self._send("POST", "unload_lora_adapter", {"lora_name": name}, LOAD_S)
        self._names.discard(name)

    async def answer(
        self, version: str, request: ChatRequest, timeout: float, told: Told | None
    ) -> list[tuple[str, Generation]]:
        how = request.sampling
        body: dict[str, Any] = {
            "model": version, "messages": [message.model_dump() for message in request.messages],
            "temperature": how.temperature, "top_p": how.top_p, "max_tokens": how.max_new_tokens,
            "repetition_penalty": how.repetition_penalty, "n": request.choices, "stream": True,
            "stream_options": {"include_usage": True},
        }  # fmt: skip
        body |= {"seed": how.seed} if how.seed is not None else {}
        body |= {"stop": list(request.stop)} if request.stop else {}
        texts, ends = [""] * request.choices, ["stop"] * request.choices
        usage: dict[str, int] = {}
        try:
            async with self._client.stream("POST", "chat/completions", json=body, timeout=timeout) as answer:
                if answer.status_code != 200:
                    raise _refused(answer.status_code, await answer.aread())
                async for line in answer.aiter_lines():
                    if not line.startswith("data: ") or line == "data: [DONE]":
                        continue
                    event = json.loads(line.removeprefix("data: "))
                    usage = event.get("usage") or usage
                    for choice in event.get("choices", ()):
                        number, piece = choice["index"], choice.get("delta", {}).get("content") or ""
                        texts[number] += piece
                        ends[number] = choice.get("finish_reason") or ends[number]
                        if piece and told is not None:
                            told(number, piece)
        except httpx.TimeoutException:
            raise RequestError(504, f"no answer within {timeout:.0f} s", "timeout") from None
        except (httpx.HTTPError, ValueError, KeyError) as error:
            raise ModelError(f"the vLLM server failed: {error}", where=str(self._client.base_url)) from None
        prompt, made = int(usage.get("prompt_tokens", 0)), int(usage.get("completion_tokens", 0))
        found = []
        for number, text in enumerate(texts):
            count = made // request.choices + (number < made % request.choices)
            found.append((text, Generation(
                text=text, prompt_tokens=prompt, token_ids=(0,) * count, sampling=how,
                finish_reason="length" if ends[number] == "length" else "stop", policy_version=version)))  # fmt: skip
        return found

    def waiting(self) -> int:
        return 0

    async def close(self) -> None:
        await self._client.aclose()

    async def _send(self, method: str, path: str, body: Any, timeout: float) -> httpx.Response:
        try:
            answer = await self._client.request(method, path, json=body, timeout=timeout)
        except httpx.HTTPError as error:
            raise ModelError(f"the vLLM server does not answer: {error}", where=str(self._client.base_url),
                             remedy="start it first, or give its address: --vllm URL") from None  # fmt: skip
        if answer.status_code != 200:
            raise ModelError(f"the vLLM server refuses {path}: {answer.text[:200]}", where=str(self._client.base_url))
        return answer


def _refused(status: int, content: bytes) -> RequestError:
    try:
        told = json.loads(content)
        words = str(told.get("error", told).get("message", ""))
    except (ValueError, AttributeError):
        words = ""
    status = status if status in (400, 404, 429) else 502
    return RequestError(status, words or f"the vLLM server answered {status}", "upstream_error")
