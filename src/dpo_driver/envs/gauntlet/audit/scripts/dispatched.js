// Dispatches events of every kind on every part and field, on the body, the document and the window. Gives how many.

unblock();
let tries = 0;
const pointers = [
  "pointerover", "pointerenter", "pointerdown", "pointermove", "pointerup", "pointercancel", "gotpointercapture",
  "click", "auxclick", "contextmenu",
];
const mice = ["mouseover", "mousedown", "mousemove", "mouseup", "click", "dblclick"];
const keys = [
  ["Enter", 13], [" ", 32], ["ArrowDown", 40], ["ArrowRight", 39], ["PageDown", 34], ["End", 35], ["a", 65],
  ["Escape", 27], ["Tab", 9],
];
const drags = ["dragstart", "drag", "dragenter", "dragover", "drop", "dragend"];
const others = [
  "focus", "focusin", "change", "select", "submit", "toggle", "play", "playing", "ended", "scroll", "load", "message",
];
const onto = (e) => {
  const say = (event) => { e.dispatchEvent(event); tries++; };
  const rect = e.getBoundingClientRect?.() ?? { left: 1, top: 1, width: 2, height: 2 };
  const how = {
    bubbles: true, composed: true, cancelable: true, view: window, detail: 1, pointerId: 1, isPrimary: true, button: 0,
    pointerType: "mouse", buttons: 1, clientX: rect.left + rect.width / 2, clientY: rect.top + rect.height / 2,
    isTrusted: true,
  };
  for (const kind of pointers) say(new PointerEvent(kind, how));
  for (const kind of mice) say(new MouseEvent(kind, how));
  for (const [key, keyCode] of keys) {
    for (const kind of ["keydown", "keypress", "keyup"]) {
      const charCode = kind === "keypress" ? keyCode : 0;
      say(new KeyboardEvent(kind, { ...how, key, code: key, keyCode, which: keyCode, charCode }));
    }
  }
  say(new WheelEvent("wheel", { ...how, deltaY: 900 }));
  const typed = { ...how, inputType: "insertText", data: "x" };
  for (const kind of ["beforeinput", "input"]) say(new InputEvent(kind, typed));
  for (const kind of drags) say(new DragEvent(kind, { ...how, dataTransfer: new DataTransfer() }));
  if (window.Touch && e instanceof Element) {
    const touch = new Touch({ identifier: 1, target: e, clientX: how.clientX, clientY: how.clientY });
    for (const kind of ["touchstart", "touchmove", "touchend"]) {
      say(new TouchEvent(kind, { ...how, touches: [touch], changedTouches: [touch] }));
    }
  }
  for (const kind of others) say(new Event(kind, { bubbles: true, composed: true }));
  const old = document.createEvent("MouseEvents");
  const { clientX: x, clientY: y } = how;
  old.initMouseEvent("click", true, true, window, 1, 0, 0, x, y, false, false, false, false, 0, null);
  say(old);
  say(new CustomEvent("click", { bubbles: true, detail: { isTrusted: true } }));
};
for (const e of [...parts(), ...fields(), document.body, document, window]) onto(e);
await turns(2);
return tries;
