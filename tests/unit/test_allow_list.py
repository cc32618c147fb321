"""The allow-list decides on the parsed host: every hostile spelling of an address is refused."""

from __future__ import annotations

import ipaddress
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from dpo_driver.browser.egress import AllowList, OriginGateway
from dpo_driver.core.errors import ConfigError

ALLOWED = AllowList(
    ["https://shop.example", "http://127.0.0.1:8123", "https://*.cdn.example", "https://xn--mller-kva.example/"]
)


@pytest.mark.parametrize(
    "url",
    [
        "https://shop.example",
        "https://shop.example/",
        "https://shop.example:443/cart?next=http://elsewhere.example/#top",
        "HTTPS://Shop.Example/Cart",
        "wss://shop.example/live",
        "http://127.0.0.1:8123/a b",
        "ws://127.0.0.1:8123/",
        "https://img.cdn.example/x.png",
        "https://a.b.cdn.example/",
        "https://xn--mller-kva.example/",
        "https://shop.example?q=\\@elsewhere.example",
    ],
)
def test_the_sites_own_addresses_are_allowed(url: str) -> None:
    assert ALLOWED.allows(url)


HOSTILE = {
    "other host": "https://elsewhere.example/",
    "longer host": "https://shop.example.elsewhere.example/",
    "prefixed host": "https://myshop.example/",
    "suffix without a dot": "https://evilcdn.example/",
    "the wildcard's own host": "https://cdn.example/",
    "other scheme": "http://shop.example/",
    "other port": "https://shop.example:8443/",
    "port 0": "https://shop.example:0/",
    "port with zeros": "http://127.0.0.1:08123/",
    "port too large": "http://127.0.0.1:73659/",
    "port is no number": "http://127.0.0.1:8123x/",
    "user-info": "https://shop.example@elsewhere.example/",
    "user-info with the right host": "https://user:secret@shop.example/",
    "user-info, escaped": "https://shop.example%40elsewhere.example/",
    "backslash": "https://shop.example\\@elsewhere.example/",
    "backslashes for slashes": "https:\\\\shop.example/",
    "no slashes": "https:shop.example/",
    "one slash": "https:/shop.example/",
    "three slashes": "https:///shop.example/",
    "tab inside": "https://shop\t.example/",
    "line end inside": "https://shop.example\n.elsewhere.example/",
    "NUL": "https://shop.example\0.elsewhere.example/",
    "space before": " https://shop.example/",
    "trailing dot": "https://shop.example./",
    "trailing dot on an address": "http://127.0.0.1.:8123/",
    "homograph": "https://sh\u043ep.example/",  # a Cyrillic o
    "homograph as punycode": "https://xn--shp-cdd.example/",
    "its own name in letters": "https://m\u00fcller.example/",
    "full-width letters": "https://\uff53hop.example/",
    "full-width dot": "https://shop\u3002example/",
    "full-width digits": "http://\uff11\uff12\uff17.0.0.1:8123/",
    "soft hyphen": "https://shop\u00ad.example/",
    "decimal address": "http://2130706433:8123/",
    "octal address": "http://0177.0.0.1:8123/",
    "hexadecimal address": "http://0x7f.0.0.1:8123/",
    "hexadecimal number": "http://0x7f000001:8123/",
    "short address": "http://127.1:8123/",
    "padded address": "http://127.000.000.001:8123/",
    "five parts": "http://127.0.0.1.1:8123/",
    "too large a part": "http://127.0.0.257:8123/",
    "IPv6-mapped": "http://[::ffff:127.0.0.1]:8123/",
    "IPv6-mapped in hexadecimal": "http://[::ffff:7f00:1]:8123/",
    "IPv6-compatible": "http://[::127.0.0.1]:8123/",
    "NAT64": "http://[64:ff9b::7f00:1]:8123/",
    "6to4": "http://[2002:7f00:1::]:8123/",
    "IPv6 loopback": "http://[::1]:8123/",
    "unspecified address": "http://0.0.0.0:8123/",
    "localhost": "http://localhost:8123/",
    "wildcard name service": "http://127.0.0.1.nip.io:8123/",
    "empty label": "https://shop..example/",
    "empty host": "https:///",
    "only a port": "http://:8123/",
    "data": "data:text/html,<p>https://shop.example/",
    "javascript": "javascript:fetch('https://shop.example/')",
    "view-source": "view-source:https://shop.example/",
    "file": "file:///etc/passwd",
    "blob": "blob:https://shop.example/0b0c",
    "filesystem": "filesystem:https://shop.example/temporary/x",
    "chrome": "chrome://settings/",
    "about": "about:blank",
    "ftp": "ftp://shop.example/",
    "protocol-relative": "//shop.example/",
    "path only": "/cart",
    "nothing": "",
}


@pytest.mark.parametrize("url", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_spellings_are_refused(url: str) -> None:
    assert not ALLOWED.allows(url)


def test_listed_ipv6_addresses_are_allowed_in_one_spelling() -> None:
    allowed = AllowList(["http://[::1]:8123"])
    assert allowed.allows("http://[::1]:8123/x")
    for other in ("[0:0:0:0:0:0:0:1]", "[0::1]", "[::0001]", "[::1%25lo]", "127.0.0.1", "[::ffff:0:1]"):
        assert not allowed.allows(f"http://{other}:8123/x")


def test_tunnels_need_a_listed_host_and_port() -> None:
    assert ALLOWED.allows_tunnel("shop.example:443")
    assert ALLOWED.allows_tunnel("127.0.0.1:8123")  # WebSockets of http: pages come as tunnels too
    for target in ("shop.example", "shop.example:80", "shop.example:22", "shop.example.:443", "127.1:8123", ":443", ""):
        assert not ALLOWED.allows_tunnel(target)


@pytest.mark.parametrize(
    "entry",
    [
        "shop.example",
        "https://shop.example/cart",
        "https://shop.example?x",
        "ftp://shop.example",
        "https://*",
        "https://*.example",
        "https://*.0.0.1",
        "https://sh*p.example",
        "https://user@shop.example",
        "http://0177.0.0.1",
        "https://m\u00fcller.example",
        "*",
        "",
    ],
)
def test_entries_that_are_no_origin_are_named(entry: str) -> None:
    with pytest.raises(ConfigError, match=r"origin|too wide") as caught:
        AllowList([entry])
    assert repr(entry) in str(caught.value)


# ---- the gateway, asked without a browser ---------------------------------------------------------------------------


class _Site(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.server.seen.append((self.command, self.path, self.headers["Host"]))  # type: ignore[attr-defined]
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"here"
        self.send_response(302 if self.path == "/away" else 200)
        if self.path == "/away":
            self.send_header("Location", "http://localhost:1/")
        self.send_header("Set-Cookie", "a=1")
        self.send_header("Set-Cookie", "b=2")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

    def log_message(self, format: str, *_arguments: object) -> None: ...


@pytest.fixture
def site() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Site)
    server.seen = []  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def ask(gateway: OriginGateway, request: bytes) -> bytes:
    host, port = gateway.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: connection.recv(65536), b""))


def tunnelled(gateway: OriginGateway, target: bytes, request: bytes) -> bytes:
    host, port = gateway.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        connection.sendall(b"CONNECT " + target + b" HTTP/1.1\r\n\r\n")
        answer = connection.recv(65536)
        assert answer.startswith(b"HTTP/1.1 200")
        connection.sendall(request)
        return b"".join(iter(lambda: connection.recv(65536), b""))


def test_the_gateway_forwards_to_listed_origins_only(site: ThreadingHTTPServer) -> None:
    home = f"http://127.0.0.1:{site.server_port}"
    with OriginGateway([home]) as gateway:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({"http": gateway.url}))
        answer = opener.open(f"{home}/page?x=1", timeout=5)
        assert answer.read() == b"here"
        assert answer.headers.get_all("Set-Cookie") == ["a=1", "b=2"]
        assert opener.open(urllib.request.Request(f"{home}/form", b"name=x"), timeout=5).read() == b"name=x"
        with pytest.raises(urllib.error.HTTPError, match="403"):
            opener.open(f"{home}/away", timeout=5)  # the redirect's second hop
        for url in (f"http://localhost:{site.server_port}/", f"http://127.1:{site.server_port}/"):
            with pytest.raises(urllib.error.HTTPError, match="403"):
                opener.open(url, timeout=5)
        host = f"127.0.0.1:{site.server_port}".encode()
        assert site.seen == [  # type: ignore[attr-defined]
            ("GET", "/page?x=1", host.decode()),
            ("POST", "/form", host.decode()),
            ("GET", "/away", host.decode()),
        ]
        # What the Host header says counts for nothing, and an address without a host is nobody's.
        asked = ask(gateway, b"GET http://localhost:1/ HTTP/1.1\r\nHost: " + host + b"\r\n\r\n")
        assert asked.startswith(b"HTTP/1.1 403")
        assert ask(gateway, b"GET /page HTTP/1.1\r\nHost: " + host + b"\r\n\r\n").startswith(b"HTTP/1.1 403")
        assert tunnelled(gateway, host, b"GET /in HTTP/1.0\r\n\r\n").endswith(b"here")
        for target in (b"localhost:1", b"127.0.0.1:22", b"127.0.0.1"):
            assert ask(gateway, b"CONNECT " + target + b" HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 403")
        assert len(site.seen) == 4  # type: ignore[attr-defined]
        assert len(gateway.refused) == 8
        assert gateway.refused[:2] == ("http://localhost:1/", f"http://localhost:{site.server_port}/")


def test_a_name_may_not_lead_to_a_machine_beside_ours(site: ThreadingHTTPServer) -> None:
    """The machine's own name resolves to a private or loopback address, as a hostile site's name could."""
    name = socket.gethostname().lower()
    try:
        addresses = {info[4][0] for info in socket.getaddrinfo(name, 80)}
    except OSError:
        pytest.skip("this machine cannot resolve its own name")
    if any(ipaddress.ip_address(address).is_global for address in addresses):
        pytest.skip("this machine's own name is a public one")
    home = f"http://{name}:{site.server_port}"
    request = f"GET {home}/ HTTP/1.1\r\n\r\n".encode()
    with OriginGateway([home]) as gateway:
        assert ask(gateway, request).startswith(b"HTTP/1.1 403")
        assert gateway.refused == (f"{home}/",)
    with OriginGateway([home], private=True) as gateway:
        assert not ask(gateway, request).startswith(b"HTTP/1.1 403")


def test_a_site_that_is_not_there_is_no_refusal() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        home = f"127.0.0.1:{closed.getsockname()[1]}"
        with OriginGateway([f"http://{home}"]) as gateway:
            assert ask(gateway, f"GET http://{home}/ HTTP/1.1\r\n\r\n".encode()).startswith(b"HTTP/1.1 502")
            assert ask(gateway, f"CONNECT {home} HTTP/1.1\r\n\r\n".encode()).startswith(b"HTTP/1.1 502")
            assert gateway.refused == ()
