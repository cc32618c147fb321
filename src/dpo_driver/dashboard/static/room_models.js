// Registered models: versions, who holds which alias, what the gate said, and what became of them.

import { empty, h, pill, short, swap } from "./dom.js";

const ALIASES = { champion: "good", candidate: "live", previous: "" };

export function models(place, { watch }) {
  place.append(h("p", { class: "note" }, "Opening the registry…"));
  watch("models", {}, (data) => {
    swap(place, data.models.length ? data.models.map(model) : empty("No model is registered yet.", "Runs register what they train; dpo-driver models list shows the same."));
  }, 4000);
}

const model = (one) => h("section", {}, h("h2", {}, one.name), h("ul", { class: "cards list" }, one.versions.map(version)),
  one.history.length ? h("details", { "data-key": `history-${one.name}` }, h("summary", {}, `History (${one.history.length})`), h("ol", { class: "history" }, one.history.map((move) => h("li", {}, h("time", { datetime: move.at }, move.at.replace("T", " ").replace("Z", "")),
    " ", pill(move.kind, move.kind === "promote" ? "good" : move.kind === "refuse" ? "warn" : ""), " ", move.before && move.kind !== "refuse" ? `${move.before} → ${move.after || "nobody"}` : move.after, move.who ? h("span", { class: "note" }, ` by ${move.who}`) : "", h("p", { class: "note" }, move.why))))) : "");

function version(one) {
  const gate = one.decision;
  return h("li", { class: "card" }, h("header", {}, h("h3", {}, one.name, h("span", { class: "note" }, ` version ${one.version}`)), one.aliases.map((alias) => pill(alias, ALIASES[alias] ?? "")), one.removed && pill("weights removed", "warn"), h("span", { class: "note" }, one.created.replace("T", " ").replace("Z", ""))),
    h("dl", { class: "facts" }, [["algorithm", one.algorithm], ["base", one.base_model], ["parent", one.parent_name || one.parent || "none"], ["content", one.content_hash.slice(0, 12)], ["data", one.data_hash.slice(0, 12)], ["prompts", one.prompt_profile], ["code", one.git.slice(0, 12)], ["folder", one.path]]
      .filter(([, value]) => value).flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)])),
    Object.keys(one.metrics).length ? h("dl", { class: "figures" }, Object.entries(one.metrics).slice(0, 8).map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, short(value))))) : "",
    gate ? h("div", { class: `gate ${gate.promoted ? "yes" : "no"}` }, h("p", {}, pill(gate.promoted ? "promoted" : "refused", gate.promoted ? "good" : "warn"), ` against ${gate.champion || "nobody"}`), h("ul", {}, gate.reasons.map((reason) => h("li", {}, reason)))) : "");
}
