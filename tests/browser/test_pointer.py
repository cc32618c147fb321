"""Actions at points, keys that stay down, files and isolated JavaScript: what the page receives, and what is told."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from dpo_driver.browser import held
from dpo_driver.browser.execute import Grants, execute
from dpo_driver.browser.observe import observe
from dpo_driver.browser.session import Session
from dpo_driver.core.actions import parse_action
from dpo_driver.core.errors import ActionError
from dpo_driver.envs.miniwob.server import pages_folder

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(60)]

STYLE = "<style>body { margin: 0 } #a, #b { position: absolute; top: 0; width: 50px; height: 50px } #b { left: 100px }"
BOXES = STYLE + "</style><div id=a></div><div id=b></div>"
LOG = """<script>
window.log = [];
for (const kind of ["mousemove", "mousedown", "mouseup", "click", "dblclick", "contextmenu", "auxclick"])
  document.addEventListener(kind, (e) => log.push(
    [kind, e.target.id, e.clientX, e.clientY, e.button, e.buttons, e.shiftKey, e.ctrlKey, e.isTrusted]), true);
for (const kind of ["keydown", "keyup", "keypress", "input"])
  document.addEventListener(kind, (e) => log.push([kind, e.target.id, e.key || e.data || "", e.isTrusted]), true);
</script>"""


async def show(session: Session, html: str) -> None:
    await session.page.set_content(html + LOG)
    await observe(session, fresh=True)


async def do(session: Session, html: str, *written: str, grants: Grants | None = None) -> list[list[Any]]:
    """Show a page, carry out actions, and give the events that the page saw."""
    await show(session, html)
    for text in written:
        await execute(session, parse_action(text), grants or Grants())
    events: list[list[Any]] = await session.page.evaluate("log")
    return events


async def refused(session: Session, html: str, *written: str, grants: Grants | None = None) -> str:
    with pytest.raises(ActionError) as caught:
        await do(session, html, *written, grants=grants)
    assert session.failure is None
    return str(caught.value)


def of(events: list[list[Any]], *kinds: str) -> list[list[Any]]:
    return [event for event in events if event[0] in kinds]


# ---- the mouse at points --------------------------------------------------------------------------------------------


async def test_clicks_at_points(session: Session) -> None:
    events = await do(session, BOXES, "mouse_click(20, 30)", "mouse_click(110.5, 5, 'right')", "mouse_dblclick(21, 31)")
    assert of(events, "click")[0] == ["click", "a", 20, 30, 0, 0, False, False, True]
    assert [event[:4] for event in of(events, "contextmenu")] == [["contextmenu", "b", 110.5 // 1, 5]]
    assert [event[:4] for event in of(events, "dblclick")] == [["dblclick", "a", 21, 31]]
    assert [event[:2] for event in of(events, "mousedown")] == [["mousedown", id] for id in "abaa"]
    assert all(event[-1] for event in events)
    middle = await do(session, BOXES, "mouse_click(20, 30, 'middle')")
    assert of(middle, "auxclick") == [["auxclick", "a", 20, 30, 1, 0, False, False, True]]


async def test_buttons_are_held_from_one_action_to_the_next(session: Session) -> None:
    events = await do(
        session, BOXES, "mouse_move(3, 4)", "mouse_down(10, 10)", "mouse_move(60, 20)", "mouse_up(120, 30)"
    )
    assert [event[:6] for event in events if event[0] != "click"] == [
        ["mousemove", "a", 3, 4, 0, 0],
        ["mousemove", "a", 10, 10, 0, 0],
        ["mousedown", "a", 10, 10, 0, 1],
        ["mousemove", "", 60, 20, 0, 1],
        ["mousemove", "b", 120, 30, 0, 1],
        ["mouseup", "b", 120, 30, 0, 0],
    ]
    assert not held.anything(session)
    assert "the left button is held already" in await refused(session, BOXES, "mouse_down(1, 1)", "mouse_down(2, 2)")
    await execute(session, parse_action("mouse_up(1, 1)"))
    assert "the right button is not held" in await refused(session, BOXES, "mouse_up(1, 1, 'right')")
    # An element's hover moves the held button along; a click elsewhere lets it go first.
    html = BOXES + "<button id=c style='position:absolute;top:100px'>C</button>"
    events = await do(session, html, "mouse_down(10, 10)", 'hover("1")', 'click("1")')
    assert of(events, "mousemove")[1][5] == 1
    assert [event[:2] for event in of(events, "mousedown", "mouseup")] == [
        ["mousedown", "a"], ["mouseup", "c"], ["mousedown", "c"], ["mouseup", "c"],
    ]  # fmt: skip
    assert not held.anything(session)


async def test_modifiers(session: Session) -> None:
    html = BOXES + "<button id=c style='position:absolute;top:100px'>C</button>"
    events = await do(session, html, 'click("1", modifiers=["Control", "Shift"])', 'click("1")')
    assert [event[6:] for event in of(events, "click")] == [[True, True, True], [False, False, True]]
    keys = [event[0::2] for event in of(events, "keydown", "keyup")]
    assert keys == [["keydown", "Control"], ["keydown", "Shift"], ["keyup", "Shift"], ["keyup", "Control"]]
    events = await do(
        session, html, 'keyboard_down("Shift")', "mouse_click(5, 5)", 'click("1")', 'keyboard_up("Shift")'
    )
    assert [event[6] for event in of(events, "click")] == [True, True]
    assert not held.anything(session)


@pytest.mark.parametrize("point", ["(-1, 5)", "(5, -0.5)", "(1280, 5)", "(5, 720)", "(99999, 5)"])
async def test_points_outside_the_viewport_are_told(session: Session, point: str) -> None:
    for name in ("mouse_click", "mouse_move", "mouse_down", "mouse_up", "mouse_dblclick"):
        assert "outside the viewport of 1280 x 720" in await refused(session, BOXES, name + point)
    for ends in (f"(1, 1, {point[1:]}", f"{point[:-1]}, 1, 1)"):
        assert "outside the viewport" in await refused(session, BOXES, f"mouse_drag_and_drop{ends}")
    assert await session.page.evaluate("log") == []


# ---- dragging -------------------------------------------------------------------------------------------------------

NATIVE = """<div id=a draggable=true style="width:40px;height:20px">drag</div><div id=b style="height:60px">here</div>
<script> b.ondragover = (e) => e.preventDefault();
b.ondrop = (e) => { window.dropped = [e.dataTransfer.getData("text/plain"), e.isTrusted]; };
a.ondragstart = (e) => e.dataTransfer.setData("text/plain", "x"); </script>"""
SVG = """<svg width=200 height=200 style="display:block"><circle id=c cx=20 cy=20 r=10 /></svg><script>
var on = false; c.onmousedown = () => { on = true; }; window.onmouseup = () => { on = false; };
window.onmousemove = (e) => { if (on) { c.setAttribute("cx", e.clientX); c.setAttribute("cy", e.clientY); } };
</script>"""


async def test_native_drags(session: Session) -> None:
    # The body's margin is 8: the source is at (8, 8), the target below it.
    for written in (["mouse_drag_and_drop(20, 15, 30, 60)"], ['drag_and_drop("1", "2")']):
        await do(session, NATIVE, *written)
        assert await session.page.evaluate("dropped") == ["x", True]
    steps = ["mouse_down(20, 15)", "mouse_move(25, 40)", "mouse_move(30, 60)", "mouse_up(30, 60)"]
    await do(session, NATIVE, *steps)
    assert await session.page.evaluate("dropped") == ["x", True]


async def test_drags_of_shapes(session: Session) -> None:
    place = "[c.getAttribute('cx'), c.getAttribute('cy')]"
    await do(session, SVG, "mouse_drag_and_drop(28, 28, 128, 98)")
    assert await session.page.evaluate(place) == ["128", "98"]
    await do(session, SVG, "mouse_down(28, 28)", "mouse_move(90, 91)")
    assert await session.page.evaluate(place) == ["90", "91"]
    await held.release(session)
    await execute(session, parse_action("mouse_move(150, 150)"))
    assert await session.page.evaluate(place) == ["90", "91"]


async def test_jquery_lists_are_sorted(session: Session) -> None:
    core = pages_folder() / "core" / "jquery-ui"
    jquery = (core / "external" / "jquery" / "jquery.js").read_text() + (core / "jquery-ui.min.js").read_text()
    items = "".join(f"<li style='height:20px;margin:0'>{name}</li>" for name in "abcd")
    html = f"<style>body {{ margin: 0 }}</style><ul id=list style='margin:0'>{items}</ul>"
    order = "[...document.querySelectorAll('li')].map((li) => li.textContent).join('')"
    for written, sorted_as in (
        (["mouse_drag_and_drop(60, 10, 60, 75)"], "bcda"),
        (["mouse_drag_and_drop(60, 70, 60, 5)"], "dabc"),
        (['drag_and_drop("4", "1")'], "adbc"),
        (["mouse_down(60, 10)", "mouse_move(60, 40)", "mouse_move(60, 52)", "mouse_up(60, 52)"], "bcad"),
    ):
        await session.page.set_content(html)
        await session.page.add_script_tag(content=jquery)
        await session.page.evaluate("jQuery('#list').sortable({ animation: 0 }) && 1")
        await observe(session, fresh=True)
        for text in written:
            await execute(session, parse_action(text))
        assert await session.page.evaluate(order) == sorted_as


# ---- keys -----------------------------------------------------------------------------------------------------------

FIELD = "<input id=f>"


async def test_typing_into_the_focus(session: Session) -> None:
    events = await do(session, FIELD, 'focus("1")', 'keyboard_type("aB é")', 'keyboard_insert_text(" x\u00df")')
    assert await session.page.evaluate("f.value") == "aB é x\u00df"
    assert [event[2] for event in of(events, "keydown")] == ["a", "B", " "]
    assert [event[2] for event in of(events, "input")] == ["a", "B", " ", "é", " x\u00df"]
    assert all(event[-1] for event in events)


async def test_keys_are_held_and_let_go(session: Session) -> None:
    pressed = ['keyboard_down("Shift")', 'keyboard_press("ArrowLeft")', 'keyboard_press("ArrowLeft")']
    await do(session, FIELD, 'fill("1", "abc")', *pressed, 'keyboard_up("Shift")', 'keyboard_type("-")')
    assert await session.page.evaluate("f.value") == "a-"
    assert "there is no key 'Nonsense'" in await refused(session, FIELD, 'keyboard_down("Nonsense")')
    assert "there is no key 'Nonsense'" in await refused(session, FIELD, 'keyboard_press("Nonsense")')
    assert "the key 'a' is not held" in await refused(session, FIELD, 'keyboard_up("a")')
    # What one episode leaves pressed is let go before the next.
    await do(session, FIELD, 'keyboard_down("Control")', "mouse_down(100, 100)")
    assert held.anything(session)
    await held.release(session)
    assert not held.anything(session)
    events = await do(session, FIELD, 'focus("1")', 'keyboard_press("a")', "mouse_move(50, 50)")
    assert await session.page.evaluate("f.value") == "a"
    assert [event[5:8] for event in of(events, "mousemove")] == [[0, False, False]]


# ---- addresses ------------------------------------------------------------------------------------------------------


async def test_addresses_that_cannot_be_opened_are_the_agents_mistake(session: Session) -> None:
    assert "cannot open http://127.0.0.1:9/x: ERR_" in await refused(session, "", 'goto("http://127.0.0.1:9/x")')
    assert "cannot open" in await refused(session, "", 'goto("http://[nonsense/")')
    site = Grants(allows=lambda url: url.startswith("http://shop.example/"))
    for address in ("http://elsewhere.example/", "javascript:alert(1)", "view-source:http://shop.example/"):
        told = await refused(session, "<p id=p>here</p>", f'goto("{address}")', grants=site)
        assert told in (f"{address} is not part of this task's site", "goto takes an http or https address")
        assert await session.page.evaluate("p.textContent") == "here"


async def test_there_is_no_way_back_beyond_the_first_page(session: Session) -> None:
    assert "no page to go back to" in await refused(session, "<p>x</p>", "go_back()")
    assert "no page to go forward to" in await refused(session, "<p>x</p>", "go_forward()")
    await session.page.goto("data:text/html,<title>first</title>")
    with pytest.raises(ActionError, match="no page to go back to"):
        await execute(session, parse_action("go_back()"))
    assert (await observe(session)).title == "first"


# ---- files ----------------------------------------------------------------------------------------------------------

CHOOSERS = """<style>body { margin: 0 }</style><input id=a type=file><input id=b type=file multiple>
<button id=c onclick="a.click()">Attach</button><button id=d>Nothing</button><script>
window.told = [];
for (const input of [a, b]) for (const kind of ["input", "change"]) input.addEventListener(kind, async (e) => {
  const entry = [kind, e.isTrusted];
  told.push(entry);  // before reading, which ends in any order
  const read = [...input.files].map(async (file) => [file.name, await file.text()]);
  entry.push(...await Promise.all(read));
});</script>"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "files"
    (root / "in").mkdir(parents=True)
    (root / "receipt.txt").write_text("total 12")
    (root / "in" / "b.txt").write_text("b")
    (tmp_path / "secret.txt").write_text("secret")
    (root / "link.txt").symlink_to(tmp_path / "secret.txt")
    return root


async def test_files_are_uploaded(session: Session, folder: Path) -> None:
    files = Grants(files=folder)
    await do(session, CHOOSERS, 'upload_file("1", "receipt.txt")', grants=files)
    await session.page.wait_for_function("told.length == 2 && told.every((entry) => entry.length == 3)")
    receipt = ["receipt.txt", "total 12"]
    assert [[kind, *rest] for kind, _, *rest in await session.page.evaluate("told")] == [
        ["input", receipt], ["change", receipt],
    ]  # fmt: skip
    await do(
        session, CHOOSERS, 'upload_file("2", ["receipt.txt", "in/b.txt"])', 'upload_file("3", "in/b.txt")', grants=files
    )
    names = "[a, b].map((input) => [...input.files].map((file) => file.name))"
    assert await session.page.evaluate(names) == [["b.txt"], ["receipt.txt", "b.txt"]]
    await execute(session, parse_action('upload_file("2", [])'), files)
    assert await session.page.evaluate(names) == [["b.txt"], []]
    await do(session, CHOOSERS, 'mouse_upload_file(20, 10, "receipt.txt")', grants=files)
    assert await session.page.evaluate(names) == [["receipt.txt"], []]


async def test_files_that_cannot_be_uploaded_are_told(session: Session, folder: Path) -> None:
    files = Grants(files=folder)
    assert "there are no files to upload here" in await refused(session, CHOOSERS, 'upload_file("1", "receipt.txt")')
    for name in ("../secret.txt", "link.txt", "/etc/passwd", "in/../../secret.txt"):
        told = await refused(session, CHOOSERS, f'upload_file("1", "{name}")', grants=files)
        assert "lies outside the folder" in told
    for name in ("\\0", "~/x\\0", "x" * 3000):
        told = await refused(session, CHOOSERS, f'upload_file("1", "{name}")', grants=files)
        assert "is no name of a file" in told
    told = await refused(session, CHOOSERS, 'upload_file("1", "none.txt")', grants=files)
    assert told.startswith("there is no file 'none.txt'; there are: in/b.txt, ")
    assert "there is no file 'in'" in await refused(session, CHOOSERS, 'upload_file("1", "in")', grants=files)
    told = await refused(session, CHOOSERS, 'upload_file("1", ["receipt.txt", "in/b.txt"])', grants=files)
    assert told == "element 1 takes one file"
    told = await refused(session, CHOOSERS, 'upload_file("4", "receipt.txt")', grants=files)
    assert told == "element 4 does not ask for a file"
    told = await refused(session, CHOOSERS, 'mouse_upload_file(500, 500, "receipt.txt")', grants=files)
    assert told == "the point (500, 500) does not ask for a file"
    assert "there is no element 9" in await refused(session, CHOOSERS, 'upload_file("9", "receipt.txt")', grants=files)
    assert await session.page.evaluate("[a.files.length, b.files.length]") == [0, 0]


# ---- isolated JavaScript --------------------------------------------------------------------------------------------

SCRIPTS = Grants(js_eval=True)


async def evaluated(session: Session, code: str) -> str:
    told = await execute(session, parse_action(f"js_eval({json.dumps(code)})"), SCRIPTS)
    assert told is not None
    return told


async def test_javascript_is_off_unless_it_is_granted(session: Session) -> None:
    assert await refused(session, "<p>x</p>", 'js_eval("document.title")') == "js_eval is not available"


async def test_javascript_gives_json(session: Session) -> None:
    await show(session, "<title>T</title><p id=p>x</p><script>var mine = 1</script>")
    for code, told in {
        "document.title": '"T"',
        "[1, {a: null}]": '[1,{"a":null}]',
        "document.querySelectorAll('p').length": "1",
        "Promise.resolve({n: 2})": '{"n":2}',
        "undefined": "undefined",
        "null": "null",
        "0 / 0": "NaN",
        "10n ** 20n": "100000000000000000000n",
        "() => 1": "undefined",
        "'é'": '"\\u00e9"',
    }.items():
        assert await evaluated(session, code) == told
    assert len(await evaluated(session, "'x'.repeat(10000)")) == 4000
    for code, told in {
        "nonsense(": "SyntaxError",
        "missing": "ReferenceError: missing is not defined",
        "window": "the script failed",
        "Promise.reject(new Error('no'))": "Error: no",
        "(() => { for (;;); })()": "the script was ended",
        "location.reload(), new Promise(() => {})": "led to another page",
    }.items():
        with pytest.raises(ActionError, match=told):
            await evaluated(session, code)
    began = time.monotonic()
    with pytest.raises(ActionError, match="longer than"):
        await evaluated(session, "new Promise(() => {})")
    assert time.monotonic() - began < 5
    assert session.failure is None


async def test_javascript_sees_neither_the_pages_world_nor_ours(session: Session) -> None:
    await show(session, "<p id=p>x</p><script>var mine = 1</script>")
    assert await evaluated(session, "[typeof mine, typeof dpoDriver]") == '["undefined","undefined"]'
    forge = (
        "Object.defineProperty(Element.prototype, 'textContent', { get: () => 'forged' }); String.prototype.trim = 0; "
    )
    assert await evaluated(session, forge + "p.textContent") == '"forged"'
    assert (await observe(session, fresh=True)).elements[0].name == "x"
    assert await session.isolated("p.textContent") == "x"
    assert await session.page.evaluate("p.textContent") == "x"
