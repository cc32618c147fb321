// Catches trusted events, dispatches them again while they run, and causes some by editing commands.

unblock();
window.caught = [];
const kinds = ["keydown", "keyup", "input", "beforeinput", "focus", "pointerdown", "click", "change"];
for (const kind of kinds) {
  window.addEventListener(kind, (event) => {
    if (!event.isTrusted || caught.length > 200) return;
    caught.push(event);
    for (const e of parts().slice(0, 12)) {
      for (const make of [() => event, () => new Proxy(event, {}), () => Object.create(event)]) {
        try {
          e.dispatchEvent(make());
        } catch {}
      }
    }
  }, true);
}
const field = fields()[0];
field?.focus();
document.execCommand("insertText", false, "x");
document.execCommand("delete");
const box = document.createElement("input");
box.type = "checkbox";
document.body.append(box);
box.click();
box.remove();
