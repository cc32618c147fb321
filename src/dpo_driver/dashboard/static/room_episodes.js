// All episodes of a run, however many: filtered on the server, drawn as they come into sight.

import { Rows } from "./list.js";
import { count, h, outcome, short, swap } from "./dom.js";

const OUTCOMES = [["", "All"], ["success", "Success"], ["miss", "Miss"], ["failure", "World failed"]];

export function episodes(place, { ask, watch, run, given, link, note, fail, signal }) {
  const chosen = { stage: given.get("stage") ?? "", outcome: given.get("outcome") ?? "", stop: given.get("stop") ?? "", text: given.get("text") ?? "" };
  const told = h("p", { class: "note", role: "status" }), stages = h("select", { id: "stage", onchange: () => change("stage", stages.value) });
  const search = h("input", { id: "search", type: "search", value: chosen.text, placeholder: "task or id", autocomplete: "off", oninput: () => later(() => change("text", search.value.trim())) });
  const stop = h("button", { class: "quiet", hidden: !chosen.stop, onclick: () => { stop.hidden = true; change("stop", ""); } }, `only ${chosen.stop.replaceAll("_", " ")} ×`);
  const newer = h("button", { class: "newer", hidden: true, onclick: () => list.reset() });
  let timer = 0, seen = null;
  const later = (work) => {
    clearTimeout(timer);
    timer = setTimeout(work, 200);
  };
  signal.addEventListener("abort", () => clearTimeout(timer));
  const change = (name, value) => {
    chosen[name] = value;
    note({ [name]: value });
    list.reset();
  };
  const list = new Rows({
    label: "Episodes", fail: (error) => signal.aborted || fail(error.message),
    fetch: async (after) => {
      const { data } = await ask("episodes", { run, ...chosen, after });
      if (!after) {
        newer.hidden = true;
        seen = data.total;
        told.textContent = `${count(data.total)} ${data.total === 1 ? "episode" : "episodes"}`;
        choices(data.stages);
      }
      return data;
    },
    draw: (row) => [outcome(row), h("strong", {}, row.task), h("span", { class: "note id" }, row.id), h("span", { class: "note" }, row.stage), h("span", { class: "number" }, row.reward === null ? "–" : short(row.reward))],
    open: (row) => { location.hash = link(run, "episode", { id: row.id }); },
  });
  const choices = (found) => {
    if (document.activeElement === stages) return;
    swap(stages, h("option", { value: "" }, "all stages"), found.map((one) => h("option", { value: one.name }, `${one.name} (${count(one.episodes)})`)));
    stages.value = chosen.stage;
  };
  const buttons = OUTCOMES.map(([value, text]) => h("button", { type: "button", "aria-pressed": String(chosen.outcome === value), onclick: (event) => {
    for (const one of event.currentTarget.parentElement.children) one.setAttribute("aria-pressed", String(one === event.currentTarget));
    change("outcome", value);
  } }, text));
  place.append(h("div", { class: "bar" }, h("label", {}, h("span", {}, "Stage"), stages), h("div", { class: "group", role: "group", "aria-label": "Outcome" }, buttons),
    h("label", {}, h("span", {}, "Find"), search), stop, told, newer), list.node);
  // The list itself is asked for once; whether there is more is asked again and again, at the price of one row.
  watch("episodes", () => ({ run, ...chosen, limit: 1 }), (data) => {
    if (seen === null || data.total === seen) return;
    if ((list.rows?.length ?? 0) <= 500 && list.node.scrollTop === 0) return list.reset(true);
    newer.hidden = false;
    newer.textContent = `${count(data.total)} now: show`;
  });
}
