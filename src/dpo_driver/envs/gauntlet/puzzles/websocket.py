"""WebSocket: once connected, a live feed brings the pieces of the code among other messages.

The page opens a real WebSocket of its own; nothing is sent on it before the trusted click on the connect button.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from dpo_driver.envs.gauntlet.puzzles.base import Event, Json, Phrases, Puzzle, Setup
from dpo_driver.envs.gauntlet.puzzles.pieces import Teller, false_piece, split
from dpo_driver.envs.gauntlet.puzzles.wordlists import THINGS, some

TITLE: Phrases = (
    ("A live feed", "On the wire", "Incoming messages", "The news ticker"),
    ("The radio room", "Signals arriving", "Tuned in"),
)
TEXT: Phrases = (
    (
        'Press "{connect}" to open the live connection. The code arrives in {n} parts on channel "{channel}"; the '
        "rest is chatter.",
        '"{connect}" opens a WebSocket. Among its messages, those of channel "{channel}" carry the {n} parts of '
        "the code: join them by number.",
        'Messages come in once you press "{connect}". Only what is sent by "{channel}" matters: {n} numbered '
        "parts that make the code.",
        'Connect to the feed with "{connect}" and wait for {n} messages from "{channel}". Put their parts '
        "together in the order of their numbers.",
    ),
    (
        'Open the line with "{connect}". The station "{channel}" sends {n} fragments of the key between other signals.',
        '{n} fragments of the key come over the air from "{channel}". Press "{connect}" to receive, and mind '
        "their numbers.",
        'Tune in with "{connect}" and listen for the station "{channel}": it transmits the key in {n} fragments.',
    ),
)
CONNECT: Phrases = (
    ("Connect", "Open the connection", "Go live", "Start receiving"),
    ("Tune in", "Receive", "Open the line"),
)
MESSAGE: Phrases = (
    ("{channel} | {said}", "[{channel}] {said}", "{channel}: {said}", "<{channel}> {said}"),
    ("{channel} ≫ {said}", "({channel}) {said}", "from {channel} – {said}"),
)
CHATTER: Phrases = (
    (
        "all quiet", "water level {x} cm", "wind from the north", "{x} parcels on the way", "the shift changes soon",
        "temperature {x} degrees", "gate {x} is free", "lunch is ready", "heartbeat {x}", "{x} visitors so far",
        "light rain expected", "please keep the line open",
    ),
    (
        "nothing to report", "tide at {x} cm", "fog on the coast", "{x} birds counted", "the lamp was lit",
        "{x} steps to the tower", "berth {x} taken", "tea is served", "still here, {x}", "{x} letters sorted",
        "the ice is thin", "do not hang up",
    ),
)  # fmt: skip
STATES: dict[str, Phrases] = {
    "opening": (("Connecting…", "Opening the connection…"), ("Dialling…", "The line is being opened…")),
    "open": (("Connected.", "The connection is open."), ("On the air.", "The line stands.")),
    "closed": (
        ("Connection closed. It can be opened again.", "The feed has ended; connect again to hear it once more."),
        ("The line went dead. Try again.", "End of transmission. Once more?"),
    ),
}
# by difficulty: pieces, messages of other channels, other channels with pieces of their own, seconds between messages
LAYOUT = {1: (2, 1, 0, 0.4), 2: (3, 4, 0, 0.35), 3: (3, 5, 1, 0.35)}


class Websocket(Puzzle):
    """A trusted click on Connect lets the feed speak; each connection gets all messages from the beginning."""

    name: ClassVar[str] = "websocket"

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        count, chatter, false, self._pause = LAYOUT[setup.difficulty]
        channel, *others = some(setup, THINGS, 4)
        self._connect = setup.say(CONNECT)
        self._title = setup.say(TITLE)
        self._text = setup.say(TEXT, connect=self._connect, n=count, channel=channel)
        self._states = {name: setup.say(phrases) for name, phrases in STATES.items()}
        teller = Teller.drawn(setup)
        message = setup.say(MESSAGE, channel="{channel}", said="{said}")
        said = [(channel, teller.tell(i, count, piece)) for i, piece in enumerate(split(setup.code, count), start=1)]
        for other in others[:false]:
            said += [(other, teller.tell(i, count, false_piece(setup, 6 // count))) for i in range(1, count + 1)]
        if setup.difficulty > 1:
            setup.rng.shuffle(said)
        for _ in range(chatter):
            line = (setup.rng.choice(others), setup.say(CHATTER, x=setup.rng.randint(12, 98)))
            said.insert(setup.rng.randint(0, len(said)), line)
        self._messages = [message.format(channel=who, said=what) for who, what in said]
        self._calls = 0

    @property
    def parts(self) -> Sequence[str]:
        return ["connect"]

    def view(self) -> dict[str, Json]:
        return {
            "title": self._title,
            "text": self._text,
            "connect": self.setup.control("connect", self._connect),
            "feed": self.setup.asset("feed") if self._calls else None,
            "calls": self._calls,
            "states": self._states,
            "reveal": None,
        }

    def on(self, event: Event) -> None:
        if event.kind == "click" and event.part == "connect":
            self._calls += 1
            self.solve()

    def feed(self, connected: bool) -> Sequence[tuple[float, str]]:
        if not connected or not self._calls:
            return ()
        return [((index + 1) * self._pause, text) for index, text in enumerate(self._messages)]
