"""The report in a real browser: it opens offline, runs no stranger's script, fits a phone, and its replays step."""

from __future__ import annotations

import html as escaping
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from dpo_driver.browser.chromium import find_chromium
from dpo_driver.core.records import Observation
from dpo_driver.report.page import write_report
from sample_run import write_sample_run

pytestmark = pytest.mark.browser
SIZES = {"desktop": (1280, 900), "phone": (360, 780)}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=str(find_chromium()), args=["--no-sandbox", "--disable-gpu"], timeout=30_000
        )
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def report(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a made-up run whose screenshots are real ones of small pages."""
    camera = browser.new_page(viewport={"width": 240, "height": 260})
    kept: dict[str, bytes] = {}

    def screenshot(seen: Observation, _moment: str | None) -> bytes:
        if seen.state_hash not in kept:
            boxes = "".join(
                f'<div style="position:absolute;left:{e.box[0]}px;top:{e.box[1]}px;font:11px sans-serif">'
                f"{escaping.escape(e.name)}</div>"
                for e in seen.elements
                if e.box
            )
            camera.set_content(f"<body>{boxes}")
            kept[seen.state_hash] = camera.screenshot()
        return kept[seen.state_hash]

    return write_report(write_sample_run(tmp_path_factory.mktemp("runs") / "sample", screenshot, pictured=6))


def opened(browser: Browser, report: Path, size: str, scheme: str = "light") -> tuple[Page, list[str], list[str]]:
    """The page, what it asked for, and what went wrong in it."""
    width, height = SIZES[size]
    page = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme).new_page()  # type: ignore[arg-type]
    page.set_default_timeout(10_000)
    asked: list[str] = []
    wrong: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    page.goto(report.as_uri())
    return page, asked, wrong


@pytest.mark.parametrize("size", SIZES)
def test_it_opens_offline_without_errors_and_fits(browser: Browser, report: Path, size: str) -> None:
    page, asked, wrong = opened(browser, report, size)
    assert wrong == []
    assert [url for url in asked if not url.startswith("data:")] == [report.as_uri()]
    assert page.title() == "sample · DPO-Driver"  # the hostile page of the fixture would have changed it
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width <= SIZES[size][0]
    page.context.close()


def test_no_element_of_a_phone_page_sticks_out(browser: Browser, report: Path) -> None:
    page, _, _ = opened(browser, report, "phone")
    page.evaluate("document.querySelectorAll('details').forEach((d) => (d.open = true))")
    beyond = page.evaluate(
        """[...document.querySelectorAll('main *')].filter((e) => {
            const box = e.getBoundingClientRect();
            return box.width > 0 && box.right > innerWidth + 1 && !e.closest('svg, pre, nav, thead');
        }).map((e) => e.className || e.tagName)"""
    )
    assert beyond == []
    page.context.close()


def test_replays_step_by_button_and_key(browser: Browser, report: Path) -> None:
    page, _, _ = opened(browser, report, "desktop")
    episode = page.locator("#replays-won > details[open]").first
    where = episode.locator("[data-where]")
    total = int(episode.get_attribute("data-steps") or 0)
    assert total >= 1 and where.inner_text() == f"Step 1 of {total}"
    assert episode.locator("[data-step]:visible").count() == 2
    assert episode.locator("[data-back]").is_disabled()
    episode = page.locator("#replays-won > details[data-steps='3']").first
    if episode.get_attribute("open") is None:
        episode.locator("summary").first.click()
    episode.locator("[data-forth]").click()
    assert episode.locator("[data-where]").inner_text() == "Step 2 of 3"
    episode.locator("[data-forth]").focus()
    page.keyboard.press("ArrowRight")
    assert episode.locator("[data-where]").inner_text() == "Step 3 of 3"
    assert episode.locator("[data-forth]").is_disabled()
    last = episode.locator(".side.dpo [data-step]:visible")
    assert "solved" in last.inner_text() and last.get_attribute("data-step") == "3"
    # The shorter episode goes on showing its end.
    assert episode.locator(".side.sft [data-step]:visible").get_attribute("data-step") == "2"
    page.context.close()


def test_filters_and_order(browser: Browser, report: Path) -> None:
    page, _, _ = opened(browser, report, "desktop")
    page.select_option("select[data-filters=pair-list]", "login-user")
    shown = page.locator("#pair-list > :visible")
    assert shown.count() == 3 and all("login-user" in text for text in shown.all_inner_texts())
    page.select_option("select[data-sorts=task-list]", "name")
    names = [text.split()[0] for text in page.locator("#task-list figcaption").all_inner_texts()]
    assert names == sorted(names)
    page.context.close()


def test_it_reads_without_scripts(browser: Browser, report: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(report.as_uri())
    episode = page.locator("#replays-won > details[open]").first
    assert episode.locator("[data-step]:visible").count() == episode.locator("[data-step]").count()
    assert page.locator(".stepper:visible").count() == 0
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast(browser: Browser, report: Path, scheme: str) -> None:
    """WCAG AA: 4.5 to 1 for every piece of text against the nearest background behind it."""
    page, _, _ = opened(browser, report, "desktop", scheme)
    faint = page.evaluate(CONTRAST)
    assert faint == []
    page.context.close()


def test_pictures_and_controls_have_names(browser: Browser, report: Path) -> None:
    page, _, _ = opened(browser, report, "desktop")
    nameless = page.evaluate(
        """[...document.querySelectorAll('svg[role=img], [role=img], button, select')].filter(
            (e) => !(e.getAttribute('aria-label') || e.textContent.trim() || e.closest('label'))).length"""
    )
    assert nameless == 0
    assert page.locator("svg.frame[aria-label^=Screenshot]").count() >= 4
    assert page.locator("svg.frame[aria-label^=Drawing]").count() >= 4
    page.context.close()


CONTRAST = """() => {
  const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
  const parse = (color) => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map((v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const behind = (e) => {
    for (; e; e = e.parentElement) {
      const color = parse(getComputedStyle(e).backgroundColor);
      if (color[3] > 250) return color;
    }
    return parse(getComputedStyle(document.body).backgroundColor);
  };
  const faint = [];
  for (const e of document.querySelectorAll('body *')) {
    const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!own || e.closest('svg, script, style, button:disabled') || !e.getClientRects().length) continue;
    const [a, b] = [light(parse(getComputedStyle(e).color)), light(behind(e))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) faint.push(`${e.tagName}.${e.className} ${e.textContent.trim().slice(0, 20)} ${ratio.toFixed(2)}`);
  }
  return [...new Set(faint)];
}"""
