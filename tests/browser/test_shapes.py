"""What is drawn is told in words: SVG, pixels of a canvas, coloured boxes, grips, what is scrolled and highlighted."""

from __future__ import annotations

import pytest

from dpo_driver.browser.observe import Limits, PageView, observe
from dpo_driver.browser.session import Session

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(60)]
RESET = "<style>*{margin:0;font:16px/20px monospace}svg,canvas{display:block}</style>"


async def look(session: Session, html: str) -> PageView:
    await session.page.set_content(RESET + html)
    return await observe(session, Limits(), fresh=True)


def told(view: PageView) -> list[str]:
    return [f"{e.role} {e.name} = {e.value}" for e in view.elements]


SVG = {
    "<circle cx=50 cy=40 r=8 fill=red />": "image red circle = at 50,40 radius 8",
    "<circle cx=50 cy=40 r=8 fill=red transform='translate(10,-5)' />": "image red circle = at 60,35 radius 8",
    "<g transform='scale(2)'><circle cx=20 cy=10 r=4 fill='#102030' /></g>": "image #102030 circle = at 40,20 radius 8",
    "<rect x=10 y=20 width=30 height=10 style='fill:rgb(0,0,255)' />": "image blue rectangle = at 25,25 size 30x10",
    "<rect x=10 y=20 width=30 height=10 fill=none stroke=black />": (
        "image black rectangle outline = at 25,25 size 30x10"
    ),
    "<polygon points='10,30 20,10 30,30' fill=lime />": "image lime triangle = at 20,20 size 20x20",
    "<polygon points='0,0 9,0 9,9 4,14 0,9' fill=lime />": "image lime polygon = 5 corners at 4.5,7 size 9x14",
    "<line x1=1 y1=2 x2=30.5 y2=40 stroke=purple />": "image purple line = from 1,2 to 30.5,40",
    "<text x=10 y=30 fill=green font-size=20>Q</text>": "text Q = green at",
}


@pytest.mark.parametrize("shape", SVG)
async def test_svg(session: Session, shape: str) -> None:
    (line,) = told(await look(session, f"<svg width=200 height=100>{shape}</svg>"))
    assert line.startswith(SVG[shape])
    assert SVG[shape].endswith(" at") or line == SVG[shape]


@pytest.mark.parametrize("sides", [3, 4, 5, 6, 7])
@pytest.mark.parametrize("turn", [0, 0.3, 1.1])
async def test_corners_are_counted_in_the_pixels_of_a_canvas(session: Session, sides: int, turn: float) -> None:
    view = await look(
        session,
        f"""<canvas id=c width=150 height=100></canvas><script>
        const pen = c.getContext("2d"); pen.translate(75, 50); pen.rotate({turn}); pen.lineWidth = 3; pen.beginPath();
        for (let i = 0; i <= {sides}; i++) {{
          const at = i * 2 * Math.PI / {sides}; pen.lineTo(35 * Math.cos(at), 35 * Math.sin(at)); }}
        pen.stroke();</script>""",
    )
    canvas, shape = view.elements
    assert (canvas.role, canvas.value) == ("image", "at 75,50 size 150x100")
    assert (shape.role, shape.name) == ("shape", "black triangle" if sides == 3 else "black shape")
    assert shape.value is not None and shape.value.startswith(f"{sides} corners at ")


async def test_patches_of_a_canvas(session: Session) -> None:
    view = await look(
        session,
        """<canvas id=c width=100 height=60></canvas><script>const pen = c.getContext("2d");
        pen.fillStyle = "white"; pen.fillRect(0, 0, 100, 60); pen.fillStyle = "red"; pen.fillRect(10, 10, 20, 10);
        pen.fillStyle = "#3366cc"; pen.beginPath(); pen.arc(70, 30, 15, 0, 7); pen.fill();</script>""",
    )
    told_of = {e.name: e.value for e in view.elements if e.role == "shape"}
    assert told_of.keys() == {"red rectangle", "#3366cc circle"}
    assert told_of["red rectangle"] == "at 20,15 size 20x10"
    assert str(told_of["#3366cc circle"])[:8] in ("at 70,29", "at 70,30")  # soft edges are left out


BOXES = {
    "a colour by its own word": ("<div style='width:30px;height:20px;background:cyan'></div>", "cyan box"),
    "a colour by number": ("<div style='width:30px;height:20px;background:hsl(120,50%,40%)'></div>", "#339933 box"),
    "a frame": ("<div style='width:28px;height:18px;border:1px solid'></div>", "empty box"),
}


@pytest.mark.parametrize("case", BOXES)
async def test_boxes_without_words(session: Session, case: str) -> None:
    html, name = BOXES[case]
    (box,) = (await look(session, html)).elements
    assert (box.role, box.name) == ("image", name)
    assert box.value is not None and box.value.startswith("at 15,10 size 30x20")
    assert box.ref is not None


async def test_nothing_is_told_of_boxes_that_show_nothing(session: Session) -> None:
    html = "<div style='height:20px'></div><div style='height:3px;background:red'></div><hr style='border:0'>"
    assert told(await look(session, html)) == []


async def test_shrunk_words_are_not_read(session: Session) -> None:
    """A card that lies face down must not tell its number."""
    card = "<div style='cursor:pointer;width:40px;height:60px;{}' class='card'><span>7</span></div>"
    view = await look(session, card.format("font-size:0"))
    hidden = [e.name for e in view.elements]
    await session.page.add_style_tag(content="span{font-size:0 !important}")
    assert "7" not in [e.name for e in (await observe(session, fresh=True)).elements]
    assert hidden != []


async def test_grips(session: Session) -> None:
    html = """<div draggable=true style="width:40px;height:20px">Milk</div>
    <ul class=ui-sortable style="list-style:none;padding:0"><li>One</li></ul>
    <div class="ui-resizable-handle" style="cursor:se-resize;width:10px;height:10px"></div>
    <span class=ui-slider-handle tabindex=0 style="display:block;width:9px;height:9px;position:relative;left:25%">
    </span>
    <div role=dialog><b class=ui-draggable>Title</b></div>"""
    view = await look(session, html)
    lines = told(view)
    assert lines[0] == "draggable Milk = at 20,10 size 40x20"
    assert lines[1].startswith("draggable One = at ")
    assert lines[2].startswith("handle se = at 5,")
    assert lines[3] == "slider  = 25%"
    assert [e.role for e in view.elements[4:]] == ["dialog", "text"]  # a window's own bar is no item


async def test_scrolled_and_highlighted(session: Session) -> None:
    view = await look(session, "<p id=p>some words here</p><textarea rows=2>" + "line\n" * 40 + "</textarea>")
    area = next(e for e in view.elements if e.role == "textarea")
    assert area.states == ("scrolled 0%",)
    await session.page.evaluate(
        "const area = document.querySelector('textarea'); area.scrollTop = area.scrollHeight;"
        "getSelection().selectAllChildren(p)"
    )
    after = await observe(session)
    assert next(e for e in after.elements if e.role == "textarea").states == ("scrolled 100%",)
    assert told(after)[-1] == "selection some words here = None"
    assert after.observation("g").state_hash != view.observation("g").state_hash


async def test_geometry_is_part_of_the_state(session: Session) -> None:
    first = (await look(session, "<svg><circle cx=20 cy=20 r=9 /></svg>")).observation("g")
    moved = (await look(session, "<svg><circle cx=21 cy=20 r=9 /></svg>")).observation("g")
    again = (await look(session, "<svg><circle cx=20 cy=20 r=9 /></svg>")).observation("g")
    assert first.state_hash == again.state_hash != moved.state_hash
