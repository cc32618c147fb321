"""Files of other recorders: what is read out of them, how elements are found again, and what is refused by line."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from dpo_driver.core.actions import Click, Goto, Noop, ReportInfeasible, format_action
from dpo_driver.core.errors import DataError, UnknownNameError
from dpo_driver.core.records import Element, Observation, Task
from dpo_driver.envs.toy import ToyEnvironment, make_task
from dpo_driver.rollout.imports import read
from dpo_driver.rollout.intents import WAITS_MS, Intent, IntentAgent, Part, Target, act_out, find, tidy
from dpo_driver.rollout.person import corners

FILES = Path(__file__).resolve().parents[1] / "recordings"
HEAD = "def test_example(page):\n    page.goto('http://site/')\n"
Read = Callable[..., list[Intent]]


@pytest.fixture
def written(tmp_path: Path) -> Read:
    def write(text: str, form: str = "playwright-codegen", name: str = "x.py") -> list[Intent]:
        (tmp_path / name).write_text(text, encoding="utf-8")
        return read(tmp_path / name, form)

    return write


def said(intents: Sequence[Intent]) -> list[tuple[str, dict[str, Any]]]:
    return [(intent.kind, dict(intent.values)) for intent in intents]


# -- Playwright --------------------------------------------------------------------------------------------------------


def test_a_python_recording() -> None:
    found = read(FILES / "settings_codegen.py", "playwright-codegen")
    assert [intent.kind for intent in found] == ["click", "select_option", "uncheck", "check", "click"]
    assert found[0].targets[0].ways == (
        (Part("role", role="listitem"), Part("holds", "New arrivals"), Part("role", role="button")),
    )
    assert found[1].values == {"options": ("Daily",)}
    assert found[3].targets[0].ways == ((Part("role", "(?i)^by phone$", role="checkbox", pattern=True),),)
    lines = (FILES / "settings_codegen.py").read_text().splitlines()
    assert ".select_option(" in lines[int(found[1].where.rpartition(":")[2]) - 1]


def test_a_recording_in_typescript() -> None:
    found = read(FILES / "trade.spec.ts", "playwright-codegen")
    assert [intent.kind for intent in found] == [
        "goto", "fill", "fill", "click", "fill", "fill", "fill", "press", "check", "select_option", "click",
    ]  # fmt: skip
    assert found[0].values == {"url": "http://127.0.0.1:9999/trade/1"}, "the first goto is the start page"
    assert found[1].targets[0].ways == ((Part("role", "Company name", role="textbox"),),), "its click is left out"
    assert found[3].targets[0].ways == ((Part("role", "(?i)^contin", role="button", pattern=True),),)
    assert found[5].targets[0].ways == ((Part("label", "Email", exact=True),),)
    assert found[-1].targets[0].ways == ((Part("css", "form"), Part("role", role="button"), Part("nth", number=-1)),)


def test_every_kind_of_call(written: Read) -> None:
    text = (
        HEAD
        + """
    page.get_by_placeholder("Name").press_sequentially("Ann")
    page.get_by_text("More", exact=True).hover()
    page.get_by_title("Close").dblclick()
    page.get_by_test_id("go").click(button="right", modifiers=["ControlOrMeta"])
    page.locator("#from").drag_to(page.locator("#to").first)
    page.locator("li").nth(2).click()
    page.locator("text=Exactly").click()
    page.locator('div:has-text("Total") >> button').click()
    page.locator("//main/a[2]").click()
    page.frame_locator("iframe[name=f]").get_by_role("link", name="Next").click()
    page.get_by_role("textbox").set_input_files("/home/ann/receipt.pdf")
    page.keyboard.press("ControlOrMeta+a")
    page.mouse.wheel(0, 300)
    page.wait_for_timeout(250)
    page.wait_for_load_state("networkidle")
    page.go_back()
    page.reload()
    page.click("#old")
    page.close()
"""
    )
    found = written(text)
    assert said(found) == [
        ("type", {"text": "Ann"}),
        ("hover", {}),
        ("dblclick", {"button": "left", "modifiers": ()}),
        ("click", {"button": "right", "modifiers": ("Control",)}),
        ("drag_and_drop", {}),
        ("click", {"button": "left", "modifiers": ()}),
        ("click", {"button": "left", "modifiers": ()}),
        ("click", {"button": "left", "modifiers": ()}),
        ("click", {"button": "left", "modifiers": ()}),
        ("click", {"button": "left", "modifiers": ()}),
        ("upload_file", {"file": ("receipt.pdf",)}),
        ("keyboard_press", {"key": "Control+a"}),
        ("scroll", {"delta_x": 0.0, "delta_y": 300.0}),
        ("noop", {"wait_ms": 250.0}),
        ("go_back", {}),
        ("reload", {}),
        ("click", {"button": "left", "modifiers": ()}),
    ]
    ways = [intent.targets[0].ways[0] if intent.targets else () for intent in found]
    assert ways[3] == (Part("css", '[data-testid="go"]'),)
    assert found[4].targets[1].ways == ((Part("css", "#to"), Part("nth", number=0)),)
    assert ways[5] == (Part("css", "li"), Part("nth", number=2))
    assert ways[6] == (Part("text", "Exactly"),)
    assert ways[7] == (Part("css", "div"), Part("holds", "Total"), Part("css", "button"))
    assert ways[8] == (Part("xpath", "//main/a[2]"),)
    assert ways[9] == (Part("css", "iframe[name=f]"), Part("role", "Next", role="link"))


PYTHON_TABS = """
import asyncio
from playwright.async_api import Playwright, async_playwright

async def run(playwright: Playwright) -> None:
    browser = await playwright.chromium.launch(headless=False)
    context = await browser.new_context()
    page = await context.new_page()
    await page.goto("http://site/")
    async with page.expect_popup() as page1_info:
        await page.get_by_role("link", name="Terms").click()
    page1 = await page1_info.value
    await page1.get_by_role("button", name="Agree").click()
    await page.get_by_role("button", name="Go on").click()
    await page1.close()
    await context.close()

async def main() -> None:
    async with async_playwright() as playwright:
        await run(playwright)

asyncio.run(main())
"""
SCRIPT_TABS = """
const { chromium } = require('playwright');
(async () => {
  const browser = await chromium.launch({ headless: false });
  const context = await browser.newContext();
  const page = await context.newPage();
  await page.goto('http://site/');
  const page1Promise = page.waitForEvent('popup');
  await page.getByRole('link', { name: 'Terms' }).click();
  const page1 = await page1Promise;
  await page1.getByRole('button', { name: 'Agree' }).click();
  await page.getByRole('button', { name: 'Go on' }).click();
  await page1.close();
  await context.close();
})();
"""


@pytest.mark.parametrize("text", [PYTHON_TABS, SCRIPT_TABS], ids=["python-async", "javascript"])
def test_tabs_are_changed_where_the_recording_does(written: Read, text: str) -> None:
    kinds = [(kind, values.get("index")) for kind, values in said(written(text))]
    assert kinds == [("click", None), ("click", None), ("tab_focus", 0), ("click", None), ("tab_focus", 1),
                     ("tab_close", None)]  # fmt: skip


REFUSED = {
    "unknown.py": (HEAD + "    page.get_by_role('button').click()\n    page.frobnicate()\n", 4, "page.frobnicate"),
    "element.py": (HEAD + "    page.get_by_role('button').wiggle()\n", 3, "wiggle"),
    "locator.py": (HEAD + "    page.get_by_colour('red').click()\n", 3, "get_by_colour"),
    "filter.py": (HEAD + "    page.locator('li').filter(has=page.locator('b')).click()\n", 3, "filter(has=...)"),
    "pattern.js": ("await page.goto('/');\nawait page.getByText(/(?<a>x)\\k<b>/).click();\n", 2, "cannot be used"),
    "loop.py": (HEAD + "    for i in range(3):\n        page.go_back()\n", 3, "is more than a recording"),
    "other.py": (HEAD + "    os.remove('x')\n", 3, "'os' is no page"),
    "broken.py": (HEAD + "    page.(\n", 3, "no Python"),
    "unknown.js": ("await page.goto('/');\n\nawait page.getByText('x').frob();\n", 3, "frob"),
    "template.js": ("await page.goto('/');\nawait page.getByText(`x${1}`).click();\n", 2, "needs a running program"),
    "if.js": ("await page.goto('/');\nif (1) { await page.goBack(); }\n", 2, "is more than a recording"),
    "odd.js": ("await page.goto('/');\nawait page.getByText('x).click();\n", 2, "cannot be read"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_understood_is_named_with_its_line(written: Read, name: str, tmp_path: Path) -> None:
    text, line, what = REFUSED[name]
    with pytest.raises(DataError) as refused:
        written(text, name=name)
    assert refused.value.where == f"{tmp_path / name}:{line}"
    assert what in refused.value.what


def test_nothing_in_a_script_is_executed(written: Read, tmp_path: Path) -> None:
    text = f"open({str(tmp_path / 'made')!r}, 'w')\n" + HEAD + "    page.go_back()\n"
    with pytest.raises(DataError):
        written(text)
    assert not (tmp_path / "made").exists()


# -- browser-use -------------------------------------------------------------------------------------------------------


def test_a_history_of_browser_use() -> None:
    found = read(FILES / "login_browser_use.json", "browser-use")
    assert said(found) == [("fill", {"value": "keneth"}), ("fill", {"value": "91YP"}), ("click", {})]
    assert found[0].targets[0].ways[0] == (Part("css", 'input[id="username"]'),)
    assert found[1].targets[0].ways[0] == (Part("css", 'input[type="password"]'),)
    assert found[2].targets[0].ways == ((Part("xpath", "/html/body/div/div[2]/div/button"),),)
    lines = (FILES / "login_browser_use.json").read_text().splitlines()
    assert '"91YP"' in lines[int(found[1].where.rpartition(":")[2]) - 1]


def history(*actions: dict[str, Any], element: dict[str, Any] | None = None) -> str:
    """One step for each action, as 0.7 writes them."""
    tabs = [{"target_id": "0000AAAA"}, {"target_id": "1111BBBB"}]
    steps = [
        {"model_output": {"action": [action]}, "state": {"interacted_element": [element], "tabs": tabs}, "result": [{}]}
        for action in actions
    ]
    return json.dumps({"history": steps}, indent=1)


def test_actions_of_browser_use(written: Read) -> None:
    element = {"node_name": "INPUT", "x_path": "html/body/input", "attributes": {"aria-label": "City", "type": "text"}}
    actions = (
        {"navigate": {"url": "http://site/", "new_tab": False}},
        {"input": {"index": 3, "text": "Oslo", "clear": True}},
        {"input": {"index": 3, "text": "!", "clear": False}},
        {"scroll": {"down": False, "num_pages": 0.5}},
        {"scroll_down": {"amount": 200}},
        {"send_keys": {"keys": "Control+a"}},
        {"switch": {"tab_id": "BBBB"}},
        {"select_dropdown": {"index": 3, "text": "Blue"}},
        {"wait": {"seconds": 2}},
        {"extract": {"query": "x"}},
        {"go_back": {}},
        {"navigate": {"url": "http://site/more", "new_tab": True}},
        {"done": {"text": "ok", "success": True}},
    )
    found = written(history(*actions, element=element), "browser-use", "x.json")
    assert said(found) == [
        ("fill", {"value": "Oslo"}),
        ("type", {"text": "!"}),
        ("scroll", {"delta_x": 0.0, "delta_y": -360.0}),
        ("scroll", {"delta_x": 0.0, "delta_y": 200.0}),
        ("keyboard_press", {"key": "Control+a"}),
        ("tab_focus", {"index": 1}),
        ("select_option", {"options": ("Blue",)}),
        ("noop", {"wait_ms": 2000.0}),
        ("go_back", {}),
        ("new_tab", {}),
        ("goto", {"url": "http://site/more"}),
    ]
    assert found[0].targets[0].ways[:2] == (
        (Part("role", "City", role="textbox", exact=True),),
        (Part("css", 'input[type="text"][aria-label="City"]'),),
    )


def test_a_history_that_is_not_understood_is_refused_by_line(written: Read, tmp_path: Path) -> None:
    text = history({"go_back": {}}, {"fly_away": {}})
    line = next(number for number, written_line in enumerate(text.splitlines(), 1) if "fly_away" in written_line)
    with pytest.raises(DataError, match="unknown action 'fly_away'") as refused:
        written(text, "browser-use", "x.json")
    assert refused.value.where == f"{tmp_path / 'x.json'}:{line}"
    with pytest.raises(DataError, match="what element 3 was"):
        written(history({"click": {"index": 3}}), "browser-use", "x.json")
    with pytest.raises(DataError, match=r"malformed JSON.*x\.json:2"):
        written('{\n"history": [,]}', "browser-use", "x.json")
    with pytest.raises(DataError, match='no list "history"'):
        written("[]", "browser-use", "x.json")
    with pytest.raises(DataError, match="nothing is done"):
        written(history({"done": {}}), "browser-use", "x.json")
    with pytest.raises(UnknownNameError, match="did you mean browser-use"):
        read(tmp_path / "x.json", "browser_use")


# -- elements and acting -----------------------------------------------------------------------------------------------


def page(*labels: tuple[str, str], url: str = "http://127.0.0.1:5/a") -> Observation:
    elements = tuple(Element(ref=str(i), role=role, name=name) for i, (role, name) in enumerate(labels, 1))
    return Observation(goal="g", url=url, elements=elements)


def found_in(seen: Observation, *chain: Part) -> str | None:
    element = asyncio.run(find(Target((chain,), "it"), seen, None))
    return element.ref if element else None


def test_elements_are_found_by_what_they_are_called() -> None:
    seen = page(("button", "Save all"), ("button", "Save"), ("textarea", "Your  name"), ("clickable", "Menu"),
                ("text", "Save the whales"), ("checkbox", "Menu"))  # fmt: skip
    assert found_in(seen, Part("role", "save", role="button")) == "2", "the closest of several"
    assert found_in(seen, Part("role", "Save all", role="button", exact=True)) == "1"
    assert found_in(seen, Part("role", "^Save .ll$", role="button", pattern=True)) == "1"
    assert found_in(seen, Part("role", "save", role="button"), Part("nth", number=0)) == "1"
    assert found_in(seen, Part("role", "save", role="button"), Part("nth", number=-1)) == "2"
    assert found_in(seen, Part("role", "save", role="button"), Part("nth", number=5)) is None
    assert found_in(seen, Part("role", "Your name", role="textbox")) == "3"
    assert found_in(seen, Part("label", "menu")) == "6", "a label is a field's"
    assert found_in(seen, Part("text", "whales")) == "5"
    assert found_in(seen, Part("print", "Menu", role="clickable", number=1)) == "4"
    assert found_in(seen, Part("print", "Menu", role="clickable", number=2)) == "4", "the only one of its like"
    assert found_in(seen, Part("print", "Gone", role="button", number=1)) is None
    with pytest.raises(DataError, match="needs a page"):
        found_in(seen, Part("css", "#x"))


def test_a_click_into_a_field_that_is_filled_next_is_left_out() -> None:
    field, button = Target(((Part("label", "a"),),), "a"), Target(((Part("label", "b"),),), "b")
    doubled = Intent("dblclick", (field,))
    done = [Intent("click", (button,)), Intent("click", (field,)), doubled, Intent("fill", (field,), {"value": "x"})]
    assert [intent.kind for intent in tidy(done)] == ["click", "fill"]


def decide(intents: Sequence[Intent], *seen: Observation) -> list[str]:
    """The actions of an agent that is shown these pages one after the other."""

    async def play() -> list[str]:
        agent, history, written = IntentAgent(intents, "x"), [], []
        for observation in seen:
            move = await agent.act(make_task("press", 1), observation, history)
            assert move.action is not None
            written.append(format_action(move.action))
            history.append(_step(observation, move.action))
        return written

    return asyncio.run(play())


def _step(observation: Observation, action: Any) -> Any:
    from dpo_driver.core.records import Step

    return Step(observation=observation, action=action)


def by_label(text: str) -> tuple[Target, ...]:
    return (Target(((Part("label", text),),), text),)


def test_boxes_are_ticked_only_where_they_are_not() -> None:
    seen = page(("checkbox", "One"), ("checkbox", "Two"))
    ticked = seen.elements[0].model_copy(update={"states": ("checked",)})
    seen = seen.model_copy(update={"elements": (ticked, seen.elements[1])})
    wanted = [Intent("check", by_label("One")), Intent("check", by_label("Two")), Intent("uncheck", by_label("One"))]
    assert decide(wanted, seen, seen) == ['click("2")', 'click("1")']


def test_what_is_not_there_yet_is_waited_for_and_then_given_up() -> None:
    wanted = [Intent("click", by_label("Late"), where="x.py:7")]
    empty, late = page(("button", "Early")), page(("button", "Late"))
    assert decide(wanted, empty, empty, late) == ["noop(250)", "noop(500)", 'click("1")']
    waits = [format_action(Noop(wait_ms=wait)) for wait in WAITS_MS]
    gone = ReportInfeasible(reason="Late is not there (x.py:7)")
    assert decide(wanted, *[empty] * (len(WAITS_MS) + 1)) == [*waits, format_action(gone)]


def test_what_was_read_on_the_page_is_not_written_before_it_can_be_read() -> None:
    wanted = [Intent("fill", by_label("Code"), {"value": "K7QX2M"}, copied="K7QX2M")]
    before, after = page(("textbox", "Code")), page(("textbox", "Code"), ("text", "The code is K7QX2M."))
    assert decide(wanted, before, after) == ["noop(250)", 'fill("1", "K7QX2M")']


def test_addresses_are_those_of_the_site_that_is_played() -> None:
    seen = page(("button", "x"))
    goto = Intent("goto", values={"url": "https://recorded.example/b?c=1#d"})
    assert decide([goto, Intent("reload")], seen, seen) == [
        format_action(Goto(url="http://127.0.0.1:5/b?c=1#d")),
        format_action(Goto(url="http://127.0.0.1:5/a")),
    ]


def test_intents_become_a_trajectory() -> None:
    task: Task = make_task("login", 3)
    goal = asyncio.run(ToyEnvironment().reset(task)).goal.split('"')
    wanted = [
        Intent("fill", by_label("User"), {"value": goal[1]}),
        Intent("fill", by_label("Password"), {"value": goal[3]}),
        Intent("click", (Target(((Part("role", "Log in", role="button"),),), "Log in"),)),
    ]
    trajectory = asyncio.run(act_out(wanted, task, ToyEnvironment(), name="playwright-codegen"))
    assert (trajectory.success, trajectory.agent, len(trajectory.steps)) == (True, "playwright-codegen", 3)
    assert trajectory.steps[2].action == Click(ref="3")
    assert trajectory.steps[2].completion == "thought: button Log in\naction: click([3])"
    short = asyncio.run(act_out(wanted[:1], task, ToyEnvironment(), name="x"))
    assert short.success is False
    assert short.steps[-1].thought == "the recording ends here"


def test_a_stroke_is_told_by_its_corners() -> None:
    straight = [(float(x), 0.0) for x in range(0, 100, 5)]
    assert corners(straight) == [(0.0, 0.0), (95.0, 0.0)]
    bent = [*straight, *((95.0, float(y)) for y in range(5, 60, 5))]
    assert corners(bent) == [(0.0, 0.0), (95.0, 0.0), (95.0, 55.0)]
    shaky = [(x, y + (2 if int(x) % 2 else -2)) for x, y in bent]
    assert len(corners(shaky)) == 3
