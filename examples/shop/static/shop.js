// The settings dialog: opens with what is set, saves with fetch, and shows what was saved.
"use strict";

const dialog = document.querySelector("dialog");

function describe(item) {
  const ways = [item.dataset.email === "1" && "by email", item.dataset.phone === "1" && "by phone"].filter(Boolean);
  return [item.dataset.frequency, ...ways].join(", ");
}

function edit(item) {
  dialog.channel = item;
  dialog.querySelector("h2").textContent = item.dataset.channel;
  dialog.querySelector("#frequency").value = item.dataset.frequency;
  dialog.querySelector("#email").checked = item.dataset.email === "1";
  dialog.querySelector("#phone").checked = item.dataset.phone === "1";
  dialog.querySelector(".error").hidden = true;
  dialog.showModal();
}

async function save() {
  const item = dialog.channel;
  const wanted = {
    channel: item.dataset.channel,
    frequency: dialog.querySelector("#frequency").value,
    email: dialog.querySelector("#email").checked,
    phone: dialog.querySelector("#phone").checked,
  };
  const answer = await fetch("/api/settings", {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(wanted),
  });
  if (!answer.ok) { dialog.querySelector(".error").hidden = false; return; }
  const saved = await answer.json();
  item.dataset.frequency = saved.frequency;
  item.dataset.email = saved.email ? "1" : "0";
  item.dataset.phone = saved.phone ? "1" : "0";
  item.querySelector(".now").textContent = describe(item);
  dialog.close();
}

if (dialog) {
  for (const button of document.querySelectorAll(".settings button")) {
    button.addEventListener("click", () => edit(button.closest("li")));
  }
  dialog.querySelector("[value=cancel]").addEventListener("click", () => dialog.close());
  dialog.querySelector("[value=save]").addEventListener("click", save);
}
