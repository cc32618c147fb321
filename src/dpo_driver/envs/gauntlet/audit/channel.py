"""Attacks on the channel: keys that are guessed, used, replaced or another's; evidence without a key; replay."""

from __future__ import annotations

import json

from dpo_driver.envs.gauntlet.audit.adversary import Adversary, script
from dpo_driver.envs.gauntlet.audit.outside import NAVIGATION, click
from dpo_driver.envs.gauntlet.audit.table import attack

GUESSES = (
    "", "guess", "null", "undefined", "@@KEY@@", "0" * 32, "A" * 32, "__proto__", "constructor", "*", "%", "' or 1=1--",
)  # fmt: skip


@attack("channel")
async def guessed_keys(it: Adversary) -> int:
    """Open a second channel from the page and greet with guesses: words, nothing, other kinds of values, many keys, the
    visit's name, deep nesting, binary data; then send evidence for every part."""
    evidence = [click(token) for token in it.tokens]
    hellos = [json.dumps({"key": key}) for key in (*GUESSES, it.name)]
    hellos += ["{}", "[]", '"x"', "1", "null", "true", '{"key":null}', '{"key":true}', '{"key":0}', '{"key":[]}']
    hellos += ['{"key":{}}', '{"key":["x"],"key":"x"}', "[" * 5000, '{"key":"\\ud800"}', '{"kind":"click"}', "\0"]
    heard = await it.main(
        script("talk")
        + "return (await Promise.all(given.hellos.map((one) => talk([one, ...given.evidence])))).flat();",
        {"hellos": hellos, "evidence": evidence},
    )
    for message in heard:
        it.won(f"a guessed key opened the channel: {message[:80]}")
    heard = await it.main(
        script("talk") + "return talk([new Uint8Array([123, 125]), new Blob(['{}'])], '/channel', ['x', 'y']);"
    )
    for message in heard:
        it.keep("the channel after binary data", message)
    return len(hellos) + 2


@attack("channel")
async def evidence_without_a_greeting(it: Adversary) -> int:
    """Send evidence as the first message, from the page and from outside with the visit's cookie: clicks, keys, typed
    text, drops, and the code's form, on every part."""
    kinds = ("click", "pointerdown", "pointerup", "keydown", "input", "drop", "wheel", "dblclick")
    evidence = [
        json.dumps({"n": 1, "kind": kind, "part": token, "source": token, "key": "Enter", "value": "x", "delta": 900})
        for token in it.tokens[:6]
        for kind in kinds
    ] + [click(token) for token in it.tokens]
    heard = await it.main(script("talk") + "return talk(given);", evidence)
    heard += await it.outside.talk("/channel", evidence, await it.cookie())
    for message in heard:
        it.won(f"the channel answered without a key: {message[:80]}")
    return 2 * len(evidence)


@attack("channel")
async def replayed_frames(it: Adversary) -> int:
    """Replay all that the sealed script has sent so far, its key first, on a second channel: from the page and from
    outside, with the visit's cookie and without."""
    await it.press_nothing()
    await it.settle()
    it.signals.clear()
    frames = list(it.sent) + [click(token, _key(it)) for token in it.tokens]
    heard = await it.main(script("talk") + "return talk(given);", frames)
    for cookie in ("", await it.cookie()):
        heard += await it.outside.talk("/channel", frames, cookie)
    for message in heard:
        it.won(f"a used key opened the channel: {message[:80]}")
    return 3


def _key(it: Adversary) -> str:
    return str(json.loads(it.sent[0])["key"])


@attack("channel", spoils=True)
async def replaced_key(it: Adversary) -> int:
    """Use the key of an older shell that no page has used, after a newer shell of the same visit was served."""
    cookie = {"Cookie": await it.cookie()}
    await it.outside.get("/step/1", NAVIGATION | cookie)
    old = it.line.key
    await it.outside.get("/step/1", NAVIGATION | cookie)
    frames = [json.dumps({"key": old}), *(click(token, str(old)) for token in it.tokens)]
    for message in await it.main(script("talk") + "return talk(given);", frames):
        it.won(f"a replaced key opened the channel: {message[:80]}")
    return 1


@attack("channel")
async def key_of_another_visit(it: Adversary) -> int:
    """Get a key for a visit of one's own, and use it with this visit's cookie; and this visit's parts on one's own
    channel. What comes is one's own visit's, and nothing reaches this one."""
    reply = await it.outside.get("/", NAVIGATION)
    own = reply.header("Set-Cookie").partition(";")[0]
    key = next(iter(it.keys & set(_words(reply.body))), "")
    if not key:
        raise RuntimeError("no key was found in a shell: the attack is blind")
    frames = [json.dumps({"key": key}), *(click(token, key) for token in it.tokens)]
    for message in await it.outside.talk("/channel", frames, await it.cookie()):
        it.won(f"another visit's key opened the channel: {message[:80]}")
    for message in await it.outside.talk("/channel", frames, own):
        it.keep("one's own channel", message)
    return 2


def _words(text: str) -> list[str]:
    return text.replace('"', "`").replace("'", "`").split("`")


@attack("channel")
async def feeds_before_their_time(it: Adversary) -> int:
    """Open a puzzle's own WebSocket before it was asked for, from the page and from outside, and say all sorts of
    things on it."""
    puzzle = it.visit.puzzle
    assert puzzle is not None
    paths = [puzzle.setup.asset(name) for name in ("feed", "film.webm", "code", "worker.js")]
    heard = await it.main(
        script("talk") + "return (await Promise.all(given.paths.map((path) => talk(given.said, path)))).flat();",
        {"paths": paths, "said": ["", "connect", '{"kind":"click"}', "start"]},
    )
    heard += await it.outside.talk(paths[0], ["connect"], await it.cookie())
    for message in heard:
        it.won(f"a feed spoke before it was asked for: {message[:80]}")
    return len(paths) + 1


@attack("channel")
async def channels_from_elsewhere(it: Adversary) -> int:
    """Open the channel with this visit's cookie and a used key as a page of another origin would, with no origin, a
    null one, one that only looks alike."""
    frames = [json.dumps({"key": _key(it)}), *(click(token, _key(it)) for token in it.tokens)]
    cookie, host = await it.cookie(), it.outside.host
    origins = ("", "null", "http://evil.example", f"http://{host}.evil.example", f"http://evil.example#{host}",
               f"https://x@{host}", f"http://{host}@evil.example", "file://", f"http://{host}")  # fmt: skip
    for origin in origins:
        for message in await it.outside.talk("/channel", frames, cookie, origin):
            it.won(f"the channel opened for the origin {origin!r}: {message[:80]}")
    return len(origins)
