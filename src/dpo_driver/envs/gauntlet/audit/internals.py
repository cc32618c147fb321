"""Attacks on what a page holds in memory: the DOM, React's own objects, globals, the ``subscribe`` object, events, the
call stack."""

from __future__ import annotations

from dpo_driver.envs.gauntlet.audit.adversary import Adversary, script
from dpo_driver.envs.gauntlet.audit.outside import click
from dpo_driver.envs.gauntlet.audit.table import attack


@attack("internals")
async def whole_document(it: Adversary) -> int:
    """Read everything in the DOM, seen or not: texts, attributes, properties, pseudo elements, closed folds, templates,
    open shadow roots, frames and canvases."""
    it.keep("the document", await it.main(script("document")))
    it.keep("the document, as js_eval sees it", await it.js_eval(script("document")))
    return 2


@attack("internals")
async def react_objects(it: Adversary) -> int:
    """Walk React's fibers from the root container and from every element: properties, states, hooks, references and
    queues, to a depth of twelve."""
    found = await it.main(script("react"))
    if not found["keys"]:
        raise RuntimeError("no React object was found: the attack is blind")
    it.keep("React's objects", found["text"])
    return int(found["keys"])


@attack("internals", spoils=True)
async def handlers_with_made_up_events(it: Adversary) -> int:
    """Call every function among the properties that React keeps of every element, with made-up events that say they are
    trusted, and set every state to true."""
    return int(await it.main(script("handlers")))


@attack("internals")
async def global_objects(it: Adversary) -> int:
    """Read every global that a fresh window does not have, their properties and the source of their functions; try to
    change, replace and call what the sealed script has left: gauntlet and its subscribe."""
    found = await it.main(script("globals"))
    if not found["same"]:
        it.won("the gauntlet object can be changed")
    it.keep("globals", found["text"])
    return 1 + int(found["tries"])


@attack("internals")
async def told_by_subscribe(it: Adversary) -> int:
    """Subscribe with functions, proxies and objects; read all messages there were and that come when the empty code is
    entered; throw errors into the sealed script."""
    await it.main(script("subscribe"))
    await it.press_enter_on_code()
    await it.settle()
    it.keep("what subscribe gives", await it.main("return told.join('\\n')"))
    return 10


@attack("internals", spoils=True)
async def socket_of_the_message(it: Adversary) -> int:
    """A receiver that is called during the message event sees that event as window.event, and by its target the sealed
    script's own socket: send evidence through it, for every part of the puzzle, and try the same in a microtask."""
    await it.main(script("sockets"))
    await it.press_enter_on_code()
    await it.settle()
    evidence = [click(token) for token in it.tokens]
    evidence += [click(token, "x" * 32) for token in it.tokens[:2]]
    sent = await it.main(
        """
        let sent = 0;
        for (const socket of window.found) for (const message of given) { socket.send(message); sent++; }
        await turns(5);
        return sent;
        """,
        evidence,
    )
    return max(1, int(sent))


@attack("internals")
async def call_stack(it: Adversary) -> int:
    """Look up the call stack from every function that the sealed script may call into: caller, arguments, structured
    stacks with getFunction and getThis, errors made at the stack's very end."""
    await it.main(script("stack"))
    await it.press_nothing()
    await it.settle()
    await it.press_enter_on_code()
    await it.settle()
    text = await it.main("delete Error.prepareStackTrace; return stacks.join('\\n')")
    for marker in ("composedPath", '"n":', "new WebSocket", "/channel"):
        if marker in text:
            it.won(f"the sealed script's functions can be read from the call stack ({marker})")
    it.keep("the call stack", text)
    return 4
