// Bends what events tell, so that each looks like a trusted click on the first part; and what listens.

const values = {
  type: "click", target: first, currentTarget: first, key: "Enter", detail: 1, pointerId: 1, button: 0, clientX: 5,
  clientY: 5, inputType: "insertText", data: "ABCDEF", deltaY: 900, deltaMode: 0, isTrusted: true, relatedTarget: null,
};
const kinds = [
  Event, UIEvent, MouseEvent, PointerEvent, KeyboardEvent, InputEvent, WheelEvent, DragEvent, MessageEvent,
];
for (const kind of kinds) {
  for (const name of Object.getOwnPropertyNames(kind.prototype)) {
    if (name === "constructor") continue;
    bend(kind.prototype, name, name in values ? () => values[name] : undefined);
  }
}
bend(Event.prototype, "composedPath", () => [first]);
for (const name of ["addEventListener", "removeEventListener", "dispatchEvent"]) bend(EventTarget.prototype, name);
Object.defineProperty(Event.prototype, "isTrusted", { get: () => true, configurable: true });
for (const e of parts()) e.dispatchEvent(new PointerEvent("click", { bubbles: true, detail: 1, pointerId: 1 }));
