"""Who may come in, and what pages may do: the label page's guard, asked over HTTP by who should not get in."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from dpo_driver.label.serve import PASSWORD
from label_run import write_texts
from label_server import Caller, LabelServer, Serve, serving

pytestmark = pytest.mark.browser  # it starts servers, no browser; it runs with the pages' tests
PRIVATE = ("/", "/results", "/compare/x", "/api/next", "/export/labels.jsonl", "/picture/" + "0" * 64)
FOREIGN = (
    "evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "127.0.0.1.evil.example:{port}",
    "10.0.0.7:{port}", "x@127.0.0.1:{port}", "",
)  # fmt: skip
ORIGINS = (
    "http://evil.example", "null", "", "https://{host}", "http://localhost:1", "http://{host}.evil.example",
    "http://{host}/",
)  # fmt: skip
REACHABLE = (
    ("--host", "0.0.0.0"), ("--host", "::"), ("--host", "192.168.1.5"), ("--origin", "https://label.example.org")
)  # fmt: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabelServer]:
    folder = tmp_path_factory.mktemp("guarded")
    write_texts(folder / "pairs.jsonl")
    with serving(folder, "--texts", "pairs.jsonl", *(part for name in ("ann", "bob", "eve", "zoe")
                                                      for part in ("--rater", name))) as started:  # fmt: skip
        yield started


@pytest.fixture(scope="module")
def ann(server: LabelServer) -> Iterator[Caller]:
    caller = Caller(server, "ann")
    yield caller
    caller.client.close()


def host_of(server: LabelServer) -> str:
    return server.address.removeprefix("http://")


def test_the_link_opens_once_and_gives_a_cookie_that_scripts_cannot_read(server: LabelServer) -> None:
    assert httpx.head(server.links["bob"]).status_code == 204  # a look from afar does not use it up
    first = httpx.get(server.links["bob"])
    assert first.status_code == 200
    cookie = first.headers["set-cookie"].lower()
    assert "httponly" in cookie and "samesite=strict" in cookie and "path=/" in cookie
    again = httpx.get(server.links["bob"])
    assert again.status_code == 403 and "set-cookie" not in again.headers and "used before" in again.text
    assert httpx.get(f"{server.address}/open?token=guess").status_code == 403
    assert httpx.get(f"{server.address}/open").status_code == 403


@pytest.mark.parametrize("path", PRIVATE)
def test_nothing_without_a_session(server: LabelServer, path: str) -> None:
    assert httpx.get(server.address + path).status_code == 401
    name = f"dpo_driver_label_{host_of(server).rpartition(':')[2]}"
    assert httpx.get(server.address + path, cookies={name: "forged"}).status_code == 401


@pytest.mark.parametrize("host", FOREIGN)
def test_another_host_is_refused(server: LabelServer, ann: Caller, host: str) -> None:
    """Against DNS rebinding: the name in the request decides, whoever the session is."""
    named = host.format(port=host_of(server).rpartition(":")[2])
    for path in ("/", "/static/style.css", "/open?token=x"):
        assert ann.client.get(path, headers={"Host": named}).status_code == 421


def test_this_machines_own_names_are_let_in(server: LabelServer, ann: Caller) -> None:
    port = host_of(server).rpartition(":")[2]
    assert ann.client.get("/results", headers={"Host": f"localhost:{port}"}).status_code == 200


@pytest.mark.parametrize("origin", ORIGINS)
def test_changes_come_from_our_own_pages(server: LabelServer, ann: Caller, origin: str) -> None:
    before = len(server.labels())
    body = {"showing": ann.next()["showing"], "verdict": "a", "submission": "s" * 16}
    sent = {"Origin": origin.format(host=host_of(server))}
    for path in ("/api/labels", "/api/undo", "/label", "/undo", "/leave", "/login"):
        assert ann.client.post(path, json=body, headers=sent).status_code == 403
    request = ann.client.build_request("POST", "/api/labels", json=body)
    del request.headers["Origin"]
    assert ann.client.send(request).status_code == 403
    assert len(server.labels()) == before


def test_changes_carry_the_sessions_own_token(server: LabelServer, ann: Caller) -> None:
    eve = Caller(server, "eve")
    body = {"showing": ann.next()["showing"], "verdict": "a", "submission": "t" * 16}
    for token in ("", "guess", eve.csrf):
        assert ann.client.post("/api/labels", json=body, headers={"X-CSRF-Token": token}).status_code == 403
        form = {"csrf": token, **body}
        assert ann.client.post("/label", data=form, headers={"X-CSRF-Token": ""}).status_code == 403
    assert server.labels() == []
    # The right one works, as a header and as a field.
    assert ann.client.post("/label", data={"csrf": ann.csrf, **body}, headers={"X-CSRF-Token": ""}).status_code == 303
    assert len(server.labels()) == 1
    eve.client.close()


def test_a_rater_cannot_answer_or_take_back_for_another(server: LabelServer, ann: Caller) -> None:
    zoe = Caller(server, "zoe")
    receipt = ann.answer("a")
    assert zoe.answer("b", showing=ann.next()["showing"])["status"] == 409
    assert zoe.client.post("/api/undo", json={"act": f"label-{receipt['seq']}"}).json()["undone"] is None
    assert [entry.seq for entry in server.labels()].count(receipt["seq"]) == 1
    zoe.client.close()


@pytest.mark.parametrize("path", ["/results", "/", "/static/style.css", "/static/keys.js", "/nowhere", "/open?token=x"])
def test_every_answer_forbids_inline_scripts_framing_and_caching(ann: Caller, path: str) -> None:
    answer = ann.client.get(path, follow_redirects=True)
    policy = dict(part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";"))
    assert (
        policy["default-src"] == "'none'" and policy["frame-ancestors"] == "'none'" and policy["base-uri"] == "'none'"
    )
    assert policy["script-src"] == policy["style-src"] == policy["img-src"] == policy["connect-src"] == "'self'"
    assert "unsafe" not in str(policy)
    assert answer.headers["x-content-type-options"] == "nosniff" and answer.headers["x-frame-options"] == "DENY"
    assert answer.headers["cache-control"] == "no-store" or path.startswith("/static/")
    assert "server" not in answer.headers
    if answer.headers["content-type"].startswith("text/html"):
        text = answer.text
        assert "<style" not in text and " style=" not in text and " onclick" not in text
        assert text.count("<script") == text.count('<script src="/static/')
        assert "http://" not in text.replace("http://www.w3.org", "") and "https://" not in text  # no CDN


def test_broken_and_oversized_requests_are_turned_away(server: LabelServer, ann: Caller) -> None:
    before = len(server.labels())
    cases: list[dict[str, Any]] = [
        {"content": b"{"}, {"content": b"[1]"}, {"json": {}},
        {"json": {"showing": "x", "verdict": "a", "submission": "u" * 16}},
        {"json": {"showing": ann.next()["showing"], "verdict": "maybe", "submission": "u" * 16}},
        {"json": {"showing": ann.next()["showing"], "verdict": "a", "submission": "no blanks!"}},
        {"json": {"showing": None, "verdict": None, "submission": None, "seconds": "NaN"}},
    ]  # fmt: skip
    for case in cases:
        assert ann.client.post("/api/labels", **case).status_code == 409, case
    assert ann.client.post("/api/labels", content=b"x" * 70_000).status_code == 413
    for path in (
        "/picture/../style.css",
        "/picture/" + "f" * 64,
        "/export/run.db",
        "/static/../app.py",
        "/static/app.py",
    ):
        assert ann.client.get(path).status_code == 404
    assert len(server.labels()) == before and server.process.poll() is None


def test_only_this_machine_can_connect(server: LabelServer) -> None:
    """Bound to loopback, not merely advertised there."""
    port = int(host_of(server).rpartition(":")[2])
    others = {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)} - {"127.0.0.1"}
    for address in others:
        if not str(address).startswith("127."):
            with pytest.raises(OSError), socket.create_connection((str(address), port), timeout=2):
                pass


Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.mark.parametrize("arguments", REACHABLE, ids=" ".join)
def test_others_are_let_in_with_a_password_only(cli: Command, texts: Path, arguments: tuple[str, ...]) -> None:
    done = cli("label", "--texts", str(texts), "--no-open", *arguments, **{PASSWORD: ""})
    assert done.returncode == 2 and "there is no password" in done.stderr and PASSWORD in done.stderr
    assert "new" not in done.stderr  # and nothing was written before
    assert "Traceback" not in done.stderr
    done = cli(
        "label",
        "--texts",
        str(texts),
        "--no-open",
        "--host",
        "127.0.0.1",
        "--origin",
        "https://x",
        **{PASSWORD: "short"},
    )
    assert done.returncode == 2 and "fewer than" in done.stderr


def test_a_short_password_is_refused(cli: Command, texts: Path) -> None:
    done = cli("label", "--texts", str(texts), "--no-open", "--host", "0.0.0.0", **{PASSWORD: "tiny-pass"})
    assert done.returncode == 2 and "fewer than" in done.stderr and "tiny-pass" not in done.stderr


def test_raters_sign_in_with_the_password_and_guessing_is_slowed(serve: Serve, texts: Path) -> None:
    with serve(
        "--texts", str(texts), "--rater", "ann", "--host", "0.0.0.0", **{PASSWORD: "correct horse battery"}
    ) as server:
        client = httpx.Client(base_url=server.address, headers={"Origin": server.address})
        assert client.get("/").headers["location"] == "/login"
        assert client.get("/login", headers={"Host": "rebound.example"}).status_code == 421
        good = {"rater": "bob", "password": "correct horse battery"}
        assert client.post("/login", data={**good, "rater": "<script>"}).status_code == 403
        assert client.post("/login", data=good).status_code == 303
        assert client.get("/results").status_code == 200
        client.cookies.clear()
        wrong = [client.post("/login", data={**good, "password": f"guess {n}"}).status_code for n in range(6)]
        assert wrong == [403] * 5 + [429]
        assert client.post("/login", data=good).status_code == 429  # the right one does not tell itself apart now
        client.close()
        server.process.terminate()
        _, said = server.process.communicate(timeout=15)
        assert server.process.returncode == 130 and "ssh -L" in said and "correct horse" not in said
