// Labels of people and models, the newest first, and what each rater gave.

import { ago, count, empty, h, heads, pill, swap, tabs } from "./dom.js";

const WORDS = { first: "first is better", second: "second is better", tie: "tie", both_bad: "both bad" };

export function labels(place, { ask, watch, run, given, link, fail }) {
  const shared = given.get("log") === "shared";
  const head = h("div", {}), rows = h("tbody", {}), more = h("button", { hidden: true });
  let older = false;
  place.append(head, h("div", { class: "scroll" }, h("table", { class: "labels" }, heads(["When", "Rater", "Verdict", "Source", "Comparison"]), rows)), more);
  const from = shared ? "" : run;
  const table = place.querySelector(".scroll");
  watch("labels", { run: from }, (data) => {
    const total = data.kinds.label ?? 0;
    swap(head, data.logs.includes("") ? tabs("Log", [["", "this run's"], ["shared", "shared by all runs"]], shared ? "shared" : "", (one) => link(run, "labels", { log: one })) : "",
      total ? h("div", {}, h("p", { class: "note" }, `${count(total)} labels, ${count(data.kinds.comparison ?? 0)} comparisons, ${count(data.kinds.withdrawn ?? 0)} taken back`), raters(data.raters))
        : empty("Nobody has labelled here yet.", "dpo-driver label RUN puts answers up for comparison."));
    table.hidden = !data.rows.length;
    if (older) return; // somebody reads further back
    rows.replaceChildren(...data.rows.map(row));
    more.hidden = data.next === null;
    more.textContent = "Older";
    more.onclick = () => load(data.next);
  });
  const load = async (before) => {
    older = true;
    try {
      const { data } = await ask("labels", { run: from, before });
      rows.append(...data.rows.map(row));
      more.hidden = data.next === null;
      more.onclick = () => load(data.next);
    } catch (error) {
      fail(error.message);
    }
  };
}

const row = (one) => h("tr", { class: one.withdrawn ? "gone" : "" }, h("td", {}, ago(one.at)), h("td", {}, one.rater || "–"), h("td", {}, pill(WORDS[one.preferred] ?? one.preferred), one.withdrawn && pill("taken back", "warn")),
  h("td", {}, one.source), h("td", {}, h("code", {}, one.comparison)));

function raters(found) {
  return h("div", { class: "scroll" }, h("table", {}, heads(["Rater", ">Labels", ">First", ">Second", ">Tie", ">Both bad", ""]),
    h("tbody", {}, found.map((one) => h("tr", {}, h("th", { scope: "row" }, one.rater || "–", " ", h("span", { class: "note" }, one.source)), ["labels", "first", "second", "tie", "both_bad"].map((key) => h("td", { class: "number" }, count(one[key]))),
      h("td", {}, h("div", { class: "stack", "aria-hidden": "true" }, [["first", "a"], ["second", "b"], ["tie", "quiet"], ["both_bad", "bad"]].map(([key, tone]) => one[key] ? h("i", { class: `fill-${tone}`, css: { "flex-grow": String(one[key]) } }) : ""))))))));
}
