"""Attacks from other realms: frames of the app and of one's own, windows opened before they load, documents written
anew, and every way of loading a shell where a script can look into it."""

from __future__ import annotations

import json
import re

from dpo_driver.envs.gauntlet.audit.adversary import Adversary, script
from dpo_driver.envs.gauntlet.audit.table import attack

SHELLS = ("/", "/step/1", "/finish", "/start?seed=1")


def _read_shell(it: Adversary, how: str, text: str) -> None:
    it.keep(how, text)
    if re.search(r"/channel|currentScript", text):
        it.won(f"the sealed script's text came by {how}")


@attack("realms", once=True)
async def shells_that_are_fetched(it: Adversary) -> int:
    """Get a shell's text by fetch in every mode and with headers that say it is a navigation, by XMLHttpRequest, as a
    module, as data, and by the cache."""
    texts = await it.main(script("fetched"), list(SHELLS))
    for text in texts:
        _read_shell(it, "a fetch", text)
    return len(texts)


@attack("realms", spoils=True, once=True)
async def shells_in_frames(it: Adversary) -> int:
    """Load a shell into frames, sandboxed, without credentials, hidden, nested, named, in frame sets, objects and
    embeds, and read the document that comes, before, while and after it loads."""
    for text in await it.main(script("framed"), list(SHELLS)):
        _read_shell(it, "a frame", text)
    return 8 * len(SHELLS)


@attack("realms", spoils=True, once=True)
async def windows_prepared_before_they_load(it: Adversary) -> int:
    """Open windows, empty, with a file of the site, or with the shell at once, bend their built-ins, listen to their
    messages, and lead them to the shell."""
    stolen = await it.main(script("prepared"))
    for text in stolen["stolen"]:
        it.won(f"a prepared window gave its opener {text[:80]}")
    await it.close_others()
    return max(1, int(stolen["opened"])) * 5


@attack("realms", spoils=True)
async def fresh_built_ins(it: Adversary) -> int:
    """Take pristine built-ins and event classes from a new frame, dispatch its events on the page's parts, put copies
    of parts into it and act on them there, and open the channel from it."""
    return max(1, int(await it.main(script("fresh"), json.dumps({"key": "guess"}))))


@attack("realms", spoils=True)
async def documents_written_anew(it: Adversary) -> int:
    """Write the documents of frames and then the page's own anew, which takes away all listeners but keeps the window:
    put parts into it, act on them, listen, and press a trusted key."""
    tokens = it.tokens
    await it.main(script("anew"), tokens)
    await it.press_nothing()
    it.keep("a document written anew", await it.main("return document.documentElement.outerHTML + heard.join()"))
    return 2 + 2 * len(tokens)


@attack("realms", spoils=True, once=True)
async def shells_fetched_ahead(it: Adversary) -> int:
    """Let the browser fetch shells ahead: prefetch, prerender and preload links, speculation rules; download one; and
    look for their text in the caches."""
    await it.main(script("ahead"), list(SHELLS[:2]))
    texts = await it.main(
        """
        const ask = (path, cache) => fetch(path, { cache, mode: "same-origin" }).then((r) => r.text()).catch(String);
        const cached = given.flatMap((path) => [ask(path, "force-cache"), ask(path, "only-if-cached")]);
        const entries = performance.getEntriesByType("resource").map((entry) => JSON.stringify(entry));
        return [...entries, ...await Promise.all(cached)];
        """,
        list(SHELLS),
    )
    for text in texts:
        _read_shell(it, "fetching ahead", text)
    return 8 * 2 + len(texts)
