// Puts the text `given` into every field in every way that scripts have, and enters it by events. Gives how many tries.

unblock();
let tries = 0;
const command = (name, value) => document.execCommand(name, false, value);
const setter = Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, "value").set;
const twin = (e, tag) => {
  const made = document.createElement(tag);
  made.dataset.field = e.dataset.field;
  e.after(made);
  return made;
};
const clear = (e) => { e.value = ""; e.focus(); };
const ways = [
  (e) => { e.value = given; },
  (e) => setter.call(e, given),
  (e) => { e.setAttribute("value", given); e.form?.reset(); },
  (e) => e.setRangeText(given, 0, e.value.length, "end"),
  (e) => { clear(e); command("insertText", given); },
  (e) => { clear(e); command("insertHTML", given); },
  (e) => { e.focus(); command("undo"); command("redo"); command("delete"); command("undo"); },
  (e) => {
    const area = document.createElement("textarea");
    area.value = given;
    document.body.append(area);
    area.select();
    command("copy");
    area.remove();
    clear(e);
    command("paste");
  },
  (e) => {
    const event = document.createEvent("TextEvent");
    event.initTextEvent("textInput", true, true, window, given);
    e.focus();
    e.dispatchEvent(event);
  },
  (e) => {
    for (const kind of ["compositionstart", "compositionupdate", "compositionend"]) {
      e.dispatchEvent(new CompositionEvent(kind, { data: given, bubbles: true }));
    }
  },
  (e) => { const kind = e.type; e.type = "hidden"; e.value = given; e.type = kind; },
  (e) => { for (const kind of ["checkbox", "email", "color", e.type]) { e.type = kind; e.value = given; } },
  (e) => { const area = twin(e, "textarea"); area.value = given; area.focus(); command("insertText", given); },
  (e) => { const copy = e.cloneNode(); copy.value = given; e.after(copy); copy.focus(); },
  (e) => { const box = twin(e, "div"); box.contentEditable = "true"; box.focus(); command("insertText", given); },
];
for (const e of fields()) {
  for (const way of ways) {
    try {
      way(e);
    } catch {}
    const data = { data: given, inputType: "insertText", bubbles: true };
    for (const kind of ["beforeinput", "input"]) e.dispatchEvent(new InputEvent(kind, data));
    e.dispatchEvent(new Event("change", { bubbles: true }));
    e.dispatchEvent(new KeyboardEvent("keydown", { key: "Enter", keyCode: 13, bubbles: true }));
    tries++;
  }
}
await turns(2);
return tries;
