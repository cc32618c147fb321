"""Attacks with workers and caches: whoever answers the browser's requests for the shell could read its key."""

from __future__ import annotations

from dpo_driver.envs.gauntlet.audit.adversary import Adversary, script
from dpo_driver.envs.gauntlet.audit.table import attack


@attack("workers", once=True)
async def worker_over_the_app(it: Adversary) -> int:
    """Register a service worker whose scope is the app: from each of the site's own addresses, a blob, a data address
    and a script address, with scopes from the whole site down."""
    return await _register(it, [])


@attack("workers", types=("service-worker",))
async def worker_of_the_puzzle(it: Adversary) -> int:
    """The same from the address of the puzzle's own worker, before it is earned."""
    puzzle = it.visit.puzzle
    assert puzzle is not None
    return await _register(it, [puzzle.setup.asset("worker.js")])


async def _register(it: Adversary, own: list[str]) -> int:
    tried = await it.main(script("workers"), own)
    if tried["taken"] is None:
        raise RuntimeError("the browser did not say which workers it took")
    for scope in tried["there"]:
        if not scope.startswith("/asset/") or scope == "/asset/":
            it.won(f"a service worker rules {scope}")
    return int(tried["tries"])


@attack("workers", once=True)
async def worker_from_a_frame(it: Adversary) -> int:
    """The same from documents with other policies: an empty frame, one with a document of its own, files of the
    site."""
    tries = 0
    for address in ("about:blank", "srcdoc", "/health", "/app/app.js"):
        tries += int(await it.main(script("worker-frame"), address))
    there = await it.main("return (await navigator.serviceWorker.getRegistrations()).map((made) => made.scope);")
    for scope in there:
        it.won(f"a service worker rules {scope}")
    return tries


@attack("workers", spoils=True, once=True)
async def poisoned_caches(it: Adversary) -> int:
    """Put pages, scripts and assets of one's own into the cache storage, and reload into the HTTP cache, then open the
    page anew: does any of it run?"""
    await it.main(script("poison"))
    await it.reopen()
    if "owned=1" in await it.main("return document.cookie"):
        it.won("what a script had put into a cache ran in the next document")
    await it.main("for (const name of await caches.keys()) await caches.delete(name); localStorage.clear();")
    return 20


@attack("workers", spoils=True, once=True)
async def workers_that_outlive_the_page(it: Adversary) -> int:
    """Start dedicated and shared workers, from the site's addresses, blobs and data, that ask for a shell, open the
    channel and tell what they get on a broadcast channel, also while the next document loads."""
    it.keep("a worker's fetches", await it.main(script("outlive")))
    await it.reopen()
    later = await it.main(
        """
        const texts = [];
        new BroadcastChannel("told").onmessage = ({ data }) => texts.push(data);
        await turns(20);
        sessionStorage.clear();
        return texts.join("\\n");
        """
    )
    it.keep("a worker's fetches, later", later)
    return 12
