// A clock that stands still between actions, for pages whose task runs against time. Evaluated in the page's own world
// before bridge.js, for the families that envs/miniwob/tasks.py marks as clocked; held by the environment through a handle.
//
// Date, timeouts, intervals and d3's animations go by it. So an agent is judged by what it does, not by how fast its machine
// is, and equal seeds and actions give equal pages.
(() => {
  "use strict";
  const page = window;
  const real = { Date: page.Date, frame: page.requestAnimationFrame.bind(page) };
  const STEP = 20; // ms between two looks of an animation
  const START = 1700000000000; // any fixed time
  let now = START;
  let next = 1;
  const timers = new Map(); // id -> {due, every, callback, values}

  const add = (callback, delay, every, values) => {
    timers.set(next, { due: now + Math.max(0, Number(delay) || 0), every, callback, values });
    return next++;
  };
  page.setTimeout = function setTimeout(callback, delay, ...values) { return add(callback, delay, 0, values); };
  page.setInterval = function setInterval(callback, delay, ...values) { return add(callback, delay, Math.max(1, Number(delay) || 0), values); };
  page.clearTimeout = page.clearInterval = function clearTimeout(id) { timers.delete(id); };
  page.Date = new Proxy(real.Date, {
    construct: (date, values, made) => Reflect.construct(date, values.length ? values : [now], made === page.Date ? date : made),
    apply: (date) => new date(now).toString(),
    get: (date, key) => (key === "now" ? () => now : Reflect.get(date, key)),
  });

  function runDue() {
    for (;;) {
      let first = null;
      for (const [id, timer] of timers) if (timer.due <= now && (!first || timer.due < first[1].due)) first = [id, timer];
      if (!first) return;
      const [id, timer] = first;
      if (timer.every) timer.due += timer.every;
      else timers.delete(id);
      if (typeof timer.callback === "function") timer.callback.apply(page, timer.values);
      else (0, eval)(timer.callback);
    }
  }

  return {
    // Let `duration` milliseconds pass; `acting` calls what the page is to believe. Resolves two real frames later, when
    // the pointer has met what moved under it.
    advance(duration, acting) {
      const end = now + duration;
      while (now < end) {
        let until = Math.min(end, now + STEP);
        for (const timer of timers.values()) if (timer.due > now && timer.due < until) until = timer.due;
        now = until;
        runDue();
        if (page.d3 && page.d3.timer && page.d3.timer.flush) acting(() => page.d3.timer.flush());
      }
      return new Promise((resolve) => real.frame(() => real.frame(() => resolve(true))));
    },
  };
})()
