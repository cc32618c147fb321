// A list of any length: only the rows in sight exist; pages come as they are needed. A listbox for keys and readers.

import { h } from "./dom.js";

/** new Rows({fetch: async (after) => ({rows, total, next}), draw: (row) => [cells], open: (row) => ..., label}). */
export class Rows {
  constructor({ fetch, draw, open, label, fail }) {
    Object.assign(this, { fetch, draw, open, fail });
    this.inner = h("div", { class: "inner", role: "presentation" });
    this.node = h("div", { class: "rows", role: "listbox", tabindex: "0", "aria-label": label, onscroll: () => this.show(), onkeydown: (event) => this.key(event) }, this.inner);
    this.drawn = new Map();
    new ResizeObserver(() => this.show()).observe(this.node);
    this.reset();
  }

  get height() {
    return window.matchMedia("(max-width: 46rem)").matches ? 64 : 44;
  }

  /** Forget all rows and begin at the top, or where it was. */
  async reset(keep = false) {
    const top = keep ? this.node.scrollTop : 0, mine = (this.turn = (this.turn ?? 0) + 1);
    const first = await this.page("", mine);
    if (!first) return;
    Object.assign(this, { rows: first.rows, total: first.total, next: first.next, loading: false });
    if (!keep) this.active = 0;
    this.active = Math.min(this.active, Math.max(0, this.total - 1));
    for (const one of this.drawn.values()) one.remove();
    this.drawn.clear();
    this.inner.style.setProperty("height", `${this.total * this.height}px`);
    this.node.scrollTop = top;
    this.show();
  }

  async page(after, mine) {
    try {
      const found = await this.fetch(after);
      return mine === this.turn ? found : null;
    } catch (error) {
      if (mine === this.turn) this.fail(error);
      return null;
    }
  }

  async show() {
    if (!this.rows) return;
    const tall = this.height, first = Math.max(0, Math.floor(this.node.scrollTop / tall) - 6);
    const last = Math.min(this.total, Math.ceil((this.node.scrollTop + this.node.clientHeight) / tall) + 6);
    this.inner.style.setProperty("height", `${this.total * tall}px`);
    for (const [index, one] of this.drawn) if (index < first || index >= last || ("waits" in one.dataset && index < this.rows.length)) {
      one.remove();
      this.drawn.delete(index);
    }
    for (let index = first; index < last; index += 1) if (!this.drawn.has(index)) {
      const one = this.row(index);
      this.drawn.set(index, one);
      this.inner.append(one);
    }
    for (const [index, one] of this.drawn) {
      one.style.setProperty("transform", `translateY(${index * tall}px)`);
      one.setAttribute("aria-selected", String(index === this.active));
    }
    this.node.setAttribute("aria-activedescendant", this.drawn.has(this.active) ? `row-${this.active}` : "");
    if (last > this.rows.length && this.next && !this.loading) {
      const mine = this.turn;
      this.loading = true;
      const more = await this.page(this.next, mine);
      if (mine !== this.turn) return;
      this.loading = false;
      if (!more) return;
      this.rows.push(...more.rows);
      this.next = more.next;
      this.show();
    }
  }

  row(index) {
    const found = this.rows[index];
    return h("div", { class: "row", id: `row-${index}`, role: "option", "aria-posinset": index + 1, "aria-setsize": this.total, "data-waits": !found,
      onclick: () => found && this.open(found) }, found ? this.draw(found) : h("span", { class: "note" }, "…"));
  }

  key(event) {
    const far = Math.max(1, Math.floor(this.node.clientHeight / this.height) - 1);
    const to = { ArrowDown: this.active + 1, ArrowUp: this.active - 1, PageDown: this.active + far, PageUp: this.active - far, Home: 0, End: this.total - 1 }[event.key];
    if (event.key === "Enter" && this.rows?.[this.active]) this.open(this.rows[this.active]);
    if (to === undefined || !this.total) return;
    event.preventDefault();
    this.active = Math.max(0, Math.min(this.total - 1, to));
    const tall = this.height, top = this.active * tall;
    if (top < this.node.scrollTop) this.node.scrollTop = top;
    if (top + tall > this.node.scrollTop + this.node.clientHeight) this.node.scrollTop = top + tall - this.node.clientHeight;
    this.show();
  }
}
