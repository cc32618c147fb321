"""A chat endpoint on this machine that answers from a function and fails on request: real HTTP, for tests and examples.

    with FaultEndpoint(script, [rate_limited(0.2), hang()]) as server:
        policy = EndpointPolicy(server.provider())

The first calls meet the faults, one each, the others are answered. It speaks OpenAI's chat completions and Anthropic's
messages, lists its models under /models, and keeps what it was asked. Also stands in for a plain HTTP proxy.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from dpo_driver.core.records import Message, Sampling
from dpo_driver.policies.budget import Price
from dpo_driver.policies.providers import Provider, provider
from dpo_driver.policies.secrets import Secret

Script = Callable[[Sequence[Message], Sampling], str]
MODEL = "scripted"


@dataclass(frozen=True)
class Fault:
    """What is done instead of answering, or to the answer."""

    status: int = 200
    body: str | None = None  # instead of the answer
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()
    cut_after: int | None = None  # bytes; then the connection is closed
    pause_s: float = 0.0  # between one byte and the next
    silent: bool = False  # no byte at all until the client leaves
    no_usage: bool = False  # the answer without its count of tokens


def rate_limited(retry_after: float | str | None = None) -> Fault:
    """429, with Retry-After where one is given."""
    headers = () if retry_after is None else (("Retry-After", str(retry_after)),)
    return Fault(429, _error("too many requests", "rate_limit_exceeded"), headers=headers)


def server_error(status: int = 500) -> Fault:
    """5xx."""
    return Fault(status, _error("the server is not well", "server_error"))


def refused(status: int = 401, words: str = "no", code: str = "invalid_request_error") -> Fault:
    """4xx with the server's words."""
    return Fault(status, _error(words, code))


def too_long() -> Fault:
    """The prompt does not fit the model."""
    return Fault(400, _error("This model's maximum context length is 10 tokens", "context_length_exceeded"))


def slow_drip(pause_s: float = 0.2) -> Fault:
    """The whole answer, a byte at a time."""
    return Fault(pause_s=pause_s)


def cut(after: int = 20) -> Fault:
    """The connection closes in the middle of the body."""
    return Fault(cut_after=after)


def broken_json() -> Fault:
    """A body of the right length that is no JSON."""
    return Fault(body='{"choices": [{"message": {"content": "half')


def other_json() -> Fault:
    """JSON that is no answer."""
    return Fault(body='{"hello": "world"}')


def html() -> Fault:
    """A page, as from a wrong address or a proxy."""
    return Fault(body="<!doctype html><title>Sign in</title>", content_type="text/html; charset=utf-8")


def hang() -> Fault:
    """Takes the request and says nothing."""
    return Fault(silent=True)


def uncounted() -> Fault:
    """An answer without usage."""
    return Fault(no_usage=True)


def _error(words: str, code: str) -> str:
    return json.dumps({"error": {"message": words, "type": code, "code": code}})


@dataclass(frozen=True)
class Asked:
    """A request as it came. ``path`` has the host before it where the server stood in for a proxy."""

    path: str
    headers: dict[str, str]  # names in small letters
    body: Any
    messages: tuple[Message, ...]
    sampling: Sampling


class FaultEndpoint:
    """Serves in a thread between ``with`` and its end.

    Args:
        script: gives the assistant's text, from messages and sampling as a policy's function does
            (policies/scripted.py). Cut at ``max_new_tokens`` words.
        faults: of the first calls, in order; None answers one. A function of (number of the call from 0, messages) may
            stand in their place.
        key: what the key must be; another or none is refused with 401 and repeated in the refusal, as some servers do.
            None: any.
        models: the names that it lists; it answers to any.
    """

    def __init__(
        self,
        script: Script = lambda messages, sampling: "thought: nothing\naction: noop()",
        faults: Iterable[Fault | None] | Callable[[int, Sequence[Message]], Fault | None] = (),
        *,
        key: str | None = None,
        models: Sequence[str] = (MODEL,),
    ) -> None:
        self.script, self.key, self.models = script, key, models
        self.asked: list[Asked] = []  # all calls, those that met a fault too
        self._faults = faults if callable(faults) else _in_order(list(faults))
        self._lock = threading.Lock()
        self.closing = threading.Event()
        self.connections: set[socket.socket] = set()

    def __enter__(self) -> FaultEndpoint:
        endpoint = self

        class Exchange(_Exchange):
            owner = endpoint

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Exchange)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), name="fault-endpoint")
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.closing.set()  # hanging and dripping answers end
        self._server.shutdown()
        self._server.server_close()
        for connection in list(self.connections):  # clients keep them open
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._thread.join(10)

    @property
    def port(self) -> int:
        """Where it listens, on 127.0.0.1."""
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        """The base address."""
        return f"http://127.0.0.1:{self.port}/v1"

    def provider(self, dialect: str = "openai", *, price: Price | None = None) -> Provider:
        """For EndpointPolicy: this server as a local provider, with its key, in one of the dialects."""
        found = provider("local", self.models[0], self.url, dotenv=None)
        key = Secret(self.key) if self.key else None
        knows = found.knows if dialect == "openai" else frozenset[str]()
        return replace(found, dialect=dialect, key=key, knows=knows, price=price or found.price)

    def next_fault(self, asked: Asked) -> Fault | None:
        """Note a call and say what befalls it."""
        with self._lock:
            self.asked.append(asked)
            return self._faults(len(self.asked) - 1, asked.messages)


def _in_order(faults: Sequence[Fault | None]) -> Callable[[int, Sequence[Message]], Fault | None]:
    return lambda number, messages: faults[number] if number < len(faults) else None


class _Exchange(BaseHTTPRequestHandler):
    """One connection."""

    owner: FaultEndpoint
    protocol_version = "HTTP/1.1"

    def setup(self) -> None:
        super().setup()
        self.owner.connections.add(self.connection)

    def finish(self) -> None:
        self.owner.connections.discard(self.connection)
        with suppress(OSError):  # the client may have left
            super().finish()

    def log_message(self, *args: Any) -> None:
        """Says nothing."""

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        found = {"object": "list", "data": [{"id": name, "object": "model"} for name in self.owner.models]}
        status = 200 if path.endswith("/models") else 404
        self._send(Fault(status, json.dumps(found) if status == 200 else _error("no such address", "not_found")))

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        content = self.rfile.read(length)
        if len(content) < length:  # the client left
            self.close_connection = True
            return
        body = json.loads(content)
        anthropic = urlsplit(self.path).path.endswith("/messages")
        headers = {name.lower(): value for name, value in self.headers.items()}
        messages, sampling = _messages(body), _sampling(body)
        fault = self.owner.next_fault(Asked(self.path, headers, body, messages, sampling)) or Fault()
        bearer = headers.get("authorization", "").removeprefix("Bearer ")
        given = headers.get("x-api-key") or headers.get("api-key") or bearer
        if self.owner.key is not None and given != self.owner.key:
            fault = refused(401, f"Incorrect API key provided: {given}", "invalid_api_key")
        elif not urlsplit(self.path).path.endswith(("/messages", "/chat/completions")):
            fault = refused(404, "no such address", "not_found")
        if fault.body is None and not fault.silent:
            words = self.owner.script(messages, sampling).split(" ")
            text = " ".join(words[: sampling.max_new_tokens])
            cut_short = len(words) > sampling.max_new_tokens
            said = _anthropic(text, cut_short, messages) if anthropic else _openai(text, cut_short, messages)
            if fault.no_usage:
                del said["usage"]
            fault = replace(fault, body=json.dumps(said))
        self._send(fault)

    def _send(self, fault: Fault) -> None:
        if fault.silent:
            self.owner.closing.wait(60)
            self.close_connection = True
            return
        content = (fault.body or "").encode()
        self.close_connection = self.close_connection or self.owner.closing.is_set()
        with suppress(OSError):  # the client may have left
            self.send_response(fault.status)
            self.send_header("Content-Type", fault.content_type)
            self.send_header("Content-Length", str(len(content)))
            for name, value in fault.headers:
                self.send_header(name, value)
            self.end_headers()
            if fault.cut_after is not None:
                self.wfile.write(content[: fault.cut_after])
                self.wfile.flush()
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            for start in range(0, len(content), 1 if fault.pause_s else max(1, len(content))):
                if fault.pause_s and self.owner.closing.wait(fault.pause_s):
                    self.close_connection = True
                    return
                self.wfile.write(content[start : start + 1] if fault.pause_s else content)
                self.wfile.flush()


def _messages(body: Any) -> tuple[Message, ...]:
    system = [Message(role="system", content=body["system"])] if body.get("system") else []
    return (*system, *(Message(role=each["role"], content=each["content"]) for each in body["messages"]))


def _sampling(body: Any) -> Sampling:
    return Sampling(
        temperature=body.get("temperature", 1.0),
        top_p=body.get("top_p", 1.0),
        repetition_penalty=body.get("repetition_penalty", 1.0),
        max_new_tokens=body.get("max_tokens") or body.get("max_completion_tokens") or 16,
        seed=body.get("seed"),
    )


def _words(messages: Sequence[Message]) -> int:
    """A token is a word here."""
    return sum(len(message.content.split()) for message in messages)


def _openai(text: str, cut_short: bool, messages: Sequence[Message]) -> dict[str, Any]:
    given, made = _words(messages), len(text.split())
    return {
        "id": "1", "object": "chat.completion", "model": MODEL,
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text},
                     "finish_reason": "length" if cut_short else "stop"}],
        "usage": {"prompt_tokens": given, "completion_tokens": made, "total_tokens": given + made},
    }  # fmt: skip


def _anthropic(text: str, cut_short: bool, messages: Sequence[Message]) -> dict[str, Any]:
    return {
        "id": "1", "type": "message", "role": "assistant", "model": MODEL,
        "content": [{"type": "text", "text": text}],
        "stop_reason": "max_tokens" if cut_short else "end_turn",
        "usage": {"input_tokens": _words(messages), "output_tokens": len(text.split())},
    }  # fmt: skip
