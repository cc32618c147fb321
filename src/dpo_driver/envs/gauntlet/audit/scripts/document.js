// Reads everything in the DOM, seen or not.

const texts = [document.title, document.documentElement.outerHTML, location.href];
for (const e of deep()) {
  texts.push(e.textContent, ...[...e.attributes].map((attribute) => `${attribute.name}=${attribute.value}`));
  for (const name of ["value", "defaultValue", "alt", "title", "ariaLabel", "ariaDescription", "innerText"]) {
    if (typeof e[name] === "string") texts.push(e[name]);
  }
  if (e.content) texts.push(e.content.textContent);
  for (const pseudo of ["::before", "::after", "::marker", "::placeholder"]) {
    const content = getComputedStyle(e, pseudo).content;
    if (content !== "none" && content !== "normal") texts.push(content);
  }
  if (e.tagName === "CANVAS") texts.push(e.toDataURL(), written(Object.entries(e)));
  if (e.shadowRoot) texts.push(e.shadowRoot.innerHTML);
}
return texts.join("\n");
