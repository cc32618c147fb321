// Calls what makes browsers act by themselves, on every part, field and form. Gives how many tries.

unblock();
let tries = 0;
const call = (e, name, ...list) => {
  tries++;
  try {
    e[name]?.(...list);
  } catch {}
};
const methods = [
  "click", "focus", "select", "play", "stepUp", "requestSubmit", "reset", "showPopover", "showModal", "scrollIntoView",
];
for (const e of [...parts(), ...fields()]) {
  for (const name of methods) call(e, name);
  call(e, "setPointerCapture", 1);
  e.id ||= `it${tries}`;
  const label = document.createElement("label");
  label.htmlFor = e.id;
  document.body.append(label);
  call(label, "click");
  label.dispatchEvent(new PointerEvent("click", { bubbles: true, detail: 1, pointerId: 1 }));
  label.remove();
  const inside = document.createElement("span");
  e.append?.(inside);
  call(inside, "click");
  inside.remove();
  if (e.form) for (const name of ["requestSubmit", "reset"]) call(e.form, name);
  e.accessKey = "z";
  e.blur?.();
}
for (const form of document.forms) {
  const button = document.createElement("button");
  form.append(button);
  call(form, "requestSubmit", button);
  const field = form.querySelector("input");
  field?.focus();
  const enter = { key: "Enter", keyCode: 13, charCode: 13, which: 13, bubbles: true };
  field?.dispatchEvent(new KeyboardEvent("keypress", enter));
  button.remove();
}
const scrolled = deep().filter((e) => e.scrollHeight > e.clientHeight).slice(0, 40);
for (const e of [document.scrollingElement, ...scrolled]) {
  for (const [name, y] of [["scrollTo", 1e6], ["scrollBy", 900], ["scrollTo", 0]]) call(e, name, 0, y);
}
for (const e of deep()) {
  if (e instanceof HTMLMediaElement) { call(e, "play"); e.currentTime = 1; }
  if (e.tagName === "DETAILS") { e.open = true; call(e.firstElementChild, "click"); }
  if (e.type === "checkbox" || e.type === "radio") {
    call(e, "click");
    e.checked = true;
    call(e, "dispatchEvent", new Event("change", { bubbles: true }));
  }
}
await turns(2);
return tries;
