"""The dashboard in a real browser and against real requests: who gets in, long lists, what changes while one looks."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, expect

from dashboard_server import Dashboard, episode, serving
from dpo_driver.core.records import StopReason
from dpo_driver.core.store import RunStore
from dpo_driver.dashboard.serve import PASSWORD
from dpo_driver.flywheel.jobs import Jobs
from sample_run import write_sample_run

pytestmark = pytest.mark.browser
EPISODES, MISSES = 10_000, 7
PRIVATE = ("/", "/picture?run=sample&sha=0", *(f"/api/{name}" for name in (
    "overview", "episodes", "episode", "live", "curves", "pairs", "pair", "labels", "feedback", "failures", "jobs",
    "job", "models", "ledger")))  # fmt: skip
OF_ALL = ("runs", "jobs", "models", "feedback", "costs")
OF_RUN = ("live", "curves", "episodes", "pairs", "labels", "failures")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four runs: a sample with screenshots and hostile page texts, one of 10,000 episodes, and two to write to."""
    root = tmp_path_factory.mktemp("dashboard") / "runs"
    out = io.BytesIO()
    Image.new("RGB", (320, 420), "teal").save(out, "PNG")
    write_sample_run(root / "sample", lambda _seen, _moment: out.getvalue())
    with RunStore(root / "big") as store:
        one = episode("collect/1", "login", 0)
        rows = [
            one.model_copy(update={
                "id": f"collect/1/toy.login/{seed}/0",
                "task": one.task.model_copy(update={"id": f"toy.login/{seed}", "seed": seed}),
                **({"success": False, "reward": 0.0, "stop_reason": StopReason.WRONG} if seed < MISSES else {}),
            })
            for seed in range(EPISODES)
        ]  # fmt: skip
        store.add_trajectories("collect/1", rows)
    for name in ("training", "acting"):
        with RunStore(root / name) as store:
            store.begin_stage("dpo/1")
            for step in (1, 2, 3):
                store.log_metric("dpo/1", step, {"loss": 0.7 - step / 100, "rewards/margins": step / 10})
            store.add_trajectory("collect/1", episode("collect/1", "login", 1))
    return root


@pytest.fixture(scope="module")
def server(root: Path) -> Iterator[Dashboard]:
    with serving(root.parent) as started:  # without a folder it shows runs/
        yield started


@pytest.fixture(scope="module")
def state(server: Dashboard, chromium: Browser) -> dict[str, object]:
    """A signed-in browser's cookies: the link opens once."""
    context = chromium.new_context()
    page = context.new_page()
    page.goto(server.link)
    expect(page.get_by_role("heading", name="Runs")).to_be_visible()
    kept = dict(context.storage_state())
    context.close()
    return kept


class Looking:
    """A page that notes whatever should not happen: errors on the console, requests to somewhere else."""

    def __init__(self, context: BrowserContext, address: str) -> None:
        self.address, self.wrong = address, list[str]()
        self.page = context.new_page()
        self.page.on("console", self._said)
        self.page.on("pageerror", lambda error: self.wrong.append(f"error: {error}"))
        self.page.on("request", lambda request: self._asked(request.url))
        self.page.on("dialog", lambda dialog: self.wrong.append(f"dialog: {dialog.message}"))

    def _said(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.wrong.append(f"{message.type}: {message.text}")

    def _asked(self, url: str) -> None:
        if not url.startswith((f"{self.address}/", "blob:", "data:")):
            self.wrong.append(f"request: {url}")

    def at(self, place: str) -> Page:
        """Go to a room."""
        self.page.goto(f"{self.address}/#/{place}")
        self.page.bring_to_front()
        return self.page


@pytest.fixture
def looking(server: Dashboard, chromium: Browser, state: dict[str, object]) -> Iterator[Looking]:
    context = chromium.new_context(storage_state=state, viewport={"width": 1280, "height": 800})  # type: ignore[arg-type]
    found = Looking(context, server.address)
    yield found
    context.close()
    assert found.wrong == []


# -- who gets in -------------------------------------------------------------------------------------------------------


def test_without_a_token_nothing_is_shown(server: Dashboard) -> None:
    for path in PRIVATE:
        answer = httpx.get(server.address + path, timeout=30)
        assert answer.status_code == 401, path
        assert "sample" not in answer.text and "toy.login" not in answer.text
    assert httpx.get(f"{server.address}/open?token=guessed", timeout=30).status_code == 403


def test_foreign_names_and_changes_are_refused(server: Dashboard, state: dict[str, object]) -> None:
    cookies = {one["name"]: one["value"] for one in state["cookies"]}  # type: ignore[attr-defined]
    with httpx.Client(base_url=server.address, cookies=cookies, timeout=30) as client:
        answer = client.get("/api/overview")
        assert answer.status_code == 200
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "script-src 'self'" in policy and "unsafe" not in policy
        assert answer.headers["x-frame-options"] == "DENY"
        assert client.get("/api/overview", headers={"Host": "evil.example"}).status_code == 421
        assert client.post("/api/overview").status_code == 403
        assert client.post("/api/overview", headers={"Origin": server.address}).status_code == 403  # no CSRF token
        assert client.get(server.link).status_code == 403  # it was used
        # What is asked for cannot lead out of the root.
        for run in ("../runs/sample", "/etc", "sample/../big"):
            assert client.get("/api/failures", params={"run": run}).status_code == 404
        assert client.get("/api/episodes", params={"run": "big", "limit": "-1"}).status_code == 404


def test_an_answer_that_did_not_change_is_not_sent_again(server: Dashboard, state: dict[str, object]) -> None:
    cookies = {one["name"]: one["value"] for one in state["cookies"]}  # type: ignore[attr-defined]
    with httpx.Client(base_url=server.address, cookies=cookies, timeout=30) as client:
        first = client.get("/api/curves", params={"run": "sample"})
        again = client.get("/api/curves", params={"run": "sample"}, headers={"If-None-Match": first.headers["etag"]})
        assert (first.status_code, again.status_code, again.content) == (200, 304, b"")


def test_a_password_lets_people_in(root: Path, chromium: Browser) -> None:
    with serving(root.parent, "runs", "--password", **{PASSWORD: "correct horse"}) as server:
        context = chromium.new_context()
        page = context.new_page()
        page.goto(f"{server.address}/")
        page.get_by_label("Password").fill("wrong horse 1")
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("alert")).to_contain_text("not the password")
        page.get_by_label("Password").fill("correct horse")
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("link", name="big")).to_be_visible()
        cookie = next(one for one in context.cookies() if one["name"].startswith("dpo_driver_dashboard"))
        assert cookie["httpOnly"] and cookie["sameSite"] == "Strict"
        context.close()


# -- every room --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("look", ["light", "dark", "phone"])
def test_every_room_opens_without_errors_and_fits(
    server: Dashboard, chromium: Browser, state: dict[str, object], look: str
) -> None:
    size = {"width": 390, "height": 844} if look == "phone" else {"width": 1360, "height": 900}
    phone = look == "phone"
    context = chromium.new_context(
        storage_state=state,  # type: ignore[arg-type]
        viewport=size,  # type: ignore[arg-type]
        color_scheme="dark" if look == "dark" else "light",
        has_touch=phone,
        is_mobile=phone,
    )
    found = Looking(context, server.address)
    solved = quote("replay/dpo/miniwob.login-user/900004/0", safe="")
    rooms = [*OF_ALL, *(f"run/sample/{name}" for name in OF_RUN), f"run/sample/episode?id={solved}"]
    for room in rooms:
        page = found.at(room)
        name = room.split("?")[0].split("/")[-1].capitalize()
        expect(page.locator("main h1")).to_contain_text(name)
        expect(page.locator("main > div > *").first).to_be_attached()
        expect(page.locator("#pulse")).to_have_text("live")
        expect(page.locator("main > .trouble")).to_have_count(0)
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, room
    assert page.title() != "owned"
    context.close()
    assert found.wrong == []


def test_screenshots_are_shown_with_what_was_acted_on(looking: Looking) -> None:
    page = looking.at(f"run/sample/episode?id={quote('replay/dpo/miniwob.login-user/900004/0', safe='')}")
    expect(page.locator(".step")).to_have_count(4)  # three steps and the end
    expect(page.locator(".step .aim").first).to_be_visible()
    expect(page.locator(".step img").first).to_have_js_property("naturalWidth", 320)
    expect(page.locator(".step img").first).to_have_js_property("naturalHeight", 420)
    expect(page.locator(".action").first).to_contain_text("fill textbox Username [1]")


def test_keys_alone_lead_to_an_episode(looking: Looking) -> None:
    page = looking.at("run/big/episodes")
    expect(page.get_by_text(f"{EPISODES:,} episodes")).to_be_visible()
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
    for _ in range(12):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.classList.contains('rows')"):
            break
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    expect(page.locator("#row-2")).to_have_attribute("aria-selected", "true")
    page.keyboard.press("Enter")
    expect(page.locator(".step")).to_have_count(1)
    expect(page.locator("main")).to_contain_text("collect/1/toy.login/2/0")


# -- long lists --------------------------------------------------------------------------------------------------------


def test_ten_thousand_episodes_scroll_and_filter(looking: Looking) -> None:
    page = looking.at("run/big/episodes")
    rows = page.locator(".row")
    expect(page.get_by_text(f"{EPISODES:,} episodes")).to_be_visible()
    expect(rows.first).to_contain_text("toy.login/0/0")
    assert rows.count() < 80, "only rows in sight exist"
    page.locator(".rows").evaluate("list => { list.scrollTop = list.scrollHeight; }")
    last = page.locator(f'.row[aria-posinset="{EPISODES}"]')
    expect(last).to_contain_text(f"toy.login/{EPISODES - 1}/0")
    assert rows.count() < 80
    page.get_by_role("button", name="Miss").click()
    expect(page.get_by_text(f"{MISSES} episodes", exact=True)).to_be_visible()
    expect(rows).to_have_count(MISSES)
    page.get_by_role("button", name="All", exact=True).click()
    page.get_by_label("Find").fill("login/9876/")
    expect(page.get_by_text("1 episode", exact=True)).to_be_visible()
    expect(rows).to_have_count(1)
    page.reload()  # the address remembers
    expect(page.get_by_text("1 episode", exact=True)).to_be_visible()
    rows.first.click()
    expect(page.locator("main h1")).to_contain_text("Episode")
    expect(page.locator("main")).to_contain_text("collect/1/toy.login/9876/0")


# -- live --------------------------------------------------------------------------------------------------------------


def test_a_curve_grows_while_one_looks(looking: Looking, root: Path) -> None:
    page = looking.at("run/training/curves")
    chart = page.locator('[data-chart="Loss"]')
    expect(chart.locator(".legend b")).to_have_text("0.67")
    before = chart.locator("path.line").get_attribute("d") or ""
    with RunStore(root / "training") as store:
        store.log_metric("dpo/1", 4, {"loss": 0.25, "entropy": 1.5})
        expect(chart.locator(".legend b")).to_have_text("0.25")
        after = chart.locator("path.line").get_attribute("d") or ""
        assert (before.count("L"), after.count("L")) == (2, 3)
        expect(page.locator('[data-chart="Entropy"] .legend b')).to_have_text("1.5")
    box = chart.locator("svg").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 53, box["y"] + 80)  # at the axis: the first step
    expect(chart.locator(".where")).to_have_text("step 1")
    expect(chart.locator(".legend b")).to_have_text("0.69")
    page.mouse.move(0, 0)
    chart.locator("svg").focus()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    expect(chart.locator(".where")).to_have_text("step 3")
    expect(chart.locator("svg")).to_have_attribute("aria-label", re.compile("At step 3: training 0.67"))


def test_an_episode_shows_as_it_happens(looking: Looking, root: Path) -> None:
    page = looking.at("run/acting/live")
    expect(page.locator(".wall .thumb")).to_have_count(1)
    expect(page.locator(".wall .fresh")).to_have_count(0)
    with RunStore(root / "acting") as store:
        store.add_trajectory("collect/1", episode("collect/1", "login", 42, success=False))
        newest = page.locator(".wall li").first
        expect(newest).to_contain_text("Log in, 42")
        expect(newest).to_have_class("fresh")
        expect(newest).to_contain_text("wrong")
        expect(newest.locator("svg.drawing")).to_be_visible()  # no screenshot was kept: it is drawn
        expect(page.locator("main .headline")).to_contain_text("running")
    expect(page.locator("main .headline")).to_contain_text("stopped")


def test_a_job_and_its_log_grow(looking: Looking, root: Path) -> None:
    page = looking.at("jobs")
    expect(page.get_by_text("There is no job.")).to_be_visible()
    known = Jobs(root)
    job = known.add("support", "dpo", {"data": "rows.jsonl"})
    with known.running(job.id) as work:
        work.phase("train", 0.5)
        page.get_by_role("link", name="support · dpo").click()
        expect(page.locator(".log")).to_contain_text("train")
        expect(page.locator(".card")).to_contain_text("50 %, train")
        work.say("half of it is done")
        expect(page.locator(".log")).to_contain_text("half of it is done")
        work.end("done", message="all of it")
    expect(page.locator(".card")).to_contain_text("done")
    assert page.locator(".log").inner_text().count("half of it is done") == 1


def test_costs_are_counted_to_the_end(looking: Looking) -> None:
    page = looking.at("costs")
    expect(page.get_by_text("All episodes are counted.")).to_be_visible(timeout=90_000)
    row = page.locator("table.ledger tr", has=page.get_by_role("link", name="big", exact=True))
    expect(row).to_contain_text("10,000")
    expect(row).to_contain_text("41 min 40 s")  # 10,000 steps of a quarter of a second in browsers


def test_the_page_says_when_the_server_is_gone(root: Path, chromium: Browser) -> None:
    with serving(root.parent, "runs") as server:
        context = chromium.new_context()
        page = context.new_page()
        page.goto(server.link)
        expect(page.locator("#pulse")).to_have_text("live")
        server.process.kill()
        server.process.wait(10)
        expect(page.locator("#pulse")).to_have_text("the server does not answer")
        expect(page.get_by_role("link", name="big")).to_be_visible()  # what was there stays
        context.close()
