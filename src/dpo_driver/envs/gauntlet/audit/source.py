"""Attacks on what is served as text: the page's source, all scripts and styles, assets, and files that may lie
about."""

from __future__ import annotations

import asyncio
import contextlib
import re

from dpo_driver.envs.gauntlet.audit.adversary import Adversary, script
from dpo_driver.envs.gauntlet.audit.outside import NAVIGATION
from dpo_driver.envs.gauntlet.audit.table import attack

# What a puzzle might serve, under the names that types really use and some that they do not.
ASSET_NAMES = (
    "film.webm", "sound.wav", "feed", "worker.js", "frame-0", "frame-1", "sheet-0.html", "sheet-1.html", "window-0",
    "window-0.txt", "window-1.txt", "picture-0.webp", "picture-5.webp", "code", "code.txt", "code.json", "index.html",
    "",
)  # fmt: skip
PATIENCE_S = 0.4
FILES = (
    "/", "/step/1", "/step/2", "/finish", "/health", "/favicon.ico", "/robots.txt", "/manifest.json", "/app/",
    "/app/app.js", "/app/app.js.map", "/app/seal.js", "/app/manifest.json", "/site/seal.js", "/seal.js", "/static/",
    "/.git/config", "/.env", "/server.py", "/codes", "/api/codes", "/api/state", "/state", "/visit", "/docs",
    "/openapi.json", "/metrics", "/debug", "/admin", "/sw.js", "/service-worker.js", "/.well-known/security.txt",
)  # fmt: skip


@attack("source")
async def page_source(it: Adversary) -> int:
    """Read the document's source as it is now, every inline script, every style rule, every comment and every data
    block, and fetch the text of every script, style and file that the page names or has loaded."""
    texts = await it.main(script("source"))
    for text in texts:
        it.keep("the page's source, or a file that it names", text)
    return len(texts)


@attack("source")
async def files_that_lie_about(it: Adversary) -> int:
    """Ask for the site's pages, source maps, manifests, interface descriptions and leftovers from outside, with the
    visit's cookie and without."""
    cookie = {"Cookie": await it.cookie()}
    for path in FILES:
        for headers in ({}, cookie):
            reply = await it.outside.get(path, headers)
            it.keep(f"{path} from outside", reply.head + reply.body)
    return 2 * len(FILES)


@attack("source")
async def assets_before_their_time(it: Adversary) -> int:
    """Fetch each asset of this step before it is earned: in the page those that the page names, as it is and in ranges,
    and from outside all others that there may be, at their true addresses, which the adversary is taken to have
    guessed."""
    puzzle = it.visit.puzzle
    assert puzzle is not None
    told = sorted(set(re.findall(r'/asset/[0-9a-f]+/[^"\\\' ]+', str(it.visit.page()))))
    texts = await it.main(
        """
        const ask = (path, headers) =>
          fetch(path, { headers, signal: AbortSignal.timeout(given.patience) }).then((r) => r.text()).catch(String);
        const ways = [{}, { Range: "bytes=0-" }, { "Service-Worker": "script" }];
        return Promise.all(given.paths.flatMap((path) => ways.map((way) => ask(path, way))));
        """,
        {"paths": told[:2], "patience": 1000 * PATIENCE_S},
    )
    cookie = {"Cookie": await it.cookie()}
    paths = [puzzle.setup.asset(name) for name in ASSET_NAMES]
    texts += await asyncio.gather(*(_within(it, path, cookie) for path in (*told, *paths)))
    for text in texts:
        it.keep("an asset of this step", text)
    return len(texts)


async def _within(it: Adversary, path: str, headers: dict[str, str]) -> str:
    """The server waits for what may still be earned; we do not."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(PATIENCE_S):
            return (await it.outside.get(path, headers)).body
    return ""


@attack("source", once=True)
async def source_of_a_new_shell(it: Adversary) -> int:
    """Read a shell's source, as a person does with "view source": a document of another visit, as it is served. It has
    a key, for there is no page without one, and no code."""
    reply = await it.outside.get("/", NAVIGATION)
    text = reply.body
    for key in it.keys:
        text = text.replace(key, "")
    it.keep("the source of a shell", reply.head + text)
    return 1
