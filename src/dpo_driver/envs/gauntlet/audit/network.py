"""Attacks on what goes over the network, as the browser's own tools show it: a code may be there once it is earned."""

from __future__ import annotations

import contextlib

from playwright.async_api import Error as PlaywrightError
from playwright.async_api import Response

from dpo_driver.envs.gauntlet.audit.adversary import Adversary, script
from dpo_driver.envs.gauntlet.audit.table import attack


@attack("network")
async def all_traffic_of_a_load(it: Adversary) -> int:
    """Open the page anew and read everything that comes: the bodies and headers of all answers, with redirects, and
    every frame of every WebSocket."""
    answers: list[Response] = []
    page = it.page

    def answered(answer: Response) -> None:
        answers.append(answer)

    page.on("response", answered)
    await it.session.goto(it.server.url_of(it.start))
    await it.press_nothing()
    await it.settle()
    page.remove_listener("response", answered)
    for answer in answers:
        it.keep(f"the headers of {answer.url.partition('?')[0]}", await answer.all_headers())
        with contextlib.suppress(PlaywrightError):  # a redirect has no body
            body = (await answer.body()).decode("utf-8", "replace")
            # Its own key is what a shell is for; whoever reads it here rules the browser.
            it.keep(f"the body of {answer.url.partition('?')[0]}", _without_keys(body, it.keys))
    if not it.traffic:
        raise RuntimeError("no frame was seen: the attack is blind")
    return 2 * len(answers) + len(it.traffic)


def _without_keys(text: str, keys: set[str]) -> str:
    for key in tuple(keys):  # the server of another thread may add one meanwhile
        text = text.replace(key, "")
    return text


@attack("network")
async def timings_of_the_page(it: Adversary) -> int:
    """Read the page's own records of the network: resource, navigation and server timings, reports, and addresses that
    were redirected from."""
    texts = await it.main(script("timings"))
    for text in texts:
        it.keep("the page's timings", text)
        if "token=" in text:
            it.won("the address of a signed start can be read by scripts")
    return len(texts)
