// The bridge into MiniWoB++'s own world: starts seeded episodes and keeps the reward. One object per document, held by the
// environment through a remote handle only (envs/miniwob/environment.py); the page has no name for it.
//
// It knows the page's timers, so that a new episode starts without the old one's, and so that "settled" means something. It
// believes an end of the episode only when the page's own code calls it for a cause of its own: real input, a timer that
// such code has set, or an animation. What it believed is kept in here; the page's globals mean nothing.
(() => {
  "use strict";
  const page = window;
  const native = {
    setTimeout: page.setTimeout, clearTimeout: page.clearTimeout,
    setInterval: page.setInterval, clearInterval: page.clearInterval,
  };
  const LONG = 100000000; // ms; the episode's own clock is the environment's, not the page's
  const INPUT = (
    "click dblclick auxclick contextmenu mousedown mouseup mousemove mouseover mouseout mouseenter mouseleave pointerdown " +
    "pointerup pointermove pointerover pointerout pointerenter pointerleave pointercancel touchstart touchend touchmove " +
    "wheel keydown keyup keypress beforeinput dragstart drag dragenter dragover dragleave dragend drop submit"
  ).split(" ");
  const SOON = 700; // a timer due within this is waited for
  const timeouts = new Map(); // id -> when it is due
  const intervals = new Set();
  let outcome = null; // {raw} once the episode has ended
  let running = false; // an episode has started and not ended
  let refused = 0; // ends that were not believed
  let pictures = []; // kept, so that they stay in the page's cache

  // ---- who is calling ----------------------------------------------------------------------------------------------

  const currentEvent = Object.getOwnPropertyDescriptor(page, "event").get;
  const pathOf = page.Event.prototype.composedPath;
  let cause = null; // of the timer that runs, or of what page code or we do ourselves: is it to be believed?

  const { apply } = page.Reflect;
  const { exec } = page.RegExp.prototype;
  const D3 = /\n[^\n]*:\/\/[^\n/?#]+\/core\/d3\.v[0-9]\.min\.js[^\n/]*$/;

  // Whether the call began in d3, whose animations run without an event and without a timer that we know of.
  function beganInD3() {
    const { Error } = page;
    const { stackTraceLimit, prepareStackTrace } = Error;
    try {
      Error.prepareStackTrace = undefined;
      Error.stackTraceLimit = 200;
      return apply(exec, D3, [new Error().stack]) !== null;
    } catch {
      return false; // somebody keeps us from looking
    } finally {
      Error.stackTraceLimit = stackTraceLimit;
      Error.prepareStackTrace = prepareStackTrace;
    }
  }

  function believable() {
    if (cause !== null) return cause;
    const event = apply(currentEvent, page, []);
    if (!event) return beganInD3();
    // An element that was taken out of the page still has its listeners; nobody can click it there.
    const path = apply(pathOf, event, []);
    return event.isTrusted && path.length > 0 && path[path.length - 1] === page;
  }

  function caused(believed, call) {
    const before = cause;
    cause = believed;
    try { return call(); } finally { cause = before; }
  }

  // What page code dispatches itself is as good as what made it do so. Scripts of other worlds do not come through here.
  for (const [owner, name] of [[page.EventTarget.prototype, "dispatchEvent"], [page.HTMLElement.prototype, "click"]]) {
    const own = owner[name];
    owner[name] = { [name](...values) { return caused(believable(), () => own.apply(this, values)); } }[name];
  }
  // No person's input: the page shall not see it. A script's focus is real, and so is what it fills in (input, change).
  for (const type of INPUT) {
    page.addEventListener(type, (event) => {
      if (event.isTrusted || cause) return;
      event.stopImmediatePropagation();
      event.preventDefault();
    }, { capture: true });
  }

  const run = (believed, callback, values) => {
    if (typeof callback === "function") caused(believed, () => callback.apply(page, values));
  };
  page.setTimeout = function setTimeout(callback, delay, ...values) {
    const believed = believable();
    const id = native.setTimeout.call(page, () => { timeouts.delete(id); run(believed, callback, values); }, delay);
    timeouts.set(id, performance.now() + (Number(delay) || 0));
    return id;
  };
  page.clearTimeout = function clearTimeout(id) { timeouts.delete(id); native.clearTimeout.call(page, id); };
  page.setInterval = function setInterval(callback, delay, ...values) {
    const believed = believable();
    const id = native.setInterval.call(page, () => run(believed, callback, values), delay);
    intervals.add(id);
    return id;
  };
  page.clearInterval = function clearInterval(id) { intervals.delete(id); native.clearInterval.call(page, id); };

  const end = core.endEpisode;
  Object.defineProperty(core, "endEpisode", {
    configurable: false,
    writable: false,
    value: function endEpisode(reward, ...rest) {
      if (!running) return; // as in core.js: only the first end of an episode is rewarded
      if (!believable()) { refused++; return; }
      running = false;
      outcome = { raw: +reward || 0 }; // a page's NaN is nothing earned
      // The page tells its console the reward, which goes through three processes to nobody: half a millisecond.
      const { log } = page.console;
      page.console.log = () => {};
      try { end.call(core, reward, ...rest); } finally { page.console.log = log; }
      // The cover asks a person to press START for the next episode; it would hide what this one ended with.
      if (core.cover_div) core.cover_div.style.display = "none";
    },
  });
  // A native form submission would replace the document; no task wants that.
  page.addEventListener("submit", (event) => event.preventDefault());
  if (page.jQuery) page.jQuery.fx.off = true;

  const soon = () => {
    const horizon = performance.now() + SOON;
    for (const due of timeouts.values()) if (due < horizon) return true;
    return false;
  };

  function stopTimers() {
    for (const id of timeouts.keys()) native.clearTimeout.call(page, id);
    for (const id of intervals) native.clearInterval.call(page, id);
    timeouts.clear();
    intervals.clear();
    core.EP_TIMER = null;
    if (page.jQuery) { page.jQuery.fx.stop(); page.jQuery.timers.length = 0; }
  }

  function forgetInput() {
    if (document.activeElement && document.activeElement !== document.body) document.activeElement.blur();
    for (const field of document.querySelectorAll("input, textarea")) {
      if (field.type === "checkbox" || field.type === "radio") field.checked = field.defaultChecked;
      else if (field.type !== "button" && field.type !== "submit" && field.value !== field.defaultValue) field.value = field.defaultValue;
      if (field.scrollTop) field.scrollTop = 0;
    }
    for (const list of document.querySelectorAll("select")) {
      const standard = [...list.options].findIndex((option) => option.defaultSelected);
      if (!list.multiple) list.selectedIndex = standard >= 0 ? standard : Math.min(0, list.options.length - 1);
    }
    if (document.activeElement && document.activeElement !== document.body) document.activeElement.blur();
  }

  // Some goals show an icon in their sentence ("the item with the [disk] icon"): it is told by its class.
  const iconOf = () => {
    const icon = document.querySelector("#query .ui-icon");
    return icon && [...icon.classList].filter((word) => word !== "ui-icon").join(" ").replace(/-/g, " ");
  };
  // Some show a patch of colour in it, which is told as #rrggbb.
  function withColors(text) {
    const query = document.getElementById("query");
    if (text !== query.textContent.replace(/\s+/g, " ").trim()) return text;
    const copy = query.cloneNode(true);
    const copies = copy.querySelectorAll("*");
    let told = false;
    [...query.querySelectorAll("*")].forEach((element, index) => {
      const parts = element.firstChild ? null : getComputedStyle(element).backgroundColor.match(/^rgb\((\d+), (\d+), (\d+)\)$/);
      if (!parts) return;
      told = true;
      copies[index].replaceWith(" #" + parts.slice(1).map((part) => Number(part).toString(16).padStart(2, "0")).join("") + " ");
    });
    return told ? copy.textContent.replace(/\s+/g, " ").trim() : text;
  }
  const goal = () => {
    const said = core.getUtterance();
    const text = typeof said === "string" ? said : said.utterance;
    const icon = iconOf();
    return icon ? text.replace(/ icon\.$/, ` ${icon} icon.`) : withColors(text);
  };
  // A picture that is still loading has no size yet, so the page would be seen without it.
  const ready = () => WOB_TASK_READY !== false && [...document.images].every((image) => image.complete);
  const report = () => ({ soon: soon() || !ready(), done: outcome !== null, raw: outcome && outcome.raw });

  // Elements that are drawn by a style sheet's picture have no size before it is loaded: load them ahead of all episodes.
  function picturesOfStyles() {
    const found = new Set();
    for (const sheet of document.styleSheets) {
      for (const rule of sheet.cssRules) {
        const [, url] = /url\("?([^")]+)"?\)/.exec((rule.style && rule.style.content) || "") || [];
        if (url) found.add(new URL(url, sheet.href || location.href).href);
      }
    }
    return [...found];
  }

  return {
    async prepare() {
      pictures = picturesOfStyles().map((url) => Object.assign(new Image(), { src: url }));
      await Promise.allSettled(pictures.map((picture) => picture.decode()));
    },
    start(seed) {
      stopTimers();
      forgetInput();
      outcome = null;
      running = false;
      core.EPISODE_MAX_TIME = LONG;
      Math.seedrandom(seed);
      caused(true, () => core.startEpisodeReal());
      running = true;
      return { goal: goal(), ...report() };
    },
    // For input that is not the browser's own: the page believes what `call` dispatches.
    acting(call) {
      return caused(true, call);
    },
    // How many ends were not believed.
    refusals() {
      return refused;
    },
    read() {
      return report();
    },
    // Resolves when no timer is due soon, at the latest after `limit` milliseconds.
    settle(limit) {
      const until = performance.now() + limit;
      return new Promise((resolve) => {
        const look = () => {
          if ((!soon() && ready()) || performance.now() >= until) resolve({ goal: goal(), ...report() });
          else native.setTimeout.call(page, look, 5);
        };
        look();
      });
    },
  };
})()
