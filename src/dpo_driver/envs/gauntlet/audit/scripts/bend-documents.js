// Bends what the DOM tells, so that everything looks like the first part.

const values = {
  parentNode: first, parentElement: first, host: first, assignedSlot: first, value: "ABCDEF", control: first,
  ownerDocument: document, getAttribute: part, elementFromPoint: first, type: "text", length: 1, item: first,
};
const names = [
  "getAttribute", "hasAttribute", "getBoundingClientRect", "elementFromPoint", "querySelectorAll", "querySelector",
  "getElementsByTagName", "item", "length", "parentNode", "parentElement", "host", "assignedSlot", "shadowRoot",
  "ownerDocument", "value", "type", "control", "contentWindow", "contentDocument", "left", "top", "width", "height",
];
const kinds = [
  Node, Element, HTMLElement, ShadowRoot, Document, DocumentFragment, HTMLInputElement, HTMLTextAreaElement,
  HTMLLabelElement, HTMLIFrameElement, NodeList, HTMLCollection, DOMRect, DOMRectReadOnly,
];
for (const kind of kinds) {
  for (const name of names) bend(kind.prototype, name, name in values ? () => values[name] : undefined);
}
bend(window, "scrollY", () => 9000);
