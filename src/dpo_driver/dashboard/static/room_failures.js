// Failures by type: the agent's own, and what the world broke; then by task, the worst first.

import { count, empty, h, heads, percent, swap, tabs } from "./dom.js";

export function failures(place, { watch, run, given, link }) {
  const stage = given.get("stage") ?? "";
  watch("failures", { run, stage }, (data) => {
    const most = Math.max(1, ...data.reasons.map((one) => one.count));
    const bars = (kept, tone) => h("ul", { class: "bars" }, kept.map((one) => h("li", {}, h("a", { href: link(run, "episodes", { stop: one.stop, stage }), "data-key": one.stop },
      h("span", { class: "name" }, one.stop.replaceAll("_", " "), h("span", { class: "note" }, one.meaning)), h("span", { class: "beam" }, h("i", { class: `fill-${one.stop === "success" ? "good" : tone}`, css: { width: `${(100 * one.count) / most}%` } })),
      h("span", { class: "number" }, count(one.count), h("span", { class: "note" }, ` ${percent(one.count / data.total)}`))))));
    const ours = data.reasons.filter((one) => one.ours), world = data.reasons.filter((one) => !one.ours);
    swap(place, data.stages.length ? tabs("Stage", [["", "all stages"], ...data.stages.map((one) => [one, one])], stage, (one) => link(run, "failures", { stage: one })) : "",
      data.total ? [h("section", {}, h("h2", {}, "How episodes ended"), bars(ours, "b")),
        h("section", {}, h("h2", {}, "What the world broke"), world.length ? h("p", { class: "note" }, "Retried, counted, left out of every rate.") : h("p", { class: "note" }, "Nothing."), bars(world, "bad"),
          data.details.length ? h("div", { class: "scroll", "data-scroll": "details" }, h("table", {}, heads(["Said", ">Times", "For example"]), h("tbody", {}, data.details.map((one) => h("tr", {}, h("td", {}, one.text), h("td", { class: "number" }, count(one.count)),
            h("td", {}, h("a", { href: link(run, "episode", { id: one.example }), "data-key": one.example }, one.example))))))) : ""),
        tasks(data.tasks, run, stage, link)] : empty("No episode was recorded yet."));
  });
}

const tasks = (found, run, stage, link) => h("section", {}, h("h2", {}, "By task, the worst first"), h("div", { class: "scroll", "data-scroll": "tasks" }, h("table", {}, heads(["Task", ">Success", "", ">Episodes", "Most often otherwise"]),
  h("tbody", {}, found.map((one) => {
    const judged = one.episodes - one.failed, share = judged ? one.success / judged : null;
    const [stop, times] = Object.entries(one.stops).filter(([key]) => key !== "success").sort((a, b) => b[1] - a[1])[0] ?? ["–", 0];
    return h("tr", {}, h("th", { scope: "row" }, h("a", { href: link(run, "episodes", { text: one.task, stage }), "data-key": `task-${one.task}` }, one.task)), h("td", { class: "number" }, percent(share)),
      h("td", {}, h("span", { class: "beam" }, h("i", { class: "fill-good", css: { width: `${100 * (share ?? 0)}%` } }))), h("td", { class: "number" }, count(one.episodes)), h("td", {}, times ? `${stop.replaceAll("_", " ")} ${count(times)}` : "–"));
  })))));
