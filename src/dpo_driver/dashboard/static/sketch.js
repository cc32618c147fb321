// What a page looked like: its screenshot, else a drawing of its elements' boxes, else its elements as text.

import { h } from "./dom.js";

const BUTTONS = new Set(["button", "tab", "menuitem", "link", "clickable", "option", "item", "listitem", "cell"]);
const FIELDS = new Set(["textbox", "textarea", "combobox", "spinbutton", "date", "time", "number", "color", "file", "slider", "searchbox"]);

export const pictureOf = (run, sha, width) => `/picture?${new URLSearchParams({ run, sha, ...(width ? { w: width } : {}) })}`;

/** A page; `target` is the ref that the action aims at; `sha` a screenshot in place of the page's own. */
export function sketch(run, page, { target = null, sha = null, small = false } = {}) {
  const shot = sha ?? page?.screenshot;
  if (shot) return pictured(run, page, shot, target, small);
  if (!page) return h("div", { class: "sheet none" }, h("span", {}, "no page was seen"));
  const boxed = page.elements.filter((one) => one.box);
  return boxed.length ? drawn(page, boxed, target) : outline(page, target, small);
}

function pictured(run, page, sha, target, small) {
  const image = h("img", { class: "shot", src: pictureOf(run, sha, small ? 320 : null), loading: "lazy", decoding: "async",
    alt: `Screenshot: ${page?.title || page?.url || "the page"}` });
  const box = page?.elements.find((one) => one.ref !== null && one.ref === target)?.box;
  const frame = h("div", { class: "sheet pictured" }, image);
  image.addEventListener("error", () => frame.replaceWith(page ? sketch(run, { ...page, screenshot: null }, { target, small }) : h("div", { class: "sheet none" }, h("span", {}, "the picture is gone"))), { once: true });
  if (box && !small) image.addEventListener("load", () => {
    const scale = page.scale || 1, share = (value, whole) => `${(100 * value * scale) / whole}%`;
    frame.append(h("div", { class: "aim", css: { left: share(box[0], image.naturalWidth), top: share(box[1], image.naturalHeight),
      width: share(box[2], image.naturalWidth), height: share(box[3], image.naturalHeight) } }));
  }, { once: true });
  return frame;
}

function drawn(page, boxed, target) {
  const right = Math.min(1600, Math.max(160, ...boxed.map((one) => one.box[0] + one.box[2] + 10)));
  const bottom = Math.min(1200, Math.max(120, ...boxed.map((one) => one.box[1] + one.box[3] + 10)));
  return h("div", { class: "sheet" }, h("svg", { class: "drawing", viewBox: `0 0 ${right} ${bottom}`, role: "img",
    "aria-label": `Drawing of the page ${page.title || page.url}` }, boxed.map((one) => shape(one)),
  boxed.filter((one) => one.ref !== null && one.ref === target).map(({ box: [x, y, w, t] }) => h("rect", { class: "target", x: x - 2, y: y - 2, width: w + 4, height: t + 4, rx: 3 }))));
}

function shape(one) {
  const [x, y, w, t] = one.box;
  if (one.role === "checkbox" || one.role === "radio") {
    const on = one.states.includes("checked") || one.states.includes("selected");
    return h("g", {}, h("rect", { class: "field", x, y, width: w, height: t, rx: one.role === "radio" ? t / 2 : 2 }),
      on && h("text", { class: "tickmark", x: x + w / 2, y: y + t * 0.8, "text-anchor": "middle" }, "✓"));
  }
  const kind = FIELDS.has(one.role) ? "field" : one.ref && BUTTONS.has(one.role) ? "press" : "plain";
  const size = Math.max(6, Math.min(11, t * 0.6)), room = Math.max(1, Math.floor(w / (size * 0.52)));
  const said = (kind === "field" && one.value ? one.value : one.name).replace(/\s+/g, " ");
  return h("g", {}, kind !== "plain" && h("rect", { class: kind, x, y, width: w, height: t, rx: 2.5 }),
    h("text", { x: x + (kind === "plain" ? 0 : 4), y: y + Math.min(t, size * 1.9) / 2 + size * 0.35, "font-size": size },
      said.length > room ? `${said.slice(0, Math.max(1, room - 1))}…` : said));
}

/** The elements as text; one line for each. */
export function outline(page, target = null, small = false) {
  const shown = small ? page.elements.slice(0, 8) : page.elements;
  return h("div", { class: `sheet outline ${small ? "small" : ""}` }, shown.length ? h("ul", {}, shown.map((one) => h("li", { class: one.ref !== null && one.ref === target ? "aimed" : "" },
    h("span", { class: "role" }, one.role), " ", one.name, one.value ? h("em", {}, ` = ${one.value}`) : "", one.ref !== null && h("code", {}, `[${one.ref}]`),
    one.states.length ? h("span", { class: "note" }, ` ${one.states.join(", ")}`) : ""))) : h("span", { class: "note" }, "an empty page"),
  !small && page.left_out ? h("p", { class: "note" }, `${page.left_out} more elements`) : "");
}

/** An action in words: click button Login [3]. */
export function acted(action, page) {
  if (!action) return "nothing that could be read";
  const { kind, ...rest } = action;
  const named = page?.elements.find((one) => one.ref === rest.ref);
  const parts = Object.entries(rest).filter(([key]) => key !== "ref").map(([, value]) => JSON.stringify(value));
  return [kind.replaceAll("_", " "), named ? `${named.role} ${named.name}`.trim() : "", rest.ref === undefined ? "" : `[${rest.ref}]`, ...parts].filter(Boolean).join(" ");
}
