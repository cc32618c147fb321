"""Runs the gauntlet's server: as a program, or beside one's own for the length of a block.

``python -m dpo_driver.envs.gauntlet.serve --port 8123`` for people; ``with GauntletServer(port=0) as server:`` for
environments and tests: a child process (or, with ``inside=True``, a thread) that ends with its owner, whatever becomes
of it. ``server.start_url(7, step=20, visit="mine")`` is where a browser begins, ``server.status("mine")`` says how it
went.
Must not import the browser.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import secrets
import select
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import asdict, fields
from typing import Any, cast

import uvicorn

from dpo_driver.core.errors import ConfigError, DriverError, RolloutFailure
from dpo_driver.core.records import StopReason
from dpo_driver.envs.gauntlet.server import ADMIN_HEADER, Settings, Site
from dpo_driver.envs.gauntlet.tokens import Start, sign

START_S = 30.0
END_S = 5.0
OWNER_S = 1.0  # how often a child looks whether its owner is still there
BACKLOG = 4096
HOST = "127.0.0.1"
MODULE = "dpo_driver.envs.gauntlet.serve"


class GauntletServer:
    """A running gauntlet: ``base_url``, ``admin``, ``start_url``, ``status``.

    Args:
        port: 0: a free one.
        defaults: for visits without a signed start, as in :class:`Start`; ``seed=-1``: a new seed for each.
        inside: serve from a thread of this process instead of a child.
        clock: only with ``inside``.
    """

    def __init__(
        self,
        *,
        port: int = 0,
        host: str = HOST,
        inside: bool = False,
        clock: Callable[[], float] = time.monotonic,
        secret: bytes | None = None,
        **defaults: Any,
    ) -> None:
        self.admin = secrets.token_urlsafe(24)
        self.secret = secret or secrets.token_bytes(32)
        self.base_url = ""
        self.site: Site | None = None  # with ``inside``: the application itself
        self._host, self._port, self._inside, self._clock = host, port, inside, clock
        self._defaults = _defaults(defaults)
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> GauntletServer:
        """Raises ConfigError when the port is taken or the server does not come up."""
        if self._inside:
            self._begin_thread()
        else:
            self._begin_child()
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        """End it; a child that does not end in time is killed."""
        if self._server is not None and self._thread is not None:
            self._server.should_exit = True
            self._thread.join(END_S)
        if (child := self._child) is not None:
            assert child.stdin is not None and child.stdout is not None
            child.stdin.close()
            child.stdout.close()
            try:
                child.wait(END_S)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait(END_S)
        self._server = self._thread = self._child = None

    # -- what owners ask for -------------------------------------------------------------------------------------------

    def start(self, seed: int, **how: Any) -> Start:
        """A start with this server's defaults; ``how`` are fields of :class:`Start`."""
        return _start_of(
            asdict(self._defaults) | {"visit": secrets.token_urlsafe(16), "step": 1} | how | {"seed": seed}
        )

    def start_url(self, seed: int, **how: Any) -> str:
        """The signed address at which a browser begins: ``start_url(7, step=20, key="k1", visit="mine")``.

        Raises:
            ConfigError: there is no such plan or step.
        """
        return self.url_of(self.start(seed, **how).check())

    def url_of(self, start: Start) -> str:
        """The signed address of a start."""
        return f"{self.base_url}/start?token={sign(start, self.secret)}"

    def status(self, visit: str) -> dict[str, Any]:
        """How a visit stands (see ``Visit.status``), without going through any page.

        Raises:
            RolloutFailure: SERVER_ERROR when the server does not answer or does not know the visit.
        """
        request = urllib.request.Request(f"{self.base_url}/status?visit={visit}", headers={ADMIN_HEADER: self.admin})
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=END_S) as answer:
                return cast(dict[str, Any], json.loads(answer.read()))
        except (OSError, ValueError) as error:
            raise RolloutFailure(StopReason.SERVER_ERROR, f"the gauntlet's server: {error}") from None

    # -- ways to run ---------------------------------------------------------------------------------------------------

    def _begin_thread(self) -> None:
        listening = _listen(self._host, self._port)
        self.base_url = _address(self._host, listening)
        self.site = Site(Settings(self._defaults, self.secret, self.admin, self._clock))
        server = self._server = _uvicorn(self.site)
        self._thread = threading.Thread(target=server.run, args=([listening],), name="gauntlet", daemon=True)
        self._thread.start()
        deadline = time.monotonic() + START_S
        while not server.started:
            if not self._thread.is_alive() or time.monotonic() > deadline:
                raise ConfigError("the gauntlet's server did not start", where=self.base_url)
            time.sleep(0.005)

    def _begin_child(self) -> None:
        command = [sys.executable, "-m", MODULE, "--owned"]
        told = {
            "secret": self.secret.hex(), "admin": self.admin, "host": self._host, "port": self._port,
            "defaults": asdict(self._defaults),
        }  # fmt: skip
        child = self._child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )
        assert child.stdin is not None and child.stdout is not None
        # Through a pipe, not in the command line, which others can read; its end is the child's end, too.
        child.stdin.write(json.dumps(told).encode() + b"\n")
        child.stdin.flush()
        ready, _, _ = select.select([child.stdout], [], [], START_S)
        line = child.stdout.readline().decode().strip() if ready else ""
        if not line.startswith("http"):
            self.close()
            raise ConfigError(
                f"the gauntlet's server did not start{': ' + line if line else ''}",
                where=f"{self._host}:{self._port}", remedy="choose another port; 0 takes a free one",
            )  # fmt: skip
        self.base_url = line


def _start_of(values: dict[str, Any]) -> Start:
    types = values.get("types")
    return Start(**values | {"types": tuple(types) if types else None})


def _defaults(given: dict[str, Any]) -> Start:
    known = {entry.name for entry in fields(Start)}
    if unknown := set(given) - known:
        raise ConfigError(f"a start has no {', '.join(sorted(unknown))}", remedy=f"known: {', '.join(sorted(known))}")
    start = _start_of({"seed": -1, "step": 0} | given)
    start.plan()
    return start


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio sends small answers at once only where the socket is named as one of TCP; otherwise they wait some 40 ms.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        raise ConfigError(f"cannot listen: {error.strerror}", where=f"{host}:{port}",
                          remedy="choose another port; 0 takes a free one") from None  # fmt: skip
    listening.listen(BACKLOG)
    return listening


def _address(host: str, listening: socket.socket) -> str:
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{listening.getsockname()[1]}"


def _uvicorn(site: Site) -> uvicorn.Server:
    config = uvicorn.Config(
        site.app, log_config=None, access_log=False, lifespan="off", backlog=BACKLOG, server_header=False,
        ws_max_size=64 * 1024, ws_ping_interval=30.0, ws_ping_timeout=60.0, timeout_graceful_shutdown=1,
        timeout_keep_alive=30,
    )  # fmt: skip
    return uvicorn.Server(config)


async def _while_owned(server: uvicorn.Server, owner: int) -> None:
    """End the server with its owner: when the pipe from it closes, or it is gone (a fork of it may hold the pipe)."""
    ended, loop = asyncio.Event(), asyncio.get_running_loop()

    def wait_for_the_end() -> None:
        while os.read(0, 4096):
            pass
        loop.call_soon_threadsafe(ended.set)

    threading.Thread(target=wait_for_the_end, daemon=True).start()
    while not ended.is_set() and os.getppid() == owner:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(ended.wait(), OWNER_S)
    server.should_exit = True


def _line_from(descriptor: int) -> bytes:
    """The first line, and not a byte more: the rest is waited for elsewhere."""
    line = b""
    while not line.endswith(b"\n") and (byte := os.read(descriptor, 1)):
        line += byte
    return line


async def _serve_owned() -> None:
    told = json.loads(_line_from(0))
    owner = os.getppid()
    listening = _listen(told["host"], told["port"])
    server = _uvicorn(Site(Settings(_start_of(told["defaults"]), bytes.fromhex(told["secret"]), told["admin"])))
    watch = asyncio.create_task(_while_owned(server, owner))
    print(_address(told["host"], listening), flush=True)
    await server.serve([listening])
    watch.cancel()


def serve(host: str, port: int, say: Callable[[str], None] = print, **defaults: Any) -> None:
    """Serve until interrupted; ``say`` is told the address. For people; raises ConfigError for a port that is taken."""
    listening = _listen(host, port)
    site = Site(Settings(_defaults(defaults), secrets.token_bytes(32), secrets.token_urlsafe(24)))
    say(f"the gauntlet is at {_address(host, listening)}/")
    _uvicorn(site).run([listening])


def main(arguments: list[str] | None = None) -> None:
    """The program."""
    parser = argparse.ArgumentParser(
        prog="python -m dpo_driver.envs.gauntlet.serve", description="Serves the gauntlet."
    )
    parser.add_argument("--host", default=HOST)
    parser.add_argument("--port", type=int, default=8123)
    parser.add_argument("--seed", type=int, default=-1, help="of the plan; default: a new one for each visit")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--order", default="band", help="band or mixed")
    parser.add_argument("--difficulty", type=int, default=1, help="1 to 3")
    parser.add_argument("--skin", default="a", help="a or b")
    parser.add_argument("--types", help="only these, separated by commas")
    parser.add_argument("--held-out", action="store_true", help="with the types that are for evaluation only")
    parser.add_argument("--owned", action="store_true", help=argparse.SUPPRESS)
    given = vars(parser.parse_args(arguments))
    if given.pop("owned"):
        try:
            asyncio.run(_serve_owned())
        except DriverError as error:
            print(error.what, flush=True)  # to its owner, who waits for the address
        return
    try:
        given["types"] = tuple(given["types"].split(",")) if given["types"] else None
        serve(given.pop("host"), given.pop("port"), **given)
    except DriverError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
