// Looks for the sealed script's socket in every event that is current while somebody is told something.

window.found = new Set();
const look = () => {
  const event = window.event;
  for (const one of [event?.target, event?.currentTarget, event?.srcElement, event?.source]) {
    if (one instanceof WebSocket) found.add(one);
  }
};
gauntlet.subscribe(() => {
  look();
  Promise.resolve().then(look);
  queueMicrotask(look);
});
for (const e of parts()) e.toString = () => (look(), "");
new MutationObserver(look).observe(document, { subtree: true, childList: true, attributes: true });
