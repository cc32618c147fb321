// Training curves of one stage, live. The charts that we know come first, the rest in alphabetical order.

import { Chart } from "./chart.js";
import { empty, h, many, swap, tabs } from "./dom.js";

// title, unit, [metric, name, tone, exact], a level worth a line
const KNOWN = [
  ["Loss", "as the algorithm defines it, in nats", [["loss", "training", "a"], ["eval_loss", "validation", "ink"]]],
  ["Preference loss", "in nats; ln 2 at the start", [["preference_loss", "training", "a"], ["eval_preference_loss", "validation", "ink"]], [Math.LN2, "ln 2"]],
  ["Rewards", "beta × log-ratio to the reference, in nats", [["rewards/chosen", "chosen", "good"], ["rewards/rejected", "rejected", "bad"],
    ["eval_rewards/chosen", "chosen, validation", "good"], ["eval_rewards/rejected", "rejected, validation", "bad"]], [0, ""]],
  ["Margin", "chosen minus rejected, in nats", [["rewards/margins", "training", "a"], ["eval_rewards/margins", "validation", "ink"]], [0, ""]],
  ["Accuracy", "share of pairs whose chosen answer is rewarded more", [["rewards/accuracies", "training", "a"], ["eval_rewards/accuracies", "validation", "ink"]], [0.5, "chance"]],
  ["Online reward", "mean of rollouts; success on validation seeds", [["reward", "rollouts", "a"], ["eval_success", "validation", "ink"]]],
  ["KL to the parent", "nats per token", [["kl", "KL", "b"]], [0, ""]],
  ["Entropy", "nats per token", [["entropy", "entropy", "b"]]],
  ["Negative log-likelihood", "nats per token", [["nll", "chosen", "a"], ["nll/replay", "replay", "b"]]],
  ["Log-probabilities", "sum over an answer, in nats", [["logps/chosen", "chosen", "good"], ["logps/rejected", "rejected", "bad"]]],
  ["Gradient norm", "before clipping", [["grad_norm", "norm", "b"]]],
  ["Learning rate", "per step", [["learning_rate", "rate", "ink", true]]],
  ["Speed", "tokens a second", [["tokens_per_second", "tokens", "b"]]],
];

export function curves(place, { watch, run, given, link }) {
  const head = h("div", { class: "bar" }), grid = h("div", { class: "charts" });
  const charts = new Map();
  let stage = given.get("stage") || "";
  place.append(head, grid);
  watch("curves", () => ({ run, stage }), (data) => {
    const specs = specify(data.series);
    swap(head, data.stages.length ? tabs("Stage", data.stages.map((one) => [one, one]), data.stage, (one) => link(run, "curves", { stage: one })) : "",
      h("p", { class: "note" }, data.stages.length ? `${many(data.steps, "step")} so far` : ""));
    if (!specs.length) return swap(grid, empty("No training has logged a number yet.", "Curves appear here while sft, dpo, control or grpo goes on."));
    const wanted = specs.map((spec) => spec.title);
    for (const spec of specs) {
      if (charts.has(spec.title)) charts.get(spec.title).update(spec);
      else charts.set(spec.title, new Chart(spec));
    }
    for (const title of [...charts.keys()]) if (!wanted.includes(title)) charts.delete(title);
    const nodes = wanted.map((title) => charts.get(title).node);
    if (nodes.length !== grid.children.length || nodes.some((node, index) => grid.children[index] !== node)) grid.replaceChildren(...nodes);
  });
}

function specify(series) {
  const left = new Set(Object.keys(series));
  const specs = [];
  for (const [title, unit, lines, level] of KNOWN) {
    const there = lines.filter(([metric]) => left.has(metric));
    if (!there.length) continue;
    there.forEach(([metric]) => left.delete(metric));
    specs.push({ title, unit, level, series: there.map(([metric, name, tone, exact]) => ({ name, tone, exact, points: series[metric], dotted: metric.startsWith("eval_") })) });
  }
  for (const metric of [...left].sort()) {
    if (metric === "epoch") continue;
    specs.push({ title: metric, unit: "as logged", series: [{ name: metric, tone: metric.startsWith("eval_") ? "ink" : "a", points: series[metric], dotted: metric.startsWith("eval_") }] });
  }
  return specs;
}
