// What a person does on the page, as gestures: a click, a filled field, a key, a drag, the wheel, a stay that changed
// something, a change that came by itself. Trusted input only; the page is read and never touched.
//
// Runs in an isolated world of its own in the top document (browser/gestures.py puts it there, before the page's own
// scripts), with a distiller of its own. What was acted on is told by what it is called on the page as it was just before
// (role, name, which of its like), because numbers last for one reading only. Each gesture goes out through a binding the
// moment it is complete, so that none is lost when it leads to another document.
(options) => {
  "use strict";
  if (window !== window.top || globalThis.dpoRecorder) return;
  globalThis.dpoRecorder = true;
  const driver = globalThis.dpoDriver;

  const MOVED = 6; // pixels that make a drag of a click
  const DWELL = 120; // ms on one thing before it counts as a stay
  const STAY = 6000; // ms that a stay may take to change something
  const TICK = 150;
  const PAUSE = 1500; // ms without typing that end a text
  const WHEEL = 350; // the same for the wheel
  const SETTLED = 400; // ms in which what changes is put down to the gesture before
  const SPACING = 150; // ms between two readings while the pointer moves
  const POINTS = 400; // of a drag's path

  const UNTEXT = new Set(["checkbox", "radio", "button", "submit", "reset", "image", "file", "hidden"]);
  const PICKED = new Set(["date", "time", "datetime-local", "month", "week", "color", "range"]);
  const MODIFIERS = new Set(["Shift", "Control", "Alt", "Meta", "AltGraph", "CapsLock", "NumLock", "Dead", "Process", "Unidentified"]);
  const SPECIAL = /^(Enter|Escape|ArrowUp|ArrowDown|PageUp|PageDown|F\d+)$/; // keys that say something to a text field

  let known = null; // the page as it was when nothing had been done for a while
  let latest = null; // the page as it was read last
  let arrived = []; // what had come with the last change
  let press = null, typing = null, wheel = null, stay = null, clicked = null;
  let last = performance.now(); // gesture

  const tell = (kind, more) => {
    last = performance.now();
    known = null;
    globalThis.dpoRecorded(JSON.stringify({ kind, at: Date.now(), ...more }));
  };

  // ---- reading -----------------------------------------------------------------------------------------------------

  const lineOf = (e) => JSON.stringify([e.role, e.name, e.nth, e.value || null, (e.states || []).filter((s) => s !== "focused"), e.options || []]);

  function read() {
    const seen = JSON.parse(driver.observe(options));
    const entries = new Map();
    for (const entry of seen.elements) if (entry.ref) entries.set(entry.ref, entry);
    const lines = new Set(seen.elements.map(lineOf));
    latest = { entries, lines, text: location.pathname + "\n" + seen.elements.map(lineOf).join("\n"), at: performance.now() };
    return latest;
  }

  const up = (node) => node.assignedSlot || node.parentNode || node.host || null;

  // The numbered thing at or around a node.
  function numbered(node) {
    for (let at = node; at; at = up(at)) {
      if (driver.ref(at) !== undefined) return at;
      if (at.tagName === "LABEL" && at.control && driver.ref(at.control) !== undefined) return at.control;
    }
    return null;
  }

  function called(node, seen) {
    for (let at = numbered(node); at; at = numbered(up(at) || null)) {
      const entry = seen.entries.get(driver.ref(at));
      if (entry) return { role: entry.role, name: entry.name, nth: entry.nth };
      if (!up(at)) break;
    }
    return null;
  }

  // The page but for one field.
  const without = (seen, node) => {
    const own = seen.entries.get(driver.ref(node));
    return [...seen.lines].filter((line) => !own || line !== lineOf(own)).join("\n");
  };

  function place(event) {
    let [x, y] = [event.clientX, event.clientY];
    for (let view = event.view; view && view.frameElement; view = view.parent) {
      const box = view.frameElement.getBoundingClientRect();
      x += box.left + view.frameElement.clientLeft;
      y += box.top + view.frameElement.clientTop;
    }
    return [Math.round(x), Math.round(y)];
  }

  const innermost = (event) => event.composedPath()[0];
  const isPicture = (el) => el.tagName === "CANVAS" || el.tagName === "svg";
  const isText = (el) => el.tagName === "TEXTAREA" || el.isContentEditable || (el.tagName === "INPUT" && !UNTEXT.has(el.type) && !PICKED.has(el.type));
  const isPicked = (el) => el.tagName === "SELECT" || el.tagName === "OPTION" || (el.tagName === "INPUT" && PICKED.has(el.type));
  const held = (event) => ["Control", "Alt", "Meta", "Shift"].filter((key) => event[{ Control: "ctrlKey", Alt: "altKey", Meta: "metaKey", Shift: "shiftKey" }[key]]);
  const textOf = (el) => (el.isContentEditable && !("value" in el) ? el.innerText : el.value);

  // ---- text and wheel, which are told when they are over -------------------------------------------------------------

  function finishTyping() {
    if (!typing) return;
    const { el, target, before, others } = typing;
    typing = null;
    const value = textOf(el);
    if (value === before) return;
    tell("fill", { target, before, value, answered: without(read(), el) !== others, copied: value !== "" && others.includes(JSON.stringify(value).slice(1, -1)) });
  }

  function finishWheel() {
    if (!wheel) return;
    const { dx, dy, inner, over, point } = wheel;
    wheel = null;
    if (Math.round(dx) || Math.round(dy)) tell("scroll", { dx: Math.round(dx), dy: Math.round(dy), inner, over, point });
  }

  const finish = (except) => {
    if (!except || !typing || (typing.el !== except && !typing.el.contains(except))) finishTyping();
    finishWheel();
  };

  // ---- the pointer ---------------------------------------------------------------------------------------------------

  function down(event) {
    const el = innermost(event);
    if (event.button !== 0 || !event.isPrimary) return;
    if (el === document.documentElement && (event.clientX >= el.clientWidth || event.clientY >= el.clientHeight)) return; // a scroll bar
    finish(el);
    if (stay) stay.done = true;
    press = null;
    if (isPicked(el)) return; // their change is told
    const seen = read();
    press = { el, seen, target: called(el, seen), path: [place(event)], modifiers: held(event), picture: isPicture(el) };
  }

  function move(event) {
    if (press) {
      const [x, y] = place(event);
      const [px, py] = press.path[press.path.length - 1];
      if (Math.hypot(x - px, y - py) >= 2 && press.path.length < POINTS) press.path.push([x, y]);
    } else if (!event.buttons) enter(innermost(event));
  }

  function release(event) {
    if (!press || event.button !== 0 || press.native) return;
    const { seen, target, path, modifiers, picture } = press;
    press = null;
    path.push(place(event));
    const far = Math.max(...path.map(([x, y]) => Math.hypot(x - path[0][0], y - path[0][1])));
    if (far <= MOVED) {
      clicked = { target, picture, point: path[0] };
      tell("click", { target, picture, point: path[0], modifiers, button: "left" });
      return;
    }
    // A pointer that was captured says nothing of what lies under it.
    let under = event.view.document.elementFromPoint(event.clientX, event.clientY) || innermost(event);
    for (let inner; under.shadowRoot && (inner = under.shadowRoot.elementFromPoint(event.clientX, event.clientY)) && inner !== under;) under = inner;
    tell("drag", { target, to: called(under, seen), path, picture });
  }

  function dropped(event) {
    if (press) press.drop = { node: innermost(event), point: place(event) };
  }

  function endOfDrag() {
    if (!press || !press.native) return;
    const { seen, target, path, drop } = press;
    press = null;
    if (drop) tell("drag", { target, to: called(drop.node, seen), path: [path[0], drop.point], native: true });
  }

  function other(event, button) {
    finish(null);
    const seen = read();
    tell("click", { target: called(innermost(event), seen), picture: isPicture(innermost(event)), point: place(event), modifiers: held(event), button });
  }

  function enter(el) {
    if (!latest || (!known && performance.now() - latest.at > SPACING)) read();
    const node = numbered(el);
    if (stay && stay.node === node) return;
    // What a style sheet does to the thing under the pointer is done by now: the reading before it is what counts.
    stay = node && { node, since: performance.now(), done: false, before: known || latest };
  }

  // ---- keys and fields -----------------------------------------------------------------------------------------------

  function key(event) {
    if (MODIFIERS.has(event.key) || event.key === "Tab" || event.isComposing) return;
    const el = innermost(event);
    if (isPicked(el) && el.type !== "range") return;
    const combined = held(event).filter((name) => name !== "Shift" || event.key.length > 1);
    if (isText(el)) {
      const lines = el.tagName === "TEXTAREA" || el.isContentEditable;
      if (!SPECIAL.test(event.key) || (lines && event.key !== "Escape" && !event.ctrlKey)) return; // part of its text
    }
    finish(null);
    const name = event.key === " " ? "Space" : event.key;
    const body = el === el.ownerDocument.body || el === el.ownerDocument.documentElement;
    tell("press", { target: body ? null : called(el, read()), key: [...combined, name].join("+") });
  }

  function beforeTyping(event) {
    const el = innermost(event);
    if (!isText(el) || (typing && typing.el === el)) return;
    finishTyping();
    const seen = read();
    typing = { el, target: called(el, seen), before: textOf(el), others: without(seen, el), last: performance.now() };
  }

  function typed(event) {
    if (typing && typing.el === innermost(event)) typing.last = performance.now();
  }

  function changed(event) {
    const el = innermost(event);
    if (el.tagName === "SELECT") {
      finish(null);
      tell("select", { target: called(el, read()), options: [...el.selectedOptions].map((option) => option.label.replace(/\s+/g, " ").trim()) });
    } else if (el.tagName === "INPUT" && PICKED.has(el.type)) {
      finish(null);
      tell("fill", { target: called(el, read()), before: null, value: el.value, answered: false, copied: false });
    }
  }

  function turned(event) {
    finishTyping();
    const unit = [1, 16, innerHeight][event.deltaMode];
    if (!wheel) {
      let inner = innermost(event);
      const scrolls = (el) => el.nodeType === Node.ELEMENT_NODE && /auto|scroll/.test(getComputedStyle(el).overflowY) && el.scrollHeight > el.clientHeight + 1;
      while (inner && !scrolls(inner)) inner = up(inner);
      const whole = !inner || inner === document.scrollingElement || inner === document.body;
      wheel = { dx: 0, dy: 0, inner: !whole, over: whole ? null : called(innermost(event), read()), point: place(event) };
    }
    wheel.dx += event.deltaX * unit;
    wheel.dy += event.deltaY * unit;
    wheel.last = performance.now();
  }

  // ---- what changes while nothing is done ------------------------------------------------------------------------------

  function tick() {
    const now = performance.now();
    listenInFrames(document);
    if (typing && now - typing.last > PAUSE) finishTyping();
    if (wheel && now - wheel.last > WHEEL) finishWheel();
    if (press || typing || wheel || now - last < SETTLED || document.hidden || !document.body) return;
    if (stay && !stay.done && now - stay.since < DWELL) return; // whose doing it is, is told when the pointer rests
    const seen = read();
    const before = known;
    known = seen;
    if (stay && !stay.done && stay.since > last && now - stay.since >= DWELL && now - stay.since < STAY && seen.text !== stay.before.text) {
      stay.done = true;
      tell("hover", { target: called(stay.node, stay.before) });
    } else if (before && seen.text !== before.text) {
      const gone = arrived.some((line) => !seen.lines.has(line));
      arrived = [...seen.lines].filter((line) => !before.lines.has(line));
      tell("changed", { gone });
      known = seen;
      last = 0; // nothing was done: what changes next is told as well
    }
  }

  // ---- listening -------------------------------------------------------------------------------------------------------

  const heard = {
    pointerdown: down, pointermove: move, pointerup: release, drop: dropped, dragend: endOfDrag, keydown: key,
    beforeinput: beforeTyping, input: typed, change: changed, wheel: turned,
    pointercancel: () => { if (press && !press.native) press = null; },
    dragstart: () => { if (press) press.native = true; },
    dblclick: () => { if (clicked) tell("dblclick", clicked); },
    contextmenu: (event) => { if (event.button === 2) other(event, "right"); },
    auxclick: (event) => { if (event.button === 1) other(event, "middle"); },
    focusout: (event) => { if (typing && typing.el === innermost(event)) finishTyping(); },
  };
  const listened = new WeakSet();

  function listen(target) {
    for (const [kind, hear] of Object.entries(heard)) {
      target.addEventListener(kind, (event) => { if (event.isTrusted) hear(event); }, { capture: true, passive: true });
    }
  }

  // Frames of this origin report here: their windows are new with every document.
  function listenInFrames(doc) {
    for (const frame of doc.querySelectorAll("iframe")) {
      let inside = null;
      try { inside = frame.contentDocument; } catch { /* another origin */ }
      if (!inside || !frame.contentWindow) continue;
      if (!listened.has(inside)) {
        listened.add(inside);
        listen(frame.contentWindow);
        inside.addEventListener("load", () => listenInFrames(inside), { capture: true });
      }
      listenInFrames(inside);
    }
  }

  listen(window);
  listenInFrames(document);
  document.addEventListener("load", () => listenInFrames(document), { capture: true }); // a frame's, too
  setInterval(tick, TICK);
}
