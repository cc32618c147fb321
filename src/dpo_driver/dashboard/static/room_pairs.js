// Pairs: chosen beside rejected, with the prompt and the evidence behind a click.

import { count, empty, h, pill, short, swap, tabs } from "./dom.js";

export function pairs(place, { ask, watch, run, given, link, fail, signal }) {
  const round = given.get("round") ?? "";
  const head = h("div", { class: "bar" }), list = h("ul", { class: "pairs" });
  const more = h("button", { hidden: true, onclick: () => load() }, "More");
  let next = "", total = null, busy = false;
  place.append(head, list, more);
  const show = (data) => {
    list.append(...data.rows.map((row) => h("li", {}, pair(row, run, ask, link))));
    next = data.next;
    more.hidden = !next;
  };
  const load = async () => {
    if (busy || !next) return;
    busy = true;
    try {
      show((await ask("pairs", { run, round, after: next })).data);
    } catch (error) {
      if (!signal.aborted) fail(error.message);
    } finally {
      busy = false;
    }
  };
  const eye = new IntersectionObserver((found) => found.some((one) => one.isIntersecting) && load(), { rootMargin: "600px" });
  eye.observe(more);
  signal.addEventListener("abort", () => eye.disconnect());
  watch("pairs", { run, round }, (data) => {
    swap(head, data.rounds.length > 1 ? tabs("Round", [["", "all rounds"], ...data.rounds.map((one) => [String(one), `round ${one}`])], round, (one) => link(run, "pairs", { round: one })) : "",
      h("p", { class: "note" }, data.total ? `${count(data.total)} pairs` : ""));
    if (total === data.total && total) return; // nothing came; what is open stays open
    total = data.total;
    list.replaceChildren();
    if (data.rows.length) show(data);
    else list.append(h("li", {}, empty("This run has no pairs yet.", "dpo-driver pair puts success against failure from the same state.")));
  });
}

function pair(row, run, ask, link) {
  const inside = h("div", {});
  const load = async (event) => {
    if (!event.target.open || inside.childElementCount) return;
    try {
      const { data } = await ask("pair", { run, round: row.round, id: row.id });
      swap(inside, h("h3", {}, "Prompt"), data.messages.map((one) => h("div", {}, h("p", { class: "kicker" }, one.role), h("pre", {}, one.content))),
        h("div", { class: "versus" }, side("chosen", data, run, link), side("rejected", data, run, link)));
    } catch (error) {
      swap(inside, h("p", { class: "trouble" }, error.message));
    }
  };
  return h("article", { class: "pair" },
    h("header", {}, h("strong", {}, row.task || row.role || "text"), pill(row.level), pill(row.source), row.split === "val" && pill("validation", "warn"), h("span", { class: "note" }, `round ${row.round}, margin ${short(row.margin)}`)),
    h("div", { class: "versus" }, h("div", { class: "chosen" }, h("p", { class: "kicker" }, "Chosen"), h("pre", {}, row.chosen)), h("div", { class: "rejected" }, h("p", { class: "kicker" }, "Rejected"), h("pre", {}, row.rejected))),
    h("details", { ontoggle: load }, h("summary", {}, "Prompt and evidence"), inside));
}

function side(name, data, run, link) {
  const told = data.evidence[name];
  const known = told && typeof told === "object" ? Object.entries(told).filter(([, value]) => value !== null && typeof value !== "object") : [];
  return h("div", { class: name }, h("p", { class: "kicker" }, `${name}: evidence`), h("pre", {}, data[name]),
    known.length ? h("dl", { class: "facts" }, known.flatMap(([key, value]) => [h("dt", {}, key.replaceAll("_", " ")),
      h("dd", {}, key === "trajectory" ? h("a", { href: link(run, "episode", { id: value }) }, value) : typeof value === "number" ? short(value) : String(value))])) : h("p", { class: "note" }, told === undefined ? "none on record" : JSON.stringify(told)));
}
