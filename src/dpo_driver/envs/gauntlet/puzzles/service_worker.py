"""Service worker: once put to work, a real service worker of its own scope answers what is asked at its windows.

The page registers the worker after the trusted click on the first button. Every further button opens a window, a frame
at an address that only the worker answers: it fetches the piece from the server, which gives it to nobody who has not
pressed that window's button.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from dpo_driver.envs.gauntlet.puzzles.base import Asset, Event, Json, Phrases, Puzzle, Setup
from dpo_driver.envs.gauntlet.puzzles.pieces import Teller, split
from dpo_driver.envs.gauntlet.puzzles.wordlists import THINGS, some

TITLE: Phrases = (
    ("A service worker", "Background service", "Ask the worker", "Work behind the page"),
    ("The silent servant", "Someone in the back room", "A clerk without a face"),
)
ONE: Phrases = (
    (
        'Put the service worker to work with "{start}", then press "{ask}": it answers with the code.',
        'A service worker fetches the code for you. First "{start}", and when it is ready, "{ask}".',
        'Press "{start}" to register a service worker. Once it runs, "{ask}" sends it a request; its answer is '
        "the code.",
        '"{start}" sets up a worker in the background. It answers "{ask}" with the code.',
    ),
    (
        'Call the servant behind the page with "{start}". When he is there, "{ask}" makes him bring the key.',
        '"{start}" wakes a worker that you cannot see. Then "{ask}": what he hands out is the key.',
        'The key is fetched by someone in the background. Begin with "{start}", go on with "{ask}".',
    ),
)
MANY: Phrases = (
    (
        'Put the service worker to work with "{start}". Then ask for everything below: it answers with {n} parts '
        "of the code, to be joined by number.",
        'A service worker fetches the {n} parts of the code. First "{start}"; when it is ready, press the other '
        "buttons and join what it answers.",
        'Press "{start}" to register a service worker. Each button then sends it a request, and {n} of the answers are '
        "numbered parts of the code.",
        '"{start}" sets up a worker in the background. Let it answer every request below and put the {n} parts of '
        "the code in order.",
    ),
    (
        'Call the servant behind the page with "{start}". When he is there, let him bring all that is listed: {n} '
        "fragments of the key.",
        '"{start}" wakes a worker that you cannot see. He hands out {n} fragments of the key, one for each wish; '
        "mind their numbers.",
        'The key is fetched in {n} fragments by someone in the background. Begin with "{start}", then ask for each.',
    ),
)
START: Phrases = (
    ("Start the worker", "Register the worker", "Put it to work", "Install the service"),
    ("Ring the bell", "Wake him", "Call for service"),
)
ASK: Phrases = (
    ("Ask for the {thing}", "Request {thing}", "Fetch the {thing}", "Get {thing}"),
    ("Bring the {thing}", "Wish for the {thing}", "Send for the {thing}"),
)
NOTHING: Phrases = (
    ("There is no part of the code here.", "Nothing is kept under this name.", "This answer is empty."),
    ("Empty-handed.", "No fragment under that name."),
)
STATES: dict[str, Phrases] = {
    "off": (("The worker is not running.", "No worker yet."), ("The back room is empty.", "Nobody is there.")),
    "starting": (("The worker is being installed…", "Starting…"), ("Steps are heard…", "Somebody is coming…")),
    "ready": (("The worker is ready.", "The worker runs."), ("He is there.", "Ready to serve.")),
    "failed": (
        ("This browser allows no service workers.", "The worker could not be started."),
        ("Nobody comes: this browser keeps no servants.",),
    ),
}
# by difficulty: pieces, answers that hold none
LAYOUT = {1: (1, 0), 2: (2, 0), 3: (3, 1)}
# What the worker runs. It answers the addresses of its windows only, and keeps nothing.
WORKER = """\
const WINDOWS = {windows};
const HEAD = {head};
self.addEventListener("install", () => self.skipWaiting());
self.addEventListener("activate", (event) => event.waitUntil(self.clients.claim()));
self.addEventListener("fetch", (event) => {{
  const name = new URL(event.request.url).pathname.split("/").pop();
  if (Object.hasOwn(WINDOWS, name)) event.respondWith(answer(WINDOWS[name]));
}});
async function answer(address) {{
  const found = await fetch(address, {{ cache: "no-store" }});
  const said = found.ok ? await found.text() : "…";
  const page = HEAD + "<p>" + said.replace(/[&<>]/g, (sign) => "&#" + sign.charCodeAt(0) + ";") + "</p>";
  const headers = {{
    "Content-Type": "text/html; charset=utf-8",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'",
  }};
  return new Response(page, {{ headers }});
}}
"""
HEAD = (
    "<!doctype html><html lang=en><meta charset=utf-8><title>.</title>"
    "<style>body{font:1.1rem sans-serif;margin:.6rem;color:#222;background:#fff}p{margin:0}</style>"
)


@dataclass(frozen=True)
class Window:
    """Where something can be asked for: its name, the button's words, the answer, whether it is a piece."""

    name: str
    label: str
    answer: str
    piece: bool


class ServiceWorker(Puzzle):
    """Start, then a trusted click for each answer. Solved when all pieces were asked for."""

    name: ClassVar[str] = "service-worker"

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        count, empty = LAYOUT[setup.difficulty]
        teller = Teller.drawn(setup)
        said = [(teller.tell(i, count, piece), True) for i, piece in enumerate(split(setup.code, count), start=1)]
        said += [(setup.say(NOTHING), False)] * empty
        setup.rng.shuffle(said)
        pattern = setup.say(ASK, thing="{thing}")
        labels = [pattern.format(thing=thing) for thing in some(setup, THINGS, len(said))]
        self._windows = [
            Window(f"window-{i}", label, *told) for i, (label, told) in enumerate(zip(labels, said, strict=True))
        ]
        self._label, self._title = setup.say(START), setup.say(TITLE)
        self._states = {name: setup.say(phrases) for name, phrases in STATES.items()}
        one = {"start": self._label, "ask": labels[0]}
        self._text = setup.say(ONE, **one) if count == 1 else setup.say(MANY, start=self._label, n=count)
        self._started = False
        self._asked: list[str] = []

    @property
    def parts(self) -> Sequence[str]:
        return ["start", *(f"ask/{window.name}" for window in self._windows)]

    def view(self) -> dict[str, Json]:
        worker = self.setup.asset("worker.js")
        scope = worker.rpartition("/")[0] + "/"
        windows = [
            {
                **self.setup.control(f"ask/{window.name}", window.label),
                "address": scope + window.name if window.name in self._asked else None,
            }
            for window in self._windows
        ]
        return {
            "title": self._title,
            "text": self._text,
            "start": self.setup.control("start", self._label),
            "worker": worker if self._started else None,
            "scope": scope,
            "states": self._states,
            "windows": windows,
            "reveal": None,
        }

    def on(self, event: Event) -> None:
        if event.kind != "click":
            return
        if event.part == "start":
            self._started = True
        name = event.part.removeprefix("ask/")
        if self._started and event.part.startswith("ask/") and name not in self._asked:
            self._asked.append(name)
            if all(window.name in self._asked for window in self._windows if window.piece):
                self.solve()

    def asset(self, name: str) -> Asset | None:
        if name == "worker.js" and self._started:
            windows = {window.name: self.setup.asset(f"{window.name}.txt") for window in self._windows}
            script = WORKER.format(windows=json.dumps(windows), head=json.dumps(HEAD))
            return Asset(script.encode(), "text/javascript; charset=utf-8")
        for window in self._windows:
            if name == f"{window.name}.txt" and window.name in self._asked:
                return Asset(window.answer.encode(), "text/plain; charset=utf-8")
        return None
