// What every script of the audit may use: all elements, through open shadow roots and frames, and those that the server
// listens to. Put before each script by adversary.py; each is the body of an async function with the argument `given`.

const deep = (root = document, out = []) => {
  for (const e of root.querySelectorAll("*")) {
    out.push(e);
    if (e.shadowRoot) deep(e.shadowRoot, out);
    if (e.tagName === "IFRAME") { try { if (e.contentDocument) deep(e.contentDocument, out); } catch {} }
  }
  return out;
};
const parts = () => deep().filter((e) => e.hasAttribute("data-part"));
const fields = () => deep().filter((e) => e.hasAttribute("data-field"));
const written = (value) => {
  try {
    return JSON.stringify(value) ?? "";
  } catch (error) {
    return String(error); // it goes round in circles
  }
};
const unblock = () => { for (const e of deep()) { e.inert = false; e.disabled = false; } };
const turns = (n) => new Promise((done) => { const go = () => n-- > 0 ? setTimeout(go) : done(); go(); });
