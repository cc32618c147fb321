// Line charts as inline SVG: axes, units, a legend that tells the values under the pointer. Knows no room.

import { count, h, short } from "./dom.js";

const HEIGHT = 210, LEFT = 52, RIGHT = 12, TOP = 12, BOTTOM = 26;
const SMOOTH_FROM = 40; // points from which a noisy line is drawn faintly behind its smoothed self

/** Round numbers that span low to high: ticks(0.1, 0.74) is [0, 0.2, 0.4, 0.6, 0.8]. */
export function ticks(low, high, wanted = 4) {
  if (!(high > low)) [low, high] = [low - (Math.abs(low) || 1) / 2, low + (Math.abs(low) || 1) / 2];
  const raw = (high - low) / wanted, power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((one) => one >= raw * 0.999);
  const first = Math.floor(low / step + 1e-9), last = Math.ceil(high / step - 1e-9);
  return Array.from({ length: last - first + 1 }, (_, index) => Number(((first + index) * step).toPrecision(12)));
}

/** Exponential mean, without the pull of its start. */
export function smooth(points, weight = 0.85) {
  let sum = 0, norm = 0;
  return points.map(([x, y]) => {
    if (y === null) return [x, null];
    sum = weight * sum + (1 - weight) * y;
    norm = weight * norm + (1 - weight);
    return [x, sum / norm];
  });
}

/** A chart: {title, unit, note, level: [value, name], series: [{name, tone, points, dotted, exact}]}; `update(spec)` shows
    newer numbers and leaves the cursor where it is. */
export class Chart {
  constructor(spec) {
    this.spec = spec;
    this.cursor = null;
    this.legend = h("ul", { class: "legend" });
    this.svg = h("svg", { class: "plot", role: "img", tabindex: "0", "aria-label": "", height: HEIGHT,
      onpointermove: (event) => this.point(event.offsetX), onpointerleave: () => this.move(null),
      onkeydown: (event) => this.key(event), onblur: () => this.move(null) });
    this.where = h("span", { class: "where", "aria-live": "polite" });
    this.node = h("figure", { class: "chart", "data-chart": spec.title },
      h("figcaption", {}, h("strong", {}, spec.title), " ", h("span", { class: "note" }, spec.unit), this.where), this.svg, this.legend);
    new ResizeObserver(() => this.draw()).observe(this.node);
  }

  update(spec) {
    this.spec = spec;
    this.draw();
  }

  draw() {
    const width = this.svg.clientWidth || 360;
    const all = this.spec.series.flatMap((one) => one.points.filter(([, y]) => y !== null));
    this.steps = [...new Set(all.map(([x]) => x))].sort((a, b) => a - b);
    if (!all.length) return;
    const level = this.spec.level;
    const values = [...all.map(([, y]) => y), ...(level ? [level[0]] : [])];
    const down = ticks(values.reduce((a, b) => Math.min(a, b)), values.reduce((a, b) => Math.max(a, b)));
    const [x0, x1] = [this.steps[0], Math.max(this.steps.at(-1), this.steps[0] + 1)];
    const [y0, y1] = [down[0], down.at(-1)];
    this.x = (step) => LEFT + ((step - x0) / (x1 - x0)) * (width - LEFT - RIGHT);
    this.y = (value) => HEIGHT - BOTTOM - ((value - y0) / (y1 - y0)) * (HEIGHT - TOP - BOTTOM);
    const across = ticks(x0, x1, width > 340 ? 5 : 3).filter((step) => Number.isInteger(step) && step >= x0 && step <= x1);
    const lines = this.spec.series.map((one) => {
      const noisy = !one.dotted && !one.exact && one.points.length >= SMOOTH_FROM;
      const single = one.points.length <= 12 || one.dotted;
      return h("g", { class: `tone-${one.tone}` },
        noisy && h("path", { class: "raw", d: this.path(one.points) }),
        h("path", { class: one.dotted ? "line dotted" : "line", d: this.path(noisy ? smooth(one.points) : one.points) }),
        single && one.points.filter(([, y]) => y !== null).map(([x, y]) => h("circle", { class: "dot", cx: this.x(x), cy: this.y(y), r: 2.8 })));
    });
    this.mark = h("g", { class: "mark" });
    this.svg.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    this.svg.replaceChildren(
      ...down.map((value) => h("g", { class: "tick" },
        h("line", { x1: LEFT, x2: width - RIGHT, y1: this.y(value), y2: this.y(value) }),
        h("text", { x: LEFT - 7, y: this.y(value) + 3.5, "text-anchor": "end" }, short(value)))),
      ...across.map((step) => h("text", { class: "under", x: this.x(step), y: HEIGHT - 8, "text-anchor": step === x0 ? "start" : step === x1 ? "end" : "middle" },
        count(step))),
      h("text", { class: "under", x: LEFT - 7, y: HEIGHT - 8, "text-anchor": "end" }, this.spec.across ?? "step"),
      level ? h("g", { class: "level" }, h("line", { x1: LEFT, x2: width - RIGHT, y1: this.y(level[0]), y2: this.y(level[0]) }),
        level[1] && h("text", { x: width - RIGHT, y: this.y(level[0]) - 4, "text-anchor": "end" }, level[1])) : "",
      ...lines, this.mark);
    this.tell();
  }

  path(points) {
    let pen = "M";
    return points.map(([x, y]) => {
      if (y === null) {
        pen = "M";
        return "";
      }
      const said = `${pen}${this.x(x).toFixed(1)} ${this.y(y).toFixed(1)}`;
      pen = "L";
      return said;
    }).join("");
  }

  point(offset) {
    if (!this.steps?.length) return;
    let best = this.steps[0];
    for (const step of this.steps) if (Math.abs(this.x(step) - offset) < Math.abs(this.x(best) - offset)) best = step;
    this.move(best);
  }

  key(event) {
    if (!this.steps?.length) return;
    const at = this.cursor === null ? this.steps.length : this.steps.indexOf(this.cursor);
    const to = { ArrowLeft: at - 1, ArrowRight: at + 1, PageUp: at - 10, PageDown: at + 10, Home: 0, End: this.steps.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    this.move(this.steps[Math.max(0, Math.min(this.steps.length - 1, to))]);
  }

  move(step) {
    this.cursor = step;
    this.tell();
  }

  tell() {
    if (!this.mark) return;
    const step = this.cursor;
    const told = this.spec.series.map((one) => {
      const known = one.points.filter(([, y]) => y !== null);
      const found = step === null ? known.at(-1) : known.findLast(([x]) => x <= step);
      return [one, found && (step === null || found[0] === step || one.dotted || found[0] > step - 3) ? found : null];
    });
    this.where.textContent = step === null ? "" : `${this.spec.across ?? "step"} ${count(step)}`;
    this.mark.replaceChildren(...(step === null ? [] : [
      h("line", { x1: this.x(step), x2: this.x(step), y1: TOP, y2: HEIGHT - BOTTOM }),
      ...told.filter(([, found]) => found && found[0] === step).map(([one, found]) => h("circle", { class: `tone-${one.tone}`, cx: this.x(step), cy: this.y(found[1]), r: 4 })),
    ]));
    this.legend.replaceChildren(...told.map(([one, found]) => h("li", { class: `tone-${one.tone}` },
      h("i", { class: one.dotted ? "dotted" : "" }), h("span", {}, one.name), h("b", {}, short(found?.[1])))));
    this.svg.setAttribute("aria-label", `${this.spec.title}, ${this.spec.unit}. ${step === null ? "Last values" : `At step ${step}`}: `
      + told.map(([one, found]) => `${one.name} ${short(found?.[1])}`).join(", ") + ". Left and right arrows move.");
  }
}

/** A rate with its interval on a scale from 0 to 1. */
export function interval(one) {
  if (one.success === null || one.success === undefined) return h("span", { class: "note" }, "–");
  const at = (share) => 2 + 116 * share;
  return h("svg", { class: "interval", viewBox: "0 0 120 14", width: 120, height: 14, role: "img",
    "aria-label": `${(100 * one.success).toFixed(1)} %, 95 % interval ${(100 * one.low).toFixed(1)} to ${(100 * one.high).toFixed(1)} %, n = ${one.n}` },
    h("line", { class: "scale", x1: 2, x2: 118, y1: 7, y2: 7 }), h("line", { class: "reach", x1: at(one.low), x2: at(one.high), y1: 7, y2: 7 }),
    h("circle", { cx: at(one.success), cy: 7, r: 3.6 }));
}
