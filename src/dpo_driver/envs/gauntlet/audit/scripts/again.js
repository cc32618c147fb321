// Dispatches the trusted events in `caught` again on every part, as they are and changed. Gives how many tries.

let tries = 0;
const changes = [
  (event) => event,
  (event) => { event.initEvent?.("click", true, true); return event; },
  (event) => { event.initKeyboardEvent?.("keydown", true, true, window, "Enter", 0, "", false, ""); return event; },
  (event) => { Object.setPrototypeOf(event, PointerEvent.prototype); return event; },
  (event) => new event.constructor(event.type, event),
];
for (const event of caught.slice(0, 40)) {
  for (const e of parts().slice(0, 12)) {
    for (const change of changes) {
      try {
        e.dispatchEvent(change(event));
      } catch {}
      tries++;
    }
  }
}
await turns(2);
return Math.max(1, tries);
