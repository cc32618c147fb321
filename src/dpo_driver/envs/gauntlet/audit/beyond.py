"""What no server can prevent: whoever rules the browser, or is none and poses as one, makes trusted input. Reported
apart, so that it is known and measured: these are expected to get through.

An agent of ours acts through the public actions and, at most, js_eval; neither gives it any of this. The visit's cookie
cannot be read by scripts, and a client that has it got it from the browser's own tools.
"""

from __future__ import annotations

import json

from dpo_driver.envs.gauntlet.audit.adversary import Adversary
from dpo_driver.envs.gauntlet.audit.outside import NAVIGATION, click
from dpo_driver.envs.gauntlet.audit.table import attack


@attack("beyond", spoils=True, once=True)
async def client_that_poses_as_a_browser(it: Adversary) -> int:
    """A client outside with the visit's cookie sends the headers of a browser's own navigation, reads the key and
    speaks on the channel."""
    cookie = await it.cookie()
    reply = await it.outside.get("/step/1", NAVIGATION | {"Cookie": cookie})
    words = reply.body.replace('"', "`").split("`")
    key = next(iter(it.keys & set(words)), "")
    frames = [json.dumps({"key": key}), *(click(token, key) for token in it.tokens)]
    heard = await it.outside.talk("/channel", frames, cookie)
    if key and heard:
        it.won("a client that poses as a browser is taken for one")
    it.signals.clear()
    await it.begin()
    return 1


@attack("beyond", spoils=True, once=True)
async def script_before_all_others(it: Adversary) -> int:
    """A script that the browser's tools put into each new document before any other bends what the sealed script is
    about to copy."""
    page = it.page
    await page.add_init_script(
        "window.stolen = []; const old = WebSocket.prototype.send;"
        "WebSocket.prototype.send = function (m) { stolen.push(m); return old.call(this, m); };"
    )
    await it.session.goto(f"{it.server.base_url}/step/1")
    await page.wait_for_selector("h1", state="attached")
    await it.press_nothing()
    await it.settle()
    if any('"key":' in text for text in await it.main("return stolen;")):
        it.won("a script that runs before the sealed one gets its key")
    it.signals.clear()
    await it.begin()
    return 1
