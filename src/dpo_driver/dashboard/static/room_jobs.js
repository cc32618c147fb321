// Jobs that go on by themselves, and the log of the chosen one as it grows.

import { ago, empty, h, percent, pill, span, swap } from "./dom.js";

const TONES = { running: "live", done: "good", refused: "warn", failed: "bad", cancelled: "", queued: "" };

export function jobs(place, { watch, given }) {
  const id = given.get("id") ?? "";
  const list = h("div", {}), shown = h("section", { class: "job" });
  place.append(list, shown);
  watch("jobs", {}, (data) => {
    swap(list, data.jobs.length ? h("ul", { class: "cards list" }, data.jobs.map((job) => card(job, job.id === id)))
      : empty("There is no job.", "dpo-driver learn starts them; training in the background is one too."));
  });
  if (!id) return;
  let text = "", next = null;
  const about = h("div", {}), log = h("pre", { class: "log", tabindex: "0", "aria-label": "Log" });
  shown.append(about, log);
  watch("job", () => ({ id, after: next }), (data) => {
    const follows = log.scrollTop + log.clientHeight >= log.scrollHeight - 30;
    if (data.next !== next) text += data.log;
    next = data.next;
    log.textContent = text || "The log is empty.";
    if (follows) log.scrollTop = log.scrollHeight;
    swap(about, h("h2", {}, data.id), h("dl", { class: "facts" }, facts(data.request, "asked for"), facts(data.result, "result")));
  });
}

const facts = (found, name) => Object.entries(found).flatMap(([key, value]) => [h("dt", {}, `${name}: ${key.replaceAll("_", " ")}`), h("dd", {}, typeof value === "object" ? JSON.stringify(value) : String(value))]);

function card(job, chosen) {
  return h("li", { class: `card ${chosen ? "chosen" : ""}` }, h("header", {}, h("h2", {}, h("a", { href: `#/jobs?id=${encodeURIComponent(job.id)}`, "data-key": job.id, "aria-current": chosen && "true" }, job.role || "browser agent", " · ", job.kind)), pill(job.state, TONES[job.state]), ago(job.created)),
    h("div", { class: "progress" }, h("progress", { max: "1", value: job.progress, "aria-label": "Progress" }), h("span", { class: "note" }, `${percent(job.progress, 0)}${job.phase ? `, ${job.phase}` : ""}${job.seconds === null ? "" : `, ${span(job.seconds)}`}`)),
    job.message || job.error ? h("p", { class: job.error ? "trouble" : "note" }, job.error || job.message) : "", h("p", { class: "note" }, h("code", {}, job.id)));
}
