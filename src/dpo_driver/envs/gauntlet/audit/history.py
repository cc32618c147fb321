"""Attacks by the session's history: its entries, back and forward, addresses made up by scripts."""

from __future__ import annotations

from dpo_driver.envs.gauntlet.audit.adversary import Adversary
from dpo_driver.envs.gauntlet.audit.table import attack


@attack("history")
async def entries_of_the_history(it: Adversary) -> int:
    """Read every entry of the session's history that scripts may see, with its state and address."""
    it.keep(
        "the history's entries",
        await it.main("""
            const all = window.navigation?.entries?.() ?? [];
            return JSON.stringify([history.state, history.length, location.href, document.referrer,
              ...all.map((entry) => [entry.url, entry.key, entry.id, entry.getState()])]);
        """),
    )
    return 1


@attack("history", spoils=True)
async def addresses_of_later_steps(it: Adversary) -> int:
    """Put the addresses of later steps and of the end into the history, with states that say they are solved, and go
    back and forth among them, with popstate and hashchange events of one's own."""
    texts = await it.main("""
        const texts = [];
        for (const path of ["/step/2", "/step/3", "/step/30", "/finish", "/step/1#solved", "/step/2?solved=1"]) {
          history.pushState({ solved: true, step: 3, page: "finish", key: 1 }, "", path);
          dispatchEvent(new PopStateEvent("popstate", { state: { solved: true, step: 3 } }));
          dispatchEvent(new HashChangeEvent("hashchange", { oldURL: location.href, newURL: location.href }));
          dispatchEvent(new PageTransitionEvent("pageshow", { persisted: true }));
          await turns(2);
          texts.push(document.body.innerText, location.href);
        }
        for (let back = 0; back < 6; back++) {
          history.back();
          await turns(2);
          texts.push(document.body.innerText, location.href);
        }
        return texts;
    """)
    for text in texts:
        it.keep("the page at another address", text)
    if it.visit.step != 1:
        it.won(f"the history led to step {it.visit.step}")
    return len(texts) // 2


@attack("history", spoils=True)
async def back_and_forward(it: Adversary) -> int:
    """Leave for another document of the site and come back, by back and by reload: nothing that
    an earlier document held may be there, and the run stands where it stood."""
    for moves in ("location.href = '/health'", "history.back()", "location.reload()"):
        async with it.page.expect_event("load", timeout=20_000):
            await it.page.evaluate(f"() => {{ setTimeout(() => {{ {moves} }}) }}")
        it.keep(f"the page after {moves}", await it.main("return document.documentElement.outerHTML"))
    if it.visit.step != 1:
        it.won(f"going back and forth led to step {it.visit.step}")
    return 3
