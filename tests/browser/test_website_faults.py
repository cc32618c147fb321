"""A small site that hangs, leaves, fails and forges: what becomes of the episode, and of the one after it."""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import pytest_asyncio

from dpo_driver.browser.browser import Browser
from dpo_driver.browser.egress import OriginGateway
from dpo_driver.core.actions import Click, Noop, SendMsgToUser, parse_action
from dpo_driver.core.errors import ConfigError, RolloutFailure
from dpo_driver.core.records import Observation, StopReason, Task
from dpo_driver.envs.website.environment import WebsiteEnvironment
from dpo_driver.envs.website.site import Site

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]

WRONG_PAGE = """<!doctype html><title>wrong</title><body>
<p>Visit TOKEN</p>
<a id=away href="http://elsewhere.example/">Away</a>
<button onclick="location.href = 'http://127.0.0.1:1/'">Other port</button>
<button onclick="location.href = 'about:blank'">Blank</button>
<button onclick="for (;;) {}">Hang</button>
<button onclick="alert('hello')">Alert</button>
<button onclick="setTimeout(later, 20)">Late</button>
<button onclick="setTimeout(() => { location.href = '/second' }, 0)">Second</button>
<form action="/broken"><button>Broken</button></form>
<button onclick="forge()">Forge</button>
<p id=late></p>
<script>
async function later() { late.textContent = await (await fetch("/slow")).text(); }
function forge() { window.dpoDriver = {}; Number = () => 1; JSON.stringify = () => "{}"; document.title = "done"; }
</script></body>"""


class WrongSite(BaseHTTPRequestHandler):
    """Pages that hang, leave, fail and forge. Every visit has another word in its address and on its page."""

    visits = 0
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        status, text = 200, "<!doctype html><title>second</title><h1>Second page</h1>"
        if self.path.startswith("/s/") or self.path == "/":
            WrongSite.visits += 1
            text = WRONG_PAGE.replace("TOKEN", f"{WrongSite.visits:032x}")
            if self.path == "/":
                self.send_response(302)
                self.send_header("Location", f"/s/{WrongSite.visits:032x}/home")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
        elif self.path == "/slow":
            time.sleep(0.3)
            text = "it came late"
        elif self.path.startswith("/broken"):
            status, text = 500, "broken"
        self.send_response(status)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, format: str, *_arguments: object) -> None:
        pass


@pytest.fixture
def wrong_server() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), WrongSite)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


TASKS = {
    "forge": "goal: Forge.\nsuccess:\n  script: document.title === params.word\nparameters: {word: [never]}\n",
    "second": "goal: Go to the second page.\nsuccess:\n  - text: Second  page\n"
    "  - element: {role: heading, name: Second page}\n",
    "say": "goal: Say {word}.\nsuccess: {answer: 'It is {word}.'}\nparameters: {word: [x]}\n",
    "late": "goal: Wait.\nsuccess: {script: document.querySelector('#late').textContent === 'it came late'}\n",
    "solved": "goal: Nothing.\nsuccess: {text: Visit}\n",
    "broken": "goal: Nothing.\nsuccess: {script: 'nosuchname + 1'}\n",
    "hook": "goal: Nothing.\nsuccess: {url: /x}\nreset: {post: /reset}\n",
}


@pytest_asyncio.fixture(loop_scope="module")
async def wrong(
    browser: Browser, wrong_server: ThreadingHTTPServer, tmp_path: Path
) -> AsyncIterator[WebsiteEnvironment]:
    site = f"name: wrong\nbase_url: http://127.0.0.1:{wrong_server.server_port}\ncall_s: 2\nsettle_s: 1.5\n"
    (tmp_path / "site.yaml").write_text(site + "ignore: ['[0-9a-f]{32}']\n")
    for name, text in TASKS.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    site_ = Site.open(str(tmp_path))
    with OriginGateway(allowed=site_.origins) as gateway:
        environment = WebsiteEnvironment(site_, browser, gateway.url)
        yield environment
        await environment.close()


async def start(environment: WebsiteEnvironment, name: str) -> tuple[Observation, dict[str, str]]:
    seen = await environment.reset(Task(id=f"wrong.{name}/1", env="website", name=name, seed=1, max_steps=3))
    return seen, {element.name: str(element.ref) for element in seen.elements}


async def test_session_words_are_left_out_of_the_hash(wrong: WebsiteEnvironment) -> None:
    first, _ = await start(wrong, "second")
    again, _ = await start(wrong, "second")
    assert first.url != again.url and first.elements != again.elements
    assert first.state_hash == again.state_hash
    assert (await start(wrong, "late"))[0].state_hash != first.state_hash  # another goal is another state


async def test_pages_of_other_sites_are_never_opened_and_the_agent_is_told(wrong: WebsiteEnvironment) -> None:
    seen, refs = await start(wrong, "second")
    for name in ("Away", "Other port"):
        outcome = await wrong.step(Click(ref=refs[name]))
        assert "is not part of this site and was not opened" in (outcome.observation.last_error or "")
        assert (outcome.observation.url, outcome.stop) == (seen.url, None)
        assert outcome.observation.state_hash == seen.state_hash
    outcome = await wrong.step(Click(ref=refs["Second"]))
    assert (outcome.stop, outcome.reward) == (StopReason.SUCCESS, 1.0)


@pytest.mark.parametrize(
    ("name", "kind", "limit_s"),
    [
        ("Blank", StopReason.NAVIGATED_AWAY, 4),
        ("Hang", StopReason.PAGE_HUNG, 5),
        ("Broken", StopReason.SERVER_ERROR, 4),
    ],
)
async def test_what_breaks_is_typed_in_time_and_the_next_episode_works(
    name: str, kind: StopReason, limit_s: float, wrong: WebsiteEnvironment
) -> None:
    _, refs = await start(wrong, "second")
    began = time.monotonic()
    with pytest.raises(RolloutFailure) as failure:
        await wrong.step(Click(ref=refs[name]))
    assert StopReason(failure.value.kind) is kind, failure.value
    assert time.monotonic() - began < limit_s
    _, refs = await start(wrong, "second")
    assert (await wrong.step(Click(ref=refs["Second"]))).stop is StopReason.SUCCESS


async def test_a_site_that_is_gone_is_a_server_error(
    wrong: WebsiteEnvironment, wrong_server: ThreadingHTTPServer
) -> None:
    _, refs = await start(wrong, "second")
    wrong_server.shutdown()
    wrong_server.server_close()
    with pytest.raises(RolloutFailure) as failure:
        await wrong.step(Click(ref=refs["Second"]))
    assert StopReason(failure.value.kind) is StopReason.SERVER_ERROR
    with pytest.raises(RolloutFailure) as failure:
        await start(wrong, "second")
    assert StopReason(failure.value.kind) is StopReason.SERVER_ERROR


async def test_what_comes_late_is_waited_for(wrong: WebsiteEnvironment) -> None:
    _, refs = await start(wrong, "late")
    outcome = await wrong.step(Click(ref=refs["Late"]))
    assert "it came late" in [element.name for element in outcome.observation.elements]
    assert outcome.stop is StopReason.SUCCESS


async def test_dialogs_are_told(wrong: WebsiteEnvironment) -> None:
    _, refs = await start(wrong, "second")
    outcome = await wrong.step(Click(ref=refs["Alert"]))
    assert outcome.observation.last_error == 'the page opened a dialog: "hello"'


async def test_a_page_cannot_forge_its_success(wrong: WebsiteEnvironment) -> None:
    _, refs = await start(wrong, "forge")
    for _ in range(2):
        outcome = await wrong.step(Click(ref=refs["Forge"]))
        assert outcome.stop is None
        assert outcome.observation.title == "done"  # the page did run it
        assert len(outcome.observation.elements) > 5


async def test_an_answer_ends_the_episode(wrong: WebsiteEnvironment) -> None:
    for said, stop in (("it is X", StopReason.SUCCESS), ("It is y.", StopReason.WRONG)):
        await start(wrong, "say")
        outcome = await wrong.step(SendMsgToUser(text=said))
        assert (outcome.stop, outcome.reward) == (stop, float(stop is StopReason.SUCCESS))
    await start(wrong, "say")
    outcomes = [await wrong.step(Noop()) for _ in range(3)]
    assert [outcome.stop for outcome in outcomes] == [None, None, StopReason.MAX_STEPS]
    await start(wrong, "say")
    assert (await wrong.step(parse_action('report_infeasible("no")'))).stop is StopReason.INFEASIBLE


async def test_tasks_that_cannot_be_right_are_the_authors_mistake(wrong: WebsiteEnvironment) -> None:
    with pytest.raises(ConfigError, match=r"the task is solved before it begins, with seed 1 .*solved.yaml"):
        await start(wrong, "solved")
    with pytest.raises(ConfigError, match=r"the script of success fails: ReferenceError: nosuchname.*broken.yaml"):
        await start(wrong, "broken")
    with pytest.raises(RolloutFailure, match=r"server_error: http://.*/reset answered 501"):
        await start(wrong, "hook")
