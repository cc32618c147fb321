// One episode, step by step: what was seen, thought, done, and what it gave.

import { h, outcome, short, span, swap } from "./dom.js";
import { acted, outline, sketch } from "./sketch.js";

export function episode(place, { ask, run, given, link, fail, signal }) {
  const id = given.get("id") ?? "";
  ask("episode", { run, id }).then(({ data }) => {
    swap(place, h("div", { class: "headline" }, outcome(data), h("strong", {}, data.task), h("span", { class: "note" }, `seed ${data.seed}, ${data.split}`), h("span", { class: "note" }, `reward ${short(data.reward)}`),
      h("span", { class: "note" }, `${data.steps.length} of ${data.max_steps} steps, ${span(data.seconds)}`), data.attempts > 1 ? h("span", { class: "note" }, `attempt ${data.attempts}`) : ""),
    h("p", { class: "lead" }, data.goal), h("p", { class: "note" }, h("code", {}, data.id), ` by ${data.agent}`, data.version ? ` (${data.version})` : ""),
    data.failure ? h("p", { class: "trouble" }, `The world failed: ${data.failure}. This is no score.`) : "",
    h("ol", { class: "steps" }, data.steps.map((step, index) => one(run, step, index)),
      data.final && h("li", { class: "step" }, h("div", { class: "seen" }, sketch(run, null, { sha: data.final })), h("div", { class: "did" }, h("p", { class: "kicker" }, "The end"), h("p", {}, data.stop.replaceAll("_", " "))))),
    h("p", {}, h("a", { href: link(run, "episodes") }, "To all episodes")));
  }).catch((error) => signal.aborted || fail(error.message));
}

function one(run, step, index) {
  const target = step.action?.ref ?? null;
  return h("li", { class: "step" },
    h("div", { class: "seen" }, sketch(run, step.page, { target }), h("details", { "data-key": `outline-${index}` }, h("summary", {}, "Elements as text"), outline(step.page, target))),
    h("div", { class: "did" }, h("p", { class: "kicker" }, `Step ${index + 1}`), step.page.error ? h("p", { class: "trouble" }, step.page.error) : "",
      step.thought ? h("p", { class: "thought" }, step.thought) : "", h("p", { class: "action" }, step.parse_error ? `unreadable: ${step.parse_error}` : acted(step.action, step.page)),
      h("p", { class: "note" }, `model ${span(step.policy_s)}, browser ${span(step.browser_s)}`, step.reward !== null ? `, reward ${short(step.reward)}` : ""),
      step.completion ? h("details", { "data-key": `said-${index}` }, h("summary", {}, "What it wrote"), h("pre", {}, step.completion)) : "",
      h("p", { class: "note url" }, step.page.url)));
}
