// The bridge into MiniWoB++'s own world: starts seeded episodes and keeps the reward. One object per document, held by the
// environment through a remote handle only (envs/miniwob/environment.py); the page has no name for it.
//
// It knows the page's timers, so that a new episode starts without the old one's, and so that "settled" means something.
(() => {
  "use strict";
  const page = window;
  const native = {
    setTimeout: page.setTimeout, clearTimeout: page.clearTimeout,
    setInterval: page.setInterval, clearInterval: page.clearInterval,
  };
  const LONG = 100000000; // ms; the episode's own clock is the environment's, not the page's
  const SOON = 700; // a timer due within this is waited for
  const timeouts = new Map(); // id -> when it is due
  const intervals = new Set();
  let outcome = null; // {raw} once the episode has ended
  let pictures = []; // kept, so that they stay in the page's cache

  const run = (callback, values) => (typeof callback === "function" ? callback.apply(page, values) : (0, eval)(callback));
  page.setTimeout = function setTimeout(callback, delay, ...values) {
    const id = native.setTimeout.call(page, () => { timeouts.delete(id); run(callback, values); }, delay);
    timeouts.set(id, performance.now() + (Number(delay) || 0));
    return id;
  };
  page.clearTimeout = function clearTimeout(id) { timeouts.delete(id); native.clearTimeout.call(page, id); };
  page.setInterval = function setInterval(callback, delay, ...values) {
    const id = native.setInterval.call(page, () => run(callback, values), delay);
    intervals.add(id);
    return id;
  };
  page.clearInterval = function clearInterval(id) { intervals.delete(id); native.clearInterval.call(page, id); };

  const end = core.endEpisode;
  Object.defineProperty(core, "endEpisode", {
    configurable: false,
    writable: false,
    value: function endEpisode(reward, ...rest) {
      const counts = core.EP_TIMER !== null; // as in core.js: only the first end of an episode is rewarded
      end.call(core, reward, ...rest);
      if (!counts) return;
      outcome = { raw: Number(reward) || 0 }; // a page's NaN is nothing earned
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

  const goal = () => {
    const said = core.getUtterance();
    return typeof said === "string" ? said : said.utterance;
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
      core.EPISODE_MAX_TIME = LONG;
      Math.seedrandom(seed);
      core.startEpisodeReal();
      return { goal: goal(), ...report() };
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
