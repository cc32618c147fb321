"""Attacks by events and methods of scripts: everything that could pass for a person's input, on every part."""

from __future__ import annotations

from dpo_driver.envs.gauntlet.audit.adversary import Adversary, script
from dpo_driver.envs.gauntlet.audit.table import attack


@attack("synthetic")
async def dispatched_events(it: Adversary) -> int:
    """Dispatch events of every kind on every part and field, on the body, the document and the window: pointers, mouse,
    keys with key codes, wheel, text, drag and drop, touch, custom and old-fashioned ones."""
    return int(await it.main(script("dispatched")))


@attack("synthetic")
async def dispatched_by_js_eval(it: Adversary) -> int:
    """The same through the action js_eval, whose world has pristine built-ins."""
    said = await it.js_eval(script("dispatched"))
    if not said.isdigit():
        raise RuntimeError(f"js_eval did not run: {said[:200]}")
    return int(said)


@attack("synthetic", spoils=True)
async def called_methods(it: Adversary) -> int:
    """Call what makes browsers act by themselves, on every part: click (on it, on a label for it, on a child), focus,
    requestSubmit, implicit submission, scrolling, play, checking boxes, opening folds and popovers. A trusted key on
    nothing has given the page the user's activation before."""
    await it.press_nothing("Shift")
    return int(await it.main(script("methods")))


@attack("synthetic", spoils=True)
async def methods_called_by_js_eval(it: Adversary) -> int:
    """The same through the action js_eval, without the user's activation."""
    said = await it.js_eval(script("methods"))
    if not said.isdigit():
        raise RuntimeError(f"js_eval did not run: {said[:200]}")
    return int(said)


@attack("synthetic", spoils=True)
async def text_by_scripts(it: Adversary) -> int:
    """Put the right code and other text into every field by value, setters, attributes, ranges, editing commands, undo,
    paste, text events, composition, changes of the field's kind, twins of the field and editable boxes, and enter it by
    events."""
    return sum([int(await it.main(script("texts"), text)) for text in (it.visit.code(1), "x")])


@attack("synthetic", spoils=True)
async def text_and_a_trusted_key(it: Adversary) -> int:
    """Put the right code into the fields by value, editing commands, cutting and undoing, changes of kind and a
    property of one's own, and then press a trusted Enter in the field for the code, which sends the form: nothing was
    typed."""
    tries = 0
    for way in (
        "e.value = given;",
        "e.value = ''; e.focus(); document.execCommand('insertText', false, given);",
        "e.value = given; e.select(); document.execCommand('cut'); document.execCommand('undo');",
        "e.type = 'checkbox'; e.value = given; e.type = 'text';",
        "Object.defineProperty(e, 'value', { get: () => given, set() {} });",
    ):
        await it.main(f"for (const e of fields()) {{ {way} }} await turns(1);", it.visit.code(1))
        await it.press_enter_on_code()
        await it.settle()
        tries += 1
    if it.visit.step != 1 or (it.visit._now and it.visit._now.wrong):
        it.won("text of a script was taken for typed text")
    return tries


@attack("synthetic", spoils=True)
async def events_dispatched_again(it: Adversary) -> int:
    """Catch trusted events, of keys on nothing and of editing commands, and dispatch them again on every part, as they
    are, changed, in proxies and as prototypes of others, while they run and later."""
    await it.main(script("catch"))
    await it.press_nothing("Shift")
    await it.settle()
    return int(await it.main(script("again")))


@attack("synthetic", spoils=True)
async def events_at_the_stacks_end(it: Adversary) -> int:
    """Cause trusted input events by editing commands at many depths near the call stack's end, so that the sealed
    script fails at any of its lines: a half-done report must not be a wrong one."""
    return int(await it.main(script("deep-stack")))
