// Acts on the page's parts with the built-ins and event classes of fresh frames, and on copies of parts in these.
// `given` is a greeting for the channel. Gives how many tries it made.

unblock();
let tries = 0;
const classes = ["PointerEvent", "MouseEvent", "KeyboardEvent", "InputEvent", "WheelEvent", "DragEvent"];
const types = ["click", "pointerdown", "pointerup", "keydown", "input", "wheel", "drop"];
for (const kind of ["about:blank", "srcdoc"]) {
  const frame = document.createElement("iframe");
  if (kind === "srcdoc") frame.srcdoc = "<p id=here>here</p>";
  const loaded = new Promise((done) => { frame.onload = done; setTimeout(done, 800); });
  document.body.append(frame);
  await loaded;
  const inside = frame.contentWindow;
  const how = { bubbles: true, composed: true, detail: 1, pointerId: 1, key: "Enter", isTrusted: true };
  for (const e of parts().slice(0, 12)) {
    for (const name of classes) {
      for (const type of types) {
        inside.EventTarget.prototype.dispatchEvent.call(e, new inside[name](type, how));
        tries++;
      }
    }
    inside.HTMLElement.prototype.click.call(e);
  }
  for (const e of parts().slice(0, 6).map((one) => one.cloneNode(true))) {
    inside.document.body.append(inside.document.adoptNode(e));
    e.click?.();
    e.dispatchEvent(new inside.PointerEvent("click", how));
    e.dispatchEvent(new inside.KeyboardEvent("keydown", how));
    tries += 3;
  }
  const socket = new inside.WebSocket(`ws://${location.host}/channel`);
  socket.onopen = () => socket.send(given);
  await turns(3);
  frame.remove();
}
return tries;
