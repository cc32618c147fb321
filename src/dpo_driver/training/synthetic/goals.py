"""Goals for synthetic pages, with the right next decision: what the pocket model learns from.

A goal is one or more orders (push, tick, pick, fill, choose) put into words in many ways. The page already shows how
far the work has come; the decision is the first order that is not done yet. Wording is this module's own.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from dpo_driver.core.actions import Action, Click, Fill, SelectOption, format_action
from dpo_driver.training.synthetic import words
from dpo_driver.training.synthetic.scenes import Scene, iso_date

PUSHABLE = ("button", "link", "clickable", "item", "text", "listitem", "menuitem", "tab", "heading", "cell")
FIELDS = ("textbox", "textarea")
ROLE_WORDS = {
    "button": ("button",), "link": ("link",), "checkbox": ("checkbox", "tick box"), "radio": ("radio",),
    "textbox": ("textbox", "input box", "line"), "textarea": ("textarea", "memo"),
    "tab": ("tab",), "item": ("item", "entry"),
    "clickable": ("link", "entry"), "listitem": ("entry", "item"), "menuitem": ("menu entry",), "text": ("text",),
    "heading": ("heading",), "cell": ("cell",), "combobox": ("combobox", "picker", "chooser"),
    "date": ("date", "calendar box"),
}  # fmt: skip


@dataclass(frozen=True)
class Branch:
    """One goal for a page and the decision that is right now. ``past`` are the earlier decisions, as rendered."""

    goal: str
    past: tuple[str, ...]
    thought: str
    action: Action
    kind: str = ""


@dataclass
class Order:
    """Something to be done to one element. ``done`` is what the page shows; a push leaves no trace but the past."""

    position: int
    action: Action
    said: str
    done: bool = False


def quoted(rng: random.Random, text: str) -> str:
    draw = rng.random()
    if draw < 0.5:
        return f'"{text}"'
    if draw < 0.6:
        return f"'{text}'"
    return text


def _say(rng: random.Random, forms: Sequence[str], **slots: str) -> str:
    return rng.choice(forms).format(**slots)


def _ref(scene: Scene, position: int) -> str:
    ref = scene.elements[position].ref
    assert ref is not None
    return ref


def _role_word(rng: random.Random, scene: Scene, position: int) -> str:
    return rng.choice(ROLE_WORDS[scene.elements[position].role])


def _called(rng: random.Random, scene: Scene, position: int) -> str | None:
    """Words that single the element out: its name, or its place among its like when it has none."""
    element = scene.elements[position]
    like = [i for i, e in enumerate(scene.elements) if e.role == element.role and e.name == element.name]
    role = _role_word(rng, scene, position)
    if not element.name:
        if len(like) == 1:
            return rng.choice(("that {0}", "the only {0}", "the single {0}", "this page's {0}")).format(role)
        if element.nth > 5:
            return None
        ordinal = rng.choice((words.ORDINALS, words.SHORT_ORDINALS))[element.nth - 1]
        return rng.choice((f"the {ordinal} {role}", f"{role} number {element.nth}", f"the {ordinal} {role} here"))
    if element.nth > 1:
        return None
    same_name = [i for i, e in enumerate(scene.elements) if e.name == element.name and e.ref and e.role != "text"]
    name = quoted(rng, element.name)
    if len(same_name) > 1 or rng.random() < 0.35:
        return rng.choice((f"that {role} {name}", f"the {name} {role}", f"{role} {name}"))
    return name


PUSH = ("push {x}", "tap {x}", "activate {x}", "use {x}", "trigger {x}", "tap on {x}", "punch {x}")
OPEN = ("open {x}", "follow {x}", "go to {x}", "visit {x}", "take {x}", "tap {x}", "bring up {x}", "pick {x}")
CURSOR = ("put the cursor in {x}", "go into {x}", "place the caret in {x}", "jump to {x}", "tap {x}")
TICK = ("tick {x}", "mark {x}", "turn on {x}", "put a tick at {x}", "switch on {x}")
TICK_SET = ("tick {x}", "mark {x}", "turn on {x}", "tick all of these: {x}", "of the boxes tick {x}", "mark just {x}")
PICK = ("pick {x}", "choose {x}", "go for {x}", "opt for {x}", "set the choice to {x}", "take {x}")
WRITE = (
    "write {v} in {x}", "type {v} into {x}", "put {v} into {x}", "set {x} to {v}", "key in {v} at {x}",
    "fill {x} with {v}", "{x} gets {v}", "supply {v} for {x}", "{x} should read {v}", "use {v} as {x}",
)  # fmt: skip
WRITE_NAMED = ("{f}: {v}", "{f} is {v}", "{f} = {v}", "the {f} {v}", "{v} as {f}", "the {f} is {v}")
WRITE_ALONE = ("write {v}", "type {v}", "key in {v}", "put {v} there", "put in {v}", "fill in {v}")
CHOOSE = (
    "set {x} to {v}", "in {x} take {v}", "choose {v} in {x}", "pick {v} from {x}", "change {x} to {v}", "take {v}",
    "pick {v}", "opt for {v} there", "let it show {v}",
)  # fmt: skip
FINISH = ("{x}", "push {x}", "tap {x}", "punch {x}", "use {x}", "finish with {x}", "end with {x}", "then {x}")
ANY = ("tap any {r}", "push some {r}", "use a {r}", "touch one {r}", "activate any {r}")
FIND = ("find {x} and open it", "look for {x}", "hunt for {x}; open it", "search the page for {x}", "locate {x}")
JOIN = (", then ", "; ", " and ", ", ", ". After that ", ". ", " and afterwards ", ", next ", ". Then ")
START = ("", "", "", "", "Please ", "Now ", "Job: ", "You must ", "To do: ")


def push_order(rng: random.Random, scene: Scene, position: int) -> Order | None:
    called = _called(rng, scene, position)
    if called is None:
        return None
    role = scene.elements[position].role
    forms = PUSH if role == "button" else CURSOR if role in FIELDS else OPEN
    return Order(position, Click(ref=_ref(scene, position)), _say(rng, forms, x=called))


def control_order(rng: random.Random, scene: Scene, position: int) -> Order | None:
    """An order for a checkbox, radio, field, date or dropdown, done already if the page shows it."""
    element, widget = scene.elements[position], scene.widgets[position]
    called = _called(rng, scene, position)
    if called is None:
        return None
    ref = _ref(scene, position)
    if element.role in ("checkbox", "radio"):
        forms = TICK if element.role == "checkbox" else PICK
        return Order(position, Click(ref=ref), _say(rng, forms, x=called), "checked" in element.states)
    keep = widget.truth and rng.random() < 0.85
    if element.role == "combobox":
        option = widget.truth if keep and rng.random() < 0.5 else rng.choice(element.options)
        said = _say(rng, CHOOSE, x=called, v=quoted(rng, option))
        return Order(position, SelectOption(ref=ref, options=(option,)), said, option == widget.truth)
    if element.role == "date":
        iso = widget.truth if keep else iso_date(rng)
        said = _say(rng, WRITE, x=called, v=quoted(rng, written_date(rng, iso)))
        return Order(position, Fill(ref=ref, value=iso), said, iso == widget.truth)
    text = widget.truth if keep else words.value(rng)
    value = quoted(rng, text)
    alone = len(scene.pick(*FIELDS)) == 1
    if element.name and rng.random() < 0.35:
        name = element.name.lower() if rng.random() < 0.4 else element.name
        said = _say(rng, WRITE_NAMED, f=name, v=value)
    elif alone and rng.random() < 0.6:
        said = _say(rng, WRITE_ALONE, v=value)
    else:
        said = _say(rng, WRITE, x=called, v=value)
    return Order(position, Fill(ref=ref, value=text), said, text == widget.truth)


def written_date(rng: random.Random, iso: str) -> str:
    """A date as people write it; the field wants year-month-day."""
    year, month, day = iso.split("-")
    return rng.choice(
        (f"{month}/{day}/{year}", f"{month}/{day}/{year}", f"{month}-{day}-{year}", f"{year}/{month}/{day}", iso,
         f"{month}.{day}.{year}")
    )  # fmt: skip


def _past_line(scene: Scene, order: Order) -> str:
    return f"{scene.elements[order.position].label}; {format_action(order.action, bracket_refs=True)}"


def _decide(rng: random.Random, scene: Scene, goal: str, orders: Sequence[Order]) -> Branch | None:
    todo = next((order for order in orders if not order.done), None)
    if todo is None:
        return None
    past = tuple(_past_line(scene, order) for order in orders if order.done)[-6:]
    goal = rng.choice(START) + goal
    if rng.random() < 0.6:
        goal = goal[0].upper() + goal[1:]
    if rng.random() < 0.7:
        goal += "."
    return Branch(goal, past, scene.elements[todo.position].label, todo.action)


def _finish_order(rng: random.Random, scene: Scene) -> tuple[Order, bool] | None:
    """The button that ends a form, and whether the goal must name it."""
    buttons = [i for i in scene.pick("button") if scene.elements[i].name and scene.elements[i].nth == 1]
    if not buttons:
        return None
    marked = [i for i in buttons if scene.widgets[i].group == "finish"]
    position = marked[0] if marked and rng.random() < 0.8 else rng.choice(buttons)
    name = scene.elements[position].name
    folded = [scene.elements[i].name.lower() for i in buttons]
    if rng.random() < 0.35 and folded.count(name.lower()) == 1:
        name = name.lower()
    said = _say(rng, FINISH, x=quoted(rng, name) if rng.random() < 0.5 else name)
    return Order(position, Click(ref=_ref(scene, position)), said), len(buttons) > 1


def one_push(rng: random.Random, scene: Scene) -> Branch | None:
    choice = scene.pick(*PUSHABLE) + (scene.pick(*FIELDS, "radio", "checkbox") if rng.random() < 0.3 else [])
    if not choice:
        return None
    order = push_order(rng, scene, rng.choice(choice))
    return _decide(rng, scene, order.said, [order]) if order else None


def pushes_in_order(rng: random.Random, scene: Scene) -> Branch | None:
    choice = [i for i in scene.pick(*PUSHABLE) if scene.elements[i].name]
    if len(choice) < 2:
        return None
    orders = [push_order(rng, scene, i) for i in rng.sample(choice, min(len(choice), rng.choice((2, 2, 3))))]
    known = [order for order in orders if order]
    if len(known) < 2:
        return None
    for order in known[: rng.randrange(len(known))]:
        order.done = True
    return _decide(rng, scene, rng.choice(JOIN).join(order.said for order in known), known)


def form(rng: random.Random, scene: Scene) -> Branch | None:
    """One to three controls, then the finishing button."""
    choice = scene.pick("radio", "date", "combobox", *FIELDS, *(["checkbox"] if rng.random() < 0.5 else []))
    if not choice:
        return None
    picked = rng.sample(choice, min(len(choice), rng.choice((1, 1, 2, 2, 3))))
    if sum(scene.elements[i].role == "radio" for i in picked) > 1:
        return None
    if rng.random() < 0.7:
        picked.sort()
    # A radio that is chosen, a field that is filled: the page shows progress only if the goal asked for it.
    orders = [control_order(rng, scene, i) for i in picked]
    known = [order for order in orders if order]
    if not known or len(known) < len(picked):
        return None
    return _with_finish(rng, scene, rng.choice(JOIN).join(order.said for order in known), known)


def _with_finish(rng: random.Random, scene: Scene, said: str, orders: list[Order]) -> Branch | None:
    ending = _finish_order(rng, scene)
    if ending is None:
        return _decide(rng, scene, said, orders)
    finish, must_name = ending
    if must_name or rng.random() < 0.8:
        said += rng.choice(JOIN) + finish.said
    return _decide(rng, scene, said, [*orders, finish])


def same_everywhere(rng: random.Random, scene: Scene) -> Branch | None:
    """One value into every field."""
    fields = scene.pick(*FIELDS)
    if not 2 <= len(fields) <= 3:
        return None
    truths = [scene.widgets[i].truth for i in fields]
    text = next((t for t in truths if t), "") or words.value(rng)
    orders = [Order(i, Fill(ref=_ref(scene, i), value=text), "", truths[n] == text) for n, i in enumerate(fields)]
    where = rng.choice(("every box", "all the boxes", "each field", "both boxes" if len(fields) == 2 else "all three"))
    said = _say(rng, ("write {v} in {x}", "type {v} into {x}", "put {v} into {x}", "fill {x} with {v}"), x=where,
                v=quoted(rng, text))  # fmt: skip
    return _with_finish(rng, scene, said, orders)


def tick_set(rng: random.Random, scene: Scene) -> Branch | None:
    """Some of the checkboxes, listed in the goal, then the finishing button."""
    boxes = [i for i in scene.pick("checkbox") if scene.elements[i].name and scene.elements[i].nth == 1]
    if not boxes:
        return None
    checked = [i for i in boxes if "checked" in scene.elements[i].states]
    wanted = [i for i in boxes if i in checked or rng.random() < 0.5]
    if not wanted:
        said = rng.choice(("tick none", "leave every box empty", "mark nothing at all", "tick nothing"))
        return _with_finish(rng, scene, said, [])
    if rng.random() < 0.3:
        rng.shuffle(wanted)
    quote = rng.random() < 0.35
    listed = [f'"{scene.elements[i].name}"' if quote else scene.elements[i].name for i in wanted]
    glue = rng.choice((", ", ", ", ", ", "; ", " and ", " + "))
    text = glue.join(listed)
    if len(listed) > 1 and rng.random() < 0.3:
        text = glue.join(listed[:-1]) + " and " + listed[-1]
    orders = [Order(i, Click(ref=_ref(scene, i)), "", i in checked) for i in wanted]
    return _with_finish(rng, scene, _say(rng, TICK_SET, x=text), orders)


def any_of_role(rng: random.Random, scene: Scene) -> Branch | None:
    roles = sorted({scene.elements[i].role for i in scene.pick(*PUSHABLE, *FIELDS, "radio", "checkbox")})
    if not roles:
        return None
    role = rng.choice(roles)
    position = scene.pick(role)[0]
    word = rng.choice(ROLE_WORDS[role])
    if rng.random() < 0.4:
        word = f'"{word}"'
    order = Order(position, Click(ref=_ref(scene, position)), _say(rng, ANY, r=word))
    return _decide(rng, scene, order.said, [order])


def hidden(rng: random.Random, scene: Scene) -> Branch | None:
    """What the goal names is not on the page yet: open the first entry not opened so far; once shown, take it."""
    doors = [i for i in scene.pick("tab", "item", "clickable", "text", "listitem", "menuitem", "link", "heading")
             if "expanded" not in scene.elements[i].states]  # fmt: skip
    if not doors:
        return None
    closed = [i for i in doors if "collapsed" in scene.elements[i].states]
    doors = closed or doors
    shown = rng.random() < 0.4
    opened = doors[: rng.randrange(min(len(doors), 4))]
    past = [Order(i, Click(ref=_ref(scene, i)), "", True) for i in opened]
    if shown:
        choice = [i for i in scene.pick(*PUSHABLE) if scene.elements[i].name and i not in opened]
        choice = [i for i in choice if scene.elements[i].nth == 1]
        if not choice:
            return None
        target, name = rng.choice(choice), ""
        name = scene.elements[target].name
        if sum(e.name == name for e in scene.elements) > 1:
            return None
    else:
        target = next(i for i in doors if i not in opened)
        name = words.name(rng)
        if any(name in e.name for e in scene.elements):
            return None
    said = _say(rng, FIND, x=quoted(rng, name))
    return _decide(rng, scene, said, [*past, Order(target, Click(ref=_ref(scene, target)), "")])


GOALS: list[tuple[float, Callable[[random.Random, Scene], Branch | None]]] = [
    (3.0, one_push),
    (1.0, pushes_in_order),
    (4.0, form),
    (0.7, same_everywhere),
    (1.6, tick_set),
    (0.6, any_of_role),
    (0.9, hidden),
]


def branches(rng: random.Random, scene: Scene, count: int) -> list[Branch]:
    """Up to ``count`` different goals for one page."""
    found: dict[str, Branch] = {}
    for _ in range(3 * count):
        if len(found) == count:
            break
        make = rng.choices([g for _, g in GOALS], [w for w, _ in GOALS])[0]
        branch = make(rng, scene)
        if branch is not None:
            found[branch.goal] = replace(branch, kind=make.__name__)
    return list(found.values())
