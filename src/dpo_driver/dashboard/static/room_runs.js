// All runs below the root: how far each is, and what its last evaluations gave.

import { ago, count, empty, h, many, percent, pill, swap } from "./dom.js";
import { interval } from "./chart.js";

const TONES = { running: "live", done: "good", stopped: "warn", unreadable: "bad", empty: "" };

export function runs(place, { watch, link }) {
  watch("overview", {}, (data) => {
    swap(place, h("p", { class: "lead" }, `${many(data.runs.length, "run")} below `, h("code", {}, data.root)),
      data.runs.length ? h("ul", { class: "cards" }, data.runs.map((run) => card(run, link))) : empty("There is no run here yet.", "Start one: dpo-driver run configs/pocket.yaml. It shows here by itself."));
  });
}

function card(run, link) {
  if (run.state === "unreadable") return h("li", { class: "card" }, h("h2", {}, run.id), pill("unreadable", "bad"), h("p", { class: "note" }, run.error));
  const last = run.evaluations.slice(-3);
  return h("li", { class: "card" },
    h("header", {}, h("h2", {}, h("a", { href: link(run.id, "live"), "data-key": run.id }, run.id)), pill(run.state, TONES[run.state]), run.sealed && pill("sealed", "warn")),
    track(run.stages),
    h("dl", { class: "figures" },
      figure("Episodes", count(run.episodes)), figure("Pairs", count(run.pairs)), figure("Stages", count(run.stages.filter((one) => one.state === "done").length)),
      h("div", {}, h("dt", {}, "Changed"), h("dd", {}, ago(run.changed)))),
    last.length ? h("table", { class: "tight" }, h("tbody", {}, last.map((one) => h("tr", {}, h("th", { scope: "row" }, one.agent || one.stage, " ", h("span", { class: "note" }, one.split)),
      h("td", {}, interval(one)), h("td", { class: "number" }, percent(one.success)))))) : h("p", { class: "note" }, "Nothing was evaluated yet."));
}

const figure = (name, value) => h("div", {}, h("dt", {}, name), h("dd", {}, value));

/** One segment for each stage, as wide as its share of the seconds. */
export function track(stages) {
  const total = stages.reduce((sum, one) => sum + Math.max(one.seconds, 0.5), 0) || 1;
  const now = stages.find((one) => one.state === "running");
  return h("div", { class: "progress" },
    h("div", { class: "track", role: "img", "aria-label": `Stages: ${stages.map((one) => `${one.name} ${one.state}`).join(", ") || "none"}` },
      stages.map((one) => h("i", { class: `${one.state} kind-${one.name.split("/")[0]}`, title: `${one.name}: ${one.seconds.toFixed(1)} s`, css: { "flex-grow": String(Math.max(one.seconds, 0.5) / total) } }))),
    h("span", { class: "note" }, now ? `now: ${now.name}` : stages.length ? `last: ${stages.at(-1).name}` : "no stage began"));
}
