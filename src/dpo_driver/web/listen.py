"""The sockets that pages for people are served on, and who may be let near them.

Bound to loopback unless told otherwise; anything else needs a password. Called by the label page and the dashboard.
"""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass
from urllib.parse import urlsplit

from dpo_driver.core.errors import ConfigError
from dpo_driver.web.guard import Place

LOOPBACK = "127.0.0.1"
BACKLOG = 1024


@dataclass(frozen=True)
class Listening:
    """A bound socket and what it is called: ``address`` is where browsers on this machine go."""

    socket: socket.socket
    place: Place
    address: str


def listen(
    host: str = LOOPBACK,
    port: int = 0,
    *,
    origin: str = "",
    has_password: bool = False,
    page: str = "label",
    variable: str = "",
) -> Listening:
    """Bind a page's socket.

    Args:
        host: where to; loopback is the rule.
        port: 0: a free one.
        origin: where people find it behind a proxy that adds TLS, such as ``https://label.example.org``.
        has_password: people on other machines are asked for one.
        page: what is served; part of its cookie's name.
        variable: of the environment, from which the password comes; named in the error.

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
            remedy=f"set {variable}, or keep to loopback and let people come by ssh -L",
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
    return Listening(bound, Place(port, loopback, names, origin, page), address)


def is_loopback(host: str) -> bool:
    """Whether nobody but this machine can reach an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
