// Class names and the style sheet. Class names begin with letters that the seed chose and say nothing; the sheet is made
// in the page and adopted, so that no style has to be let in by the server's policy.

import type { Look } from "./contract";
import { sheetA } from "./skin-a";
import { sheetB } from "./skin-b";

let prefix = "x";
let sheet: CSSStyleSheet | null = null;

function scrambled(name: string): string {
  let hash = 2166136261;
  for (const char of prefix + name) hash = Math.imul(hash ^ char.charCodeAt(0), 16777619);
  return (hash >>> 0).toString(36).padStart(4, "0").slice(-4);
}

// The class of a name, or of several, with spaces between them: cx("button"), cx("button", "loud").
export function cx(...names: (string | false | null | undefined)[]): string {
  return names
    .filter((name): name is string => Boolean(name))
    .flatMap((name) => name.split(" "))
    .map((name) => `${prefix}-${scrambled(name)}`)
    .join(" ");
}

// In the sheets a class (or animation) is written `$name`.
const written = (css: string) => css.replace(/\$([a-z][a-z0-9-]*)/g, (_all, name: string) => cx(name));

// Put a look on: call it before anything is drawn.
export function wear(skin: "a" | "b", look: Look): void {
  prefix = look.prefix;
  sheet ??= new CSSStyleSheet();
  sheet.replaceSync(written(skin === "a" ? sheetA(look) : sheetB(look)));
  adopt(document);
}

// For a shadow root whose content is drawn with `cx`.
export function adopt(root: Document | ShadowRoot): void {
  if (sheet && !root.adoptedStyleSheets.includes(sheet)) root.adoptedStyleSheets = [...root.adoptedStyleSheets, sheet];
}
