// Building and swapping parts of the page, and numbers in words. Knows no room. Text is only ever set as text.

const SVG = "http://www.w3.org/2000/svg";
const SHAPES = new Set(["svg", "g", "path", "line", "rect", "circle", "text", "image", "title"]);

/** An element: h("a", {href: "#/", class: "x", onclick: go}, "text", child, [more]). null and false are left out. */
export function h(tag, given = {}, ...children) {
  const made = SHAPES.has(tag) ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(given ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name === "css") for (const [key, said] of Object.entries(value)) made.style.setProperty(key, said);
    else if (name === "value" || name === "checked" || name === "open") made[name] = value;
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.flat(5).filter((child) => child !== null && child !== undefined && child !== false && child !== ""));
  return made;
}

/** Put new content in place of the old; focus, open details and scrolled parts with the same data-key stay so. */
export function swap(place, ...children) {
  const focused = document.activeElement?.closest?.("[data-key]");
  const key = focused && place.contains(focused) ? focused.dataset.key : null;
  const open = new Set([...place.querySelectorAll("details[open][data-key]")].map((one) => one.dataset.key));
  const scrolled = new Map([...place.querySelectorAll("[data-scroll]")].map((one) => [one.dataset.scroll, [one.scrollLeft, one.scrollTop]]));
  place.replaceChildren(...children.flat(5).filter(Boolean));
  for (const one of place.querySelectorAll("details[data-key]")) if (open.has(one.dataset.key)) one.open = true;
  for (const one of place.querySelectorAll("[data-scroll]")) {
    const [left, top] = scrolled.get(one.dataset.scroll) ?? [0, 0];
    one.scrollLeft = left;
    one.scrollTop = top;
  }
  if (key !== null) place.querySelector(`[data-key="${CSS.escape(key)}"]`)?.focus({ preventScroll: true });
}

export const count = (number) => (number ?? 0).toLocaleString("en");
export const percent = (share, digits = 1) => (share === null || share === undefined ? "–" : `${(100 * share).toFixed(digits)} %`);
export const many = (number, one, more = `${one}s`) => `${count(number)} ${number === 1 ? one : more}`;

/** A number as short as it may be: 0.6931, 1.2e-5, 1,234. */
export function short(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e6)) return Number(value.toPrecision(3)).toExponential().replace("e+", "e").replaceAll("-", "−");
  if (size >= 1000) return Math.round(value).toLocaleString("en");
  return String(Number(value.toPrecision(4))).replace("-", "−");
}

/** Seconds in words: 0.4 s, 12 s, 3 min 5 s, 2 h 10 min. */
export function span(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${count(Math.floor(whole / 3600))} h ${Math.floor((whole % 3600) / 60)} min`;
}

/** A moment, seconds since 1970, as how long ago it was, with the time itself as its title. */
export function ago(at) {
  if (!at) return h("span", {}, "–");
  const date = new Date(1000 * at);
  const made = h("time", { datetime: date.toISOString(), title: date.toLocaleString(), "data-at": at });
  tell(made);
  return made;
}

function tell(made) {
  const passed = Math.max(0, Date.now() / 1000 - Number(made.dataset.at));
  const said = passed < 5 ? "just now" : passed < 60 ? `${Math.floor(passed)} s ago` : passed < 3600 ? `${Math.floor(passed / 60)} min ago`
    : passed < 86400 ? `${Math.floor(passed / 3600)} h ago` : `${Math.floor(passed / 86400)} d ago`;
  if (made.textContent !== said) made.textContent = said;
}
setInterval(() => document.querySelectorAll("time[data-at]").forEach(tell), 5000);

export const pill = (text, tone = "") => h("span", { class: `pill ${tone}` }, text);
export const empty = (what, how = "") => h("div", { class: "empty" }, h("p", {}, what), how && h("p", { class: "note" }, how));

/** What came of an episode, in one word and one colour. */
export function outcome(one) {
  if (one.failure || one.success === null) return pill(one.failure ? "world failed" : "not judged", "warn");
  return one.success ? pill("success", "good") : pill(one.stop.replaceAll("_", " "), "bad");
}

/** A table's head; a name that begins with ">" stands over numbers. */
export const heads = (names) => h("thead", {}, h("tr", {}, names.map((one) => h("th", { scope: "col", class: one.startsWith(">") && "number" }, one.replace(/^>/, "")))));

/** A row of links of which one is here. */
export function tabs(label, choices, chosen, href) {
  return h("div", { class: "tabs", role: "group", "aria-label": label },
    choices.map(([value, text]) => h("a", { href: href(value), "aria-current": value === chosen && "true", "data-key": `tab-${label}-${value}` }, text)));
}
