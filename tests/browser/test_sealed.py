"""The reward cannot be forged: every way that we know is tried on real pages and earns nothing, the same ways work on
the same page without the seal, and honest input still earns what it should."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Sequence
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
import pytest_asyncio

from dpo_driver.agents.cheats import ClaimsAgent, NullAgent, RewardReaderAgent
from dpo_driver.agents.random import RandomAgent
from dpo_driver.browser.browser import Browser
from dpo_driver.browser.egress import OriginGateway
from dpo_driver.browser.execute import Grants, execute
from dpo_driver.browser.session import Session
from dpo_driver.core.actions import Click, Fill, Goto, JsEval, KeyboardPress, KeyboardType, Noop, SendMsgToUser
from dpo_driver.core.errors import ActionError, RolloutFailure
from dpo_driver.core.protocols import Agent
from dpo_driver.core.records import Observation, StopReason, Trajectory
from dpo_driver.envs.miniwob.environment import MiniwobEnvironment
from dpo_driver.envs.miniwob.server import BASE_URL, MiniwobServer, content_policy, pages_folder
from dpo_driver.envs.miniwob.tasks import TASKS, make_task
from dpo_driver.rollout.pool import rollout_sync

pytestmark = [pytest.mark.browser, pytest.mark.timeout(180)]
module_loop = pytest.mark.asyncio(loop_scope="module")
SCRIPTS = Grants(js_eval=True)
END = "core.endEpisode(1)"
FRAME = "Object.assign(document.createElement('iframe'), "

# name -> JavaScript that an agent runs beside the page (isolated, as js_eval does). In click-test-2 the button ONE
# (#subbtn) is the right one.
ISOLATED = {
    "script element": f"s = document.createElement('script'); s.textContent = '{END}'; document.body.append(s)",
    "script from data:": "s = document.createElement('script'); s.src = 'data:text/javascript,"
    f"{END}'; document.body.append(s)",
    "script from blob:": "s = document.createElement('script'); "
    f"s.src = URL.createObjectURL(new Blob(['{END}'], {{type: 'text/javascript'}})); document.body.append(s)",
    "module script": "s = document.createElement('script'); s.type = 'module'; "
    f"s.textContent = '{END}'; document.body.append(s)",
    "script in SVG": "g = document.createElementNS('http://www.w3.org/2000/svg', 'svg'); "
    "s = document.createElementNS('http://www.w3.org/2000/svg', 'script'); "
    f"s.textContent = '{END}'; g.append(s); document.body.append(g)",
    "parsed script": "document.body.append(document.createRange()"
    f".createContextualFragment('<script>{END}<\\/script>'))",
    "written script": f"document.write('<script>{END}<\\/script>')",
    "attribute onclick": f"area.setAttribute('onclick', '{END}'); area.click()",
    "attribute onerror": f"area.insertAdjacentHTML('beforeend', '<img src=x onerror={END}>')",
    "attribute onload of SVG": f"area.insertAdjacentHTML('beforeend', '<svg onload={END}></svg>')",
    "attribute onfocus": f"area.insertAdjacentHTML('beforeend', '<input autofocus onfocus={END}>'); "
    "area.querySelector('input').focus()",
    "attribute ontoggle": f"area.insertAdjacentHTML('beforeend', '<details open ontoggle={END}>x</details>')",
    "attribute onanimationstart": "area.insertAdjacentHTML('beforeend', '<style>@keyframes k {}</style>"
    f"<p style=\"animation: k 1s\" onanimationstart={END}>x</p>')",
    "attribute of body": f"document.body.setAttribute('onhashchange', '{END}'); location.hash = 'x'",
    "location": f"location.href = 'javascript:{END}'",
    "link": f"area.insertAdjacentHTML('beforeend', '<a id=forge href=\"javascript:{END}\">x</a>'); forge.click()",
    "form": f"area.insertAdjacentHTML('beforeend', '<form id=forge action=\"javascript:{END}\"></form>'); "
    "forge.submit()",
    "form, requested": f"area.insertAdjacentHTML('beforeend', '<form id=forge action=\"javascript:{END}\"></form>'); "
    "forge.requestSubmit()",
    "frame javascript:": f"area.append({FRAME}{{ src: 'javascript:parent.{END}' }}))",
    "frame srcdoc": f"area.append({FRAME}{{ srcdoc: '<script>parent.{END}<\\/script>' }}))",
    "frame data:": f"area.append({FRAME}{{ src: 'data:text/html,<script>parent.{END}<\\/script>' }}))",
    "frame blob:": f"area.append({FRAME}{{ src: URL.createObjectURL(new Blob(['<script>parent.{END}<\\/script>'], "
    "{type: 'text/html'})) }))",
    "frame about:blank, written": f"f = document.createElement('iframe'); area.append(f); "
    f"f.contentDocument.write('<script>parent.{END}<\\/script>')",
    "frame of the same task": f"area.append({FRAME}{{ src: '/miniwob/click-test-2.html' }}))",
    "object": f"area.insertAdjacentHTML('beforeend', '<object data=\"javascript:{END}\"></object>')",
    "embed": f"area.insertAdjacentHTML('beforeend', '<embed src=\"javascript:{END}\">')",
    "popup": f"window.open('javascript:opener.{END}')",
    "refresh": "document.head.insertAdjacentHTML('beforeend', '<meta http-equiv=refresh "
    f"content=\"0;javascript:{END}\">')",
    "base": "document.head.insertAdjacentHTML('afterbegin', '<base href=\"data:text/javascript,\">'); "
    f"s = document.createElement('script'); s.src = '{END}'; document.body.append(s)",
    "worker": "new Worker(URL.createObjectURL(new Blob(['postMessage(1)'])))",
    "eval": f"(0, eval)('{END}')",
    "timer of a string": f"setTimeout('{END}', 0)",
    "synthetic click": "document.getElementById('subbtn').click()",
    "synthetic event": "document.getElementById('subbtn').dispatchEvent(new MouseEvent('click', {bubbles: true}))",
    "synthetic event that does not bubble": "document.getElementById('subbtn').dispatchEvent(new Event('click'))",
    "synthetic mouse": "for (const type of ['pointerdown', 'mousedown', 'pointerup', 'mouseup', 'click']) "
    "document.getElementById('subbtn').dispatchEvent(new PointerEvent(type, {bubbles: true, composed: true}))",
    "synthetic key": "b = document.getElementById('subbtn'); b.focus(); "
    "for (const type of ['keydown', 'keypress', 'keyup']) "
    "b.dispatchEvent(new KeyboardEvent(type, {key: 'Enter', bubbles: true}))",
    "label": "area.insertAdjacentHTML('beforeend', '<label id=forge for=subbtn>x</label>'); forge.click()",
    "label outside the document": "b = document.getElementById('subbtn'); l = document.createElement('label'); "
    "l.append(b); l.click()",
    "button outside the document": "b = document.getElementById('subbtn'); b.remove(); b.click()",
    "button in a shadow tree": "h = document.createElement('div'); area.append(h); r = h.attachShadow({mode: 'open'}); "
    "r.append(document.getElementById('subbtn')); r.firstChild.click()",
    "globals": "WOB_RAW_REWARD_GLOBAL = WOB_REWARD_GLOBAL = 1; WOB_DONE_GLOBAL = true",
    "global by id": "area.insertAdjacentHTML('beforeend', '<form id=core><input name=endEpisode></form>"
    "<a id=WOB_DONE_GLOBAL></a><a id=WOB_RAW_REWARD_GLOBAL href=\"1:1\"></a>')",
    "postMessage": "postMessage({type: 'reward', reward: 1, done: true}, '*')",
    "history": "history.pushState({reward: 1, done: true}, '', '?reward=1#done'); "
    "dispatchEvent(new PopStateEvent('popstate'))",
    "window.name": "name = JSON.stringify({reward: 1, done: true})",
    "title and text": "document.title = 'reward: 1'; document.getElementById('reward-last').textContent = '1.00'",
    "prototypes of this world": "Object.prototype.raw = 1; Object.prototype.done = true; "
    "Function.prototype.call = () => 1",
    "the page's code again": "s = document.createElement('script'); s.src = '/core/core.js'; document.body.append(s); "
    "WOB_RAW_REWARD_GLOBAL = 1",
}  # fmt: skip

# The same from the page's own world, where no agent gets: only our own connection to the browser can.
INSIDE = {
    "direct call": END,
    "direct call, stolen": "const own = core.endEpisode; core = { EP_TIMER: 1 }; own(1)",
    "new seal": f"try {{ Object.defineProperty(core, 'endEpisode', {{ value: () => 1 }}) }} catch {{}} {END}",
    "globals": "WOB_RAW_REWARD_GLOBAL = WOB_REWARD_GLOBAL = 1; WOB_DONE_GLOBAL = true; core.EP_TIMER = null",
    "forged event": f"Object.defineProperty(window, 'event', {{ value: {{ isTrusted: true }} }}); {END}",
    "forged trust": "const b = document.getElementById('subbtn'), e = new MouseEvent('click', { bubbles: true }); "
    "try { Object.defineProperty(e, 'isTrusted', { value: true }) } catch {} b.dispatchEvent(e)",
    "forged prototype": "Object.defineProperty(Event.prototype, 'isTrusted', { get: () => true }); "
    "Event.prototype.composedPath = () => [window]; document.getElementById('subbtn').click()",
    "forged stack": f"Error.prepareStackTrace = () => '\\n at http://miniwob.test/core/d3.v3.min.js:1:1'; {END}",
    "forged pattern": f"RegExp.prototype.test = () => true; RegExp.prototype.exec = () => []; {END}",
    "forged number": "globalThis.Number = () => 1; Object.prototype.raw = 1; Object.prototype.done = true",
    "timer": f"setTimeout(() => {END}, 0); setInterval(() => {END}, 1); setTimeout('{END}', 0)",
    "microtask": f"Promise.resolve().then(() => {END}); queueMicrotask(() => {END})",
    "frame of animation": f"requestAnimationFrame(() => {END})",
    "synthetic click": "document.getElementById('subbtn').click()",
    "jQuery-like trigger": "d3.select('#subbtn').on('click')()",
}  # fmt: skip


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def environment(browser: Browser) -> AsyncIterator[MiniwobEnvironment]:
    with MiniwobServer() as server:
        environment = MiniwobEnvironment(browser, server.gateway, call_s=5)
        yield environment
        await environment.close()


def ref_of(seen: Observation, name: str) -> str:
    found = [element.ref for element in seen.elements if element.name == name]
    assert found and found[0] is not None, name
    return found[0]


async def inside(session: Session, code: str) -> None:
    """Run a statement in the page's own world; what it throws is its own affair."""
    await session.cdp("Runtime.evaluate", expression=f"{{ {code} }}")


async def after(environment: MiniwobEnvironment, steps: int = 2) -> list[tuple[float | None, StopReason | None]]:
    """What the environment says in the steps after an attack, with time for timers and loading in between."""
    told = []
    for _ in range(steps):
        try:
            outcome = await environment.step(Noop(wait_ms=40))
        except RolloutFailure as failure:
            assert failure.kind == StopReason.NAVIGATED_AWAY  # the page is gone: no reward, and no success either
            break
        told.append((outcome.reward, outcome.stop))
        if outcome.stop is not None:
            break
    return told


# ---- forging --------------------------------------------------------------------------------------------------------


@module_loop
@pytest.mark.parametrize("way", ISOLATED)
async def test_forging_beside_the_page_earns_nothing(environment: MiniwobEnvironment, way: str) -> None:
    await environment.reset(make_task("click-test-2", 1))
    assert environment.session is not None
    try:
        code = f"(() => {{ let s, g, f, b, l, h, r; {ISOLATED[way]} }})()"
        await execute(environment.session, JsEval(code=code), SCRIPTS)
    except ActionError:
        pass  # it threw, which earns nothing either
    assert set(await after(environment)) <= {(None, None)}
    if way in ("written script", "the page's code again"):
        await environment.close()  # they break the page


@module_loop
@pytest.mark.parametrize("way", INSIDE)
async def test_forging_inside_the_page_earns_nothing(environment: MiniwobEnvironment, way: str) -> None:
    await environment.reset(make_task("click-test-2", 1))
    assert environment.session is not None
    await inside(environment.session, INSIDE[way])
    assert set(await after(environment)) == {(None, None)}
    # These attacks left the page's globals in pieces.
    await environment.close()


@pytest.mark.slow
@module_loop
async def test_the_same_ways_work_without_the_seal(browser: Browser) -> None:
    """The control: what earns nothing above is an attack, not a typing error. Same page, plain server, no bridge."""
    handler = partial(_Quiet, directory=str(pages_folder()))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    home = f"http://127.0.0.1:{server.server_port}"
    works = set()
    with OriginGateway([home]) as gateway:
        session = await browser.new_context(gateway=gateway.url)
        for way, code in ISOLATED.items():
            await session.goto(f"{home}/miniwob/click-test-2.html")
            await inside(session, "Math.seedrandom(1); core.EPISODE_MAX_TIME = 1e8; core.startEpisodeReal()")
            await session.isolated("1")
            try:
                await execute(session, JsEval(code=f"(() => {{ let s, g, f, b, l, h, r; {code} }})()"), SCRIPTS)
            except ActionError:
                continue
            read = {"expression": "new Promise((done) => setTimeout(() => done(WOB_RAW_REWARD_GLOBAL), 60))"}
            answer = await session.cdp("Runtime.evaluate", awaitPromise=True, **read)
            if answer["result"].get("value") == 1:
                works.add(way)
        await session.close()
    server.shutdown()
    server.server_close()
    assert works >= {
        "script element", "script from data:", "script from blob:", "module script", "attribute onclick", "location",
        "attribute onerror", "link", "frame srcdoc", "synthetic click", "synthetic event", "label",
    }  # fmt: skip
    assert len(works) >= 28


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *_arguments: object) -> None: ...


@module_loop
async def test_honest_input_still_earns(environment: MiniwobEnvironment) -> None:
    """By mouse, by keyboard, after an attack, and wrong where it is wrong."""
    seen = await environment.reset(make_task("click-test-2", 1))
    outcome = await environment.step(Click(ref=ref_of(seen, "ONE")))
    assert (outcome.reward, outcome.stop) == (1.0, StopReason.SUCCESS)
    seen = await environment.reset(make_task("click-test-2", 2))
    assert environment.session is not None
    await execute(environment.session, JsEval(code=ISOLATED["synthetic click"]), SCRIPTS)
    outcome = await environment.step(Click(ref=ref_of(seen, "TWO")))
    assert (outcome.reward, outcome.stop) == (-1.0, StopReason.WRONG)
    await environment.reset(make_task("click-test", 1))
    await environment.step(KeyboardPress(key="Tab"))
    outcome = await environment.step(KeyboardPress(key="Enter"))
    assert (outcome.reward, outcome.stop) == (1.0, StopReason.SUCCESS)


@module_loop
async def test_a_listener_cannot_turn_one_click_into_another(environment: MiniwobEnvironment) -> None:
    """A script that stays behind in its world answers the agent's real click with one on the other button."""
    seen = await environment.reset(make_task("click-test-2", 1))
    assert environment.session is not None
    answer = "(e) => { if (e.isTrusted) document.getElementById('subbtn').click() }"
    await execute(environment.session, JsEval(code=f"document.addEventListener('click', {answer}, true)"), SCRIPTS)
    outcome = await environment.step(Click(ref=ref_of(seen, "TWO")))
    assert (outcome.reward, outcome.stop) == (-1.0, StopReason.WRONG)
    await environment.close()


@module_loop
async def test_texts_that_are_scripts_stay_texts(environment: MiniwobEnvironment) -> None:
    """Typed into fields that pages copy into their HTML: the terminal echoes, mails and searches show them."""
    texts = (f"<img src=x onerror={END}>", f"<svg onload={END}>", f"<script>{END}</script>", f"javascript:{END}")
    await environment.reset(make_task("terminal", 1))
    for text in texts:
        await environment.step(KeyboardType(text=text + "\n"))
        assert set(await after(environment, 1)) == {(None, None)}
    for name in ("search-engine", "social-media-some", "email-inbox-forward", "enter-text", "text-editor"):
        seen = await environment.reset(make_task(name, 1))
        for text in texts:
            for element in seen.elements:
                if element.role in ("textbox", "textarea") and element.ref is not None:
                    outcome = await environment.step(Fill(ref=element.ref, value=text))
                    assert (outcome.reward, outcome.stop) == (None, None)


@module_loop
async def test_a_page_that_may_evaluate_does_not_for_strangers(environment: MiniwobEnvironment) -> None:
    """jscolor reads its options by evaluating them, so its two tasks allow that: loaded again, it could be a tool."""
    await environment.reset(make_task("use-colorwheel", 1))
    assert environment.session is not None
    code = (
        f"area.insertAdjacentHTML('beforeend', '<input class=\"jscolor {{x:{END}}}\" data-jscolor=\"{{x:{END}}}\">');"
        "const s = document.createElement('script'); s.src = '/core/jscolor.min.js'; document.body.append(s)"
    )
    await execute(environment.session, JsEval(code=f"(() => {{ {code} }})()"), SCRIPTS)
    assert set(await after(environment, 3)) == {(None, None)}
    await environment.close()


@module_loop
async def test_actions_that_would_run_scripts_are_refused(environment: MiniwobEnvironment) -> None:
    await environment.reset(make_task("click-test-2", 1))
    for url in (
        f"javascript:{END}",
        "data:text/html,x",
        "file:///etc/passwd",
        "view-source:x",
        f"{BASE_URL}click-test.html",
    ):
        outcome = await environment.step(Goto(url=url))
        assert outcome.observation.last_error == "this task is a single page: goto is not available"
        assert (outcome.reward, outcome.stop) == (None, None)
        assert environment.session is not None
        if not url.startswith("http"):
            with pytest.raises(ActionError, match="goto takes an http or https address"):
                await execute(environment.session, Goto(url=url))
    outcome = await environment.step(JsEval(code=END))
    assert outcome.observation.last_error == "this task is a single page: js_eval is not available"
    assert (outcome.reward, outcome.stop) == (None, None)
    outcome = await environment.step(SendMsgToUser(text="success"))
    assert (outcome.reward, outcome.stop) == (None, None)


# ---- the seal itself ------------------------------------------------------------------------------------------------


def test_every_page_has_a_policy_that_allows_its_own_scripts_only() -> None:
    folder = pages_folder() / "miniwob"
    pages = sorted(folder.glob("*.html"))
    assert len(pages) == len(TASKS) == 130
    evaluating = []
    for page in pages:
        policy = content_policy(page, BASE_URL + page.name)
        rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
        assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
        sources = rules["script-src"].split()
        assert not {"*", "'self'", "'unsafe-inline'", "data:", "blob:", "http:"} & set(sources)
        hashes = [source for source in sources if source.startswith("'sha256-")]
        files = [source for source in sources if source.startswith("http://miniwob.test/")]
        assert hashes and "http://miniwob.test/core/core.js" in files
        for file in files:
            assert (pages_folder() / file.removeprefix("http://miniwob.test/")).is_file()
        others = set(sources) - set(hashes) - set(files)
        if others:
            assert others == {"'unsafe-eval'"}
            evaluating.append(page.stem)
    assert sorted(evaluating) == ["use-colorwheel", "use-colorwheel-2"]


@pytest.mark.slow
@pytest.mark.timeout(900)
@module_loop
async def test_no_page_runs_into_its_policy(environment: MiniwobEnvironment) -> None:
    """All 130 pages start, are acted on at random, and none of their own scripts is refused."""
    await environment.reset(make_task("click-test", 1))
    assert environment.session is not None
    said: list[str] = []
    environment.session.page.on("console", lambda message: said.append(message.text))
    environment.session.page.on("pageerror", lambda error: said.append(str(error)))
    agent = RandomAgent(seed=4)
    for name in TASKS:
        for seed in (1, 2):
            seen = await environment.reset(make_task(name, seed))
            for step in range(6):
                move = await agent.act(make_task(name, 100 * seed + step), seen, [])
                assert move.action is not None
                outcome = await environment.step(move.action)
                seen = outcome.observation
                if outcome.stop is not None:
                    break
        refused = [text for text in said if "Content Security Policy" in text]
        assert not refused, (name, refused[0])
        said.clear()


# ---- agents that do not work ----------------------------------------------------------------------------------------

NEEDS_WORK = ("click-test-2", "enter-text", "terminal")
MORE = ("click-button", "login-user", "email-inbox-forward", "search-engine", "social-media-some")
NO_LUCK = ("login-user", "enter-date", "email-inbox-forward", "terminal", "use-autocomplete", "book-flight")


def unpaid(agent: Agent, families: Sequence[str], seeds: range) -> None:
    found: list[Trajectory] = []
    tasks = [make_task(family, seed) for family in families for seed in seeds]
    rollout_sync(
        tasks, agent, environments=MiniwobEnvironment.source, stage="test", on_trajectory=found.append, workers=2
    )
    assert len(found) == len(tasks)
    assert all(t.failure is None for t in found)
    assert [(t.id, t.reward) for t in found if t.success or (t.reward or 0) > 0] == []


def test_an_agent_that_goes_for_the_reward_scores_nothing() -> None:
    unpaid(RewardReaderAgent(), NEEDS_WORK, range(600, 601))


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("agent", [NullAgent(), ClaimsAgent(), RewardReaderAgent()], ids=lambda agent: agent.name)
def test_agents_that_do_not_work_score_nothing(agent: Agent) -> None:
    unpaid(agent, NEEDS_WORK + MORE, range(601, 605))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_random_acting_scores_nothing_where_luck_is_out_of_the_question() -> None:
    unpaid(RandomAgent(7), NO_LUCK, range(600, 605))
