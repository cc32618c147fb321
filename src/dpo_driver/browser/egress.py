"""What pages of real sites may reach: an allow-list of origins, and the gateway that holds every context to it.

``AllowList(["https://shop.example"]).allows(url)`` decides on the parsed host, never on the text. Whatever a browser
would read otherwise than it looks (user-info, decimal and octal addresses, a trailing dot, letters of another script,
backslashes) is refused, even where it would lead to a listed host: an honest page has no need of it.

``OriginGateway`` is a small HTTP proxy on loopback. A context that has it as its gateway reaches nothing else: each
request, each hop of a redirect, each WebSocket and each TLS tunnel is asked for here. Names are resolved here too,
once, and the address that was checked is the one that is connected to. Called by environments. Must not import
playwright.
"""

from __future__ import annotations

import http.client
import ipaddress
import re
import selectors
import socket
import sys
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import cast

from dpo_driver.core.errors import ConfigError

CONNECT_S = 10.0
IDLE_S = 120.0
MAX_BODY = 256 * 1024 * 1024  # bytes of one upload
_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}
_URL = re.compile(r"(https?|wss?)://([^/?#]*)(?:[/?#].*)?", re.IGNORECASE | re.DOTALL)
_AUTHORITY = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9_.-]+)(?::([0-9]+))?", re.IGNORECASE)
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_HOP_BY_HOP = frozenset(
    "connection proxy-connection keep-alive te trailer transfer-encoding upgrade proxy-authorization host".split()
)


@dataclass(frozen=True)
class Origin:
    """Scheme ("http" or "https"), host in its one plain spelling, and port. ``subdomains``: of the host, not itself."""

    scheme: str
    host: str
    port: int
    subdomains: bool = False

    def covers(self, host: str, port: int) -> bool:
        if port != self.port:
            return False
        return host.endswith("." + self.host) if self.subdomains else host == self.host


class AllowList:
    """Origins such as ``https://shop.example``, ``http://127.0.0.1:8123`` or ``https://*.cdn.example``.

    Raises:
        ConfigError: an entry is not an origin in its plain spelling.
    """

    def __init__(self, allowed: Iterable[str]) -> None:
        self.origins = tuple(map(_origin, allowed))

    def allows(self, url: str) -> bool:
        """Whether an address belongs to a listed origin. ws: and wss: belong to the http: and https: one."""
        target = parse_url(url)
        if target is None:
            return False
        scheme, host, port = target
        plain = {"ws": "http", "wss": "https"}.get(scheme, scheme)
        return any(origin.scheme == plain and origin.covers(host, port) for origin in self.origins)

    def allows_tunnel(self, authority: str) -> bool:
        """Whether a connection to ``host:port`` may be opened, whatever is spoken through it."""
        target = parse_authority(authority, None)
        return target is not None and any(origin.covers(*target) for origin in self.origins)


def parse_url(url: str) -> tuple[str, str, int] | None:
    """Scheme, host and port of an address in its plain spelling; None for anything else."""
    if any(char < " " or char == "\x7f" for char in url):
        return None  # browsers drop tabs and line ends, wherever they stand
    match = _URL.fullmatch(url)
    if match is None or "\\" in url.partition("?")[0].partition("#")[0]:
        return None  # browsers read \ as /
    scheme = match[1].lower()
    target = parse_authority(match[2], _PORTS[scheme])
    return None if target is None else (scheme, *target)


def parse_authority(authority: str, default_port: int | None) -> tuple[str, int] | None:
    """Host and port; None when the host is not spelled plainly or a port is missing that has no default."""
    match = _AUTHORITY.fullmatch(authority)  # neither user-info nor % nor letters beyond ASCII get through
    if match is None:
        return None
    host, written = match[1].lower(), match[2]
    port = default_port if written is None else int(written[:6])
    if port is None or not 0 < port < 65536 or (written is not None and written != str(port)):
        return None
    return (host, port) if _is_plain(host) else None


def _is_plain(host: str) -> bool:
    if host.startswith("["):
        try:
            address = ipaddress.IPv6Address(host[1:-1])
        except ValueError:
            return False
        # One that wraps an IPv4 address is a second name for it.
        wraps = address.ipv4_mapped or address.sixtofour or address.teredo or int(address) >> 32 == 0x64FF9B << 64
        return not wraps and str(address) == host[1:-1]
    labels = host.split(".")
    if len(host) > 253 or not all(map(_LABEL.fullmatch, labels)):
        return False  # a trailing dot leaves an empty label
    # A host whose last label is a number is an IPv4 address to a browser, however it is written.
    if re.fullmatch(r"[0-9]+|0x[0-9a-f]*", labels[-1]):
        try:
            return str(ipaddress.IPv4Address(host)) == host
        except ValueError:
            return False
    return True


def _is_address(host: str) -> bool:
    return host.startswith("[") or host.rpartition(".")[2].isdigit()


def _origin(text: str) -> Origin:
    subdomains = "://*." in text
    target = parse_url(text.replace("://*.", "://", 1))
    if target is None or target[0] not in ("http", "https") or text.rstrip("/").count("/") != 2 or "?" in text:
        raise ConfigError(
            f"{text!r} is not an origin",
            remedy="write scheme, host and port as in https://shop.example or http://127.0.0.1:8123, in plain ASCII "
            "(a name in another script in its xn-- form); https://*.shop.example means its subdomains",
        )
    if subdomains and (_is_address(target[1]) or "." not in target[1]):
        raise ConfigError(f"{text!r} is too wide", remedy="subdomains need a name of two labels or more")
    return Origin(*target, subdomains=subdomains)


class OriginGateway:
    """``with OriginGateway(allowed=(...)) as gateway: browser.new_context(gateway=gateway.url)``. Runs in threads of
    its own until closed.

    Args:
        allowed: origins, see AllowList.
        private: listed names (not only listed addresses and "localhost") may lead to loopback and private networks, as
            those of an intranet do. Off, a site cannot point its own name at a machine beside ours.
    """

    def __init__(self, allowed: Iterable[str], *, private: bool = False) -> None:
        self.allow_list = AllowList(allowed)
        self._server = _Server(("127.0.0.1", 0), _Gate)
        self._server.allow_list, self._server.private = self.allow_list, private
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), name="origin-gateway", daemon=True
        )
        self._thread.start()

    @property
    def url(self) -> str:
        """What to give a browser context as its gateway."""
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def refused(self) -> tuple[str, ...]:
        """What was asked for and refused, the latest 1000: addresses, and ``host:port`` of tunnels."""
        return tuple(self._server.refused)

    def allows(self, url: str) -> bool:
        """Whether an address belongs to an allowed origin."""
        return self.allow_list.allows(url)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    def __enter__(self) -> OriginGateway:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1024  # many pages open at once; the five of the standard library were overrun
    allow_list: AllowList
    private = False

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)  # type: ignore[arg-type]
        self.refused: list[str] = []

    def handle_error(self, request: object, client_address: object) -> None:
        """A browser that dies or closes a page drops its connections; that is no error of ours."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]

    def open(self, host: str, port: int) -> socket.socket | None:
        """A connection to an allowed host; None when its name leads where it must not.

        Raises:
            OSError: it cannot be resolved or reached.
        """
        named = host == "localhost" or _is_address(host)
        found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
        addresses = [info[4] for info in found]
        if not self.private and not named:
            addresses = [address for address in addresses if ipaddress.ip_address(str(address[0])).is_global]
        last: OSError | None = None
        for address in addresses:
            try:
                return socket.create_connection((str(address[0]), port), timeout=CONNECT_S)
            except OSError as error:
                last = error
        if last is not None:
            raise last
        return None


class _Gate(BaseHTTPRequestHandler):
    """Requests with an absolute address, and CONNECT."""

    protocol_version = "HTTP/1.1"
    timeout = IDLE_S
    server: _Server

    def do_CONNECT(self) -> None:
        self.close_connection = True
        target = parse_authority(self.path, None)
        if target is None or not self.server.allow_list.allows_tunnel(self.path):
            self._refuse()
            return
        try:
            upstream = self.server.open(*target)
        except OSError as error:
            self._answer(502, f"cannot reach {self.path}: {error}")
            return
        if upstream is None:
            self._refuse()
            return
        with upstream:
            self.send_response(200, "Connection established")
            self.end_headers()
            _join(self.connection, upstream)

    def do_GET(self) -> None:
        target = parse_url(self.path)
        if target is None or target[0] != "http" or not self.server.allow_list.allows(self.path):
            self._refuse()
            return
        body = self._body()
        if body is None:
            return
        try:
            upstream = self.server.open(*target[1:])
        except OSError as error:
            self._answer(502, f"cannot reach {target[1]}: {error}")
            return
        if upstream is None:
            self._refuse()
            return
        connection = http.client.HTTPConnection(target[1], target[2], timeout=IDLE_S)
        connection.sock = upstream
        try:
            response = self._asked(connection, body)
        except http.client.HTTPException as error:
            self.close_connection = True
            self._answer(502, f"{target[1]} answered strangely: {type(error).__name__}")
        else:
            self._hand_back(response)
        finally:
            connection.close()

    do_HEAD = do_POST = do_PUT = do_DELETE = do_OPTIONS = do_PATCH = do_GET

    def _body(self) -> bytes | None:
        """What the request carries; None when it was refused for it."""
        length = self.headers.get("Content-Length", "0")
        if "Transfer-Encoding" in self.headers or not length.isascii() or not length.isdigit():
            self._answer(411, "the length is needed")
        elif int(length) > MAX_BODY:
            self._answer(413, "too large")
        else:
            return self.rfile.read(int(length))
        self.close_connection = True
        return None

    def _asked(self, connection: http.client.HTTPConnection, body: bytes) -> http.client.HTTPResponse:
        scheme_end = self.path.index("://") + 3
        slash = re.search(r"[/?]", self.path[scheme_end:])
        path = self.path[scheme_end + slash.start() :] if slash else "/"
        connection.putrequest(self.command, path if path.startswith("/") else "/" + path, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() not in _HOP_BY_HOP:
                connection.putheader(name, value)
        connection.putheader("Connection", "close")
        connection.endheaders(body or None)
        return connection.getresponse()

    def _hand_back(self, response: http.client.HTTPResponse) -> None:
        self.send_response_only(response.status, response.reason)
        for name, value in response.getheaders():
            if name.lower() not in _HOP_BY_HOP:
                self.send_header(name, value)
        bodiless = self.command == "HEAD" or response.status in (204, 304)
        if not bodiless and response.getheader("Content-Length") is None:
            self.close_connection = True  # its end is the end of the connection
            self.send_header("Connection", "close")
        self.end_headers()
        while not bodiless and (piece := response.read1(65536)):
            self.wfile.write(piece)

    def _refuse(self) -> None:
        self.server.refused.append(self.path)
        del self.server.refused[:-1000]
        self.close_connection = True
        self._answer(403, "this address is not part of the task's site")

    def _answer(self, status: int, text: str) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *_arguments: object) -> None:
        """Silence: requests are not news."""


def _join(left: socket.socket, right: socket.socket) -> None:
    """Carry bytes both ways until both sides have ended, or nothing came for IDLE_S."""
    other = {left: right, right: left}
    with selectors.DefaultSelector() as selector:
        for side in other:
            selector.register(side, selectors.EVENT_READ)
        while selector.get_map():
            ready = selector.select(IDLE_S)
            if not ready:
                return
            for key, _ in ready:
                side = cast(socket.socket, key.fileobj)
                piece = side.recv(65536)
                if piece:
                    other[side].sendall(piece)
                else:
                    selector.unregister(side)
                    other[side].shutdown(socket.SHUT_WR)
