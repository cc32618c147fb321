// Where a locator of somebody else's recording leads on this page: its parts, one after the other, to element numbers.
//
// Runs beside the distiller, in its world (rollout/intents.py asks), and reads only. Parts: {css} and {xpath} search
// inside what the part before has found, {refs} are elements that were found by role and name, {holds} keeps those with
// a text in them, {nth} one of them. The answer is, for each element found, the numbers that may stand for it, the best
// first: its own, its label's, those inside it, those around it.
(parts) => {
  "use strict";
  const driver = globalThis.dpoDriver;
  const collapse = (text) => text.replace(/\s+/g, " ").trim();

  const up = (node) => node.assignedSlot || node.parentNode || node.host || (node.defaultView && node.defaultView.frameElement) || null;
  const inside = (node, scope) => {
    for (let at = node; at; at = up(at)) if (at === scope) return true;
    return false;
  };

  // What is searched in when something stands for its content.
  const content = (scope) => (scope.tagName === "IFRAME" || scope.tagName === "FRAME" ? scope.contentDocument || scope : scope);

  function select(scope, css) {
    const found = [...scope.querySelectorAll(css)];
    const roots = scope.shadowRoot ? [scope.shadowRoot] : [];
    for (const el of scope.querySelectorAll("*")) if (el.shadowRoot) roots.push(el.shadowRoot);
    for (const root of roots) found.push(...select(root, css));
    return found;
  }

  function follow(scope, xpath) {
    const owner = scope.ownerDocument || scope;
    const all = owner.evaluate(xpath, scope, null, XPathResult.ORDERED_NODE_SNAPSHOT_TYPE, null);
    const found = [];
    for (let i = 0; i < all.snapshotLength; i++) if (all.snapshotItem(i).nodeType === Node.ELEMENT_NODE) found.push(all.snapshotItem(i));
    return found;
  }

  const holds = (el, part) => {
    const text = collapse(el.textContent || "");
    return part.pattern ? new RegExp(part.holds, part.flags || "").test(text) : text.toLowerCase().includes(collapse(part.holds).toLowerCase());
  };

  function step(found, part) {
    if ("css" in part) return [...new Set(found.flatMap((scope) => select(content(scope), part.css)))];
    if ("xpath" in part) return [...new Set(found.flatMap((scope) => follow(content(scope), part.xpath)))];
    if ("refs" in part) {
      const elements = part.refs.map((ref) => driver.element(ref)).filter(Boolean);
      return elements.filter((el) => found.some((scope) => scope === document || inside(el, scope)));
    }
    if ("holds" in part) return found.filter((el) => holds(el, part));
    const at = part.nth < 0 ? found.length + part.nth : part.nth;
    return found.slice(at, at + 1);
  }

  function numbers(el) {
    const own = [el, ...(el.labels || []), ...(el.tagName === "LABEL" && el.control ? [el.control] : [])];
    const around = [];
    for (let at = up(el); at; at = up(at)) around.push(at);
    const all = [...own, ...el.querySelectorAll("*"), ...around].map((one) => driver.ref(one)).filter((ref) => ref !== undefined);
    return [...new Set(all)];
  }

  try {
    return parts.reduce(step, [document]).filter((el) => el !== document).slice(0, 20).map(numbers);
  } catch (error) {
    return { error: String(error.message || error) };
  }
}
