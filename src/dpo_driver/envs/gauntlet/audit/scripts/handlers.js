// Calls every function among the properties that React keeps of every element, with made-up events, and every state's
// setter. Gives how many.

let called = 0;
const event = (target, type) => ({
  type, target, currentTarget: target, isTrusted: true, pointerId: 1, button: 0, detail: 1, key: "Enter", clientX: 5,
  clientY: 5, nativeEvent: { isTrusted: true, type }, preventDefault() {}, stopPropagation() {}, persist() {},
});
const call = (what) => {
  called++;
  try {
    what();
  } catch {}
};
for (const e of deep()) {
  for (const key of Object.keys(e).filter((name) => name.startsWith("__react"))) {
    for (const [name, value] of Object.entries(e[key] ?? {})) {
      if (typeof value === "function") call(() => value.call(e, event(e, name.replace(/^on/, "").toLowerCase())));
    }
    let fiber = e[key];
    for (let hops = 0; fiber && hops < 30; hops++, fiber = fiber.return) {
      for (let hook = fiber.memoizedState; hook?.queue; hook = hook.next) call(() => hook.queue.dispatch?.(true));
    }
  }
}
await turns(3);
return Math.max(1, called);
