"""Attacks by bending built-ins: what the sealed script calls while a trusted key falls on nothing is replaced before.

If a bent built-in is used, it sees the report, the key or the socket, or changes what is reported: each is a leak.
"""

from __future__ import annotations

from dpo_driver.envs.gauntlet.audit.adversary import Adversary, script
from dpo_driver.envs.gauntlet.audit.outside import click
from dpo_driver.envs.gauntlet.audit.table import attack

# What is bent is not used for reading what was caught: no iteration, no method of arrays.
_CAUGHT = """function () {
    const all = [];
    for (let i = 0; i < this.length; i++) {
        Object.defineProperty(all, i, { __proto__: null, value: this[i], enumerable: true, writable: true });
    }
    return all;
}"""
_SPEAK = """function (message) {
    let sent = 0;
    for (let i = 0; i < this.length; i++) { try { this[i].send(message); sent++; } catch {} }
    return sent;
}"""


async def _bent(it: Adversary, name: str) -> int:
    """Bend, set the sealed script going with trusted keys on nothing, and look at what was caught."""
    tokens = it.tokens
    part = tokens[0] if tokens else it.code_field
    await it.main("unblock();" + script("bending", f"bend-{name}"), part)
    await it.press_nothing()
    await it.press_nothing("Shift")
    await it.settle()
    if not it.signals:
        raise RuntimeError("no key was heard: the attack is blind")
    texts = await it.session.call_on(await it.session.handle("window.bent"), _CAUGHT)
    for text in texts:
        if '"n":' in text or '"seal":' in text:
            it.won(f"a bent built-in saw a report: {text[:80]}")
        it.keep("a bent built-in", text)
    if await it.session.call_on(await it.session.handle("window.sockets"), _SPEAK, click(part)):
        it.won("a bent built-in was handed the sealed script's socket")
    return len(texts) + 1


@attack("builtins", spoils=True)
async def bent_sending(it: Adversary) -> int:
    """Bend what sends: WebSocket's methods, handlers and constructor, JSON and toJSON, fetch, beacons and ports."""
    return await _bent(it, "sending")


@attack("builtins", spoils=True)
async def bent_events(it: Adversary) -> int:
    """Bend what events tell: type, target, path, key, detail, coordinates, data and isTrusted, on the prototypes; and
    what listens, so that a listener that is added later is known."""
    return await _bent(it, "events")


@attack("builtins", spoils=True)
async def bent_documents(it: Adversary) -> int:
    """Bend what the DOM tells: attributes, parents, hosts, slots, shadow roots, boxes, points, lists of elements,
    values and labels of fields, so that everything looks like the first part."""
    return await _bent(it, "documents")


@attack("builtins", spoils=True)
async def bent_language(it: Adversary) -> int:
    """Bend the language's own: Reflect, Function's call, apply and bind, Array, String, Map, WeakMap, Promise, Math,
    iterators, species and conversions."""
    return await _bent(it, "language")


@attack("builtins", spoils=True)
async def polluted_prototypes(it: Adversary) -> int:
    """Give all objects what the sealed script might look for: listeners' options, descriptors' fields, the fields of
    its reports and memories, indices of arrays, as getters and as setters that take what is stored."""
    return await _bent(it, "prototypes")


@attack("builtins")
async def events_that_call_themselves_trusted(it: Adversary) -> int:
    """Make events trusted: isTrusted as an own property, a getter, in the class, in the prototype, in a proxy, by
    Object.defineProperty on the instance, by a class of one's own, and by freezing."""
    return int(await it.main(script("own-trust")))
