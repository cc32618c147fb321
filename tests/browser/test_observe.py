"""What the distiller makes of pages: every rule on real HTML, compared line by line."""

from __future__ import annotations

import time

import pytest

from dpo_driver.browser.observe import Limits, PageView, observe
from dpo_driver.browser.session import Session
from dpo_driver.core.records import Element

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(60)]


def line(element: Element) -> str:
    """``2 checkbox Milk #2 =value (checked) {options}``; ``-`` for running text."""
    parts = [element.ref or "-", element.label]
    parts += [f"={element.value}"] if element.value is not None else []
    parts += [f"({state})" for state in element.states]
    parts += ["{" + "|".join(element.options) + "}"] if element.options else []
    return " ".join(parts)


async def look(session: Session, html: str, limits: Limits = Limits()) -> PageView:  # noqa: B008
    await session.page.set_content(html)
    return await observe(session, limits, fresh=True)


CASES = {
    "native controls": (
        """<button>Go</button> <a href="#x">more</a> <input type=submit> <input value=bob> <textarea>long</textarea>
        <input type=range value=3> <input type=number value=7> <input type=date value=2020-01-02> <input type=time>
        <input type=color value="#00ff00"> <input type=file> <input type=hidden value=no>
        <summary>s</summary>""",
        "1 button Go / 2 link more / 3 button Submit / 4 textbox =bob / 5 textarea =long / 6 slider =3 / 7 number =7 / "
        "8 date =2020-01-02 / 9 time / 10 color =#00ff00 / 11 file / 12 button s",
    ),
    "running text has no number, a leaf has one": (
        "<p>Read <b>this</b> now.</p><div>  whole \n line </div><h2>Head</h2><ul><li>one<li>two</ul>",
        "- text Read / 1 text this / - text now. / 2 text whole line / 3 heading Head / "
        "4 listitem one / 5 listitem two",
    ),
    "a wrapping label is a name, not a line": (
        "<label><input type=checkbox checked> Milk</label><label><input type=radio>Tea</label>",
        "1 checkbox Milk (checked) / 2 radio Tea",
    ),
    "a label before its field is its name": (
        "<p><label>User</label><input></p><p><label>Password</label><input type=password value=abc></p>",
        "1 textbox User / 2 textbox Password =•••",
    ),
    "other names": (
        """<label for=f>For</label><input id=f><input aria-label=Aria><b id=t>By id</b><input aria-labelledby=t>
        <input placeholder=Place><input title=Title>
        <button aria-label=Close>x</button><button><img alt=Save></button>""",
        "1 textbox For / 2 textbox Aria / 3 text By id / 4 textbox By id / 5 textbox Place / 6 textbox Title / "
        "7 button Close / 8 button Save",
    ),
    "a label of nothing stays": ("<label>Alone</label><p>x</p>", "1 label Alone / 2 text x"),
    "lists of options": (
        "<label>Size <select><option>S<option selected>M</select></label>"
        "<select multiple><option selected>a<option selected>b</select>",
        "1 combobox Size =M {S|M} / 2 combobox =a, b {a|b}",
    ),
    "equal names are counted": (
        "<button>OK</button><button>OK</button><input><input><button>No</button>",
        "1 button OK / 2 button OK #2 / 3 textbox / 4 textbox #2 / 5 button No",
    ),
    "what looks clickable": (
        """<p>Go <span style="cursor:pointer;text-decoration:underline">here</span> or
        <span style="cursor:pointer">there</span>.</p><div onclick="1">box</div><div tabindex=0>stop</div>
        <div style="cursor:pointer"><b>big</b> <i>card</i></div><a style="cursor:pointer">bare</a>""",
        "- text Go / 1 link here / - text or / 2 clickable there / - text . / 3 clickable box / 4 clickable stop / "
        "5 clickable big card / 6 link bare",
    ),
    "a clickable box with controls inside is no single target": (
        "<div style='cursor:pointer'>Card <button>Buy</button></div>",
        "- text Card / 1 button Buy",
    ),
    "a tree": (
        """<ul><li style="cursor:pointer"><span>Docs</span><ul style="display:none"><li>inner</li></ul></li>
        <li style="cursor:pointer"><span>Music</span><ul><li>song</li></ul></li>
        <li style="cursor:pointer"><span>file</span></li></ul>""",
        "1 item Docs (collapsed) / 2 item Music (expanded) / 3 item song / 4 item file",
    ),
    "states": (
        """<button disabled>a</button><input readonly value=r><button aria-pressed=true>p</button>
        <div role=switch tabindex=0 aria-checked=true>s</div><button aria-expanded=false>m</button>
        <details><summary>d</summary>inside</details><ul><li role=tab tabindex=0 aria-selected=true aria-expanded=true>t
        <li role=tab tabindex=0 aria-selected=false aria-expanded=false>u</ul><h3 role=tab aria-expanded=true>h</h3>""",
        "1 button a (disabled) / 2 textbox =r (readonly) / 3 button p (pressed) / 4 checkbox s (checked) / "
        "5 button m (collapsed) / 6 button d (collapsed) / 7 tab t (selected) / 8 tab u / 9 tab h (expanded)",
    ),
    "only what can be seen": (
        """<p style="display:none">a</p><p style="visibility:hidden">b<b style="visibility:visible">c</b></p>
        <p style="opacity:0">d</p><div style="height:0;overflow:hidden">e</div><div style="height:0"><p>f</p></div>
        <script>1</script><style>p{}</style><template>g</template><span></span><div hidden>h</div>""",
        "1 text c / 2 text f",
    ),
    "a checkbox drawn by its label": (
        "<label><input type=checkbox style='opacity:0;position:absolute'> Fancy</label>",
        "1 checkbox Fancy",
    ),
    "pictures": (
        """<img alt=Cat src="data:,"><img src="data:,"><canvas width=20 height=20></canvas><svg width=60 height=20>
        <circle cx=9 cy=9 r=8 fill=red></circle><rect width=9 height=9 fill="blue" style="cursor:pointer"></rect>
        <text y=15 x=30>T</text></svg>""",
        "1 image Cat / 2 image canvas =at 77,18 size 20x20 / 3 image red circle =at 96,17 radius 8 / "
        "4 clickable blue rectangle =at 91.5,12.5 size 9x9 / 5 text T =black at 121.5,17.5 size 11x19",
    ),
    "dialogs": (
        "<div role=dialog aria-labelledby=n><b id=n>Sure?</b><p>Really.</p><button title=Close>x</button></div>",
        "- dialog Sure? / 1 text Really. / 2 button x",
    ),
    "editable text": ("<div contenteditable>Dear <b>all</b></div>", "1 textbox =Dear all"),
    "tables": ("<table><tr><th>Name<td>Ann<tr><td><input></table>", "1 cell Name / 2 cell Ann / 3 textbox"),
}


@pytest.mark.parametrize("case", CASES)
async def test_distillation(session: Session, case: str) -> None:
    html, expected = CASES[case]
    view = await look(session, html)
    assert " / ".join(line(element) for element in view.elements) == expected


async def test_shadow_roots_and_frames(session: Session) -> None:
    view = await look(
        session,
        """<x-card><b slot=t>slotted</b></x-card>
        <iframe style="margin:50px;border:5px solid" srcdoc="<button>in frame</button>"></iframe><script>
        customElements.define("x-card", class extends HTMLElement { connectedCallback() {
          this.attachShadow({mode: "open"}).innerHTML = "<button>deep</button><slot name=t></slot>"; } });
        </script>""",
    )
    assert [line(element) for element in view.elements] == ["1 button deep", "2 text slotted", "3 button in frame"]
    box = view.elements[2].box
    assert box is not None
    assert box[0] >= 63  # margin, border and the frame's own body margin are counted


async def test_numbers_stay_with_their_elements(session: Session) -> None:
    await session.page.set_content("<button id=a>A</button><button id=b>B</button>")
    first = await observe(session, fresh=True)
    await session.page.evaluate("b.after(a); document.body.insertAdjacentHTML('afterbegin', '<button>C</button>')")
    second = await observe(session)
    assert [line(e) for e in first.elements] == ["1 button A", "2 button B"]
    assert [line(e) for e in second.elements] == ["3 button C", "2 button B", "1 button A"]
    fresh = await observe(session, fresh=True)
    assert [line(e) for e in fresh.elements] == ["1 button C", "2 button B", "3 button A"]
    assert first.observation("g").state_hash != second.observation("g").state_hash


async def test_reading_leaves_no_trace(session: Session) -> None:
    """The page cannot tell that it was read: same HTML, no mutation, nothing new in its world."""
    html = "<div id=d><label>User</label><input><button>Go</button><ul><li style='cursor:pointer'>x</li></ul></div>"
    await session.page.set_content(html)
    await session.page.evaluate(
        "window.seen = []; new MutationObserver((all) => seen.push(...all)).observe(document, "
        "{subtree: true, childList: true, attributes: true, characterData: true}); "
        "window.names = 0; names = Object.getOwnPropertyNames(window).length"
    )
    before = await session.page.content()
    view = await observe(session, fresh=True)
    await session.isolated("dpoDriver.locate('2')")
    assert len(view.elements) == 3
    assert await session.page.content() == before
    assert await session.page.evaluate("[seen.length, Object.getOwnPropertyNames(window).length - names]") == [0, 0]


async def test_caps_are_told(session: Session) -> None:
    html = "".join(f"<button>button number {i}</button>" for i in range(50))
    view = await look(session, html, Limits(max_elements=10))
    assert (len(view.elements), view.truncated) == (10, 40)
    view = await look(session, html, Limits(max_chars=100))
    assert 3 <= len(view.elements) <= 6
    assert len(view.elements) + view.truncated == 50
    view = await look(
        session, "<p>" + "word " * 100 + "</p><div id=out>x</div>", Limits(max_name_chars=20, exclude="#out")
    )
    assert [line(element) for element in view.elements] == ["1 text word word word word…"]


async def test_a_huge_page_takes_no_minute(session: Session) -> None:
    await session.page.set_content("<div id=d></div>")
    await session.page.evaluate("d.innerHTML = '<button>press me</button>'.repeat(50000)")
    began = time.monotonic()
    view = await observe(session, fresh=True)
    assert len(view.elements) == 400
    assert view.truncated >= 19_000
    assert time.monotonic() - began < 4


async def test_the_hash_is_of_what_an_agent_sees(session: Session) -> None:
    first = (await look(session, "<button style='margin:1px'>A</button>")).observation("goal")
    moved = (await look(session, "<button style='margin:9px'>A</button>")).observation("goal")
    other = (await look(session, "<button>B</button>")).observation("goal")
    assert first.state_hash == moved.state_hash != other.state_hash
    assert first.elements[0].box != moved.elements[0].box
