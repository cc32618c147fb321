// Draws what the server says, and nothing else: the sealed script hands the messages on, and there is no way back.

import { createRoot } from "react-dom/client";
import { flushSync } from "react-dom";

import { App } from "./app";
import type { AnyPage, Message } from "./contract";
import { wear } from "./skin";

const root = createRoot(document.getElementById("root")!);
let page: AnyPage | null = null;
let worn = "";

function show(closed: boolean): void {
  // At once: who reads the page after an answer has arrived sees the answer.
  flushSync(() => root.render(<App page={page} closed={closed} />));
}

window.gauntlet?.subscribe((text) => {
  const message = JSON.parse(text) as Message;
  if (message.kind === "closed") return show(true);
  const look = JSON.stringify([message.skin, message.look]);
  if (look !== worn) {
    worn = look;
    wear(message.skin, message.look);
  }
  if (location.pathname !== message.path) {
    // The first page takes the place of the address that was opened; each later one is a page to go back from.
    history[page ? "pushState" : "replaceState"](null, "", message.path);
  }
  page = message;
  document.title = message.page === "step" ? `${message.heading} - ${message.name}` : message.name;
  show(false);
});

// Back and forward show nothing else: where the run stands is the server's word.
addEventListener("popstate", () => {
  if (page) history.replaceState(null, "", page.path);
});
