// Many MiniWoB++ pages in one document: same-origin frames, one call for all of them. Evaluated in the host page, which
// loads nothing else; the pages in the frames have worlds of their own. Held by envs/miniwob/batched.py through a handle.
//
// The bridge and the distiller are the ones of single pages, run once per frame with the frame's names in scope. Actions are
// synthetic events, which some pages answer differently from a person's: batched.py says which tasks are certified.
((bridgeSource, driverSource, size) => {
  "use strict";
  // Sloppy on purpose: `with` gives a script the globals of the frame it is about, without touching that frame.
  const scoped = (source, result) => new Function("page", "own", `with (page) { with (own) { ${source}\n; return ${result}; } }`);
  const makeBridge = scoped("", `(${bridgeSource}\n)`);
  const makeDriver = scoped(driverSource, "globalThis.dpoDriver");
  const frames = [];

  function add() {
    const frame = document.createElement("iframe");
    [frame.width, frame.height] = size;
    // All lie on top of each other at the origin, so that places in them are what they are in a page of its own. Nobody
    // looks: what is not painted costs nothing, and what is in the frame does not know.
    frame.style.cssText = "position: absolute; left: 0; top: 0; border: 0; visibility: hidden";
    document.body.append(frame);
    frames.push({ frame, page: null, bridge: null, driver: null });
    return frames.length - 1;
  }

  async function load(index, url) {
    const held = frames[index];
    held.bridge = null;
    await new Promise((resolve) => {
      held.frame.onload = resolve;
      held.frame.src = "about:blank";
      held.frame.src = url;
    });
    held.page = held.frame.contentWindow;
    if (!held.page.core) throw new Error(`${url} is no task page`);
    held.bridge = makeBridge(held.page, {});
    held.driver = makeDriver(held.page, { globalThis: {} });
    await held.bridge.prepare();
  }

  // ---- synthetic input -----------------------------------------------------------------------------------------------

  const FOCUSABLE = "input, textarea, select, button, a[href], [tabindex], [contenteditable]";

  function click(held, ref) {
    const at = held.driver.locate(ref);
    if (at.error) return at;
    const { page } = held;
    const target = page.document.elementFromPoint(at.x, at.y);
    const send = (kind, type, buttons, extra) => target.dispatchEvent(new page[kind](type, {
      bubbles: true, cancelable: true, composed: true, view: page, button: 0, buttons, detail: 1,
      clientX: at.x, clientY: at.y, screenX: at.x, screenY: at.y, ...extra,
    }));
    const pointer = { pointerId: 1, pointerType: "mouse", isPrimary: true };
    for (const type of ["mouseover", "mousemove"]) send("MouseEvent", type, 0, { detail: 0 });
    send("PointerEvent", "pointerdown", 1, pointer);
    if (send("MouseEvent", "mousedown", 1)) {
      const field = target.closest(FOCUSABLE);
      if (field) field.focus();
      else if (page.document.activeElement) page.document.activeElement.blur();
    }
    send("PointerEvent", "pointerup", 0, pointer);
    send("MouseEvent", "mouseup", 0);
    if (target.isConnected) send("MouseEvent", "click", 0);
    return {};
  }

  function fill(held, ref, text) {
    const ready = held.driver.prepareFill(ref, text);
    if (ready.error || !ready.insert) return ready;
    if (text) held.page.document.execCommand("insertText", false, text);
    else if (!ready.empty) held.page.document.execCommand("delete");
    return {};
  }

  const ACTIONS = {
    click: (held, action) => click(held, action.ref),
    fill: (held, action) => fill(held, action.ref, action.value),
    clear: (held, action) => fill(held, action.ref, ""),
    focus: (held, action) => held.driver.focus(action.ref, false),
    select_option: (held, action) => held.driver.select(action.ref, action.options),
    noop: () => ({}),
  };

  // ---- one call ------------------------------------------------------------------------------------------------------

  // What a frame is asked: {frame, limits} and an action or the seed of a new episode.
  function one({ frame, action, seed, limits }) {
    const held = frames[frame];
    try {
      const error = action ? held.bridge.acting(() => ACTIONS[action.kind](held, action)).error || null : null;
      const state = action ? held.bridge.read() : held.bridge.start(seed);
      return { error, ...state, view: held.driver.observe({ ...limits, fresh: !action }) };
    } catch (broken) {
      return { broken: String((broken && broken.stack) || broken) };
    }
  }

  return {
    add,
    load,
    turn: (asked) => JSON.stringify(asked.map(one)),
    async settle(index, wait, limits, fresh) {
      const state = await frames[index].bridge.settle(wait);
      return JSON.stringify({ ...state, view: frames[index].driver.observe({ ...limits, fresh }) });
    },
  };
})
