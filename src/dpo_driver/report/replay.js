// Steps through replays and filters lists by task. Without it every step and every pair is simply shown.
"use strict";
document.documentElement.classList.add("js");

for (const episode of document.querySelectorAll("[data-steps]")) {
  const total = Number(episode.dataset.steps);
  const where = episode.querySelector("[data-where]");
  const [back, forth] = ["back", "forth"].map((name) => episode.querySelector(`[data-${name}]`));
  let at = 1;
  const show = (number) => {
    at = Math.min(total, Math.max(1, number));
    for (const step of episode.querySelectorAll("[data-step]")) {
      // The shorter episode keeps showing how it ended while the longer one goes on.
      const last = Number(step.dataset.last);
      step.hidden = Number(step.dataset.step) !== Math.min(at, last);
    }
    where.textContent = `Step ${at} of ${total}`;
    back.disabled = at === 1;
    forth.disabled = at === total;
  };
  back.addEventListener("click", () => show(at - 1));
  forth.addEventListener("click", () => show(at + 1));
  const parting = episode.querySelector("[data-parting]");
  if (parting) parting.addEventListener("click", () => show(Number(parting.dataset.parting)));
  episode.addEventListener("keydown", (event) => {
    const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!move || event.target.closest("pre")) return;
    event.preventDefault();
    show(at + move);
  });
  show(1);
}

for (const select of document.querySelectorAll("select[data-filters]")) {
  const list = document.getElementById(select.dataset.filters);
  select.addEventListener("change", () => {
    let shown = 0;
    for (const item of list.children) {
      item.hidden = select.value !== "" && item.dataset.task !== select.value;
      shown += !item.hidden;
    }
    const count = document.getElementById(`${select.dataset.filters}-count`);
    if (count) count.textContent = `${shown} shown`;
  });
}

for (const select of document.querySelectorAll("select[data-sorts]")) {
  const list = document.getElementById(select.dataset.sorts);
  select.addEventListener("change", () => {
    const key = select.value;
    const items = [...list.children].sort((a, b) =>
      key === "name" ? a.dataset.task.localeCompare(b.dataset.task) : Number(b.dataset[key]) - Number(a.dataset[key])
    );
    list.append(...items);
  });
}
