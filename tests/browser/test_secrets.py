"""Secrets typed into real pages: no file of the run directory holds them, and the plays can still be proven."""

from __future__ import annotations

import html
import threading
import zipfile
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs

import pytest
import pytest_asyncio
import zstandard

from dpo_driver.browser.browser import Browser
from dpo_driver.browser.egress import OriginGateway
from dpo_driver.browser.observe import observe
from dpo_driver.browser.session import Session
from dpo_driver.cli.watch import _watch
from dpo_driver.core.actions import Fill
from dpo_driver.core.records import Trajectory
from dpo_driver.core.store import RunStore
from dpo_driver.envs.website.environment import WebsiteEnvironment
from dpo_driver.envs.website.site import Site
from dpo_driver.flywheel.shares import Spool
from dpo_driver.rollout.intents import Intent, Part, Target, act_out
from dpo_driver.rollout.pool import EnvironmentFactory
from dpo_driver.rollout.recorder import Recordings, prove_in

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]
WORD = 'Tr0ub4dor & "3"'
LOGIN = """<!doctype html><title>door</title><form method=post action=/in>
<label>User <input name=user></label><label>Word <input name=word type=password></label><button>Enter</button></form>"""


class Door(BaseHTTPRequestHandler):
    """Lets in who knows the word, and then says it: pages do such things."""

    def do_GET(self) -> None:
        self._say("<title>hall</title><h1>Welcome bob</h1>" if self.path == "/hall" else LOGIN)

    def do_POST(self) -> None:
        sent = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        word = sent.get("word", [""])[0]
        said = f"<title>in</title><p>Your word is {html.escape(word)}</p><a href=/hall>Go on</a>"
        self._say(said if word == WORD else "<title>out</title><h1>Go away</h1>")

    def _say(self, text: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, format: str, *_arguments: object) -> None:
        pass


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Door)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    folder = tmp_path_factory.mktemp("door")
    (folder / "site.yaml").write_text(f"name: door\nbase_url: http://127.0.0.1:{server.server_port}\nquiet_ms: 20\n")
    (folder / "known.yaml").write_text("goal: Go in as bob.\nsuccess: {text: Welcome bob}\n")
    quoted = WORD.replace("'", "''")
    (folder / "declared.yaml").write_text(
        f"goal: Go in as bob with {{word}}.\nsuccess: {{text: Welcome bob}}\nsecrets: [word]\n"
        f"parameters: {{word: ['{quoted}']}}\n"
    )
    yield Site.open(str(folder))
    server.shutdown()
    server.server_close()


@pytest_asyncio.fixture(loop_scope="module")
async def make(browser: Browser, site: Site) -> AsyncIterator[EnvironmentFactory]:
    with OriginGateway(allowed=site.origins) as gateway:

        async def one() -> WebsiteEnvironment:
            return WebsiteEnvironment(site, browser, gateway.url)

        yield one


def typed(word: str) -> list[Intent]:
    """What a person did, or a script of another recorder."""

    def named(role: str, name: str) -> tuple[Target, ...]:
        return (Target(((Part("role", name, role=role),),), name),)

    return [Intent("fill", named("textbox", "User"), {"value": "bob"}),
            Intent("fill", named("textbox", "Word"), {"value": word}),
            Intent("click", named("button", "Enter")),
            Intent("click", named("link", "Go on"))]  # fmt: skip


def forms(word: str) -> list[bytes]:
    return [word.encode(), b"Tr0ub4dor", word.replace('"', '\\"').encode()]


def everything(folder: Path) -> bytes:
    """All bytes of a run directory, bodies and blobs unpacked."""
    found = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    found += b"".join(zstandard.decompress(path.read_bytes()) for path in folder.glob("blobs/*/*"))
    with RunStore(folder, "read") as store:
        for (body,) in store._rows("SELECT body FROM trajectories"):
            found += zstandard.decompress(body)
    return found


async def test_the_distiller_says_which_fields_are_secret(session: Session) -> None:
    await session.page.set_content(
        "<input aria-label=a><input aria-label=b type=password value=xyz>"
        "<input aria-label=c autocomplete=one-time-code><input aria-label=d autocomplete='section-x cc-number'>"
        "<input aria-label=e autocomplete=username><textarea aria-label=f></textarea>"
    )
    view = await observe(session, fresh=True)
    assert [(one.name, one.secret) for one in view.elements] == [
        ("a", False), ("b", True), ("c", True), ("d", True), ("e", False), ("f", False)]  # fmt: skip
    assert view.elements[1].value == "•••"
    await session.page.evaluate("document.querySelector('[type=password]').type = 'text'")
    shown = (await observe(session)).elements[1]
    assert (shown.value, shown.secret) == ("xyz", True), "a password that the page shows is one still"


async def test_no_file_of_a_recording_holds_what_was_typed(
    tmp_path: Path, site: Site, make: EnvironmentFactory
) -> None:
    trajectory = await _play(make, site, "known", WORD)
    assert WORD in trajectory.model_dump_json().replace('\\"', '"')
    with RunStore(tmp_path) as store:
        recordings = Recordings(store)
        assert recordings.add(trajectory)
        waiting = recordings.waiting()[0]
        assert waiting.steps[1].action == Fill(ref=waiting.steps[1].action.ref, value="[secret:1]")  # type: ignore[union-attr]
        assert any(element.name == "Your word is [secret:1]" for element in waiting.steps[-1].observation.elements)
        proof = await prove_in(make, waiting)
        assert proof is not None and (proof.how, proof.reason) == ("states", None), "the word is typed again"
        recordings.settle(waiting, proof)
        with Spool(tmp_path / "spool" / "x.jsonl") as spool:
            spool.add(trajectory)
        environment = await make()
        await environment.reset(trajectory.task)
        store.put_blob(await environment.screenshot())
        await environment.close()
    kept = everything(tmp_path)
    assert b"Your word is [secret:1]" in kept
    for form in forms(WORD):
        assert form not in kept


async def test_a_declared_secret_is_never_seen_and_typed_by_its_name(
    tmp_path: Path, site: Site, make: EnvironmentFactory
) -> None:
    trajectory = await _play(make, site, "declared", "[secret:word]")
    assert trajectory.task.goal == "Go in as bob with [secret:word]."
    assert "Go in as bob with [secret:word]." in trajectory.steps[0].messages[-1].content
    for form in forms(WORD):
        assert form not in trajectory.model_dump_json().encode(), "it was never in the record, nor in a prompt"
    by_hand = await _play(make, site, "declared", WORD)
    trace = tmp_path / "trace.zip"
    with RunStore(tmp_path / "run") as store:
        recordings = Recordings(store)
        assert recordings.add(by_hand)
        waiting = recordings.waiting()[0]
        proof = await prove_in(make, waiting)
        assert proof is not None and proof.how == "states"
        await _watch(waiting, f"website:{site.folder}", None, trace, None)
    for form in forms(WORD):
        assert form not in everything(tmp_path / "run")
    with zipfile.ZipFile(trace) as file:
        contents = [file.read(name) for name in file.namelist()]
    assert any(b"[secret:word]" in content for content in contents)
    for content in contents:
        assert b"Tr0ub4dor" not in content


async def _play(make: EnvironmentFactory, site: Site, name: str, word: str) -> Trajectory:
    environment = await make()
    try:
        trajectory = await act_out(typed(word), site.task(name, 1, "demo"), environment, name="human")
    finally:
        await environment.close()
    assert trajectory.success, [step.observation.last_error for step in trajectory.steps]
    return trajectory
