"""Every kind of action on real pages: what the page receives, and what an agent is told when it cannot be done."""

from __future__ import annotations

from typing import Any

import pytest

from dpo_driver.browser.execute import _GRANTED, _TABLE, execute
from dpo_driver.browser.observe import observe
from dpo_driver.browser.session import Session
from dpo_driver.core.actions import ACTIONS, parse_action
from dpo_driver.core.errors import ActionError

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(60)]

# Notes every event that reaches the document, with its target's id and whether it is the browser's own.
LOG = """<script>
window.log = [];
window.kinds = ["click", "dblclick", "auxclick", "contextmenu", "mouseover", "focusin", "input", "change", "keydown"];
for (const kind of kinds)
  document.addEventListener(kind, (e) => log.push([kind, e.target.id, e.isTrusted, e.key || e.button || 0]), true);
</script>"""


async def do(session: Session, html: str, *written: str) -> list[list[Any]]:
    """Show a page, carry out actions, and give the events that the page saw."""
    await session.page.set_content(html + LOG)
    await observe(session, fresh=True)
    for text in written:
        await execute(session, parse_action(text))
    events: list[list[Any]] = await session.page.evaluate("log")
    return events


async def refused(session: Session, html: str, written: str) -> str:
    with pytest.raises(ActionError) as caught:
        await do(session, html, written)
    assert session.failure is None
    return str(caught.value)


def of(events: list[list[Any]], kind: str) -> list[list[Any]]:
    return [event[1:] for event in events if event[0] == kind]


async def test_every_action_has_a_way_to_be_done() -> None:
    assert {*_TABLE, *_GRANTED} == set(ACTIONS)
    assert not _TABLE.keys() & _GRANTED.keys()


async def test_clicks_are_the_browsers_own(session: Session) -> None:
    html = "<button id=a>A</button><button id=b>B</button>"
    events = await do(session, html, 'click("2")', 'click("1", button="right")', 'click("1", button="middle")')
    assert of(events, "click") == [["b", True, 0]]
    assert of(events, "contextmenu") == [["a", True, 2]]
    assert of(events, "auxclick") == [["a", True, 2], ["a", True, 1]]
    events = await do(session, html, 'dblclick("1")', 'hover("2")')
    assert of(events, "dblclick") == [["a", True, 0]]
    assert of(events, "mouseover")[-1][:2] == ["b", True]


async def test_a_click_finds_a_free_spot(session: Session) -> None:
    """Half covered, far down the page, inside a scrolling box, in a frame, wrapped over two lines."""
    half = """<button id=a style="position:absolute;left:0;top:0;width:100px;height:40px">A</button>
        <div id=c style="position:absolute;left:30px;top:0;width:200px;height:40px;background:red">cover</div>"""
    assert of(await do(session, half, 'click("1")'), "click") == [["a", True, 0]]
    far = "<div style='height:5000px'></div><button id=far>F</button>"
    assert of(await do(session, far, 'click("1")'), "click") == [["far", True, 0]]
    box = "<div style='height:50px;overflow:auto'><div style='height:900px'></div><button id=in>I</button></div>"
    assert of(await do(session, box, 'click("1")'), "click") == [["in", True, 0]]
    wrapped = "<p style='width:90px'>aaaa aaaa <span id=s style='cursor:pointer'>bbbb bb</span> c</p>"
    assert of(await do(session, wrapped, 'click("1")'), "click") == [["s", True, 0]]
    frame = "<iframe style='margin:40px' srcdoc='<button onclick=parent.told=1>x</button>'></iframe>"
    await do(session, frame, 'click("1")')
    assert await session.page.evaluate("told") == 1


async def test_a_line_without_height_is_clicked(session: Session) -> None:
    line = "<svg><line id=l x1=10 y1=20 x2=60 y2=20 stroke=black stroke-width=3 style='cursor:pointer' /></svg>"
    assert of(await do(session, line, 'click("1")'), "click") == [["l", True, 0]]


async def test_fields(session: Session) -> None:
    html = "<input id=a value=old><textarea id=b></textarea><div id=c contenteditable>old</div><input id=d type=number>"
    written = ['fill("1", "ne\\"w é")', 'fill("2", "two\\nlines")', 'fill("3", "text")', 'fill("4", "-7")']
    events = await do(session, html, *written)
    values = await session.page.evaluate("[a.value, b.value, c.textContent, d.value]")
    assert values == ['ne"w é', "two\nlines", "text", "-7"]
    assert dict.fromkeys((event[0], event[1]) for event in of(events, "input")).keys() == {(f, True) for f in "abcd"}
    assert ["a", True, 0] in of(events, "change")  # the field was left, as a person leaves it
    await do(session, html, 'fill("1", "")', 'clear("3")', 'type("2", "ab")', 'type("2", "cd")')
    assert await session.page.evaluate("[a.value, c.textContent, b.value]") == ["", "", "abcd"]


async def test_fields_with_pickers(session: Session) -> None:
    html = """<input id=a type=date><input id=b type=time><input id=c type=color><input id=d type=range max=50>"""
    written = ['fill("1", "2016-03-05")', 'fill("2", "14:30")', 'fill("3", "#FF8800")', 'fill("4", "20")']
    events = await do(session, html, *written)
    values = await session.page.evaluate("[a.value, b.value, c.value, d.value]")
    assert values == ["2016-03-05", "14:30", "#ff8800", "20"]
    assert [event[0] for event in of(events, "change")] == ["a", "b", "c", "d"]


async def test_options(session: Session) -> None:
    html = """<select id=a><option>One<option value=2>Two  words</select>
        <select id=b multiple><option>x<option>y<option>z</select>"""
    events = await do(session, html, 'select_option("1", "Two words")', 'select_option("2", ["x", "z"])')
    chosen = "[a.value, [...b.selectedOptions].map((o) => o.text).join()]"
    assert await session.page.evaluate(chosen) == ["2", "x,z"]
    assert [event[0] for event in of(events, "change")] == ["a", "b"]
    assert "has no option" in await refused(session, html, 'select_option("1", "Three")')
    assert "takes one option" in await refused(session, html, 'select_option("1", ["One", "2"])')
    assert "not a list" in await refused(session, "<button>x</button>", 'select_option("1", "One")')


async def test_keys_and_focus(session: Session) -> None:
    html = "<input id=a value=text><button id=b onclick='this.textContent=1'>B</button>"
    events = await do(
        session, html, 'press("1", "Control+a")', 'keyboard_press("Backspace")', 'focus("2")', 'press("2", "Enter")'
    )
    assert await session.page.evaluate("[a.value, b.textContent]") == ["", "1"]
    assert [event[2] for event in of(events, "keydown")] == ["Control", "a", "Backspace", "Enter"]
    assert [event[0] for event in of(events, "focusin")] == ["a", "b"]
    assert "no key 'Nonsense'" in await refused(session, html, 'press("1", "Nonsense")')
    assert "cannot take the focus" in await refused(session, "<p>x</p>", 'focus("1")')


async def test_scroll_and_drag(session: Session) -> None:
    await do(session, "<div style='height:3000px'>tall</div>", "scroll(0, 200)")
    assert await session.page.evaluate("scrollY") == 200
    html = """<div id=a draggable=true style="width:40px">drag</div><div id=b style="height:60px">here</div><script>
        window.dropped = false; b.ondragover = (e) => e.preventDefault(); b.ondrop = () => { window.dropped = true; };
        a.ondragstart = (e) => e.dataTransfer.setData("text/plain", "x"); </script>"""
    await do(session, html, 'drag_and_drop("1", "2")')
    assert await session.page.evaluate("dropped") is True
    # The target lies below the fold: with both in one viewport after scrolling, and too far apart for that.
    for above, between in ((1000, 600), (0, 4000)):
        far = f"<div style='height:{above}px'></div>" + html.replace(
            "</div><div id=b", f"</div><div style='height:{between}px'></div><div id=b"
        )
        await do(session, far, 'drag_and_drop("1", "2")')
        assert await session.page.evaluate("window.dropped") is True, (above, between)


async def test_navigation(session: Session) -> None:
    assert "http" in await refused(session, "<p>x</p>", 'goto("file:///etc/passwd")')
    await session.page.goto("data:text/html,<title>one</title>")
    await session.page.goto("data:text/html,<title>two</title>")
    await execute(session, parse_action("go_back()"))
    assert (await observe(session, fresh=True)).title == "one"
    await execute(session, parse_action("go_forward()"))
    assert (await observe(session)).title == "two"
    for text in ("noop()", "noop(20)", 'send_msg_to_user("hi")', 'report_infeasible("no")'):
        await execute(session, parse_action(text))


@pytest.mark.parametrize(
    ("html", "written", "told"),
    [
        ("<p>x</p>", 'click("7")', "there is no element 7"),
        ("<button id=a disabled>x</button>", 'click("1")', "element 1 is disabled"),
        ("<button>x</button><div style='position:fixed;inset:0'>Veil</div>", 'click("1")', 'covered by div "Veil"'),
        ("<button>x</button>", 'fill("1", "y")', "not a text field"),
        ("<input readonly>", 'fill("1", "y")', "read-only"),
        ("<input type=number>", 'fill("1", "y")', "takes a number"),
        ("<input type=date>", 'fill("1", "03/05/2016")', "takes YYYY-MM-DD"),
        ("<input type=checkbox>", 'fill("1", "y")', "not a text field"),
    ],
)
async def test_what_cannot_be_done_is_told(session: Session, html: str, written: str, told: str) -> None:
    assert told in await refused(session, html, written)


async def test_elements_that_are_gone_or_hidden_are_told(session: Session) -> None:
    await session.page.set_content("<button id=a>A</button><button id=b>B</button>")
    await observe(session, fresh=True)
    await session.page.evaluate("a.remove(); b.style.display = 'none'")
    with pytest.raises(ActionError, match="no longer on the page"):
        await execute(session, parse_action('click("1")'))
    with pytest.raises(ActionError, match="hidden"):
        await execute(session, parse_action('click("2")'))


async def test_nothing_of_an_action_is_run(session: Session) -> None:
    evil = "');window.hacked=1;//</script><script>window.hacked=1</script>"
    await session.page.set_content("<input id=a>")
    await observe(session, fresh=True)
    with pytest.raises(ActionError):
        await execute(session, parse_action(f"click({evil!r})"))
    await execute(session, parse_action(f"fill('1', {evil!r})"))
    assert await session.page.evaluate("[a.value, typeof hacked]") == [evil, "undefined"]
