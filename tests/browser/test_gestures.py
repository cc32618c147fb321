"""What a person does in the browser is told as gestures: by trusted input, to the element it fell on, once."""

from __future__ import annotations

import asyncio
import urllib.parse
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from dpo_driver.browser.browser import Browser
from dpo_driver.browser.gestures import Gesture, Gestures
from dpo_driver.browser.observe import Limits
from dpo_driver.browser.session import Session

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(90)]
QUIET_S = 1.5  # nothing came in this time: nothing comes

PAGE = """
<!doctype html><title>x</title>
<style>
  #menu .more { display: none } #menu:hover .more { display: block }
  #box { height: 60px; overflow: auto } #handle { touch-action: none }
</style>
<button id=go onclick="document.getElementById('said').textContent = 'gone'">Go</button>
<button id=twin>Go</button>
<p id=said></p>
<label>Agree <input type=checkbox id=agree></label>
<label>Name <input id=name></label>
<label>City <input id=city oninput="document.getElementById('hint').innerHTML='<button>Oslo</button>'"></label>
<div id=hint></div>
<label>Colour <select id=colour><option>Red<option>Green</select></label>
<textarea id=note aria-label=Note></textarea>
<div id=menu tabindex=0>File<div class=more><button>Open</button></div></div>
<div id=box aria-label=Box><p>first</p><div style="height:300px"></div><p>last</p></div>
<div id=pad tabindex=0 role=button aria-label=Pad>Pad</div>
<div id=handle role=button aria-label=Handle style="width:60px">Handle</div>
<div id=slot role=button aria-label=Slot style="width:60px">Slot</div>
<div id=card draggable=true style="width:60px">Card</div>
<div id=bin role=button aria-label=Bin style="width:60px" ondragover="event.preventDefault()">Bin</div>
<canvas id=canvas width=200 height=60 style="border:1px solid"></canvas>
<div id=host></div>
<iframe id=frame srcdoc="<button>Inside</button>" style="height:60px"></iframe>
<script>
  document.getElementById('host').attachShadow({mode: 'open'}).innerHTML = '<button>Deep</button>';
</script>
"""


def address(html: str) -> str:
    return "data:text/html," + urllib.parse.quote(html)


Hear = Callable[[], Awaitable[list[Gesture]]]


@asynccontextmanager
async def heard(session: Session, html: str = PAGE) -> AsyncIterator[Hear]:
    """What was told until nothing more comes."""
    await session.goto(address(html))
    async with Gestures.of(session, Limits()) as gestures:
        await asyncio.sleep(0.8)  # the page is read for the first time

        async def hear() -> list[Gesture]:
            found = []
            while (gesture := await gestures.next(QUIET_S)) is not None:
                found.append(gesture)
            return found

        yield hear


async def middle(session: Session, selector: str) -> tuple[float, float]:
    box = await session.page.locator(selector).bounding_box()
    assert box is not None
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


async def click(session: Session, selector: str, **how: Any) -> None:
    await session.page.mouse.click(*await middle(session, selector), **how)


def told(gesture: Gesture) -> tuple[Any, ...]:
    """(kind, what it was done to, more)."""
    target = gesture.told.get("target")
    name = (
        f"{target['role']} {target['name']}" + (f" #{target['nth']}" if target["nth"] > 1 else "") if target else None
    )
    keys = ("button", "key", "value", "options", "dy")
    return (gesture.kind, name, *(gesture.told[key] for key in keys if key in gesture.told))


async def test_clicks(session: Session) -> None:
    async with heard(session) as hear:
        await click(session, "#go")
        await click(session, "#twin", button="right")
        await session.page.mouse.click(*await middle(session, "label >> nth=0"))
        found = await hear()
        assert [told(gesture) for gesture in found] == [
            ("click", "button Go", "left"),
            ("click", "button Go #2", "right"),
            ("click", "checkbox Agree", "left"),
        ]
        await session.page.mouse.dblclick(*await middle(session, "#pad"))
        assert [told(gesture)[:2] for gesture in await hear()][-1] == ("dblclick", "button Pad")
        await session.page.keyboard.down("Control")
        await click(session, "#go")
        await session.page.keyboard.up("Control")
        (with_key,) = await hear()
        assert with_key.told["modifiers"] == ["Control"]


async def test_texts_are_told_when_they_are_finished(session: Session) -> None:
    page = session.page
    async with heard(session) as hear:
        await click(session, "#name")
        await page.keyboard.type("Anm")
        await page.keyboard.press("Backspace")
        await page.keyboard.type("n")
        await page.keyboard.press("Enter")
        await click(session, "#note")
        await page.keyboard.type("one")
        await page.keyboard.press("Enter")
        await page.keyboard.type("two")
        await click(session, "#city")
        await page.keyboard.type("Os")
        await click(session, "#go")
        assert [told(gesture) for gesture in await hear() if gesture.kind != "changed"] == [
            ("click", "textbox Name", "left"),
            ("fill", "textbox Name", "Ann"),
            ("press", "textbox Name", "Enter"),
            ("click", "textarea Note", "left"),
            ("fill", "textarea Note", "one\ntwo"),
            ("click", "textbox City", "left"),
            ("fill", "textbox City", "Os"),
            ("click", "button Go", "left"),
        ]


async def test_whether_the_page_answered_to_typing_and_the_text_stood_on_it(session: Session) -> None:
    async with heard(session) as hear:
        await click(session, "#city")
        await session.page.keyboard.type("Os")
        await click(session, "#name")
        await session.page.keyboard.type("Handle")
        await click(session, "#go")
        fills = [gesture.told for gesture in await hear() if gesture.kind == "fill"]
        assert [(fill["answered"], fill["copied"]) for fill in fills] == [(True, False), (False, True)]


async def test_keys_lists_and_boxes_by_keyboard(session: Session) -> None:
    page = session.page
    async with heard(session) as hear:
        await page.locator("#pad").focus()
        await page.keyboard.press("ArrowLeft")
        await page.keyboard.press("Shift+K")
        await page.keyboard.press("Tab")
        await page.locator("#agree").focus()
        await page.keyboard.press("Space")
        await page.locator("#colour").focus()
        await page.keyboard.press("ArrowDown")
        assert [told(gesture) for gesture in await hear()] == [
            ("press", "button Pad", "ArrowLeft"),
            ("press", "button Pad", "K"),
            ("press", "checkbox Agree", "Space"),
            ("select", "combobox Colour", ["Green"]),
        ]


async def test_drags(session: Session) -> None:
    mouse = session.page.mouse

    async def drag(start: tuple[float, float], *way: tuple[float, float]) -> None:
        await mouse.move(*start)
        await mouse.down()
        for point in way:
            await mouse.move(*point, steps=8)
        await mouse.up()

    async with heard(session) as hear:
        await drag(await middle(session, "#handle"), await middle(session, "#slot"))
        await drag(await middle(session, "#card"), await middle(session, "#bin"))  # a native one
        x, y = await middle(session, "#canvas")
        await drag((x - 80, y), (x, y), (x, y + 25))
        drags = [gesture for gesture in await hear() if gesture.kind == "drag"]
        assert [told(gesture)[1] for gesture in drags][:2] == ["button Handle", "draggable Card"]
        ends = [gesture.told["to"] and gesture.told["to"]["name"] for gesture in drags]
        assert ends[:2] == ["Slot", "Bin"]
        assert [gesture.told.get("native", False) for gesture in drags] == [False, True, False]
        path = drags[2].told["path"]
        assert path[0] == [round(x - 80), round(y)]
        assert path[-1] == [round(x), round(y + 25)]
        assert [round(x), round(y)] in path
        assert drags[2].told["picture"] is True


async def test_the_wheel_on_the_page_and_in_a_box(session: Session) -> None:
    async with heard(session) as hear:
        await session.page.mouse.move(*await middle(session, "#box"))
        await hear()
        await session.page.mouse.wheel(0, 40)
        await session.page.mouse.wheel(0, 60)
        (turned,) = [gesture for gesture in await hear() if gesture.kind == "scroll"]
        assert (turned.told["dy"], turned.told["inner"]) == (100, True)
        assert turned.told["point"] == [round(place) for place in await middle(session, "#box")]
        await session.page.mouse.move(*await middle(session, "#go"))
        await hear()
        await session.page.mouse.wheel(0, 30)
        (whole,) = [gesture for gesture in await hear() if gesture.kind == "scroll"]
        assert (whole.told["dy"], whole.told["inner"], whole.told["over"]) == (30, False, None)


async def test_a_stay_that_opens_something_and_what_changes_by_itself(session: Session) -> None:
    async with heard(session) as hear:
        await session.page.mouse.move(*await middle(session, "#menu"))
        assert [told(gesture) for gesture in await hear()] == [("hover", "clickable File")]
        await session.page.mouse.move(*await middle(session, "#twin"))
        await hear()  # it has closed again
        await session.page.evaluate("setTimeout(() => { document.getElementById('said').textContent = 'late' }, 300)")
        assert [gesture.kind for gesture in await hear()] == ["changed"]


async def test_frames_and_shadow_roots(session: Session) -> None:
    async with heard(session) as hear:
        await session.page.locator("#frame").scroll_into_view_if_needed()
        left, top = await middle(session, "#frame")
        box = await session.page.frame_locator("#frame").get_by_role("button").bounding_box()
        assert box is not None and left and top
        await session.page.mouse.click(box["x"] + 5, box["y"] + 5)
        await click(session, "#host button")
        clicks = [gesture for gesture in await hear() if gesture.kind == "click"]
        assert [told(gesture)[1] for gesture in clicks] == ["button Inside", "button Deep"]
        assert clicks[0].told["point"] == [round(box["x"] + 5), round(box["y"] + 5)]


async def test_scripts_are_no_person_and_see_nothing_of_us(session: Session) -> None:
    async with heard(session) as hear:
        await session.page.evaluate("""() => {
            const at = (id) => document.getElementById(id);
            at("go").click();
            at("twin").dispatchEvent(new PointerEvent("pointerdown", {bubbles: true, isPrimary: true}));
            at("twin").dispatchEvent(new PointerEvent("pointerup", {bubbles: true, isPrimary: true}));
            at("pad").dispatchEvent(new KeyboardEvent("keydown", {key: "a", bubbles: true}));
            at("name").value = "x";
            at("name").dispatchEvent(new InputEvent("input", {bubbles: true}));
        }""")
        assert {gesture.kind for gesture in await hear()} <= {"changed"}
        ours = await session.page.evaluate(
            "['dpoRecorded', 'dpoRecorder', 'dpoDriver'].map((name) => typeof window[name])"
        )
        assert ours == ["undefined"] * 3


async def test_a_click_that_leads_away_is_told_and_the_next_page_is_heard(session: Session) -> None:
    second = "<button>Second</button>"
    async with heard(session, "<button onclick='document.write(\"x\")'>Stay</button>") as hear:
        await hear()
        await session.goto(address(second))
        await click(session, "button")
        assert [told(gesture) for gesture in await hear()] == [("click", "button Second", "left")]


async def test_tabs_are_told_apart(browser: Browser) -> None:
    session = await browser.new_context(call_s=5, tabs=True)
    try:
        await session.goto(address("<button onclick='window.open(\"about:blank\")'>Open</button>"))
        async with Gestures.of(session, Limits()) as gestures:
            async with session.page.context.expect_page() as opened:
                await click(session, "button")
            page = await opened.value
            first = await gestures.next(5)
            assert first is not None and (first.kind, first.tab) == ("click", 0)
            await asyncio.sleep(0.3)  # it is listened to
            await page.goto(address("<button style='width:300px;height:300px'>There</button>"))
            await page.mouse.click(50, 50)
            second = await gestures.next(5)
            assert second is not None and (told(second)[:2], second.tab) == (("click", "button There"), 1)
            await page.close()
            third = await gestures.next(5)
            assert third is not None and third.kind == "closed"
    finally:
        await session.close()
