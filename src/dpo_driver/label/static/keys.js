// Keys, focus, time and retries of the label page. The page works without this file; nothing here is needed to answer.
(() => {
  "use strict";
  const SETTLE_MS = 250; // a key that is still on its way from the last comparison must not answer this one
  const SAID_MS = 2500; // then what was said would only be in the way; screen readers have read it
  const RETRY_MS = [500, 1000, 2000, 4000];
  const work = () => document.getElementById("work");
  const said = document.getElementById("said");
  const trouble = document.getElementById("trouble");
  const singleKeys = document.getElementById("single-keys");
  let shownAt = 0; // when this comparison came
  let looked = 0; // milliseconds for which it could be seen
  let visibleSince = null;
  let pressed = null; // the button whose request is under way or is tried again
  let tries = 0;
  let leaving = 0;

  // A name for one decision: a double click, a retry or a reload cannot make two labels of it. Not randomUUID, which
  // pages without TLS do not have.
  const newId = () => Array.from(crypto.getRandomValues(new Uint8Array(16)), (b) => b.toString(16).padStart(2, "0")).join("");

  function begin() {
    for (const field of work().querySelectorAll("[name=submission]")) field.value = newId();
    shownAt = performance.now();
    looked = 0;
    visibleSince = document.visibilityState === "visible" ? shownAt : null;
    pressed = null;
    tries = 0;
    trouble.hidden = true;
    said.classList.remove("gone");
    clearTimeout(leaving);
    leaving = setTimeout(() => said.classList.add("gone"), SAID_MS);
    document.getElementById("goal").focus({ preventScroll: true });
  }

  function seconds() {
    return (looked + (visibleSince === null ? 0 : performance.now() - visibleSince)) / 1000;
  }

  document.addEventListener("visibilitychange", () => {
    if (document.visibilityState === "visible") visibleSince = performance.now();
    else if (visibleSince !== null) {
      looked += performance.now() - visibleSince;
      visibleSince = null;
    }
  });

  // -- dialogs --------------------------------------------------------------------------------------------------------

  function open(dialog) {
    if (!dialog.open) dialog.showModal();
  }

  document.addEventListener("click", (event) => {
    const opener = event.target.closest("[data-opens]");
    if (opener) open(document.getElementById(opener.dataset.opens));
    const enlarger = event.target.closest("[data-enlarges]");
    if (enlarger) {
      const large = document.getElementById("large");
      large.querySelector(".canvas").replaceChildren(enlarger.closest("figure").querySelector("svg").cloneNode(true));
      open(large);
    }
    if (event.target.tagName === "DIALOG") event.target.close(); // outside of its content
  });

  // -- keys -----------------------------------------------------------------------------------------------------------

  try {
    singleKeys.checked = localStorage.getItem("single-keys") !== "off";
  } catch {} // storage may be forbidden; then the choice lasts as long as the page
  singleKeys.addEventListener("change", () => {
    try {
      localStorage.setItem("single-keys", singleKeys.checked ? "on" : "off");
    } catch {}
  });

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || event.isComposing) return;
    if (document.querySelector("dialog[open]") || !singleKeys.checked) return;
    if (event.target.closest("input, textarea, select, [contenteditable]")) return;
    if (event.key === "?") {
      event.preventDefault();
      open(document.getElementById("help"));
      return;
    }
    const button = work().querySelector(`[data-key="${CSS.escape(event.key.toLowerCase())}"]`);
    if (!button || button.disabled || pressed || performance.now() - shownAt < SETTLE_MS) return;
    event.preventDefault();
    button.click();
  });

  // -- requests -------------------------------------------------------------------------------------------------------

  document.addEventListener("htmx:configRequest", (event) => {
    event.detail.parameters.seconds = seconds().toFixed(2);
  });
  document.addEventListener("htmx:beforeRequest", (event) => {
    pressed = event.detail.requestConfig.triggeringEvent?.submitter ?? pressed;
    work().setAttribute("aria-busy", "true");
  });
  document.addEventListener("htmx:afterRequest", () => work().removeAttribute("aria-busy"));
  document.addEventListener("htmx:afterSettle", begin);
  document.addEventListener("htmx:sendError", () => again("The server does not answer"));
  document.addEventListener("htmx:timeout", () => again("The server takes too long"));
  document.addEventListener("htmx:responseError", (event) => {
    const status = event.detail.xhr.status;
    if (status === 503) again("The answer could not be written to disk");
    else if (status === 401) say("Not saved: you are signed out. Open the link that the server printed, then answer again.");
    else say("Not saved: the server refused it. Load the page again, then answer again.");
  });

  function say(text) {
    trouble.textContent = text;
    trouble.hidden = false;
  }

  // The same submission is sent until it is acknowledged, so it counts once however often it arrives.
  function again(what) {
    const button = pressed;
    say(`Not saved yet: ${what.charAt(0).toLowerCase()}${what.slice(1)}. Trying again…`);
    setTimeout(() => {
      if (button && button.isConnected) {
        button.disabled = false;
        button.click();
      }
    }, RETRY_MS[Math.min(tries++, RETRY_MS.length - 1)]);
  }

  begin();
})();
