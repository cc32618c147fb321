"""Serves the label page until it is interrupted: socket, links, uvicorn. Called by cli/label.py.

Bound to loopback unless told otherwise; anything else needs a password, whose rules are here. Must not know the command
line.
"""

from __future__ import annotations

import asyncio
import gc
import ipaddress
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

import uvicorn

from dpo_driver.core.errors import ConfigError
from dpo_driver.label.app import Site
from dpo_driver.label.password import Password
from dpo_driver.label.security import Door, Place
from dpo_driver.label.views import Views
from dpo_driver.label.work import Labelling

LOOPBACK = "127.0.0.1"
PASSWORD = "DPO_DRIVER_LABEL_PASSWORD"
BACKLOG = 1024
KEEP_ALIVE_S = 75
TLS_ADVICE = (
    "What raters send can be read on the way, the password too. Better: keep the server on loopback and let them come "
    "by `ssh -L PORT:127.0.0.1:PORT THIS-MACHINE`; or put a proxy with TLS in front (for example `caddy reverse-proxy "
    "--from label.example.org --to 127.0.0.1:PORT`) and start this with --origin https://label.example.org."
)


@dataclass(frozen=True)
class Listening:
    """A bound socket and what it is called: ``address`` is where browsers on this machine go."""

    socket: socket.socket
    place: Place
    address: str


def listen(host: str = LOOPBACK, port: int = 0, *, origin: str = "", has_password: bool = False) -> Listening:
    """Bind the label page's socket.

    Args:
        host: where to; loopback is the rule.
        port: 0: a free one.
        origin: where raters find it behind a proxy that adds TLS, such as ``https://label.example.org``.
        has_password: raters on other machines are asked for one.

    Raises:
        ConfigError: others could connect and there is no password; the origin is none; the port is taken.
    """
    loopback = is_loopback(host)
    if origin:
        parts = urlsplit(origin)
        if parts.scheme not in ("http", "https") or not parts.netloc or parts.path.strip("/") or parts.query:
            raise ConfigError(f"{origin!r} is no origin", where="--origin", remedy="write https://label.example.org")
        origin = f"{parts.scheme}://{parts.netloc}"
    if not has_password and (origin or not loopback):
        raise ConfigError(
            "others could connect, and there is no password", where="--origin" if origin else f"--host {host}",
            remedy=f"set {PASSWORD}, or keep to loopback and let raters come by ssh -L",
        )  # fmt: skip
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio switches off Nagle's algorithm only where the protocol is named: without, answers wait 40 ms.
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        raise ConfigError(f"cannot listen: {error.strerror or error}", where=f"{host}:{port}",
                          remedy="choose another port; 0 takes a free one") from None  # fmt: skip
    bound.listen(BACKLOG)
    port = bound.getsockname()[1]
    names = () if loopback else tuple({socket.gethostname().lower(), socket.getfqdn().lower()})
    reached = host if loopback else LOOPBACK if ":" not in host else "::1"
    address = f"http://[{reached}]:{port}" if ":" in reached else f"http://{reached}:{port}"
    return Listening(bound, Place(port, loopback, names, origin), address)


def is_loopback(host: str) -> bool:
    """Whether nobody but this machine can reach an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def serve(
    work: Labelling,
    views: Views,
    listening: Listening,
    raters: Sequence[str],
    *,
    password: Password | None = None,
    say: Callable[[dict[str, str]], None],
) -> None:
    """Serve until SIGINT or SIGTERM; what was acknowledged is on disk.

    Args:
        raters: each gets a one-time link.
        password: lets raters on other machines in.
        say: told the links, by rater, once the server takes requests.

    Raises:
        KeyboardInterrupt: it was stopped.
    """
    door = Door()
    app = Site(work, views, door, listening.place, password).app
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="off",
            ws="none",
            server_header=False,
            date_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=5,
            timeout_keep_alive=KEEP_ALIVE_S,
        )
    )

    async def run() -> None:
        async with work:
            serving = asyncio.create_task(server.serve([listening.socket]))
            while not server.started and not serving.done():
                await asyncio.sleep(0.01)
            gc.collect()
            gc.freeze()  # the log's comparisons stay: looking through them again and again would hold up answers
            if server.started:
                say({rater: f"{listening.address}/open?token={door.token(rater)}" for rater in raters})
            await serving

    with asyncio.Runner(loop_factory=server.config.get_loop_factory()) as runner:
        runner.run(run())
