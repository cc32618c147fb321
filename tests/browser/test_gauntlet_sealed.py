"""What scripts in the gauntlet's pages cannot do: forge input, read the key, get another one."""

from __future__ import annotations

import json
import re
import time
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from dpo_driver.browser.browser import Browser
from dpo_driver.browser.egress import OriginGateway
from dpo_driver.browser.execute import execute
from dpo_driver.browser.observe import observe
from dpo_driver.core.actions import Fill, KeyboardPress, Type
from dpo_driver.envs.gauntlet.serve import GauntletServer
from gauntlet_player import WAIT_S, Player, field, heading, named, reveal, shown_code, wanted

pytestmark = [pytest.mark.browser, pytest.mark.timeout(180), pytest.mark.asyncio(loop_scope="module")]


@pytest.fixture(scope="module")
def server() -> Iterator[GauntletServer]:
    with GauntletServer(types=("click-reveal",), steps=3) as server:
        yield server


@pytest.fixture(scope="module")
def gateway(server: GauntletServer) -> Iterator[OriginGateway]:
    with OriginGateway([server.base_url]) as gateway:
        yield gateway


@pytest_asyncio.fixture(loop_scope="module")
async def page(browser: Browser, server: GauntletServer, gateway: OriginGateway) -> AsyncIterator[Player]:
    session = await browser.new_context(gateway=gateway.url, tabs=True)
    yield Player(session, server)
    await session.close()
    assert not gateway.refused, "the site asked somebody else"


async def test_synthetic_input_does_nothing(page: Player) -> None:
    view = await page.begin(difficulty=1)
    tried = await page.in_page("""
        const button = document.querySelector("section button[data-part]");
        const label = document.createElement("label");
        button.id = "it"; label.htmlFor = "it"; document.body.append(label);
        let tried = 0;
        for (const kind of ["pointerdown", "mousedown", "pointerup", "mouseup", "click", "dblclick"]) {
          const how = { bubbles: true, composed: true, detail: 1, pointerId: 1 };
          tried += button.dispatchEvent(new PointerEvent(kind, how));
        }
        for (const key of ["Enter", " "]) {
          for (const kind of ["keydown", "keypress", "keyup"]) {
            tried += button.dispatchEvent(new KeyboardEvent(kind, { key, bubbles: true }));
          }
        }
        button.focus(); button.click(); label.click(); label.remove();
        return tried;
    """)
    assert tried == 12
    await page.settled()
    assert shown_code(await observe(page.session), view) is None
    await reveal(page, view)


async def test_text_counts_as_far_as_it_was_typed(page: Player) -> None:
    view = await page.begin()
    code = await reveal(page, view)
    box = field(view)
    put = {
        "value": "field.value = code",
        "execCommand": "field.value = ''; field.focus(); document.execCommand('insertText', false, code)",
        "event": "field.value = code; field.dispatchEvent(new InputEvent('input', { bubbles: true, data: code }))",
    }
    for how, script in put.items():
        await page.in_page(
            f"const code = {json.dumps(code)}, field = document.querySelector('[data-field]'); {script};"
        )
        assert field(await observe(page.session)).value == code, how
        await page.press(box, "Enter")
        await page.settled()
        assert page.status["step"] == 1 and page.status["wrong"] == 0, how
    # A character more, really typed, does not make the rest true.
    await page.in_page(f"document.querySelector('[data-field]').value = {json.dumps(code[:5])};")
    await execute(page.session, Type(ref=box.ref or "", text=code[5]))
    await page.press(box, "Enter")
    await page.settled()
    assert page.status["step"] == 1
    await execute(page.session, Fill(ref=box.ref or "", value=code))
    await page.press(box, "Enter")
    await page.until(lambda seen: heading(seen) == "Step 2 of 3")


async def test_bent_built_ins_change_nothing(page: Player) -> None:
    view = await page.begin(difficulty=3, seed=9)
    while any(e.role == "dialog" for e in view.elements):
        count = len(view.elements)
        await execute(page.session, KeyboardPress(key="Escape"))
        view = await page.until(lambda seen, count=count: len(seen.elements) < count)
    right = wanted(view)
    wrong = view.elements[view.elements.index(right) + 1]
    assert right.role == wrong.role == "button"
    # What a report could go through is bent, so that a click on the wrong button would look like one on the right one.
    part = await page.in_page(f"""
        const buttons = [...document.querySelectorAll("section button[data-part]")];
        const right = buttons.find((button) => button.textContent === {json.dumps(right.name)});
        const part = right.dataset.part;
        const wrong = buttons.find((button) => button.textContent === {json.dumps(wrong.name)}).dataset.part;
        const write = Element.prototype.setAttribute.bind(document.documentElement, "data-log");
        let log = "bent";
        const tell = (what) => {{ log += " | " + what; write(log); }};
        write(log);
        const get = (owner, name, value) =>
          Object.defineProperty(owner, name, {{ configurable: true, get: () => value }});
        WebSocket.prototype.send = tell;
        JSON.stringify = (value) => (tell(value), `"${{part}}"`);
        Element.prototype.getAttribute = () => part;
        Event.prototype.composedPath = () => [right];
        Document.prototype.elementFromPoint = () => right;
        WeakMap.prototype.get = () => part;
        get(Event.prototype, "target", right);
        get(Event.prototype, "type", "click");
        get(Node.prototype, "parentNode", right);
        Array.prototype[Symbol.iterator] = function* () {{ yield right; }};
        String.prototype.slice = () => part;
        Object.prototype.toJSON = () => (tell("toJSON"), part);
        Object.prototype.once = true;
        Object.prototype.capture = false;
        Error.prepareStackTrace = (_error, sites) => sites.map((site) => tell(site.getFunction())) && "";
        Reflect.apply = (what, self, list) => (tell("applied"), what.apply(self, list));
        return wrong;
    """)
    left, top, width, height = wrong.box or (0, 0, 0, 0)
    mouse = page.session.page.mouse
    await mouse.click(left + width / 2, top + height / 2)
    deadline = time.monotonic() + WAIT_S
    # Until the click is on the line and the server has dealt with it; the line's first message holds the key.
    while not any('"click"' in str(sent) for sent in page.sent) or page.status["heard"] < len(page.sent) - 1:
        assert time.monotonic() < deadline, page.sent
        await page.session.isolated("new Promise(requestAnimationFrame)")
    log = await page.session.isolated("document.documentElement.dataset.log")
    assert log.startswith("bent") and not re.search('"n":|"key":|"kind":|applied|toJSON|function', log), log
    clicks = [report for report in map(json.loads, page.sent) if report.get("kind") == "click"]
    assert [click["part"] for click in clicks] == [part]
    await page.session.page.reload()
    view = await page.until(lambda seen: heading(seen))
    assert page.status["step"] == 1 and not [e for e in view.elements if "code:" in e.name.lower()]
    await reveal(page, view)


async def test_only_the_address_bar_gives_a_key(page: Player) -> None:
    await page.begin()
    texts = await page.in_page("""
        const texts = [];
        for (const path of ["/", "/step/1", "/finish"]) {
          for (const options of [{}, { mode: "same-origin" }, { mode: "no-cors" }, { cache: "force-cache" }]) {
            texts.push(await (await fetch(path, options)).text());
          }
        }
        const asked = new XMLHttpRequest(); asked.open("GET", "/", false); asked.send(); texts.push(asked.responseText);
        return texts;
    """)
    assert len(texts) == 13 and all("by hand" in text and "/channel" not in text for text in texts)
    framed = await page.in_page("""
        const frame = document.createElement("iframe");
        frame.src = "/step/1";
        document.body.append(frame);
        await new Promise((done) => { frame.onload = done; });
        const text = frame.contentDocument ? frame.contentDocument.body.innerText : "";
        frame.remove();
        return text;
    """)
    assert "by hand" in framed or framed == ""
    refused = await page.in_page("""
        const socket = new WebSocket(`ws://${location.host}/channel`);
        return await new Promise((done) => {
          socket.onopen = () => socket.send('{"key":"guess"}');
          socket.onclose = (event) => done(event.code);
          socket.onmessage = (event) => done(event.data);
        });
    """)
    assert refused == 4003
    assert page.status["step"] == 1


async def test_a_popup_that_its_opener_prepared_gives_nothing_away(page: Player) -> None:
    await page.begin()
    stolen = await page.in_page("""
        const stolen = [];
        const popup = window.open("about:blank");
        popup.WebSocket.prototype.send = (message) => stolen.push(message);
        popup.JSON.stringify = (value) => stolen.push(value);
        popup.location = "/step/1";
        const deadline = Date.now() + 5000;
        while (!popup.closed && Date.now() < deadline) await new Promise((done) => setTimeout(done, 20));
        return { stolen, closed: popup.closed };
    """)
    # The tie to it is cut as soon as the shell arrives: to its opener it looks closed.
    assert stolen == {"stolen": [], "closed": True}
    assert await page.session.tabs.follow()
    assert heading(await page.until(lambda seen: heading(seen))) == "Step 1 of 3"


async def test_parts_in_shadow_roots_and_frames_are_heard(page: Player) -> None:
    place = {
        "shadow": "const root = outer.attachShadow({ mode: 'open' }); root.append(button);",
        "nested": "const root = outer.attachShadow({ mode: 'open' }); const inner = document.createElement('p');"
        "root.append(inner); inner.attachShadow({ mode: 'open' }).append(button);",
        "frame": "const frame = document.createElement('iframe'); outer.append(frame);"
        "frame.contentDocument.body.append(button);",
        "frames": "const frame = document.createElement('iframe'); outer.append(frame);"
        "const inner = frame.contentDocument.createElement('iframe'); frame.contentDocument.body.append(inner);"
        "inner.contentDocument.body.append(button);",
    }
    for name, script in place.items():
        view = await page.begin(difficulty=1)
        part = await page.in_page("return document.querySelector('section button[data-part]').dataset.part")
        await page.in_page(f"""
            const outer = document.createElement("div"), button = document.createElement("button");
            button.dataset.part = {json.dumps(part)};
            button.textContent = "hidden twin";
            document.querySelector("h1").after(outer);
            {script}
        """)
        await page.click(named(await observe(page.session), "button", "hidden twin"))
        assert await page.until(lambda seen, view=view: shown_code(seen, view)), name
