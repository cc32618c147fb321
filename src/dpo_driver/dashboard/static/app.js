// The page's frame: which room is shown, which run it is about, and whether the server answers.

import { ask, onPulse, watch } from "./net.js";
import { empty, h, pill, swap } from "./dom.js";
import { costs } from "./room_costs.js";
import { curves } from "./room_curves.js";
import { episode } from "./room_episode.js";
import { episodes } from "./room_episodes.js";
import { failures } from "./room_failures.js";
import { feedback } from "./room_feedback.js";
import { jobs } from "./room_jobs.js";
import { labels } from "./room_labels.js";
import { live } from "./room_live.js";
import { models } from "./room_models.js";
import { pairs } from "./room_pairs.js";
import { runs } from "./room_runs.js";

const EVERYTHING = { runs: ["Runs", runs], jobs: ["Jobs", jobs], models: ["Models", models], feedback: ["Feedback", feedback], costs: ["Costs", costs] };
const OF_RUN = { live: ["Live", live], curves: ["Curves", curves], episodes: ["Episodes", episodes], pairs: ["Pairs", pairs],
  labels: ["Labels", labels], failures: ["Failures", failures] };
const INSIDE = { episode: ["Episode", episode] };
const room = document.getElementById("room"), picker = document.getElementById("run"), pulse = document.getElementById("pulse");
let known = [], leave = new AbortController(), here = "";

/** "#/run/a%2Fb/episodes?stage=x" as {name, run, ask}. */
function place() {
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?");
  const [first, run, name = "live"] = path.split("/");
  const given = new URLSearchParams(query);
  return first === "run" && run ? { name, run: decodeURIComponent(run), given } : { name: first || "runs", run: "", given };
}

export const linkTo = (run, name, given = {}) => {
  const kept = Object.entries(given).filter(([, value]) => value !== "" && value !== null && value !== undefined);
  const query = new URLSearchParams(kept).toString();
  return `#/run/${encodeURIComponent(run)}/${name}${query ? `?${query}` : ""}`;
};

function enter() {
  const { name, run, given } = place();
  const [title, mount] = (run ? { ...OF_RUN, ...INSIDE } : EVERYTHING)[name] ?? [];
  leave.abort();
  leave = new AbortController();
  const signal = leave.signal;
  const moved = here !== "" && here !== `${name}/${run}`;
  here = `${name}/${run}`;
  document.title = title ? `${title}${run ? ` · ${run}` : ""} · DPO-Driver` : "DPO-Driver";
  frame();
  const place_ = h("div", {});
  room.replaceChildren(h("h1", {}, title ?? "There is no such page", run && h("span", { class: "of" }, run)), place_);
  if (moved) {
    room.focus({ preventScroll: true });
    window.scrollTo(0, 0);
  }
  if (!mount) return;
  let trouble = null;
  const fail = (text) => {
    trouble ??= h("p", { class: "trouble", role: "alert" });
    trouble.textContent = text;
    room.append(trouble);
  };
  mount(place_, {
    run, given, signal, link: linkTo, fail,
    ask: (path, params) => ask(path, params, signal),
    watch: (path, params, show, every) => watch(path, params, (data) => {
      trouble?.remove();
      show(data);
    }, fail, signal, every),
    /** Change the query without leaving the room. */
    note: (changes) => {
      for (const [key, value] of Object.entries(changes)) value ? given.set(key, value) : given.delete(key);
      const query = given.toString();
      history.replaceState(null, "", `${location.hash.split("?")[0]}${query ? `?${query}` : ""}`);
    },
  });
}

function frame() {
  const { name, run } = place();
  const shown = run || picker.value || known[0]?.id || "";
  const links = (rooms, href) => Object.entries(rooms).map(([key, [text]]) =>
    h("a", { href: href(key), "data-key": key, "aria-current": (name === key || (key === "episodes" && name === "episode")) && Boolean(run) === (rooms === OF_RUN) && "page" }, text));
  swap(document.getElementById("everything"), links(EVERYTHING, (key) => `#/${key}`)); // keeps the focus
  swap(document.getElementById("of-run"), shown ? links(OF_RUN, (key) => linkTo(shown, key)) : []);
  document.querySelector(".pick").hidden = !known.length;
  if (document.activeElement !== picker) {
    picker.replaceChildren(...known.map((one) => h("option", { value: one.id }, one.state === "running" ? `● ${one.id}` : one.id)));
    if (shown) picker.value = shown;
  }
  // Not scrollIntoView: that would move where the Tab key begins.
  const chosen = document.querySelector("header.side [aria-current]"), nav = chosen?.parentElement;
  if (nav) nav.scrollLeft = Math.max(0, chosen.offsetLeft - nav.offsetLeft + chosen.offsetWidth - nav.clientWidth);
}

picker.addEventListener("change", () => {
  const { name, run } = place();
  const chosen = picker.value;
  picker.blur();
  location.hash = linkTo(chosen, run && name in OF_RUN ? name : "live");
});
onPulse((well, why = "") => {
  const said = well ? "live" : why;
  if (pulse.textContent !== said) pulse.replaceChildren(pill(said, well ? "good" : "bad"));
});
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault(); // its address is no room's
  room.focus();
});
window.addEventListener("hashchange", enter);
watch("overview", {}, (data) => {
  const first = !known.length;
  known = data.runs;
  frame();
  if (first && !known.length && place().name !== "runs") room.append(empty("There is no run yet."));
}, () => {}, new AbortController().signal, 4000);
enter();
