// What an action is about to touch, as rollout/consent.py judges it. Runs in the isolated world, reads only.
// `at` is {ref: "3"}, {x, y} or {focus: true}. Attributes are read through the prototypes: a form may hold a field named
// "method" or "getAttribute".
(at) => {
  const attr = (el, name) => Element.prototype.getAttribute.call(el, name) || "";
  const all = (el, css) => [...Element.prototype.querySelectorAll.call(el, css)];
  const words = (text) => String(text || "").replace(/\s+/g, " ").trim().slice(0, 300);
  let hidden = false;
  function deeper(el, next) {
    for (;;) {
      if (!el) return null;
      let inner = null;
      if (el.shadowRoot) inner = next(el.shadowRoot, 0, 0);
      else if (el.tagName === "IFRAME" || el.tagName === "FRAME") {
        let inside = null;
        try { inside = el.contentDocument; } catch { inside = null; }
        if (!inside) { hidden = true; return el; }
        const box = el.getBoundingClientRect();
        inner = next(inside, box.left + el.clientLeft, box.top + el.clientTop);
      }
      if (!inner || inner === el) return el;
      el = inner;
    }
  }
  let el = null;
  if (at.ref) el = dpoDriver.element(at.ref);
  else if (at.focus) el = deeper(document.activeElement, (root) => root.activeElement);
  else {
    let [x, y] = [at.x, at.y];
    el = deeper(document.elementFromPoint(x, y), (root, left, top) => { x -= left; y -= top; return root.elementFromPoint(x, y); });
  }
  if (!el) return null;
  if (el.nodeType !== 1) el = el.parentElement;
  const CONTROLS = "a[href],area[href],button,input,select,textarea,summary,label,[role=button],[role=link],[role=menuitem]," +
    "[role=option],[role=tab],[role=switch],[role=checkbox],[contenteditable]:not([contenteditable=false])";
  let control = el.closest(CONTROLS) || el;
  if (control.tagName === "LABEL" && control.control) control = control.control;
  const tag = control.tagName.toLowerCase();
  const type = (tag === "button" || tag === "input") ? String(control.type || "").toLowerCase() : "";
  const owner = control.form instanceof HTMLFormElement ? control.form : el.closest("form");
  const submits = Boolean(owner) && ((tag === "button" && type === "submit") || (tag === "input" && (type === "submit" || type === "image")));
  const plain = new Set(["button", "checkbox", "radio", "submit", "image", "reset", "file", "range", "color"]);
  const editable = control.isContentEditable || tag === "textarea" || (tag === "input" && !plain.has(type));
  const buttons = owner ? [...all(owner, "button,input[type=submit],input[type=image]")] : [];
  const address = (written) => { try { return written ? new URL(written, document.baseURI).href : ""; } catch { return written; } };
  const labels = control.labels ? [...control.labels].map((label) => label.innerText) : [];
  const icons = all(control, "svg title, img[alt], [aria-label], [title]").map((one) => attr(one, "alt") || attr(one, "aria-label") || attr(one, "title") || one.textContent);
  const texts = [attr(control, "aria-label"), ...labels, editable || tag === "select" ? "" : control.innerText,
    ["submit", "button", "reset"].includes(type) ? control.value : "", attr(control, "alt"), attr(control, "title"), attr(control, "placeholder"), ...icons];
  const known = ["id", "class", "name", "data-testid", "data-action", "data-confirm", "data-method", "onclick", "onchange"];
  return {
    tag, type, role: attr(control, "role"), names: [...new Set(texts.map(words).filter(Boolean))].slice(0, 8),
    hints: [control, el].flatMap((one) => known.map((name) => attr(one, name))).filter(Boolean).map(words),
    link: tag === "a" || tag === "area" ? address(attr(control, "href")) : "", in_form: Boolean(owner), submits, editable,
    multiline: tag === "textarea" || control.isContentEditable,
    method: owner ? (attr(control, "formmethod") || attr(owner, "method") || "get").toLowerCase() : "",
    action: owner ? address(attr(control, "formaction") || attr(owner, "action")) || document.URL : "",
    form_words: buttons.map((one) => words(attr(one, "aria-label") || one.innerText || attr(one, "value"))).filter(Boolean).slice(0, 8),
    hidden, clickable: control !== el || el.matches(CONTROLS) || getComputedStyle(el).cursor === "pointer",
    secret: type === "password", document: document.URL,
  };
}
