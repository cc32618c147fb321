// Writes a frame's document and then the page's own anew, with the parts `given`, and acts on them.

const frame = document.createElement("iframe");
document.body.append(frame);
frame.contentDocument.open();
frame.contentDocument.write(`<button data-part="${given[0] ?? ""}">x</button>`);
frame.contentDocument.close();
frame.contentDocument.querySelector("button").click();
window.heard = [];
document.open();
document.write(`<h1>anew</h1>${given.map((token) => `<button data-part="${token}">x</button>`).join("")}`);
document.close();
for (const kind of ["keydown", "message"]) addEventListener(kind, (event) => heard.push(String(event.target)), true);
for (const e of document.querySelectorAll("button")) {
  e.click();
  e.dispatchEvent(new PointerEvent("click", { bubbles: true, detail: 1, pointerId: 1 }));
}
