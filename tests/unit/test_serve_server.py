"""A real server process, asked by the real openai client: answers, streams, refusals, aliases that move, feedback."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pytest

from dpo_driver.core.records import Message, Sampling
from dpo_driver.flywheel.inbox import Inbox
from dpo_driver.policies.hf import HFPolicy
from dpo_driver.registry import Registry
from dpo_driver.registry.moves import promote_by_hand, roll_back
from serve_models import adapter, place_aliases, served_root
from serve_process import ServeProcess, serving

ASKED = [{"role": "user", "content": "[1] button ok\n[2] link home\ngoal: click ok\n"}]
OURS = (Message(role="user", content=ASKED[0]["content"]),)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return served_root(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def server(root: Path) -> Iterator[ServeProcess]:
    arguments = ("--model", "base=pocket", "--split", "champion=50,candidate=50", "--max-tokens", "200")
    with serving(root, *arguments) as server:
        yield server


def greedy(root: Path, name: str) -> str:
    folder = root / "pocket" / "models" / name
    how = Sampling(temperature=0.0, max_new_tokens=24)
    return HFPolicy(folder, device="cpu").generate([OURS], [how])[0].text


def ask(client: openai.OpenAI, model: str, **more: object) -> str:
    values = {"temperature": 0, "max_tokens": 24, "messages": ASKED, **more}
    answer = client.chat.completions.create(model=model, **values)  # type: ignore[call-overload]
    return str(answer.choices[0].message.content)


def test_every_name_answers_as_the_model_it_stands_for(server: ServeProcess, root: Path) -> None:
    client = server.client()
    texts = {name: greedy(root, name) for name in ("sft", "dpo-1", "dpo-2")}
    assert len(set(texts.values())) == 3
    # Adapters take turns on one base: each keeps its own voice, the base too.
    for _ in range(2):
        for name, text in texts.items():
            assert ask(client, f"pocket/{name}") == text
        assert ask(client, "base") == texts["sft"]
    assert ask(client, "champion") == ask(client, "pocket@champion") == texts["dpo-1"]
    assert ask(client, "previous") == texts["sft"] and ask(client, "candidate") == texts["dpo-2"]
    listed = {model.id for model in client.models.list()}
    assert {"base", "champion", "pocket/dpo-1", "pocket@candidate"} <= listed


def test_streams_choices_seeds_stops_and_logprobs(server: ServeProcess) -> None:
    client = server.client()
    whole = ask(client, "champion")
    stream = client.chat.completions.create(model="champion", messages=ASKED, temperature=0, max_tokens=24,
                                            stream=True, stream_options={"include_usage": True})  # type: ignore[call-overload]  # fmt: skip
    events = list(stream)
    assert "".join(e.choices[0].delta.content or "" for e in events if e.choices) == whole
    assert events[-1].usage.completion_tokens > 0 and not events[-1].choices
    assert events[-2].choices[0].finish_reason in ("stop", "length")
    two = client.chat.completions.create(model="champion", messages=ASKED, n=2, seed=3, temperature=1.2, max_tokens=24)  # type: ignore[call-overload]
    again = [ask(client, "champion", seed=seed, temperature=1.2) for seed in (3, 4)]
    assert [choice.message.content for choice in two.choices] == again
    stopped = ask(client, "base", stop=["\naction"])
    assert stopped == ask(client, "base").partition("\naction")[0] and stopped
    detail = client.chat.completions.create(model="base", messages=ASKED, temperature=1, seed=1, max_tokens=5,
                                            logprobs=True).choices[0].logprobs  # type: ignore[call-overload]  # fmt: skip
    assert len(detail.content) <= 5 and all(part.logprob <= 0 for part in detail.content)


def test_refusals_come_as_the_clients_own_errors(server: ServeProcess) -> None:
    with pytest.raises(openai.AuthenticationError):
        ask(server.client(api_key="wrong"), "champion")
    client = server.client()
    with pytest.raises(openai.NotFoundError, match=r"no model 'nothing'; known: .*champion"):
        ask(client, "nothing")
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, "champion", max_tokens=500)
    assert caught.value.param == "max_tokens" and "at most 200" in caught.value.message
    with pytest.raises(openai.BadRequestError, match="leaves no room"):
        ask(client, "champion", messages=[{"role": "user", "content": "word " * 20_000}])
    with server.http() as http:
        assert http.post("/v1/chat/completions", content=b"x" * 1_000_001).status_code == 413
        assert http.post("/v1/chat/completions", content=b"{").json()["error"]["code"] == "invalid_json"
        assert http.get("/v1/nothing").json()["error"]["code"] == "not_found"
        assert http.get("/health").json()["status"] == "ok"
        assert "dpo_driver_requests_total" in http.get("/metrics").text
    with server.http("none-of-ours") as http:
        for method, path in (("GET", "/v1/models"), ("POST", "/v1/feedback"), ("POST", "/v1/load_lora_adapter"),
                             ("POST", "/v1/episodes"), ("POST", "/v1/restore")):  # fmt: skip
            assert http.request(method, path, content=b"{}").status_code == 401, path


def test_a_split_is_sticky_and_can_be_forced(server: ServeProcess) -> None:
    body = {"model": "auto", "messages": ASKED, "temperature": 0, "max_tokens": 8}
    arms: dict[str, str] = {}
    with server.http() as http:
        for session in [f"s{i}" for i in range(12)] * 2:
            answer = http.post("/v1/chat/completions", json=body, headers={"X-Session-Id": session})
            assert arms.setdefault(session, answer.headers["x-model-version"]) == answer.headers["x-model-version"]
        assert set(arms.values()) == {"pocket/dpo-1", "pocket/dpo-2"}
        by_user = {http.post("/v1/chat/completions", json={**body, "user": "ann"}).headers["x-model-arm"]
                   for _ in range(4)}  # fmt: skip
        assert len(by_user) == 1
        forced = http.post("/v1/chat/completions", json=body, headers={"X-Model-Arm": "previous"})
        assert forced.headers["x-model-version"] == "pocket/sft"


def test_adapters_come_and_go_under_load(server: ServeProcess, root: Path, tmp_path: Path) -> None:
    folder = adapter(root / "pocket" / "models" / "sft", tmp_path / "fresh", 7)
    expected = HFPolicy(folder, device="cpu").generate([OURS], [Sampling(temperature=0.0, max_new_tokens=24)])[0].text
    wrong: list[str] = []
    stop = threading.Event()
    champion = ask(server.client(), "champion")

    def load() -> None:
        client = server.client()
        while not stop.is_set():
            if ask(client, "champion") != champion:
                wrong.append("another answer")

    threads = [threading.Thread(target=load) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        with server.http() as http:
            for _ in range(3):
                body = {"lora_name": "fresh", "lora_path": str(folder)}
                assert http.post("/v1/load_lora_adapter", json=body).status_code == 200
                assert ask(server.client(), "fresh") == expected
                assert http.post("/v1/unload_lora_adapter", json={"lora_name": "fresh"}).status_code == 200
                with pytest.raises(openai.NotFoundError):
                    ask(server.client(), "fresh")
            missing = http.post("/v1/load_lora_adapter", json={"lora_name": "x", "lora_path": str(tmp_path / "no")})
            assert missing.status_code == 400 and missing.json()["error"]["code"] == "load_failed"
            in_use = http.post("/v1/unload_lora_adapter", json={"lora_name": "pocket/dpo-1"})
            assert in_use.status_code == 409
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert wrong == []


def test_an_alias_moves_without_a_failed_request(server: ServeProcess, root: Path) -> None:
    texts = {"pocket/dpo-1": greedy(root, "dpo-1"), "pocket/dpo-2": greedy(root, "dpo-2")}
    seen: list[tuple[str, str]] = []
    stop = threading.Event()

    def load() -> None:
        with server.http() as http:
            while not stop.is_set():
                body = {"model": "champion", "messages": ASKED, "temperature": 0, "max_tokens": 24}
                answer = http.post("/v1/chat/completions", json=body)
                seen.append((answer.headers.get("x-model-version", f"status {answer.status_code}"),
                             answer.json()["choices"][0]["message"]["content"]))  # fmt: skip

    thread = threading.Thread(target=load)
    thread.start()
    try:
        promote_by_hand(Registry(root), "pocket/dpo-2", "a test")
        server.until(lambda: bool(seen) and seen[-1][0] == "pocket/dpo-2", "the champion did not move")
        roll_back(Registry(root), None)
        server.until(lambda: seen[-1][0] == "pocket/dpo-1", "the champion did not move back")
    finally:
        stop.set()
        thread.join()
    assert all(texts[version] == text for version, text in seen)


def test_feedback_is_kept_with_what_was_asked_and_answered(server: ServeProcess, root: Path) -> None:
    client = server.client()
    answer = client.chat.completions.create(model="champion", messages=ASKED, temperature=0, max_tokens=24,
                                            extra_headers={"X-Role": "shop"})  # type: ignore[call-overload]  # fmt: skip
    with server.http() as http:
        kept = http.post("/v1/feedback", json={"id": answer.id, "success": True, "rating": 1, "metadata": {"page": 3}})
        assert kept.status_code == 200
        better = {"id": answer.id, "preferred": "thought: no\naction: click([2])", "report": "second"}
        first, again = (http.post("/v1/feedback", json=better).json()["kept"] for _ in range(2))
        assert first == again == kept.json()["kept"] + 1
        for wrong, code in (({"id": "chatcmpl-none", "success": True}, "completion_not_found"),
                            ({"id": answer.id}, "missing_outcome"),
                            ({"id": answer.id, "rating": 5}, "invalid_value")):  # fmt: skip
            assert http.post("/v1/feedback", json=wrong).json()["error"]["code"] == code
        whole = {"id": "elsewhere-1", "role": "shop", "response": "hello", "messages": ASKED, "success": False}
        assert http.post("/v1/episodes", json=whole).status_code == 200
        assert http.post("/v1/episodes", json={"id": "x", "colour": 1}).json()["error"]["param"] == "colour"
    with Inbox(root) as inbox:
        rows = [row for _, row in inbox.since(0, role="shop")]
    assert [row.source for row in rows] == ["serve", "serve", "http"]
    assert rows[0].messages == OURS and rows[0].response == answer.choices[0].message.content
    assert rows[0].model == "pocket/dpo-1" and rows[0].rating == 1 and rows[0].metadata["page"] == 3
    assert rows[1].preferred.endswith("click([2])") and rows[2].success is False


def test_a_client_that_leaves_is_noticed(server: ServeProcess) -> None:
    body = {"model": "base", "messages": ASKED, "temperature": 1.9, "max_tokens": 200, "n": 16, "stream": True}
    with server.http() as http, http.stream("POST", "/v1/chat/completions", json=body) as answer:
        next(answer.iter_bytes())
    server.until(lambda: json.loads(httpx.get(server.base_url.removesuffix("/v1") + "/health").text)["inside"] == 0,
                 "the place was not given back")  # fmt: skip


# -- servers of their own --------------------------------------------------------------------------------------------


def test_too_many_at_once_and_too_late(tmp_path: Path) -> None:
    with serving(tmp_path, "--model", "base=pocket", "--at-once", "1", "--timeout", "0.2") as server:
        slow = {"model": "base", "messages": ASKED, "temperature": 1.9, "max_tokens": 2000, "n": 16}
        statuses: list[int] = []

        def one() -> None:
            with server.http() as http:
                answer = http.post("/v1/chat/completions", json=slow)
                statuses.append(answer.status_code)
                if answer.status_code == 429:
                    assert answer.headers["retry-after"] == "1"

        threads = [threading.Thread(target=one) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert statuses.count(429) >= 1 and set(statuses) <= {429, 504, 200}, statuses


def test_a_killed_server_loses_no_feedback(tmp_path: Path) -> None:
    kept: list[int] = []
    with serving(tmp_path, "--model", "base=pocket") as server:
        with server.http() as http:
            for number in range(30):
                row = {"id": f"e{number}", "response": "x", "success": number % 2 == 0}
                kept.append(http.post("/v1/episodes", json=row).json()["kept"])
        server.kill()
    with serving(tmp_path, "--model", "base=pocket") as server, server.http() as http:
        assert http.post("/v1/episodes", json={"id": "e0", "response": "x"}).json()["kept"] == kept[0]
        assert http.post("/v1/episodes", json={"id": "new", "response": "x"}).json()["kept"] == kept[-1] + 1
    with Inbox(tmp_path) as inbox:
        assert [number for number, _ in inbox.since(0)] == [*kept, kept[-1] + 1]


def test_a_bad_champion_is_passed_over_and_a_good_one_is_not(root: Path) -> None:
    place_aliases(root)
    # Outcomes as they are reported: the candidate fails at everything, champion and previous succeed.
    with serving(root, "--shadow", "candidate") as server, server.http() as http:

        def tell(model: str, success: bool, count: int) -> None:
            for _ in range(count):
                body = {"model": model, "messages": ASKED, "temperature": 0, "max_tokens": 8}
                name = http.post("/v1/chat/completions", json=body).json()["id"]
                http.post("/v1/feedback", json={"id": name, "success": success})

        tell("previous", True, 12)
        tell("champion", True, 12)
        assert http.get("/health").json()["passed_over"] == {}
        tell("champion", False, 40)
        told = http.get("/health").json()["passed_over"]
        assert list(told) == ["pocket/dpo-1"] and "against 100%" in told["pocket/dpo-1"]
        body = {"model": "auto", "messages": ASKED, "temperature": 0, "max_tokens": 24}
        answer = http.post("/v1/chat/completions", json=body)
        assert answer.headers["x-model-version"] == "pocket/sft"
        assert answer.json()["choices"][0]["message"]["content"] == greedy(root, "sft")
        assert 'dpo_driver_fallbacks_total{version="pocket/dpo-1"} 1.0' in http.get("/metrics").text
        assert server.logged("pocket/dpo-1 is passed over")
        http.post("/v1/restore", json={"model": "champion"})
        assert http.post("/v1/chat/completions", json=body).headers["x-model-version"] == "pocket/dpo-1"
        # The shadow answered all along, unseen, and its answers are kept beside those that were shown.
        with Inbox(root) as inbox:
            server.until(lambda: any("shadow_of" in row.metadata for _, row in inbox.since(0)), "no shadow was kept")
            shadow = next(row for _, row in inbox.since(0) if "shadow_of" in row.metadata)
        assert shadow.model == "pocket/dpo-2" and shadow.metadata["shown_by"] in ("pocket/sft", "pocket/dpo-1")


def test_others_need_a_token(tmp_path: Path) -> None:
    with (
        pytest.raises(AssertionError, match="there is no token"),
        serving(tmp_path, "--model", "base=pocket", "--host", "0.0.0.0", token=""),
    ):
        pass
    with pytest.raises(AssertionError, match="there is nothing to serve"), serving(tmp_path):
        pass


def test_another_servers_models_are_served_by_name(root: Path) -> None:
    """The back-end for vLLM, in front of a server that speaks the same: ours."""
    place_aliases(root)
    with serving(root, "--model", "base=pocket") as behind, pytest.MonkeyPatch.context() as patch:
        patch.setenv("DPO_DRIVER_VLLM_KEY", "a-token-for-tests")
        with serving(root, "--vllm", behind.base_url) as server:
            client = server.client()
            for name, folder in (("champion", "dpo-1"), ("previous", "sft")):
                assert ask(client, name) == greedy(root, folder)
            stream = client.chat.completions.create(model="champion", messages=ASKED, temperature=0, max_tokens=24,
                                                    stream=True)  # type: ignore[call-overload]  # fmt: skip
            assert "".join(e.choices[0].delta.content or "" for e in stream if e.choices) == greedy(root, "dpo-1")
            behind.kill()
            with pytest.raises(openai.InternalServerError, match="the vLLM server failed"):
                ask(client, "champion")
