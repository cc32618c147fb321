// Makes events that call themselves trusted, and dispatches them on every part. Gives how many.

unblock();
let tries = 0;
class Mine extends PointerEvent {
  get isTrusted() {
    return true;
  }
}
const how = { bubbles: true, composed: true, detail: 1, pointerId: 1, isTrusted: true };
const changed = (change) => () => {
  const event = new PointerEvent("click", how);
  try {
    return change(event) ?? event;
  } catch {
    return event;
  }
};
const make = [
  () => new Mine("click", how),
  () => Reflect.construct(PointerEvent, ["click", how], Mine),
  changed((event) => { Object.defineProperty(event, "isTrusted", { value: true }); }),
  changed((event) => { Object.defineProperty(event, "isTrusted", { get: () => true }); }),
  changed((event) => { delete event.isTrusted; event.isTrusted = true; }),
  changed((event) => { event.__proto__ = { __proto__: PointerEvent.prototype, isTrusted: true }; }),
  changed((event) => { event.__defineGetter__("isTrusted", () => true); }),
  changed((event) => new Proxy(event, { get: (one, name) => (name === "isTrusted" ? true : one[name]) })),
  changed((event) => Object.freeze(event)),
  changed((event) => Object.create(event, { isTrusted: { value: true } })),
];
for (const e of parts()) {
  for (const one of make) {
    try {
      e.dispatchEvent(one());
    } catch {}
    tries++;
  }
}
await turns(2);
return Math.max(1, tries);
