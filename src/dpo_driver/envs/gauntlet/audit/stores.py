"""Attacks on what the browser keeps for the site: cookies, storage, databases, caches, files."""

from __future__ import annotations

from dpo_driver.envs.gauntlet.audit.adversary import Adversary, script
from dpo_driver.envs.gauntlet.audit.table import attack


@attack("stores")
async def stores_of_the_page(it: Adversary) -> int:
    """Read cookies, the cookie store, local and session storage, caches, IndexedDB, the private file system,
    window.name and the history's state, from the page and from js_eval."""
    it.keep("the page's stores", await it.main(script("stores")))
    it.keep("the page's stores, by js_eval", await it.js_eval(script("stores")))
    return 16


@attack("stores")
async def stores_of_the_browser(it: Adversary) -> int:
    """Read what scripts cannot and a person with the browser's tools can: cookies for servers only, all storage."""
    it.keep("the browser's stores", await it.page.context.storage_state(indexed_db=True))
    return 2


@attack("stores")
async def visit_from_a_script(it: Adversary) -> int:
    """Get hold of the visit's cookie in a script, by every way that could name it: a client outside could use it."""
    value = (await it.cookie()).partition("=")[2]
    texts = await it.main("""
        const texts = [document.cookie, JSON.stringify(await window.cookieStore?.getAll() ?? [])];
        const end = () => ({ signal: AbortSignal.timeout(1000) });
        for (const path of ["/health", "/app/app.js", "/status", "/start", "/"]) {
          const answer = await fetch(path, { ...end(), credentials: "include", cache: "reload" }).catch(() => null);
          if (answer) texts.push(JSON.stringify([...answer.headers]), answer.url);
        }
        const asked = new XMLHttpRequest();
        asked.open("GET", "/health", false);
        asked.send();
        const traced = fetch("/health", { method: "TRACE", ...end() }).then((answer) => answer.text()).catch(String);
        texts.push(asked.getAllResponseHeaders(), await traced);
        texts.push(JSON.stringify(performance.getEntries()), document.referrer, document.URL);
        return texts;
    """)
    if not value or any(value in text or it.name in text for text in texts):
        it.won("a script can read the visit's cookie")
    return len(texts)
