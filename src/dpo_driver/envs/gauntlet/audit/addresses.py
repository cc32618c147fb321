"""Attacks by address: later steps and their assets, other visits, the status of visits, paths and headers made up."""

from __future__ import annotations

import asyncio

from dpo_driver.envs.gauntlet.audit.adversary import STEPS, Adversary
from dpo_driver.envs.gauntlet.audit.outside import NAVIGATION, Reply
from dpo_driver.envs.gauntlet.audit.source import ASSET_NAMES
from dpo_driver.envs.gauntlet.audit.table import attack
from dpo_driver.envs.gauntlet.server import ADMIN_HEADER, COOKIE

STEP_PATHS = (
    "/step/0", "/step/2", "/step/3", "/step/4", "/step/30", "/step/999999", "/step/2/", "/step/2?step=2", "/step/+2",
    "/step/-1", "/step/2.0", "/step/2%00", "/step/02", "/finish", "/finish/", "/?step=3", "/start", "/start?step=3",
)  # fmt: skip
TRAVERSALS = (
    "/app/../seal.js", "/app/..%2fseal.js", "/app/%2e%2e/manifest.json", "/app/app.js/../seal.js", "/app//app.js",
    "/app/....//seal.js", "/asset/../status", "/asset/x/../../status?visit={visit}", "/asset/{token}/../../server.py",
    "/asset/{token}/..%2f..%2f..%2fserver.py", "/asset/{token}/%2e%2e/%2e%2e/etc/passwd", "/asset/{token}/%00",
    "/asset/{token}//etc/passwd", "/asset/%2e%2e/%2e%2e/status", "/asset/{token}/feed/../film.webm",
    "/..%5c..%5cserver.py",
    "//status?visit={visit}", "/./status?visit={visit}", "/STATUS?visit={visit}", "/status/?visit={visit}",
)  # fmt: skip


@attack("addresses")
async def pages_of_later_steps(it: Adversary) -> int:
    """Fetch the addresses of later steps and of the end, in the page and outside with its cookie, also as a document
    that claims to be opened by another site, a frame, a prefetch."""
    texts = await it.main(
        """
        const texts = [];
        for (const path of given) {
          const answer = await fetch(path, { redirect: "follow", signal: AbortSignal.timeout(3000) }).catch(() => null);
          if (answer) texts.push(answer.url, await answer.text());
        }
        return texts;
        """,
        list(STEP_PATHS),
    )
    for text in texts:
        it.keep("the page of another step", text)
    cookie = {"Cookie": await it.cookie()}
    others: tuple[dict[str, str], ...] = (
        {}, {"Sec-Fetch-Mode": "navigate"}, NAVIGATION | {"Sec-Fetch-Site": "cross-site"},
        NAVIGATION | {"Sec-Fetch-Dest": "iframe"}, NAVIGATION | {"Sec-Purpose": "prefetch"},
        NAVIGATION | {"Sec-Fetch-Site": "same-origin"}, {"Accept": "text/html", "Upgrade-Insecure-Requests": "1"},
    )  # fmt: skip
    for path in STEP_PATHS[:5]:
        for headers in others:
            reply = await it.outside.get(path, headers | cookie)
            it.keep(f"{path} from outside", reply.head + reply.body)
    if it.visit.step != 1:
        it.won(f"an address led to step {it.visit.step}")
    return len(STEP_PATHS) + 5 * len(others)


@attack("addresses", spoils=True)
async def visits_to_later_steps(it: Adversary) -> int:
    """Go to the addresses of a later step and of the end, as a person does in the address bar and as a script does:
    the page that comes is that of the step one is at."""
    await it.session.goto(f"{it.server.base_url}/step/3")
    it.keep("the page at /step/3", await it.main("return document.body.innerText + location.href"))
    async with it.page.expect_event("load", timeout=20_000):
        await it.page.evaluate("() => { setTimeout(() => { location.href = '/finish'; }) }")
    it.keep("the page at /finish", await it.main("return document.body.innerText + location.href"))
    if it.visit.step != 1:
        it.won(f"an address led to step {it.visit.step}")
    return 2


@attack("addresses")
async def assets_of_later_steps(it: Adversary) -> int:
    """Fetch the assets of later steps at their true addresses, as if these had been guessed, and those of this step
    with tokens that are cut, changed and empty, and with no cookie."""
    steps = [it.visit._make_setup(step) for step in range(2, STEPS + 1)]
    paths = [setup.asset(name) for setup in steps for name in ASSET_NAMES]
    own = it.visit._make_setup(1)
    paths += [
        change(own.asset(name))
        for name in ("film.webm", "frame-0", "feed")
        for change in (lambda p: p.replace("/asset/", "/asset/0"), lambda p: p + "x", lambda p: p.upper(),
                       lambda p: "/asset//" + p.rsplit("/", 1)[1], lambda p: p.replace("/asset/", "/asset/%00"))
    ]  # fmt: skip
    cookie = {"Cookie": await it.cookie()}
    replies = await asyncio.gather(*(it.outside.get(path, cookie) for path in paths))
    bare = await asyncio.gather(*(it.outside.get(own.asset(name)) for name in ASSET_NAMES))
    for path, reply in [*zip(paths, replies, strict=True), *(("an asset without a cookie", one) for one in bare)]:
        it.keep(path, reply.body)
        if reply.status < 300:
            it.won(f"{path} was served")
    return len(paths) + len(bare)


@attack("addresses")
async def paths_that_climb(it: Adversary) -> int:
    """Climb out of the assets' and the app's folders: dots, slashes, codes for them, backslashes, null bytes."""
    token = it.visit._make_setup(1).asset("feed").split("/")[2]
    cookie = {"Cookie": await it.cookie()}
    for path in TRAVERSALS:
        reply = await it.outside.get(path.format(token=token, visit=it.name), cookie)
        it.keep(path, reply.head + reply.body)
        if reply.status < 300 and reply.body not in it.site._app:
            it.won(f"{path} was served")
    return len(TRAVERSALS)


@attack("addresses")
async def status_for_strangers(it: Adversary) -> int:
    """Ask how the visit stands without the owner's token, with wrong ones and with what might pass for one, from the
    page and from outside."""
    path = f"/status?visit={it.name}"
    text = await it.main(
        """
        const texts = [];
        for (const value of ["", "admin", "null", "true", "undefined", "*", "0".repeat(32)]) {
          const headers = { "X-Gauntlet-Admin": value };
          texts.push(await fetch(given, { headers }).then((answer) => `${answer.status} ${answer.url}`));
        }
        return texts.join("\\n");
        """,
        path,
    )
    guesses = ("", " ", "null", "None", "admin", "é", "x" * 9000, it.name, it.server.base_url)
    wanted = [{ADMIN_HEADER: guess} for guess in guesses]
    wanted += [
        {},
        {"Authorization": f"Bearer {it.name}"},
        {"Cookie": f"{ADMIN_HEADER}=x"},
        {"X-Forwarded-For": "127.0.0.1"},
    ]
    replies: list[Reply] = [await it.outside.get(path, headers) for headers in wanted]
    replies += [await it.outside.get(path, {}, method) for method in ("HEAD", "POST", "OPTIONS", "PUT", "TRACE")]
    if any(line.startswith("2") for line in text.splitlines()) or any(reply.status < 300 for reply in replies):
        it.won("the status of a visit is told to strangers")
    for reply in replies:
        it.keep("the status", reply.head + reply.body)
    return 7 + len(replies)


@attack("addresses")
async def odd_hosts(it: Adversary) -> int:
    """Ask for the shell and the assets with other hosts, forwarded addresses, overridden methods and rewritten
    paths."""
    cookie = {"Cookie": await it.cookie()}
    odd = (
        {"Host": "evil.example"}, {"Host": ""}, {"Host": "localhost"}, {"X-Forwarded-Host": "evil.example"},
        {"X-Original-URL": "/status"}, {"X-Rewrite-URL": f"/status?visit={it.name}"}, {"X-HTTP-Method-Override": "PUT"},
        {"Origin": "null"}, {"Origin": it.server.base_url}, {"Forwarded": "host=x;proto=https"},
        {"Accept": "application/json"},
        {"X-Requested-With": "XMLHttpRequest"}, {"Service-Worker": "script"}, {"Purpose": "prefetch"},
    )  # fmt: skip
    for headers in odd:
        for path in ("/step/1", f"/status?visit={it.name}", "/app/app.js"):
            reply = await it.outside.get(path, cookie | headers)
            it.keep(f"{path} with {headers}", reply.head + reply.body)
            if "status" in path and reply.status < 300:
                it.won(f"the status was told with {headers}")
    return 3 * len(odd)


@attack("addresses")
async def visits_guessed(it: Adversary) -> int:
    """Come with the cookie of a visit whose name one knows or guesses, but not its seal: for assets and for a shell
    that continues it."""
    asset = it.visit._make_setup(1).asset("frame-0")
    right = (await it.cookie()).partition("=")[2]
    seal = right.rpartition(".")[2]
    names = [it.name, f"{it.name}.", f"{it.name}.{'0' * 32}", f"{it.name}.{seal[:-1]}", f".{seal}", f"x.{seal}", "1",
             "", "../", "None", f'"{right}"x', f"{right};", right.upper(), right.replace(".", "%2e")]  # fmt: skip
    names = [name for name in names if name.strip(';"x') != right]
    for name in names:
        cookie = {"Cookie": f"{COOKIE}={name}"}
        reply = await it.outside.get(asset, cookie)
        shell = await it.outside.get("/step/1", NAVIGATION | cookie)
        if reply.status < 300 or (shell.status == 200 and not shell.header("Set-Cookie")):
            it.won(f"the cookie {name!r} was taken for the visit's")
        it.forget(shell)
    return 2 * len(names)


@attack("addresses", spoils=True, once=True)
async def full_cookie_jar(it: Adversary) -> int:
    """Push the visit's cookie, which scripts cannot overwrite, out of the jar with hundreds of others, put one with a
    guessable visit's name in its place, and open the page: does it go on with that visit?"""
    victim = it.site._open(
        it.server.start(it.scene.seed, visit=f"{it.name}-victim", types=(it.scene.type,), steps=STEPS)
    )
    await it.main(
        """
        for (let i = 0; i < 400; i++) document.cookie = `filler${i}=1; path=/`;
        for (const path of ["/", "/step", "/channel", "/asset", "/step/1"]) {
          document.cookie = `${given.name}=${given.value}; path=${path}`;
        }
        """,
        {"name": COOKIE, "value": victim.visit.id},
    )
    await it.session.goto(f"{it.server.base_url}/step/1")
    await it.page.wait_for_selector("h1, [role=alert]", state="attached", timeout=10_000)
    if victim.connected or victim.told:
        it.won("a script chose the visit by its name")
    it.site._lines.pop(victim.visit.id, None)
    await it.begin()
    return 5
