"""The remote policy against a real server that fails on request: what is sent, what is repeated, what stops, what it
costs, and that no key is ever written anywhere."""

from __future__ import annotations

import asyncio
import copy
import json
import logging
import os
import pickle
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from dpo_driver.agents.llm import PolicyAgent
from dpo_driver.core.errors import ConfigError, DriverError, RolloutFailure, UnknownNameError
from dpo_driver.core.protocols import Policy, RemotePolicy
from dpo_driver.core.records import Element, Generation, Message, Observation, Sampling, StopReason, Usage
from dpo_driver.envs.toy import make_task
from dpo_driver.policies.budget import PRICES, Budget, BudgetError, Meter, Price
from dpo_driver.policies.calls import EndpointFailure, Patience
from dpo_driver.policies.dialects import DIALECTS
from dpo_driver.policies.dialects.common import Asking, EndpointError
from dpo_driver.policies.endpoint import EndpointPolicy
from dpo_driver.policies.providers import PROVIDERS, Provider, provider, proxy_for
from dpo_driver.policies.secrets import Secret, read_dotenv, scrub
from dpo_driver.testing.check_agent import check_agent
from dpo_driver.testing.check_policy import check_policy
from dpo_driver.testing.fault_endpoint import (
    Fault,
    FaultEndpoint,
    broken_json,
    cut,
    hang,
    html,
    other_json,
    rate_limited,
    refused,
    server_error,
    slow_drip,
    too_long,
    uncounted,
)

KEY = "sk-test-9f8e7d6c5b4a"
QUICK = Patience(call_s=5.0, total_s=20.0, tries=4, first_wait_s=0.01, longest_wait_s=0.02)
SLACK_S = 2.0  # this machine may be busy
HELLO = (Message(role="system", content="You act."), Message(role="user", content="one two three"))
HOW = Sampling(max_new_tokens=20)


def echo(messages: Sequence[Message], sampling: Sampling) -> str:
    return f"said {messages[-1].content}"


def asking(text: str) -> tuple[Message, ...]:
    return (Message(role="user", content=text),)


@pytest.fixture(autouse=True)
def no_keys_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    names = ("GOOGLE", "GEMINI", "ANTHROPIC", "OPENAI", "AZURE_OPENAI")
    for name in [f"{each}_API_KEY" for each in names] + ["AZURE_OPENAI_ENDPOINT", "HTTP_PROXY", "HTTPS_PROXY",
                 "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "all_proxy", "no_proxy"]:  # fmt: skip
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


# --- conformance ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dialect", ["openai", "anthropic"])
def test_it_is_a_policy(dialect: str) -> None:
    def by_seed(messages: Sequence[Message], sampling: Sampling) -> str:
        return f"{messages[-1].content} {sampling.temperature:g} {sampling.seed}"

    def faults(number: int, messages: Sequence[Message]) -> Fault | None:
        return too_long() if len(messages[-1].content) > 500 else None

    with FaultEndpoint(by_seed, faults, key=KEY) as server:
        policy = EndpointPolicy(server.provider(dialect), patience=QUICK)
        check_policy(policy, too_long="x" * 600)
        assert isinstance(policy, Policy) and isinstance(policy, RemotePolicy)
        assert policy.version == "local:scripted"
        assert policy.generate([asking("abc")], [Sampling(max_new_tokens=1)])[0].finish_reason == "length"


async def test_agents_act_with_it() -> None:
    script = lambda messages, sampling: "thought: go\naction: click([1])"  # noqa: E731
    with FaultEndpoint(script) as server:
        policy = EndpointPolicy(server.provider(), patience=QUICK)
        for trajectory in await check_agent(PolicyAgent(policy, "chat-turns")):
            assert trajectory.policy_version == "local:scripted"
            taken = [step.generation.usage for step in trajectory.steps if step.generation and step.generation.usage]
            assert len(taken) == len(trajectory.steps) and all(usage.input_tokens > 100 for usage in taken)
            assert not any(usage.estimated for usage in taken)


async def test_a_slow_call_holds_up_no_other() -> None:
    """A batch would wait for its slowest; episodes ask one by one."""
    pages = {name: Observation(goal=name, elements=(Element(ref="1", role="button"),)) for name in ("slow", "a", "b")}
    release = threading.Event()

    def script(messages: Sequence[Message], sampling: Sampling) -> str:
        if "slow" in messages[-1].content:
            assert release.wait(20)
        return "thought: go\naction: click([1])"

    with FaultEndpoint(script) as server:
        agent = PolicyAgent(EndpointPolicy(server.provider(), patience=QUICK))
        task = make_task("press", 1)
        slow = asyncio.create_task(agent.act(task, pages["slow"], []))
        for name in ("a", "b"):
            assert (await asyncio.wait_for(agent.act(task, pages[name], []), 10)).action is not None
        assert not slow.done()
        release.set()
        assert (await asyncio.wait_for(slow, 10)).action is not None


# --- what is sent -----------------------------------------------------------------------------------------------------

TALK = (*HELLO, Message(role="assistant", content="four"), Message(role="user", content="five"))
DRAWN = Sampling(temperature=0.5, top_p=0.9, max_new_tokens=7, seed=3)


def test_requests_by_hand() -> None:
    turns = [{"role": "user", "content": "one two three"}, {"role": "assistant", "content": "four"},
             {"role": "user", "content": "five"}]  # fmt: skip
    with FaultEndpoint(echo, key=KEY) as server:
        local = server.provider()
        (found,) = EndpointPolicy(local).generate([TALK], [DRAWN.model_copy(update={"repetition_penalty": 1.15})])
        assert found.text == "said five" and found.prompt_tokens == 7
        assert server.asked[0].path == "/v1/chat/completions"
        assert server.asked[0].headers["authorization"] == f"Bearer {KEY}"
        assert server.asked[0].body == {
            "model": "scripted", "messages": [{"role": "system", "content": "You act."}, *turns], "temperature": 0.5,
            "top_p": 0.9, "max_tokens": 7, "seed": 3, "repetition_penalty": 1.15,
        }  # fmt: skip
        (found,) = EndpointPolicy(server.provider("anthropic")).generate([TALK], [DRAWN])
        assert found.text == "said five" and found.prompt_tokens == 7
        assert server.asked[1].path == "/v1/messages"
        assert server.asked[1].headers["x-api-key"] == KEY
        assert server.asked[1].headers["anthropic-version"] == "2023-06-01"
        assert "authorization" not in server.asked[1].headers
        assert server.asked[1].body == {
            "model": "scripted", "system": "You act.", "messages": turns, "max_tokens": 7, "temperature": 0.5,
            "top_p": 0.9,
        }  # fmt: skip


def test_each_preset_asks_in_its_own_words(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GOOGLE_API_KEY", "OPENAI_API_KEY", "AZURE_OPENAI_API_KEY"):
        monkeypatch.setenv(name, KEY)
    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", "https://x.openai.azure.com/")
    with FaultEndpoint(echo, key=KEY) as server:
        for name in ("google", "openai", "azure"):
            EndpointPolicy(provider(name, base_url=server.url)).generate([TALK], [DRAWN])
        assert [sorted({"authorization", "api-key"} & asked.headers.keys()) for asked in server.asked] == [
            ["authorization"], ["authorization"], ["api-key"]]  # fmt: skip
        google, openai, azure = (asked.body for asked in server.asked)
    assert (google["model"], google["max_tokens"], google["reasoning_effort"]) == (
        "gemini-3-flash-preview", 7 + 2048, "low")  # fmt: skip
    assert "seed" not in google
    assert (openai["model"], openai["max_completion_tokens"], openai["seed"]) == ("gpt-4o", 7, 3)
    assert azure == openai
    for name, model, spare, effort in (
        ("google", "gemini-2.5-pro", 2048, "low"), ("google", "gemini-2.0-flash", 0, None),
        ("openai", "gpt-5-mini", 2048, None), ("openai", "o3", 2048, None), ("openai", "gpt-4o-mini", 0, None),
    ):  # fmt: skip
        found = provider(name, model)
        assert (found.spare, found.extra.get("reasoning_effort")) == (spare, effort)


def test_what_an_endpoint_has_no_words_for_is_refused() -> None:
    penalty = Sampling(repetition_penalty=1.15)
    tools = (Message(role="user", content="x", tools="[]"),)
    with FaultEndpoint(echo) as server:
        plain = EndpointPolicy(server.provider("anthropic"))
        for messages, how, words in (
            (HELLO, penalty, "no repetition penalty"),
            (HELLO, Sampling(temperature=1.5), "temperature 1.5"),
            (tools, HOW, "tools"),
        ):
            with pytest.raises(EndpointError, match=words):
                plain.generate([messages], [how])
        assert server.asked == []


def test_extra_settings_go_into_the_body_and_take_keys_out() -> None:
    with FaultEndpoint(echo) as server:
        used = replace(server.provider(), extra={"temperature": None, "reasoning_effort": "high"})
        EndpointPolicy(used).generate([HELLO], [HOW])
        assert server.asked[0].body["reasoning_effort"] == "high"
        assert "temperature" not in server.asked[0].body


def test_answers_by_hand() -> None:
    read = DIALECTS["openai"].read
    usage = {"prompt_tokens": 10, "completion_tokens": 3, "total_tokens": 40}  # 27 were thought
    parts = [{"type": "text", "text": "a"}, {"type": "image"}, {"type": "text", "text": "b"}]
    found = read({"choices": [{"message": {"content": parts}, "finish_reason": "length"}], "usage": usage})
    assert (found.text, found.finish, found.input_tokens, found.output_tokens) == ("ab", "length", 10, 30)
    found = read({"choices": [{"message": {"content": None}}], "usage": {"prompt_tokens": -1}})
    assert (found.text, found.finish, found.input_tokens, found.output_tokens) == ("", "stop", None, None)
    for wrong in ({}, [], {"choices": []}, {"choices": [{}]}, {"choices": [{"message": {"content": 3}}]}, "x", None):
        with pytest.raises(ValueError):
            read(wrong)
    read = DIALECTS["anthropic"].read
    usage = {"input_tokens": 5, "cache_read_input_tokens": 7, "cache_creation_input_tokens": 1, "output_tokens": 2}
    content = [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "yes"}]
    found = read({"content": content, "stop_reason": "max_tokens", "usage": usage})
    assert (found.text, found.finish, found.input_tokens, found.output_tokens) == ("yes", "length", 13, 2)
    for wrong in ({}, {"content": "x"}, {"content": [3]}, None):
        with pytest.raises(ValueError):
            read(wrong)


# --- presets, keys, proxies -------------------------------------------------------------------------------------------


def test_presets(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = {
        "google": ("https://generativelanguage.googleapis.com/v1beta/openai", "gemini-3-flash-preview",
                   "GOOGLE_API_KEY", "openai"),
        "anthropic": ("https://api.anthropic.com/v1", "claude-sonnet-4-20250514", "ANTHROPIC_API_KEY", "anthropic"),
        "openai": ("https://api.openai.com/v1", "gpt-4o", "OPENAI_API_KEY", "openai"),
        "azure": ("https://x.openai.azure.com/openai/v1", "gpt-4o", "AZURE_OPENAI_API_KEY", "openai"),
    }  # fmt: skip
    assert set(PROVIDERS) == {*wanted, "local"}
    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", "https://x.openai.azure.com/")
    for name, (url, model, variable, dialect) in wanted.items():
        with pytest.raises(ConfigError, match=f"{variable}.* is not set") as caught:
            provider(name)
        assert caught.value.exit_code == 2 and variable in (caught.value.remedy or "")
        monkeypatch.setenv(variable, KEY)
        found = provider(name)
        assert (found.base_url, found.model, found.dialect) == (url, model, dialect)
        assert found.key == Secret(KEY)
        assert found.price_of(model) == PRICES[model]
    found = provider("local", base_url="http://10.0.0.5:8000/v1/")
    assert (found.base_url, found.model, found.key) == ("http://10.0.0.5:8000/v1", None, None)
    assert provider("local").base_url == "http://127.0.0.1:8000/v1"
    monkeypatch.setenv("ROUTER_KEY", "sk-router")
    router = provider("local", "m", "https://router.example/v1", key_env="ROUTER_KEY")
    assert router.key == Secret("sk-router")
    assert router.price_of("m") is None and found.price_of("m") == Price(0, 0)  # what has a key may cost something
    monkeypatch.delenv("AZURE_OPENAI_ENDPOINT")
    with pytest.raises(ConfigError, match="AZURE_OPENAI_ENDPOINT is not set"):
        provider("azure")
    assert provider("azure", base_url="https://y.example/openai/v1").base_url == "https://y.example/openai/v1"
    with pytest.raises(UnknownNameError, match="gogle"):
        provider("gogle")


def test_either_variable_holds_googles_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEMINI_API_KEY", "second")
    assert provider("google").key == Secret("second")
    monkeypatch.setenv("GOOGLE_API_KEY", "first")
    assert provider("google").key == Secret("first")
    monkeypatch.setenv("GOOGLE_API_KEY", "  ")
    assert provider("google").key == Secret("second")
    monkeypatch.setenv("GOOGLE_API_KEY", "two words")
    with pytest.raises(ConfigError, match="GOOGLE_API_KEY does not hold a key") as caught:
        provider("google")
    assert "words" not in str(caught.value).replace("spaces", "")


def test_dotenv_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text(
        "# keys\n\nOPENAI_API_KEY=from-file # mine\nexport ANTHROPIC_API_KEY = 'quo#ted' \n"
        'A="x y"\nEMPTY=\nNOT A LINE\nURL=http://x/#part\nB=#none\n  C=1=2\n',
        encoding="utf-8-sig",
    )
    assert read_dotenv(tmp_path / ".env") == {
        "OPENAI_API_KEY": "from-file", "ANTHROPIC_API_KEY": "quo#ted", "A": "x y", "EMPTY": "", "URL": "http://x/#part",
        "B": "", "C": "1=2",
    }  # fmt: skip
    assert read_dotenv(tmp_path / "none") == {}
    assert provider("openai").key == Secret("from-file")
    monkeypatch.setenv("OPENAI_API_KEY", "from-environment")
    assert provider("openai").key == Secret("from-environment")  # never overridden
    assert "ANTHROPIC_API_KEY" not in os.environ  # what we start inherits nothing
    assert provider("anthropic").key == Secret("quo#ted")
    with pytest.raises(ConfigError, match="ANTHROPIC_API_KEY is not set"):
        provider("anthropic", dotenv=None)
    (tmp_path / ".env").write_bytes(b"OPENAI_API_KEY=\xff\xfe")
    with pytest.raises(ConfigError, match="cannot be read"):
        provider("anthropic")


@pytest.mark.parametrize(
    "address",
    ["ftp://x/v1", "x:8000", "http://", "http://[::1", "http://user:sk-test-9f8e7d6c5b4a@x/v1",
     "https://x/v1?key=sk-test-9f8e7d6c5b4a", "http://x:99999999/v1"],
)  # fmt: skip
def test_addresses_that_cannot_be_used_are_not_repeated(address: str) -> None:
    with pytest.raises(EndpointError) as caught:
        provider("local", "m", address)
    assert KEY not in "".join(traceback.format_exception(caught.value))
    assert caught.value.where == "--endpoint"


def test_proxies_by_hand() -> None:
    environ = {"HTTP_PROXY": "http://p:1", "https_proxy": "p:2", "NO_PROXY": "inner.example, .corp:8443,10.0.0.5"}
    for address, wanted in (
        ("http://a.example/v1", "http://p:1"),
        ("https://a.example/v1", "http://p:2"),
        ("https://inner.example/v1", None),
        ("https://x.inner.example/v1", None),
        ("https://notinner.example/v1", "http://p:2"),
        ("https://a.corp:8443/v1", None),
        ("https://a.corp/v1", "http://p:2"),
        ("http://10.0.0.5/v1", None),
        ("http://127.0.0.1:8000/v1", None),
        ("http://localhost:8000/v1", None),
        ("http://[::1]:8000/v1", None),
    ):
        assert proxy_for(address, environ) == wanted, address
    assert proxy_for("https://a.example", {"ALL_PROXY": "socks5://p:3"}) == "socks5://p:3"
    assert proxy_for("https://a.example", {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "*"}) is None
    assert proxy_for("https://a.example", {}) is None


@pytest.mark.parametrize("how", ["environment", ".env"])
def test_a_proxy_is_used(how: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with FaultEndpoint(echo, key=KEY) as server:
        variables = {"HTTP_PROXY": f"http://user:pa55word@127.0.0.1:{server.port}", "THE_KEY": KEY}
        if how == ".env":
            (tmp_path / ".env").write_text("".join(f"{name}={value}\n" for name, value in variables.items()))
        else:
            for name, value in variables.items():
                monkeypatch.setenv(name, value)
        used = provider("local", "m", "http://model.invalid/v1", key_env="THE_KEY")
        (found,) = EndpointPolicy(used, patience=QUICK).generate([HELLO], [HOW])
        assert found.text == "said one two three"
        assert server.asked[0].path == "http://model.invalid/v1/chat/completions"  # as a proxy is asked
        assert server.asked[0].headers["proxy-authorization"].startswith("Basic ")
        monkeypatch.setenv("NO_PROXY", "model.invalid")
        direct = provider("local", "m", "http://model.invalid/v1", key_env="THE_KEY")
        with pytest.raises(EndpointError, match="nothing can be reached"):
            EndpointPolicy(direct, patience=QUICK).generate([HELLO], [HOW])
        assert len(server.asked) == 1
        assert "pa55word" not in repr(used)


def test_a_proxy_that_is_none() -> None:
    environ = {"HTTP_PROXY": "gopher://user:pa55word@x"}
    used = replace(provider("local", "m", "http://model.invalid/v1"), environ=environ)
    with pytest.raises(ConfigError, match="proxy cannot be used") as caught:
        EndpointPolicy(used)
    assert "pa55word" not in "".join(traceback.format_exception(caught.value))


# --- what is repeated -------------------------------------------------------------------------------------------------

PASSING: dict[str, Callable[[], Fault]] = {
    "429": rate_limited, "500": server_error, "503": lambda: server_error(503), "529": lambda: server_error(529),
    "cut body": cut, "cut at once": lambda: cut(0), "broken JSON": broken_json, "other JSON": other_json, "page": html,
    "hang": hang, "slow drip": slow_drip, "408": lambda: refused(408),
    "error in 200": lambda: Fault(body='{"error": {"message": "upstream", "code": 502}}'),
}  # fmt: skip


@pytest.mark.parametrize("dialect", ["openai", "anthropic"])
@pytest.mark.parametrize("name", PASSING)
def test_what_passes_is_asked_again(name: str, dialect: str) -> None:
    patience = replace(QUICK, call_s=0.4 if name in ("hang", "slow drip") else 5.0)
    with FaultEndpoint(echo, [PASSING[name](), None, PASSING[name]()]) as server:
        policy = EndpointPolicy(server.provider(dialect), patience=patience)
        for calls in (2, 4):
            (found,) = policy.generate([HELLO], [HOW])
            assert (found.text, found.finish_reason) == ("said one two three", "stop")
            assert len(server.asked) == calls


LASTING = {name: fault for name, fault in PASSING.items() if name != "page"}


@pytest.mark.parametrize("name", LASTING)
def test_what_lasts_is_a_failure_of_the_world_in_time(name: str) -> None:
    patience = Patience(call_s=0.3, total_s=0.9, tries=50, first_wait_s=0.05, longest_wait_s=0.1)
    with FaultEndpoint(echo, lambda number, messages: LASTING[name]()) as server:
        policy = EndpointPolicy(server.provider(), patience=patience)
        began = time.monotonic()
        with pytest.raises(EndpointFailure) as caught:
            policy.generate([HELLO], [HOW])
        assert time.monotonic() - began < patience.total_s + SLACK_S
        assert len(server.asked) >= 2
        assert caught.value.kind == StopReason.POLICY_ERROR
        assert f"local: {server.url}" in str(caught.value) and "asked" in str(caught.value)


def test_a_page_and_nothing_but_pages_is_a_wrong_address() -> None:
    with FaultEndpoint(echo, [html()] * 4) as server:
        with pytest.raises(EndpointError, match="not JSON but text/html: <!doctype html>") as caught:
            EndpointPolicy(server.provider(), patience=QUICK).generate([HELLO], [HOW])
        assert "--endpoint" in (caught.value.remedy or "")


def test_waits_grow_and_the_servers_wish_is_kept() -> None:
    def soon() -> Fault:  # a date has whole seconds
        return rate_limited(format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True))

    faults = [rate_limited(0.5), None, soon, None,
              Fault(429, '[{"error": {"details": [{"retryDelay": "0.4s"}]}}]'), None,
              Fault(429, "{}", headers=(("retry-after-ms", "300"),)), None]  # fmt: skip
    times: list[float] = []

    def faulty(number: int, messages: Sequence[Message]) -> Fault | None:
        times.append(time.monotonic())
        fault = faults[number]
        return fault() if callable(fault) else fault

    with FaultEndpoint(echo, faulty) as server:
        policy = EndpointPolicy(server.provider(), patience=QUICK)
        for _ in range(4):
            policy.generate([HELLO], [HOW])
    waits = [after - before for before, after in zip(times[::2], times[1::2], strict=True)]
    for waited, wanted in zip(waits, (0.5, 0.9, 0.4, 0.3), strict=True):
        assert wanted <= waited < wanted + 1.5 + SLACK_S
    times.clear()
    faults = [server_error()] * 4 + [None]
    with FaultEndpoint(echo, faulty) as server:
        patience = Patience(tries=5, first_wait_s=0.2, longest_wait_s=0.5)
        EndpointPolicy(server.provider(), patience=patience).generate([HELLO], [HOW])
    waits = [after - before for before, after in pairwise(times)]
    for waited, most in zip(waits, (0.2, 0.4, 0.5, 0.5), strict=True):
        assert most / 2 <= waited < most + SLACK_S


def test_a_wish_beyond_the_deadline_ends_at_once() -> None:
    with FaultEndpoint(echo, [rate_limited(3600)]) as server:
        policy = EndpointPolicy(server.provider(), patience=replace(QUICK, total_s=30))
        began = time.monotonic()
        with pytest.raises(EndpointFailure, match="asks to be left alone for 3600 s; asked once"):
            policy.generate([HELLO], [HOW])
        assert time.monotonic() - began < SLACK_S
        assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("fault", "what", "remedy"),
    [
        (refused(401, "bad key"), "refuses the key: HTTP 401: bad key", "check --key-env"),
        (refused(403, "not yours"), "forbids this: HTTP 403: not yours", "what the key"),
        (refused(404, "no model m"), "no such address or model: HTTP 404: no model m", "--model"),
        (refused(400, "bad temperature"), "refuses the request: HTTP 400: bad temperature", "sampling"),
        (refused(402, "pay"), "the account has nothing left: pay", "billing"),
        (Fault(429, '{"error": {"message": "empty", "code": "insufficient_quota"}}'), "nothing left: empty", "billing"),
        (Fault(302, headers=(("Location", "http://127.0.0.1:1/"),)), "elsewhere: HTTP 302", "--endpoint"),
        (Fault(422, '{"detail": "field x"}'), "HTTP 422: field x", "model"),
        (Fault(418, "short and stout"), "HTTP 418: short and stout", "model"),
    ],
)  # fmt: skip
def test_what_a_person_can_mend_is_told_once(fault: Fault, what: str, remedy: str) -> None:
    with FaultEndpoint(echo, [fault]) as server:
        with pytest.raises(EndpointError) as caught:
            EndpointPolicy(server.provider(), patience=QUICK).generate([HELLO], [HOW])
        assert len(server.asked) == 1
    assert what in caught.value.what and remedy in (caught.value.remedy or "")
    assert isinstance(caught.value, DriverError) and caught.value.exit_code == 2
    assert caught.value.where == f"local: {server.url}"


def test_nobody_there() -> None:
    with FaultEndpoint(echo) as server:
        before = EndpointPolicy(server.provider(), patience=QUICK)
        before.generate([HELLO], [HOW])
    with pytest.raises(EndpointFailure, match="nothing can be reached"):  # it was there: the world broke
        before.generate([HELLO], [HOW])
    with pytest.raises(EndpointError, match="nothing can be reached") as caught:
        EndpointPolicy(server.provider(), patience=QUICK).generate([HELLO], [HOW])
    assert "start the server" in (caught.value.remedy or "")


async def test_agents_pass_failures_on() -> None:
    task, page = make_task("press", 1), Observation(goal="g")
    with FaultEndpoint(echo, lambda number, messages: server_error()) as server:
        agent = PolicyAgent(EndpointPolicy(server.provider(), patience=QUICK))
        with pytest.raises(RolloutFailure, match=r"policy_error: local: http.*HTTP 500.*asked 4 times"):
            await agent.act(task, page, [])
    with FaultEndpoint(echo, [refused(404)]) as server:
        agent = PolicyAgent(EndpointPolicy(server.provider(), patience=QUICK))
        with pytest.raises(EndpointError):
            await agent.act(task, page, [])


# --- many at once -----------------------------------------------------------------------------------------------------


def test_requests_run_at_once_and_come_back_in_order() -> None:
    together, now, most = threading.Barrier(4), [0], [0]
    lock = threading.Lock()

    def script(messages: Sequence[Message], sampling: Sampling) -> str:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        together.wait(20)  # four are under way, or this breaks
        with lock:
            now[0] -= 1
        return echo(messages, sampling)

    with FaultEndpoint(script) as server:
        policy = EndpointPolicy(server.provider(), patience=replace(QUICK, call_s=30), concurrency=4)
        found = policy.generate([asking(str(n)) for n in range(12)], [HOW] * 12)
    assert [generation.text for generation in found] == [f"said {n}" for n in range(12)]
    assert most[0] == 4


async def test_it_may_be_called_where_a_loop_runs() -> None:
    with FaultEndpoint(echo) as server:
        policy = EndpointPolicy(server.provider(), patience=QUICK)
        assert policy.generate([HELLO], [HOW])[0].text == (await policy.answer(HELLO, HOW)).text
        policy.close()


async def test_who_leaves_is_not_waited_for() -> None:
    with FaultEndpoint(echo, [hang()]) as server:
        policy = EndpointPolicy(server.provider(), budget=Budget(tokens=50), patience=replace(QUICK, call_s=60))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(policy.answer(HELLO, HOW), 0.5)
        # Its reservation is given back, but for the input, which may be billed.
        assert (await policy.answer(HELLO, Sampling(max_new_tokens=5))).text == "said one two three"
        assert policy.usage.input_tokens == 14 + 5 and policy.usage.estimated


def test_a_batch_that_fails_gives_the_others_up() -> None:
    def faults(number: int, messages: Sequence[Message]) -> Fault | None:
        return refused(404) if messages[-1].content == "wrong" else hang()

    with FaultEndpoint(echo, faults) as server:
        policy = EndpointPolicy(server.provider(), patience=Patience(call_s=60, total_s=60))
        began = time.monotonic()
        with pytest.raises(EndpointError, match="404"):
            policy.generate([asking("right"), asking("wrong"), asking("fine")], [HOW] * 3)
        assert time.monotonic() - began < SLACK_S


def test_the_only_model_of_a_server() -> None:
    with FaultEndpoint(echo, models=("qwen",)) as server:
        policy = EndpointPolicy(provider("local", base_url=server.url), patience=QUICK)
        assert policy.version == "local:qwen"
        policy.generate([HELLO], [HOW])
        assert server.asked[0].body["model"] == "qwen"
    for models, remedy in ((("a", "b"), "a, b"), ((), "--model")):
        with FaultEndpoint(echo, models=models) as server:
            with pytest.raises(EndpointError, match=f"lists {len(models)} models") as caught:
                EndpointPolicy(provider("local", base_url=server.url), patience=QUICK)
            assert remedy in (caught.value.remedy or "")


# --- what it costs ----------------------------------------------------------------------------------------------------

PRICE = Price(1000.0, 2000.0)  # a tenth of a cent a token in, a fifth out


def test_tokens_and_cost_are_counted() -> None:
    with FaultEndpoint(echo, [None, uncounted(), cut(), None]) as server:
        policy = EndpointPolicy(server.provider(price=PRICE), patience=QUICK)
        assert policy.usage == Usage(cost=0.0)
        (first,) = policy.generate([HELLO], [HOW])  # five words in, four out
        assert first.usage == Usage(input_tokens=5, output_tokens=4, cost=PRICE.of(5, 4))
        assert policy.usage == first.usage
        (second,) = policy.generate([HELLO], [HOW])
        # 8 characters are 2 tokens, 13 are 4, and 4 a message; 18 characters come back.
        assert second.usage == Usage(input_tokens=14, output_tokens=5, cost=PRICE.of(14, 5), estimated=True)
        (third,) = policy.generate([HELLO], [HOW])
        assert third.usage == first.usage
        # The call whose answer was cut may be billed: its input is counted too.
        total = policy.usage
        assert (total.input_tokens, total.output_tokens, total.estimated) == (5 + 14 + 14 + 5, 4 + 5 + 4, True)
        assert total.cost == pytest.approx(0.064)
        assert policy.meter.calls == 4
        assert Generation.model_validate_json(second.model_dump_json()) == second


def test_refusals_take_nothing_and_an_unknown_price_is_not_nought() -> None:
    with FaultEndpoint(echo, [rate_limited(), server_error(), None]) as server:
        unknown = replace(server.provider(), price=None)
        policy = EndpointPolicy(unknown, patience=QUICK)
        (found,) = policy.generate([HELLO], [HOW])
        assert found.usage == Usage(input_tokens=5, output_tokens=4, cost=None)
        assert (policy.usage.cost, policy.meter.calls) == (None, 1)
        with pytest.raises(ConfigError, match="price of scripted is not known"):
            EndpointPolicy(unknown, budget=Budget(dollars=1))
        EndpointPolicy(unknown, budget=Budget(dollars=1), price=Price.parse("0.5,3"))
    assert Price.parse(" 0.5, 3") == Price(0.5, 3.0)
    for wrong in ("", "1", "1,2,3", "a,b", "-1,2", "nan,1", "inf,1"):
        with pytest.raises(ConfigError):
            Price.parse(wrong)


@pytest.mark.parametrize("budget", [Budget(tokens=80), Budget(dollars=0.115)])
def test_a_budget_stops_before_the_call_that_could_break_it(budget: Budget) -> None:
    """A call may take 14 + 20 tokens ($0.054) and takes 9 ($0.013)."""
    with FaultEndpoint(echo) as server:
        policy = EndpointPolicy(server.provider(price=PRICE), budget=budget, patience=QUICK)
        made = 0
        with pytest.raises(BudgetError, match="does not allow another call") as caught:
            for _ in range(20):
                policy.generate([HELLO], [HOW])
                made += 1
        assert made == len(server.asked) == (6 if budget.tokens else 5)
        used = policy.usage.input_tokens + policy.usage.output_tokens
        assert used == 9 * made
        assert caught.value.exit_code == 2
        with pytest.raises(BudgetError):
            policy.generate([HELLO], [HOW])
        assert len(server.asked) == made


def test_calls_at_once_do_not_overspend_together() -> None:
    """Twelve begin at once; as many as may run together do, the others wait for what they leave."""
    with FaultEndpoint(echo) as server:
        policy = EndpointPolicy(server.provider(), budget=Budget(tokens=100), patience=QUICK, concurrency=12)
        with pytest.raises(BudgetError):
            policy.generate([HELLO] * 12, [HOW] * 12)
        used = policy.usage.input_tokens + policy.usage.output_tokens
        assert 4 <= len(server.asked) <= 11
        assert used <= 100
    with FaultEndpoint(echo) as server:
        meter = Meter(Budget(tokens=100))
        one, other = (EndpointPolicy(server.provider(name), meter=meter) for name in ("openai", "anthropic"))
        one.generate([HELLO] * 5, [HOW] * 5)
        other.generate([HELLO] * 2, [HOW] * 2)
        assert one.usage.input_tokens + one.usage.output_tokens == 63
        with pytest.raises(BudgetError):
            other.generate([HELLO] * 2, [HOW] * 2)


def test_a_budget_is_checked_before_a_repetition_too() -> None:
    with FaultEndpoint(echo, [cut()] * 9) as server:
        policy = EndpointPolicy(server.provider(), budget=Budget(tokens=60), patience=replace(QUICK, tries=9))
        with pytest.raises(BudgetError):
            policy.generate([HELLO], [HOW])
        assert len(server.asked) == 2  # 14 + 14 are lost, and 34 more would be too many
    for wrong in ({"tokens": 0}, {"dollars": 0.0}, {"dollars": -1.0}):
        with pytest.raises(ConfigError):
            Budget(**wrong)


# --- keys -------------------------------------------------------------------------------------------------------------


def spill(value: Any, depth: int = 4) -> str:
    """Everything that printing an object and what hangs on it would show."""
    shown = f"{value!r} {value}"
    if depth and hasattr(value, "__dict__"):
        shown += " ".join(f"{name} {spill(each, depth - 1)}" for name, each in vars(value).items())
    return shown


async def test_no_key_in_any_artefact(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Through every kind of answer and failure, with a server that repeats the key, and all logs at full length."""
    caplog.set_level(logging.DEBUG)
    written: list[str] = []
    quoting = [Fault(500, json.dumps({"error": {"message": f"upstream got Bearer {KEY}"}})),
               Fault(400, json.dumps({"error": {"message": f"strange key {KEY}%2F"}})),
               Fault(200, f"not json {KEY}"), Fault(200, json.dumps({"choices": [], "key": KEY})),
               Fault(404, f"<b>{KEY}</b>", "text/html"),
               Fault(302, "", headers=(("Location", f"http://x/{KEY}"),))]  # fmt: skip
    faults: list[Fault] = [*quoting, refused(401, f"Incorrect API key provided: {KEY}"), rate_limited(), cut(), hang()]
    patience = Patience(call_s=0.3, total_s=0.6, tries=2, first_wait_s=0.01)
    for dialect in ("openai", "anthropic"):
        for fault in faults:
            with FaultEndpoint(echo, [fault, fault], key=KEY) as server:
                policy = EndpointPolicy(server.provider(dialect), patience=patience)
                with pytest.raises((EndpointError, EndpointFailure)) as caught:
                    policy.generate([HELLO], [HOW])
                written += traceback.format_exception(caught.value)
                written += [repr(caught.value), spill(caught.value), spill(policy), spill(server.provider(dialect))]
    with FaultEndpoint(lambda messages, sampling: "thought: go\naction: click([1])", key=KEY) as server:
        policy = EndpointPolicy(server.provider())
        trajectories = await check_agent(PolicyAgent(policy))
        written += [trajectory.model_dump_json() for trajectory in trajectories]
        wrong = replace(server.provider(), key=Secret("sk-wrong-0a1b2c3d"))
        with pytest.raises(EndpointError, match=r"refuses the key: HTTP 401: Incorrect API key provided: •••"):
            EndpointPolicy(wrong).generate([HELLO], [HOW])
        travelled = {asked.headers["authorization"] for asked in server.asked}
        assert travelled == {f"Bearer {KEY}", "Bearer sk-wrong-0a1b2c3d"}
    written += [caplog.text, *capfd.readouterr(), *(path.read_text() for path in tmp_path.rglob("*") if path.is_file())]
    everything = "\n".join(written)
    assert "HTTP Request: POST" in caplog.text and len(caplog.records) > 40  # the clients' own logs were there
    assert KEY[3:] not in everything
    assert "0a1b2c3d" not in everything


def test_secrets_do_not_leave() -> None:
    secret = Secret(KEY)
    assert KEY not in f"{secret} {secret!r} {[secret]} { ({'a': secret}) }"
    for leave in (pickle.dumps, copy.copy, copy.deepcopy, json.dumps):
        with pytest.raises(TypeError):
            leave(secret)
    assert secret != Secret("other") and secret == Secret(KEY) and hash(secret) == hash(Secret("other"))
    assert scrub(f"a {KEY} b", [secret]) == "a ••• b"
    assert scrub("k%2Fz k/z", [Secret("k/z")]) == "••• •••"
    shown = Provider("x", "http://x", "m", key=secret, environ={"HTTP_PROXY": f"http://u:{KEY}@p"})
    assert KEY not in repr(shown) and repr(shown) == repr(replace(shown, key=None))
    with pytest.raises(TypeError):
        asdict(shown)


def test_limits_are_worded_by_the_preset() -> None:
    how = Asking("m", HELLO, HOW, limit_key="max_completion_tokens", spare=100)
    body = DIALECTS["openai"].body(how)
    assert body["max_completion_tokens"] == 120 and "max_tokens" not in body
    assert DIALECTS["anthropic"].body(how)["max_tokens"] == 120
