"""The label page in a real browser, from the one-time link to the results: by keyboard alone, through kill -9, with two
tabs and two raters, in light, dark and on a phone."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page, expect

from dpo_driver.core.records import Label, Preference
from dpo_driver.preferences.formats import parse_preference
from dpo_driver.preferences.log import PreferenceLog
from label_run import write_label_run, write_texts
from label_server import Caller, LabelServer, Serve, serving

pytestmark = pytest.mark.browser
SIZES = {"light": (1280, 860), "dark": (1280, 860), "phone": (375, 700)}
SETTLED_MS = 300  # keys that come sooner after a new comparison are taken for a slip


def context(chromium: Browser, look: str = "light") -> BrowserContext:
    width, height = SIZES[look]
    opened = chromium.new_context(
        viewport={"width": width, "height": height}, color_scheme="dark" if look == "dark" else "light",
        has_touch=look == "phone", is_mobile=look == "phone", reduced_motion="reduce",
    )  # fmt: skip
    opened.set_default_timeout(15_000)
    return opened


def enter(opened: BrowserContext, server: LabelServer, rater: str) -> Page:
    """Open a rater's link; the page fails the test if anything in it goes wrong."""
    page = opened.new_page()
    page.goto(server.links[rater])
    page.wait_for_url("**/compare/*")
    expect(page.locator("#goal")).to_be_visible()
    return page


def shown(page: Page) -> str:
    return str(page.locator("[name=showing]").input_value())


def press(page: Page, key: str) -> None:
    """Press an answer's key and wait until the next page is there, and its script has begun with it."""
    # The server names the submission page-...; the script names it anew when it begins.
    named = "document.querySelector('#work [name=submission]')?.value"
    page.wait_for_function(f"!{named}?.startsWith('page-')")
    before = page.locator("#work [name=submission]").input_value()
    page.wait_for_timeout(SETTLED_MS)
    page.keyboard.press(key)
    page.wait_for_function(f"before => !{named} || ({named} !== before && !{named}.startsWith('page-'))", arg=before)


def test_a_run_is_labelled_by_keyboard_alone(chromium: Browser, serve: Serve, tmp_path: Path) -> None:
    write_label_run(tmp_path / "run", seeds=2)
    with serve("run", "--rater", "ann", "--repeats", "0") as server:
        opened = context(chromium)
        wrong: list[str] = []
        page = enter(opened, server, "ann")
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda line: wrong.append(line.text) if line.type in ("error", "warning") else None)
        text = page.content()
        for telltale in ("secret-agent", "c0ffee", "collect/1", "success", "trajectory", "reward"):
            assert telltale not in text, f"the page gives away where answers come from: {telltale}"
        assert page.evaluate("document.activeElement.id") == "goal"  # a screen reader begins with the task
        assert page.locator(".frame .mark-a").count() and page.locator(".frame .mark-b").count()
        for done, key in enumerate(("a", "t", "x", "b"), start=1):
            first = shown(page) if done < 4 else ""
            assert page.locator(".progress b").inner_text() == str(done - 1)
            press(page, key)
            if done < 4:
                assert shown(page) != first
                expect(page.locator("#said")).to_contain_text("Saved")
        page.wait_for_url("**/results")
        expect(page.locator("h1")).to_contain_text("All done")
        labels = [Label.model_validate(entry.body) for entry in server.labels()]
        assert {label.rater for label in labels} == {"ann"} and {label.source for label in labels} == {"human"}
        assert [label.preferred for label in labels][1:3] == ["tie", "both_bad"]
        for label, side_a in ((labels[0], True), (labels[3], False)):
            assert label.preferred == ("first" if side_a is not label.evidence["swapped"] else "second")
            assert 0.2 < label.evidence["seconds"] < 60 and not label.evidence["repeat"]
        assert wrong == []
        opened.close()


def test_undo_skip_help_and_slips(chromium: Browser, serve: Serve, texts: Path) -> None:
    with serve("--texts", str(texts), "--rater", "ann", "--repeats", "0") as server:
        opened = context(chromium)
        page = enter(opened, server, "ann")
        first = shown(page)
        press(page, "a")
        page.keyboard.press("b")  # too soon after the new comparison came: a slip
        page.wait_for_timeout(SETTLED_MS)
        assert len(server.labels()) == 1
        press(page, "u")
        assert shown(page) == first and server.labels() == []
        expect(page.locator("#said")).to_contain_text("Taken back")
        press(page, "s")
        second = shown(page)
        assert second != first and server.labels() == []
        press(page, "u")  # a skip can be taken back as well
        assert shown(page) == first
        page.keyboard.press("?")
        expect(page.locator("#help")).to_be_visible()
        page.keyboard.press("a")  # keys belong to the dialog now
        page.keyboard.press("Escape")
        expect(page.locator("#help")).to_be_hidden()
        page.evaluate("document.getElementById('single-keys').click()")
        page.wait_for_timeout(SETTLED_MS)
        page.keyboard.press("a")  # switched off
        for _ in range(20):  # and the way round: Tab to the button, Enter
            if page.evaluate("document.activeElement.value") == "tie":
                break
            page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        page.wait_for_function("before => document.querySelector('[name=showing]').value !== before", arg=first)
        assert [entry.body["preferred"] for entry in server.labels()] == ["tie"]
        with PreferenceLog(server.log, mode="read") as log:
            assert [entry.body["why"] for entry in log.entries("withdrawn")] == ["undo"] and log.verify().whole
        opened.close()


def test_nothing_is_lost_on_reload_double_click_two_tabs_and_kill(chromium: Browser, serve: Serve, texts: Path) -> None:
    arguments = ("--texts", str(texts), "--rater", "ann", "--repeats", "0")
    with serve(*arguments) as server:
        port = server.address.rpartition(":")[2]
        opened = context(chromium)
        page = enter(opened, server, "ann")
        first = shown(page)
        page.reload()
        assert shown(page) == first  # its address names it
        page.locator(".verdict-a").dblclick()
        page.wait_for_function("before => document.querySelector('[name=showing]').value !== before", arg=first)
        page.wait_for_timeout(SETTLED_MS)
        assert len(server.labels()) == 1
        other = opened.new_page()
        other.goto(server.address)
        assert shown(other) != shown(page)  # a second tab gets another one
        press(other, "b")
        press(page, "a")
        assert len({entry.body["comparison"] for entry in server.labels()}) == len(server.labels()) == 3
        page.goto(f"{server.address}/compare/{first}")  # what was answered is not shown to be answered again
        assert shown(page) != first
        server.kill()
        page.wait_for_timeout(SETTLED_MS)
        page.keyboard.press("t")
        expect(page.locator("#trouble")).to_contain_text("Not saved yet")
        showing = shown(page)
        with serve(*arguments, "--port", port) as again:
            assert len(again.labels()) == 3
            # The page goes on trying; the new server does not know it and says so.
            expect(page.locator("#trouble")).to_contain_text("signed out")
            page.goto(again.links["ann"])
            page.wait_for_url("**/compare/*")
            assert page.locator(".progress b").inner_text() == "3"
            page.goto(f"{again.address}/compare/{showing}")
            press(page, "t")
            assert [entry.body["preferred"] for entry in again.labels()][3:] == ["tie"]
            with PreferenceLog(again.log, mode="read") as log:
                assert log.verify().whole
        opened.close()


def test_two_raters_hidden_repeats_results_and_export(
    chromium: Browser, serve: Serve, texts: Path, call: Callable[[LabelServer, str], Caller]
) -> None:
    arguments = ("--texts", str(texts), "--rater", "ann", "--rater", "bob", "--overlap", "1", "--repeats", "0.3")
    with serve(*arguments) as server:
        callers = {rater: call(server, rater) for rater in ("ann", "bob")}
        for rater, caller in callers.items():
            while (showing := caller.next())["showing"]:
                # Both prefer what refunds; bob calls every fourth pair a tie. Repeats come unannounced.
                number = int(re.search(r"order (\d+)", showing["a"])[1])  # type: ignore[index]
                refunds = "a" if "fee back" in showing["a"] else "b"
                caller.answer("tie" if rater == "bob" and number % 4 == 0 else refunds, showing["showing"])
        labels = [Label.model_validate(entry.body) for entry in server.labels()]
        repeats = [label for label in labels if label.evidence["repeat"]]
        assert len(labels) - len(repeats) == 24 and repeats
        first = {(one.rater, one.comparison): one for one in labels if not one.evidence["repeat"]}
        for label in repeats:
            before = first[label.rater, label.comparison]
            assert label.evidence["swapped"] is not before.evidence["swapped"] and label.preferred == before.preferred
        opened = context(chromium)
        opened.add_cookies([{"name": name, "value": str(value), "url": server.address}
                            for name, value in callers["ann"].client.cookies.items()])  # fmt: skip
        page = opened.new_page()
        page.goto(f"{server.address}/results")
        table = page.locator("section", has=page.locator("#agreement")).inner_text()
        # 9 of 12 alike. What is "first" follows from the texts, so kappa is worked out from the counts.
        assert "ann and bob" in table and "75 %" in table
        ones = sum(first["ann", name].preferred == "first" for _, name in first if _ == "ann")
        chance = sum(
            sum(label.preferred == answer for (rater, _), label in first.items() if rater == "ann") / 12
            * sum(label.preferred == answer for (rater, _), label in first.items() if rater == "bob") / 12
            for answer in ("first", "second", "tie")
        )  # fmt: skip
        assert 0 < ones < 12 and f"{(0.75 - chance) / (1 - chance):.2f}" in table
        assert "100 %" in page.locator("section", has=page.locator("#raters")).inner_text()
        with page.expect_download() as saved:
            page.get_by_role("link", name="Labels").click()
        rows = [json.loads(line) for line in saved.value.path().read_text().splitlines()]
        assert [
            Label.model_validate({k: v for k, v in row.items() if k not in ("seq", "at")}) for row in rows
        ] == labels
        with page.expect_download() as saved:
            page.get_by_role("link", name="Preferences").click()
        pairs = [parse_preference(json.loads(line)) for line in saved.value.path().read_text().splitlines()]
        assert len(pairs) == 9  # a tie of one rater leaves no majority
        assert all(isinstance(pair, Preference) and "fee back" in pair.chosen for pair in pairs)
        assert {pair.source for pair in pairs} == {"human"} and {pair.role for pair in pairs} == {"support"}
        opened.close()


@pytest.fixture(scope="module", params=["pages", "texts"])
def looked_at(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabelServer]:
    """A server of each kind, with a rater for each look."""
    folder = tmp_path_factory.mktemp(request.param)
    raters = [part for look in SIZES for part in ("--rater", look)]
    if request.param == "pages":
        write_label_run(folder / "run", seeds=2)
    else:
        write_texts(folder / "pairs.jsonl")
    kind = ["run"] if request.param == "pages" else ["--texts", "pairs.jsonl"]
    with serving(folder, *kind, *raters) as server:
        yield server


@pytest.mark.parametrize("look", list(SIZES))
def test_pages_are_accessible_and_fit(chromium: Browser, looked_at: LabelServer, look: str) -> None:
    opened = context(chromium, look)
    page = enter(opened, looked_at, look)
    over = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert page.evaluate(over) <= 0
    assert_accessible(page, "comparison")
    for button in page.locator("#answer button").all():
        box = button.bounding_box()
        assert box and box["height"] >= 36 and box["x"] >= 0 and box["x"] + box["width"] <= SIZES[look][0]
        assert button.evaluate("one => one.scrollWidth <= one.clientWidth + 1"), "the words do not fit"
    page.locator("[data-opens=help]").click()
    assert_accessible(page, "help")
    page.keyboard.press("Escape")
    press(page, "a")
    page.goto(f"{looked_at.address}/results")
    assert_accessible(page, "results")
    assert page.evaluate(over) <= 0
    opened.close()


def assert_accessible(page: Page, name: str) -> None:
    found = Axe().run(page)
    assert found.violations_count == 0, f"{name}: {found.generate_report()}"


def test_without_scripts_the_page_still_takes_answers(chromium: Browser, serve: Serve, texts: Path) -> None:
    with serve("--texts", str(texts), "--rater", "ann", "--repeats", "0") as server:
        opened = chromium.new_context(java_script_enabled=False)
        page = opened.new_page()
        page.goto(server.links["ann"])
        page.get_by_role("link", name="Begin").or_(page.locator("#goal")).first.wait_for()
        page.goto(server.address)
        first = shown(page)
        page.locator(".verdict-b").click()
        assert shown(page) != first
        page.locator(".verdict-undo").click()
        assert shown(page) == first
        page.locator(".verdict-tie").click()
        assert [entry.body["preferred"] for entry in server.labels()] == ["tie"]
        opened.close()
