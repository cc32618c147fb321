// One run as it goes on: the newest episodes, stages, evaluations.

import { ago, empty, h, heads, many, outcome, percent, pill, span, swap } from "./dom.js";
import { interval } from "./chart.js";
import { sketch } from "./sketch.js";
import { track } from "./room_runs.js";

export function live(place, { watch, run, link }) {
  const head = h("div", {}), wall = h("ul", { class: "wall" }), rest = h("div", { class: "columns" });
  const cards = new Map();
  place.append(head, h("h2", {}, "Newest episodes"), wall, rest);
  watch("live", { run }, (data) => {
    swap(head, h("div", { class: "headline" }, pill(data.run.state, data.run.state === "running" ? "live" : data.run.state === "done" ? "good" : "warn"),
      h("span", {}, many(data.run.episodes, "episode")), h("span", {}, many(data.run.pairs, "pair")), h("span", { class: "note" }, "changed ", ago(data.run.changed))), track(data.run.stages));
    if (!data.latest.length) return swap(wall, h("li", {}, empty("No episode was recorded yet.")));
    const kept = data.latest.map((one) => {
      // A picture that is there already is not loaded again.
      const key = `${one.id} ${one.seen} ${one.stop}`;
      if (!cards.has(key)) cards.set(key, thumbnail(one, run, link));
      return cards.get(key);
    });
    for (const [key, card] of cards) if (!kept.includes(card)) cards.delete(key);
    wall.replaceChildren(...kept);
    swap(rest, evaluations(data.run.evaluations), stages(data.run.stages));
  });
}

function thumbnail(one, run, link) {
  return h("li", { class: one.seen ? "fresh" : "" }, h("a", { class: "thumb", href: link(run, "episode", { id: one.id }) },
    one.unread ? h("div", { class: "sheet none" }, h("span", {}, "sealed")) : sketch(run, one.page, { sha: one.final, small: true }),
    h("div", { class: "about" }, h("div", {}, outcome(one), one.seen && h("span", { class: "note" }, ago(one.seen))),
      h("strong", {}, one.task), h("span", { class: "note goal" }, one.goal || one.id),
      h("span", { class: "note" }, one.count === null ? "" : many(one.count, "step"), one.seconds ? `, ${span(one.seconds)}` : ""))));
}

const evaluations = (found) => h("section", {}, h("h2", {}, "Evaluations"), found.length ? h("div", { class: "scroll" }, h("table", {}, heads(["Agent", "Seeds", ">Success", "95 % interval", ">n"]),
  h("tbody", {}, found.map((one) => h("tr", {}, h("th", { scope: "row" }, one.agent, h("span", { class: "note" }, ` ${one.stage}`)), h("td", {}, one.split), h("td", { class: "number" }, percent(one.success)),
    h("td", {}, interval(one)), h("td", { class: "number" }, one.n, one.excluded ? h("span", { class: "note" }, ` +${one.excluded} excluded`) : "")))))) : empty("Nothing was evaluated yet."));

const stages = (found) => h("section", {}, h("h2", {}, "Stages"), h("ol", { class: "stages" }, found.map((one) => h("li", {}, pill(one.state, one.state === "done" ? "good" : "live"), h("strong", {}, one.name),
  h("span", { class: "note" }, span(one.seconds)), h("span", { class: "note wide" }, one.summary)))));
