// What agents did outside of runs, and what came of it: the inbox that the next training reads.

import { ago, count, empty, h, pill, short, swap } from "./dom.js";

export function feedback(place, { ask, watch, fail }) {
  const head = h("div", {}), list = h("ul", { class: "cards list" }), more = h("button", { hidden: true }, "Older");
  let older = false;
  place.append(head, list, more);
  watch("feedback", {}, (data) => {
    swap(head, data.total ? h("p", { class: "lead" }, `${count(data.total)} recorded: `, Object.entries(data.roles).map(([role, number]) => `${role || "browser agent"} ${count(number)}`).join(", "))
      : empty("Nothing was recorded yet.", "dpo-driver serve, dpo-driver act and record_episode() write here."));
    if (older) return;
    list.replaceChildren(...data.rows.map(card));
    more.hidden = data.next === null;
    more.onclick = () => load(data.next);
  });
  const load = async (before) => {
    older = true;
    try {
      const { data } = await ask("feedback", { before });
      list.append(...data.rows.map(card));
      more.hidden = data.next === null;
      more.onclick = () => load(data.next);
    } catch (error) {
      fail(error.message);
    }
  };
}

const card = (one) => h("li", { class: "card" }, h("header", {}, h("strong", {}, one.role || "browser agent"), one.success !== null && (one.success ? pill("success", "good") : pill("miss", "bad")),
  one.rating !== null && pill(`rating ${short(one.rating)}`, one.rating > 0 ? "good" : one.rating < 0 ? "bad" : ""), h("span", { class: "note" }, `${one.source}${one.model ? `, ${one.model}` : ""}`), ago(one.at)),
h("p", {}, one.asked || h("span", { class: "note" }, "no question on record")), one.response ? h("pre", {}, one.response) : h("p", { class: "note" }, one.steps === null ? "" : `${one.steps} steps`),
one.better ? h("div", {}, h("p", { class: "kicker" }, "Would have been better"), h("pre", {}, one.better)) : "");
