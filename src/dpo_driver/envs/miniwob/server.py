"""Serves MiniWoB++'s pages, and is the only thing those pages can reach.

A small HTTP proxy on loopback: a browser context that uses it as its gateway sees one host, ``miniwob.test``, whose
files come from the installed ``miniwob`` package; every other address is refused here, loopback included. The
made-up host keeps addresses equal from run to run. A task's page comes with a Content-Security-Policy that lists the
scripts it has as a file: nothing that gets into the page later can run as one of them, so the reward is sealed before
the page's first script runs. Called by envs/miniwob/environment.py. Must not import the browser.
"""

from __future__ import annotations

import base64
import hashlib
import mimetypes
import sys
import threading
from functools import lru_cache
from html.parser import HTMLParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

from dpo_driver.core.errors import DataError

HOST = "miniwob.test"
BASE_URL = f"http://{HOST}/miniwob/"
HOST_PAGE = f"http://{HOST}/frames"  # an empty page of the same origin, for frames (batched.py)


def pages_folder() -> Path:
    """The ``html`` folder of the installed package; DataError if it is not there."""
    spec = find_spec("miniwob")
    folder = Path(spec.origin).parent / "html" if spec is not None and spec.origin else None
    if folder is None or not (folder / "core" / "core.js").is_file():
        raise DataError("the MiniWoB++ pages are not installed", remedy="run ./setup.sh, or `pip install miniwob`")
    return folder


class MiniwobServer:
    """``with MiniwobServer() as server: server.gateway``. Runs in a thread of its own until closed."""

    def __init__(self) -> None:
        handler = type("_Files", (_Files,), {"folder": pages_folder()})
        self._server = _Server(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), name="miniwob-server", daemon=True
        )
        self._thread.start()

    @property
    def gateway(self) -> str:
        """What to give a browser context as its proxy."""
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def refused(self) -> int:
        """Requests for anything but our own host."""
        return self._server.refused

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    def __enter__(self) -> MiniwobServer:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1024  # many pages open at once; the five of the standard library were overrun
    refused = 0

    def handle_error(self, request: object, client_address: object) -> None:
        """A browser that dies or closes a page drops its connections; that is no error of ours."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


@lru_cache(maxsize=512)
def _load(path: Path) -> bytes:
    return path.read_bytes()


class _Scripts(HTMLParser):
    """The scripts of a page: inline texts, handlers in attributes, addresses of files."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.texts: list[str] = []
        self.handlers: list[str] = []
        self.sources: list[str] = []
        self._inside = False

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.handlers += [value for name, value in attributes if name.startswith("on") and value]
        if tag == "script":
            source = dict(attributes).get("src")
            if source:
                self.sources.append(source)
            else:
                self.texts.append("")
                self._inside = True

    def handle_endtag(self, tag: str) -> None:
        self._inside = self._inside and tag != "script"

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.texts[-1] += data


_EVALUATES = "jscolor.min.js"  # reads its options, once, by evaluating them


@lru_cache(maxsize=512)
def content_policy(path: Path, url: str) -> str:
    """The Content-Security-Policy of a task's page: its own scripts by hash and address, and no others.

    Args:
        path: the page's file, which is sent unaltered.
        url: where it is served.
    """
    scripts = _Scripts()
    # A browser hashes what it has parsed, and it has made every line end a plain one by then.
    scripts.feed(_load(path).decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n"))
    scripts.close()
    digests = (hashlib.sha256(text.encode()).digest() for text in (*scripts.texts, *scripts.handlers))
    allowed = [f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests]
    allowed += [urljoin(url, source) for source in scripts.sources]
    if scripts.handlers:
        allowed.append("'unsafe-hashes'")
    if any(source.endswith(_EVALUATES) for source in scripts.sources):
        allowed.append("'unsafe-eval'")
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src {' '.join(dict.fromkeys(allowed)) or chr(39) + 'none' + chr(39)}",
            "style-src 'self' 'unsafe-inline'",
            "img-src 'self' data:",
            "font-src 'self' data:",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'self'",
        )
    )


class _Files(BaseHTTPRequestHandler):
    """GET and HEAD of files below ``folder``, addressed absolutely as proxies are."""

    protocol_version = "HTTP/1.1"
    folder: Path

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if url.hostname != HOST or url.port not in (None, 80):
            self._refuse()
            return
        if self.path == HOST_PAGE:
            self._answer(200, "text/html", b"<!doctype html><title>frames</title><body>")
            return
        path = (self.folder / unquote(url.path).lstrip("/")).resolve()
        if not path.is_relative_to(self.folder.resolve()) or not path.is_file():
            self._answer(404, "text/plain", b"not found")
            return
        kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        is_task = path.parent.name == "miniwob" and path.suffix == ".html"
        policy = content_policy(path, f"http://{HOST}{url.path}") if is_task else None
        self._answer(200, kind, _load(path), policy)

    do_HEAD = do_GET

    def _refuse(self) -> None:
        assert isinstance(self.server, _Server)
        self.server.refused += 1
        self.close_connection = True
        self._answer(403, "text/plain", b"training pages reach no network")

    do_CONNECT = do_POST = do_PUT = do_DELETE = do_OPTIONS = do_PATCH = _refuse

    def _answer(self, status: int, kind: str, body: bytes, policy: str | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind + ("; charset=utf-8" if kind.startswith("text/") else ""))
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "max-age=86400")
        self.send_header("X-Content-Type-Options", "nosniff")
        if policy is not None:
            self.send_header("Content-Security-Policy", policy)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *_arguments: object) -> None:
        """Silence: requests are not news."""
