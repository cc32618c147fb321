"""Serves MiniWoB++'s pages, and is the only thing those pages can reach.

A small HTTP proxy on loopback: a browser context that uses it as its gateway sees one host, ``miniwob.test``, whose
files come from the installed ``miniwob`` package; every other address is refused here, loopback included. The
made-up host keeps addresses equal from run to run. Called by envs/miniwob/environment.py. Must not import the
browser.
"""

from __future__ import annotations

import mimetypes
import sys
import threading
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote, urlsplit

from dpo_driver.core.errors import DataError

HOST = "miniwob.test"
BASE_URL = f"http://{HOST}/miniwob/"


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
    refused = 0

    def handle_error(self, request: object, client_address: object) -> None:
        """A browser that dies or closes a page drops its connections; that is no error of ours."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


@lru_cache(maxsize=512)
def _load(path: Path) -> bytes:
    return path.read_bytes()


class _Files(BaseHTTPRequestHandler):
    """GET and HEAD of files below ``folder``, addressed absolutely as proxies are."""

    protocol_version = "HTTP/1.1"
    folder: Path

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if url.hostname != HOST or url.port not in (None, 80):
            self._refuse()
            return
        path = (self.folder / unquote(url.path).lstrip("/")).resolve()
        if not path.is_relative_to(self.folder.resolve()) or not path.is_file():
            self._answer(404, "text/plain", b"not found")
            return
        self._answer(200, mimetypes.guess_type(path.name)[0] or "application/octet-stream", _load(path))

    do_HEAD = do_GET

    def _refuse(self) -> None:
        assert isinstance(self.server, _Server)
        self.server.refused += 1
        self.close_connection = True
        self._answer(403, "text/plain", b"training pages reach no network")

    do_CONNECT = do_POST = do_PUT = do_DELETE = do_OPTIONS = do_PATCH = _refuse

    def _answer(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind + ("; charset=utf-8" if kind.startswith("text/") else ""))
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "max-age=86400")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *_arguments: object) -> None:
        """Silence: requests are not news."""
