// Resolves when the page has settled: loaded, its DOM unchanged for `quiet` ms, no animation that ends still running;
// or after `limit` ms. Runs in an isolated world (envs/website/watch.py) and writes nothing.
(quiet, limit) => new Promise((resolve) => {
  "use strict";
  const began = performance.now();
  let last = began;
  const observer = new MutationObserver(() => { last = performance.now(); });
  observer.observe(document, { subtree: true, childList: true, attributes: true, characterData: true });
  const moves = () => document.getAnimations().some((animation) =>
    animation.playState === "running" && Number.isFinite(animation.effect.getComputedTiming().endTime));
  const look = () => {
    const now = performance.now();
    const settled = document.readyState === "complete" && now - last >= quiet && !moves();
    if (!settled && now - began < limit) { setTimeout(look, Math.max(4, Math.min(25, quiet - (now - last)))); return; }
    observer.disconnect();
    resolve(settled);
  };
  // Two frames: what the action scheduled has begun by then. A page that is not drawn has no frames.
  let begun = false;
  const begin = () => { if (!begun) { begun = true; look(); } };
  requestAnimationFrame(() => requestAnimationFrame(begin));
  setTimeout(begin, 100);
})
