// What runs cost: tokens, seconds, money by the user's prices. Sums grow until every record is counted.

import { count, empty, h, heads, many, span, swap } from "./dom.js";

export function costs(place, { watch, link }) {
  watch("ledger", {}, (data) => {
    const told = data.runs.filter((one) => one.total), sum = (pick) => told.reduce((all, one) => all + pick(one), 0);
    const left = sum((one) => one.episodes - one.counted), prices = data.prices;
    const money = (value) => (value === null || value === undefined ? "–" : `${value.toFixed(2)} ${prices.currency}`);
    swap(place, told.length ? [
      h("dl", { class: "figures large" }, figure("Tokens read", count(sum((one) => one.total.input_tokens))), figure("Tokens written", count(sum((one) => one.total.output_tokens))), figure("Browsers", span(sum((one) => one.total.browser_s))),
        figure("Answers of models", span(sum((one) => one.total.policy_s))), figure("Training", span(sum((one) => one.training_s))), figure("of it on GPUs", seconds(sum((one) => one.gpu_s || 0))), figure("Billed by endpoints", `${sum((one) => one.total.billed).toFixed(4)} USD`), prices ? figure("By your prices", money(sum((one) => one.money))) : ""),
      left ? h("p", { class: "note", role: "status" }, `Still counting: ${many(left, "episode")} to go.`) : h("p", { class: "note", role: "status" }, "All episodes are counted."),
      h("div", { class: "scroll", "data-scroll": "ledger" }, h("table", { class: "ledger" }, heads(["Run", ">Episodes", ">Read", ">Written", ">Browsers", ">Models", ">Training", ">GPU", "On", ...(prices ? [">Money"] : [])]),
        h("tbody", {}, told.map((one) => h("tr", {}, h("th", { scope: "row" }, h("a", { href: link(one.run, "live"), "data-key": one.run }, one.run), one.error && h("p", { class: "error" }, one.error)), number(one.counted === one.episodes ? count(one.episodes) : `${count(one.counted)} of ${count(one.episodes)}`), number(tokens(one.total.input_tokens)),
          number(tokens(one.total.output_tokens)), number(seconds(one.total.browser_s)), number(seconds(one.total.policy_s)), number(seconds(one.training_s)), number(seconds(one.gpu_s)), h("td", {}, one.device || "–"), prices ? number(money(one.money)) : ""))))),
      h("section", {}, h("h2", {}, "By stage"), told.map((one) => stages(one))),
      notes(prices)] : empty("There is nothing to count yet."));
  });
}

// Nothing on record is no zero.
const tokens = (value) => (value ? count(value) : "–");
const seconds = (value) => (value ? span(value) : "–");
const number = (text) => h("td", { class: "number" }, text);
const figure = (name, value) => h("div", {}, h("dt", {}, name), h("dd", {}, value));

const stages = (one) => h("details", { "data-key": `stages-${one.run}` }, h("summary", {}, one.run), h("div", { class: "scroll" }, h("table", {}, heads(["Stage", ">By the clock", ">Episodes", ">Read", ">Written", ">Browsers", ">Models"]),
  h("tbody", {}, one.stages.map((stage) => h("tr", {}, h("th", { scope: "row" }, stage.stage, stage.training && h("span", { class: "note" }, " training")), number(span(stage.seconds)), number(count(stage.episodes)), number(tokens(stage.input_tokens)), number(tokens(stage.output_tokens)), number(seconds(stage.browser_s)), number(seconds(stage.policy_s))))))));

const notes = (prices) => h("section", { class: "note" }, h("h2", {}, "What is counted"), h("ul", {},
  h("li", {}, "A dash: no record holds it."), h("li", {}, "Tokens: of every decision in every recorded episode. Training reads tokens too; those are not on record."),
  h("li", {}, "Browsers and models: seconds of each step, added up. Episodes that went on together overlap, so this is more than the clock says."),
  h("li", {}, "Training: seconds of the stages that changed weights, by the clock. “GPU” is what of it ran on one, as each stage noted; “On” is what the configuration asked for."),
  h("li", {}, "Billed: what remote endpoints cost by the prices that were recorded with their answers."),
  h("li", {}, prices ? `Your prices: ${prices.browser_hour} a browser hour, ${prices.training_hour} a training hour, ${prices.million_input_tokens} and ${prices.million_output_tokens} a million tokens read and written, in ${prices.currency}.`
    : "Money: give your own prices with --prices FILE.")));
