"""The parts of the server, each by itself: requests, routing, who trips, limits, decoding together."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from typing import Any

import pytest

from dpo_driver.core.errors import ConfigError, ModelError
from dpo_driver.core.records import Generation, Message, Sampling
from dpo_driver.policies.hf import HFPolicy
from dpo_driver.serve.engine import Engine, TooLate, _safe
from dpo_driver.serve.health import Health
from dpo_driver.serve.limits import Limits, Tokens, Turnstile
from dpo_driver.serve.models import Served, Shelf
from dpo_driver.serve.protocol import RequestError, parse_chat
from dpo_driver.serve.routing import Choice, Router, Split
from dpo_driver.serve.server import parse_models

ASKED = {"model": "auto", "messages": [{"role": "user", "content": "goal: click ok\n"}]}


def parsed(**more: Any) -> Any:
    return parse_chat(json.dumps({**ASKED, **more}).encode(), default_tokens=64, most_tokens=100)


def test_a_request_is_read_as_openai_means_it() -> None:
    found = parsed(temperature=0, top_p=0.9, max_completion_tokens=7, n=2, seed=5, stop="x", user="ann", tools=[],
                   frequency_penalty=0, logprobs=None)  # fmt: skip
    assert found.sampling == Sampling(temperature=0, top_p=0.9, max_new_tokens=7, seed=5)
    assert (found.choices, found.stop, found.user, found.logprobs) == (2, ("x",), "ann", False)
    plain = parsed()
    assert plain.sampling.temperature == 1.0 and plain.sampling.max_new_tokens == 64
    parts = [{"role": "developer", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
             {"role": "user", "content": "c"}]  # fmt: skip
    assert parsed(messages=parts).messages == (Message(role="system", content="ab"), Message(role="user", content="c"))


@pytest.mark.parametrize(
    ("more", "param", "words"),
    [
        ({"temperature": 3}, "temperature", "above 2"),
        ({"temperature": "hot"}, "temperature", "number"),
        ({"top_p": 0}, "top_p", "greater than 0"),
        ({"max_tokens": 101}, "max_tokens", "at most 100"),
        ({"max_tokens": 0}, "max_tokens", "whole number"),
        ({"n": 17}, "n", "from 1 to 16"),
        ({"stop": [1]}, "stop", "no list of texts"),
        ({"stop": list("abcde")}, "stop", "at most 4"),
        ({"stream": "yes"}, "stream", "neither true nor false"),
        ({"tools": [{"type": "function"}]}, "tools", "not done here"),
        ({"frobnicate": 1}, "frobnicate", "not known"),
        ({"messages": []}, "messages", "no list of messages"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0]", "no role"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0]", "parts of text"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "messages", "assistant's own"),
        ({"model": ""}, "model", "no text"),
    ],
)
def test_what_cannot_be_answered_is_refused_with_its_parameter(more: dict[str, Any], param: str, words: str) -> None:
    with pytest.raises(RequestError) as caught:
        parsed(**more)
    assert (caught.value.status, caught.value.param) == (400, param) and words in caught.value.words
    assert caught.value.body["error"]["type"] == "invalid_request_error"
    with pytest.raises(RequestError, match="no JSON"):
        parse_chat(b"{", default_tokens=1, most_tokens=1)


def test_shares_are_kept_and_sessions_stay_with_their_arm() -> None:
    split = Split.parse("champion=90, candidate=10")
    assert split.shares == {"champion": 0.9, "candidate": 0.1}
    arms = [split.arm(f"session-{i}") for i in range(10_000)]
    assert arms == [split.arm(f"session-{i}") for i in range(10_000)]
    assert abs(arms.count("candidate") / 10_000 - 0.1) < 0.01  # three standard deviations are 0.009
    for wrong in ("", "a", "a=x", "a=-1", "a=0", "a=1,a=2"):
        with pytest.raises(ConfigError):
            Split.parse(wrong)


def test_names_aliases_and_forced_arms() -> None:
    router = Router(Health(), Split.parse("champion=1,candidate=0"))
    router.aliases = {"champion": "p/dpo-1", "previous": "p/sft", "candidate": "p/dpo-2", "base": "base"}
    loaded = {"p/dpo-1", "p/sft", "p/dpo-2", "base", "mine"}
    assert router.choose("auto", loaded) == Choice("champion", "p/dpo-1")
    assert router.choose("candidate", loaded) == Choice("candidate", "p/dpo-2")
    assert router.choose("auto", loaded, forced="candidate") == Choice("candidate", "p/dpo-2")
    assert router.choose("mine", loaded) == Choice("mine", "mine")
    assert router.before("p/dpo-1") == "p/sft" and router.before("p/sft") == "base"
    with pytest.raises(RequestError) as caught:
        router.choose("other", loaded)
    assert caught.value.status == 404 and "mine" in caught.value.words
    router.aliases = {"base": "base"}
    assert router.choose("auto", {"base"}).version == "base"  # a server without a champion


def test_errors_trip_a_version_and_the_one_before_answers() -> None:
    health = Health()
    router = Router(health)
    router.aliases = {"champion": "new", "previous": "old"}
    loaded = {"new", "old"}
    # 9 failures of 9 say nothing yet: ten are the least.
    assert [health.answered("new", False) for _ in range(9)] == [""] * 9
    assert "of its last 10 answers failed" in health.answered("new", False)
    assert router.choose("auto", loaded) == Choice("champion", "old", instead_of="new")
    assert router.choose("new", loaded) == Choice("new", "new")  # who names it gets it
    health.restore("new")
    assert router.choose("auto", loaded).version == "new"
    # One failure in twenty: Wilson's interval of 5 % is [0.9, 23.6], which reaches below a tenth.
    assert all(not health.answered("old", i % 20 > 0) for i in range(200))


def test_success_trips_a_version_only_when_it_is_shown_to_be_worse() -> None:
    health = Health()
    for i in range(50):
        health.reported("old", i % 10 > 0, None)  # 90 %: [78.6, 95.7]
    # 6 of 10 is [31.3, 83.2]: it overlaps, nothing is shown.
    assert not any(health.reported("new", i % 5 > 1, "old") for i in range(10))
    why = [health.reported("new", i % 2 > 0, "old") for i in range(40)]
    tripped = [said for said in why if said]
    assert len(tripped) == 1 and "against 90%" in tripped[0] and health.of("new").tripped
    fresh = Health()
    assert not any(fresh.reported("new", False, "old") for _ in range(50))  # the one before has no outcomes
    assert not any(fresh.reported("new", False, None) for _ in range(50))


def test_tokens_and_places() -> None:
    tokens = Tokens(("right",))
    assert tokens.holder("Bearer right") == tokens.holder("bearer right") != ""
    for header in ("", "right", "Bearer wrong", "Basic right"):
        with pytest.raises(RequestError) as caught:
            tokens.holder(header)
        assert caught.value.status == 401
    assert Tokens(()).holder("") == "anybody"
    turnstile = Turnstile(Limits(at_once=3, at_once_each=2))
    with turnstile.enter("ann"), turnstile.enter("ann"):
        with pytest.raises(RequestError) as caught:
            turnstile.enter("ann").__enter__()
        assert caught.value.status == 429 and caught.value.retry_s == 1.0
        with turnstile.enter("bob"), pytest.raises(RequestError):
            turnstile.enter("cid").__enter__()
    assert turnstile.inside == 0


def test_models_are_named() -> None:
    assert parse_models(["base=pocket", "x"]) == {"base": "pocket", "x": "x"}
    with pytest.raises(ConfigError):
        parse_models(["a=1", "a=2"])


def test_no_half_characters_and_no_half_stops_are_told() -> None:
    assert _safe("abc\ufffd", ()) == 3
    assert _safe("one\nSTO", ("STOP",)) == 4
    assert _safe("one STOX", ("STOP",)) == 8
    assert _safe("aa", ("aab",)) == 0


# -- decoding --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pocket() -> Served:
    return Shelf(device="cpu").load("base", "pocket")


def messages(text: str) -> tuple[Message, ...]:
    return (Message(role="user", content=f"[1] button {text}\n[2] link home\ngoal: click {text}\n"),)


async def test_answers_are_the_policys_own_alone_and_together(pocket: Served) -> None:
    policy = HFPolicy("pocket", device="cpu")
    assert pocket.version == policy.version
    asked = [(messages(text), Sampling(temperature=t, max_new_tokens=40, seed=s))
             for s, (text, t) in enumerate([("ok", 0.0), ("cancel", 1.0), ("send it", 1.5), ("x", 1.0)])]  # fmt: skip
    expected = [policy.generate([m], [how])[0] for m, how in asked]
    batches: list[int] = []
    engine = Engine(batches.append)
    try:
        alone = await engine.submit(pocket, *asked[0]).done
        rows = [engine.submit(pocket, m, how) for m, how in asked]
        together = await asyncio.gather(*(row.done for row in rows))
    finally:
        engine.close()
    assert alone[1].token_ids == expected[0].token_ids
    assert [answer.token_ids for _, answer in together] == [answer.token_ids for answer in expected]
    assert [text for text, _ in together] == [answer.text for answer in expected]
    assert batches[0] == 1 and max(batches) > 1 and set(batches) <= {1, 2, 3, 4} and len(batches) <= 5


async def test_a_short_answer_joins_a_long_one_and_leaves_before_it(pocket: Served) -> None:
    engine = Engine()
    short = Sampling(temperature=0.0, max_new_tokens=5)
    try:
        (expected,) = HFPolicy("pocket", device="cpu").generate([messages("cancel")], [short])
        begun = asyncio.Event()
        endless = Sampling(temperature=2.0, max_new_tokens=2000, seed=3)
        long = engine.submit(pocket, messages("ok"), endless, told=lambda text: begun.set())
        await asyncio.wait_for(begun.wait(), 30)
        text, answer = await asyncio.wait_for(engine.submit(pocket, messages("cancel"), short).done, 30)
        assert not long.done.done()
        assert (text, answer.token_ids) == (expected.text, expected.token_ids)
        long.cancelled = True
        with pytest.raises(asyncio.CancelledError):
            await long.done
    finally:
        engine.close()


class Turns:
    """A decoder that answers one row a time slice and notes who was asked."""

    def __init__(self, name: str, order: list[str], hold: threading.Event | None = None) -> None:
        self.name, self._order, self._hold = name, order, hold

    def encode(self, messages: tuple[Message, ...]) -> tuple[int, ...]:
        if messages[0].content == "broken":
            raise ValueError("no such token")
        return (1,)

    def decode(self, ids: list[int]) -> str:
        return ""

    def generate_joining(self, joining: Any, watch: Any, done: Any) -> None:
        if self.name == "gone":
            raise ModelError("the model was unloaded before its turn came")
        waiting: list[Any] = []
        while asked := [*waiting, *joining(9)]:
            number, ids, how = asked[0]
            waiting = asked[1:]
            if self._hold is not None:
                self._hold.wait(10)
            self._order.append(self.name)
            done(number, Generation(text=self.name, token_ids=ids, sampling=how, policy_version=self.name))


async def test_who_wants_another_model_has_its_turn_and_a_bad_row_harms_nobody() -> None:
    order: list[str] = []
    hold = threading.Event()
    busy, other, gone = Turns("busy", order, hold), Turns("other", order), Turns("gone", order)
    how = Sampling()
    engine = Engine()
    try:
        rows = [engine.submit(busy, messages("a"), how)]
        while engine.waiting:  # it is being decoded: whoever comes now would join
            await asyncio.sleep(0.01)
        rows.append(engine.submit(busy, messages("b"), how))
        broken = engine.submit(busy, (Message(role="user", content="broken"),), how)
        rows.append(engine.submit(other, messages("c"), how))
        lost = engine.submit(gone, messages("d"), how)
        rows.append(engine.submit(busy, messages("e"), how))
        hold.set()
        await asyncio.wait_for(asyncio.gather(*(row.done for row in rows)), 10)
        with pytest.raises(ModelError, match="no such token"):
            await broken.done
        with pytest.raises(ModelError, match="unloaded"):
            await lost.done
    finally:
        engine.close()
    # The first run ended because somebody waited for another model; the next took all of its own that waited.
    assert order == ["busy", "busy", "busy", "other"]


async def test_pieces_make_the_text_and_a_stop_ends_it(pocket: Served) -> None:
    engine = Engine()
    try:
        how = Sampling(temperature=0.0, max_new_tokens=40)
        whole, _ = await engine.submit(pocket, messages("ok"), how).done
        pieces: list[str] = []
        text, _ = await engine.submit(pocket, messages("ok"), how, told=pieces.append).done
        await asyncio.sleep(0)
        assert "".join(pieces) == text == whole and len(pieces) > 1
        cut: list[str] = []
        row = engine.submit(pocket, messages("ok"), how, stop=("\naction",), told=cut.append)
        text, answer = await row.done
        await asyncio.sleep(0)
        assert "".join(cut) == text == whole.partition("\naction")[0] and answer.finish_reason == "stop"
        assert len(answer.token_ids) < 40
    finally:
        engine.close()


async def test_deadlines_leavers_and_prompts_that_do_not_fit(pocket: Served) -> None:
    engine = Engine()
    how = Sampling(temperature=1.5, max_new_tokens=2000, seed=0)
    try:
        with pytest.raises(TooLate):
            await engine.submit(pocket, messages("ok"), how, timeout=0.0).done
        row = engine.submit(pocket, messages("ok"), how)
        row.cancelled = True
        with pytest.raises(asyncio.CancelledError):
            await row.done
        with pytest.raises(ModelError, match="leaves no room"):
            await engine.submit(pocket, messages("word " * 3000), how).done
        began = time.monotonic()
        text, _ = await engine.submit(pocket, messages("ok"), Sampling(max_new_tokens=5)).done
        assert text and time.monotonic() - began < 30
    finally:
        engine.close()
