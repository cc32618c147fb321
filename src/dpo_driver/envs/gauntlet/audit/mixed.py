"""Attacks that need trusted input on something, which a script then turns to its own ends. Reported apart.

They contain a trusted interaction, so no code is had without one. What is looked for is gain: one press that counts
as more than the same press would have counted on the right thing. What moves a part under the pointer gains nothing:
whoever can press there can press the part.
"""

from __future__ import annotations

import contextlib
import time
from typing import Any

from playwright.async_api import Error as PlaywrightError

from dpo_driver.envs.gauntlet.audit.adversary import Adversary
from dpo_driver.envs.gauntlet.audit.table import attack
from dpo_driver.envs.gauntlet.signals import Signal

FIELD_MS = 10_000  # until a page that was opened again has its field


async def _place(it: Adversary, script: str, given: Any = None) -> tuple[float, float]:
    """Run a script that puts an element where nothing is in its way, and give its middle."""
    x, y = await it.main(
        f"""
        unblock();
        const put = (e) => {{
          e.style.cssText = "position: fixed; left: 200px; top: 200px; width: 120px; height: 40px; display: block";
          e.style.zIndex = 2147483647;
          document.body.append(e);
          return e;
        }};
        {script}
        return [260, 220];
        """,
        given,
    )
    return float(x), float(y)


async def _heard(it: Adversary) -> list[Signal]:
    """What the server heard of it; it was trusted, so it is no leak."""
    await it.settle()
    signals, it.signals[:] = list(it.signals), []
    return signals


@attack("mixed", spoils=True)
async def moved_part(it: Adversary) -> int:
    """Put a part's name on another element and click that once: it counts once, as a click on the part would."""
    tokens = it.tokens
    if not tokens:
        return 0
    x, y = await _place(it, "put(document.createElement('div')).dataset.part = given;", tokens[0])
    await it.page.mouse.click(x, y)
    clicks = [s for s in await _heard(it) if s.kind == "click" and s.part == tokens[0]]
    if len(clicks) > 1:
        it.won(f"one click counted {len(clicks)} times")
    return 1


@attack("mixed", spoils=True)
async def label_of_a_part(it: Adversary) -> int:
    """Click once on a label that is a part and belongs to a control that is another part, directly, nested and with
    labels of labels: does one click count for both?"""
    tokens = it.tokens
    if not tokens:
        return 0
    scripts = (
        "const l = put(document.createElement('label')), b = document.createElement('button'); b.type = 'button';"
        "b.id = 'twin'; b.dataset.part = given[1]; document.body.append(b); l.htmlFor = 'twin';"
        "l.dataset.part = given[0];",
        "const l = put(document.createElement('label')), b = document.createElement('input'); b.type = 'checkbox';"
        "b.dataset.part = given[1]; const s = document.createElement('span'); s.textContent = 'long text here';"
        "s.style.cssText = 'display:block;width:120px;height:40px'; s.dataset.part = given[0]; l.append(s, b);",
    )
    for script in scripts:
        x, y = await _place(it, script, [tokens[0], tokens[-1]])
        await it.page.mouse.click(x, y)
        clicks = [s for s in await _heard(it) if s.kind == "click" and s.part]
        if len(clicks) > 1:
            it.won(f"one click counted {len(clicks)} times")
        await it.main("for (const e of document.querySelectorAll('body > label')) e.remove();")
    return len(scripts)


@attack("mixed", spoils=True)
async def drag_by_one_click(it: Adversary) -> int:
    """Put one part under the pointer, press, put another there before the button comes up: does a click count as a
    drag?"""
    tokens = it.tokens
    if len(tokens) < 2:
        return 0
    x, y = await _place(
        it,
        """
        const first = put(document.createElement("div")), then = document.createElement("div");
        first.dataset.part = given[0];
        then.dataset.part = given[1];
        first.addEventListener("pointerdown", () => { first.remove(); put(then); });
        """,
        [tokens[0], tokens[1]],
    )
    await it.page.mouse.click(x, y)
    drags = [s for s in await _heard(it) if s.kind == "pointerup" and s.source and s.part and s.source != s.part]
    if drags:
        it.won("a click without a movement counted as a drag")
    return 1


@attack("mixed", spoils=True, once=True)
async def one_letter_for_many(it: Adversary) -> int:
    """Type one letter and let scripts make more of it: by value, editing commands, undo, and by stopping the browser's
    own insertion and inserting something longer; then Enter."""
    tries = 0
    for script in (
        "f.addEventListener('input', () => { f.value = 'AAAAAA'; });",
        "f.addEventListener('beforeinput', (e) => { if (e.isTrusted) { e.preventDefault(); put('ABCDEF'); } });",
        "f.addEventListener('beforeinput', () => { f.value = 'BCDEF'; });",
        "f.addEventListener('input', () => { put('BCDEF'); document.execCommand('undo'); });",
        "f.addEventListener('keydown', () => { f.type = 'number'; f.type = 'text'; f.setRangeText('BCDEF'); });",
    ):
        await it.page.wait_for_selector(f'[data-field="{it.code_field}"]', state="attached", timeout=FIELD_MS)
        await it.main(
            f"""
            unblock();
            const put = (text) => document.execCommand("insertText", false, text);
            const f = document.querySelector(`[data-field="${{given}}"]`);
            {script}
            """,
            it.code_field,
        )
        await it.focus_code()
        await it.page.keyboard.press("A")
        await it.page.keyboard.press("Enter")
        texts = [text for s in await _heard(it) for text in (*s.fields.values(), s.value)]
        if any(len(text) > 1 for text in texts):
            it.won(f"one typed letter counted as {max(texts, key=len)!r}")
        tries += 1
        await it.reopen()
    return tries


@attack("mixed", spoils=True, once=True)
async def pasted_text(it: Adversary) -> int:
    """Let a script fill the clipboard after a trusted key, and paste with a trusted Ctrl+V: people paste, so it
    counts."""
    await it.press_nothing("Shift")
    await it.main("""
        const area = document.createElement("textarea");
        area.value = "PASTED";
        document.body.append(area);
        area.select();
        document.execCommand("copy");
        area.remove();
    """)
    await it.focus_code()
    await it.page.keyboard.press("Control+V")
    await it.page.keyboard.press("Enter")
    if any("PASTED" in text for s in await _heard(it) for text in s.fields.values()):
        it.won("a script's text counts once a person pastes it")
    return 1


@attack("mixed", spoils=True, once=True)
async def click_held_back(it: Adversary) -> int:
    """Keep the page busy while a click is on its way, so that it arrives when a script likes: the server knows the time
    of arrival only."""
    tokens = it.tokens
    if not tokens:
        return 0
    x, y = await _place(it, "put(document.createElement('div')).dataset.part = given;", tokens[0])
    await it.main("setTimeout(() => { const end = performance.now() + 600; while (performance.now() < end); });")
    began = time.monotonic()
    with contextlib.suppress(PlaywrightError):
        await it.page.mouse.click(x, y)
    clicks = [s for s in await _heard(it) if s.kind == "click"]
    if clicks and time.monotonic() - began > 0.5:
        it.won("a click counted half a second after it was made")
    return 1
