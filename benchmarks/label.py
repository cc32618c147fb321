"""How many labels a second the label page takes: 64 clients against the real server, every label on disk.

    .venv/bin/python benchmarks/label.py --seconds 10

Starts ``dpo-driver label`` on text pairs as its own process and drives it over sockets of its own: each client signs
in, asks for a comparison, answers it by ``POST /api/labels``, and answers the next one that came with the receipt. A
label counts when its receipt has come, which is after its commit. At the end the server is stopped and the log is read
again: it must hold exactly the labels that were acknowledged, and its hash chain must verify. With ``--kill`` the
server is killed (SIGKILL) in the middle: every acknowledged label must be there; a few more may be, whose receipts were
on their way.

The client is one process with a bare HTTP client, so that it leaves the server a core. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from dpo_driver.core.records import Comparison, Message
from dpo_driver.label.work import put_up
from dpo_driver.preferences.log import PreferenceLog

START_S = 60.0


class Client(asyncio.Protocol):
    """One keep-alive connection that answers one comparison after another until it is told to stop."""

    def __init__(self, host: str, cookie: str, csrf: str, name: str, showing: str, until: float) -> None:
        self.name, self.showing, self.until = name, showing, until
        self.head = (
            f"POST /api/labels HTTP/1.1\r\nHost: {host}\r\nOrigin: http://{host}\r\nCookie: {cookie}\r\n"
            f"X-CSRF-Token: {csrf}\r\nContent-Type: application/json\r\nContent-Length: "
        ).encode()
        self.seqs: list[int] = []
        self.seconds: list[float] = []
        self.wrong: list[str] = []
        self.sent_at = 0.0
        self.buffer = b""
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport
        self.answer()

    def answer(self) -> None:
        number = len(self.seconds)
        verdict = ("a", "b", "tie", "a")[number % 4]
        body = (
            f'{{"showing":"{self.showing}","verdict":"{verdict}","submission":"{self.name}-{number:06}","seconds":2.5}}'
        ).encode()
        self.sent_at = time.perf_counter()
        self.transport.write(self.head + str(len(body)).encode() + b"\r\n\r\n" + body)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head, found, rest = self.buffer.partition(b"\r\n\r\n")
        if not found:
            return
        length = int(re.search(rb"content-length: (\d+)", head)[1])  # type: ignore[index]
        if len(rest) < length:
            return
        self.seconds.append(time.perf_counter() - self.sent_at)
        self.buffer = b""
        reply = json.loads(rest)
        if not head.startswith(b"HTTP/1.1 200") or reply["before"]:
            self.wrong.append(f"{head.splitlines()[0].decode()}: {rest.decode()}")
            return self.end()
        self.seqs.append(reply["seq"])
        self.showing = reply["next"]
        if self.showing is None or self.sent_at > self.until:
            return self.end()
        self.answer()

    def end(self) -> None:
        self.transport.close()
        if not self.done.done():
            self.done.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.done():
            self.wrong.append(f"the connection was lost: {error}")
            self.done.set_result(None)


async def ask(host: str, path: str, cookie: str = "") -> tuple[str, str]:
    """Head and body of one GET."""
    reader, writer = await asyncio.open_connection(*host.split(":"))
    writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nCookie: {cookie}\r\nConnection: close\r\n\r\n".encode())
    answer = (await reader.read()).decode()
    writer.close()
    head, _, body = answer.partition("\r\n\r\n")
    return head, body


async def sign_in(host: str, link: str) -> tuple[str, str]:
    """Cookie and CSRF token for a one-time link."""
    head, _ = await ask(host, link.partition(host)[2])
    cookie = re.search(r"set-cookie: ([^;]+)", head, re.IGNORECASE)
    assert cookie, head
    _, page = await ask(host, "/results", cookie[1])
    token = re.search(r'name="csrf" value="([^"]+)"', page)
    assert token, page
    return cookie[1], token[1]


async def load(
    told: dict[str, Any], clients: int, seconds: float, server: int, kill: bool
) -> tuple[list[Client], float, tuple[float, float]]:
    """All clients at once, spread over the raters: the clients, how long they worked, and the processor time that the
    server and this process took meanwhile."""
    host = told["address"].removeprefix("http://")
    sessions = [await sign_in(host, link) for link in told["links"].values()]
    loop, begun = asyncio.get_running_loop(), []
    for number in range(clients):
        cookie, csrf = sessions[number % len(sessions)]
        _, body = await ask(host, "/api/next", cookie)
        begun.append((cookie, csrf, f"client{number:04}", json.loads(body)["showing"]))
    before = seconds_of(server), time.process_time()
    started = time.perf_counter()
    until = started + seconds
    made = [
        (await loop.create_connection(lambda one=one: Client(host, *one, until), *host.split(":")))[1]  # type: ignore[misc]
        for one in begun
    ]
    if kill:
        loop.call_later(seconds / 2, os.kill, server, signal.SIGKILL)
    await asyncio.gather(*(client.done for client in made))
    if kill:
        return made, time.perf_counter() - started, (0.0, 0.0)
    used = seconds_of(server) - before[0], time.process_time() - before[1]
    return made, time.perf_counter() - started, used


def comparisons(count: int) -> list[Comparison]:
    """Short text pairs."""
    return [
        Comparison(
            id=f"{number:016x}", messages=(Message(role="user", content=f"Question {number}?"),),
            first=f"Answer {number}.", second=f"Another answer to {number}.",
        )
        for number in range(count)
    ]  # fmt: skip


def checked(log: Path, acknowledged: list[int]) -> dict[str, Any]:
    """Whether the log holds exactly what was acknowledged, each once, and whether its chain holds."""
    with PreferenceLog(log, mode="read") as opened:
        labels = list(opened.entries("label"))
        verdict = opened.verify()
    submissions = {(entry.body["rater"], entry.body["evidence"]["submission"]) for entry in labels}
    return {
        "in_log": len(labels),
        "exactly_the_acknowledged": sorted(acknowledged) == [entry.seq for entry in labels],
        "all_acknowledged": set(acknowledged) <= {entry.seq for entry in labels},
        "no_submission_twice": len(submissions) == len(labels),
        "chain_verifies": verdict.whole,
    }


def seconds_of(pid: int) -> float:
    """Processor time of a process and all its threads."""
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--raters", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--comparisons", type=int, default=60_000)
    parser.add_argument("--folder", type=Path, help="where the log lies; a temporary folder by default")
    parser.add_argument("--kill", action="store_true", help="SIGKILL half-way: is every acknowledged label there?")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        log = Path(folder) / "preferences.db"
        put_up(log, comparisons(given.comparisons))
        command = [sys.executable, "-m", "dpo_driver", "label", "--log", str(log), "--no-open", "--json",
                   "--overlap", "0"]  # fmt: skip
        command += [part for number in range(given.raters) for part in ("--rater", f"rater{number}")]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        try:
            assert server.stdout is not None
            told = json.loads(server.stdout.readline())
            made, took, used = asyncio.run(load(told, given.clients, given.seconds, server.pid, given.kill))
        finally:
            if server.poll() is None:
                server.send_signal(signal.SIGINT)
            server.wait(START_S)
        times = sorted(second for client in made for second in client.seconds)
        acknowledged = [seq for client in made for seq in client.seqs]
        found = {
            "clients": given.clients, "raters": given.raters, "labels": len(acknowledged), "seconds": round(took, 2),
            "labels_per_second": round(len(acknowledged) / took),
            "p50_ms": round(1000 * times[len(times) // 2], 1),
            "p99_ms": round(1000 * times[int(len(times) * 0.99)], 1),
            "max_ms": round(1000 * times[-1], 1),
            "wrong": [text for client in made for text in client.wrong][:5],
            **checked(log, acknowledged),
            "server_cpu_us_per_label": round(1e6 * used[0] / max(1, len(acknowledged))),
            "client_cpu_us_per_label": round(1e6 * used[1] / max(1, len(acknowledged))),
            "load_average": round(os.getloadavg()[0], 1), "cores": os.cpu_count(),
        }  # fmt: skip
    print(json.dumps(found, indent=2))
    kept = found["all_acknowledged"] if given.kill else found["exactly_the_acknowledged"] and not found["wrong"]
    sys.exit(0 if kept and found["chain_verifies"] and found["no_submission_twice"] else 1)


if __name__ == "__main__":
    main()
