"""Starts a site for as long as rollouts last, if it does not answer already. Used by site.py only."""

from __future__ import annotations

import ctypes
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO
from urllib.parse import urljoin, urlsplit

from dpo_driver.core.errors import ConfigError
from dpo_driver.envs.website.schema import SiteFile
from dpo_driver.envs.website.tasks import SITE

START_S = 30.0
END_S = 5.0
_PR_SET_PDEATHSIG = 1


@contextmanager
def served(site: SiteFile, folder: Path) -> Iterator[None]:
    """The site answers inside the block. One that was started here is ended with it, and with this process.

    Raises:
        ConfigError: it does not answer, and there is no ``serve``, or what that says does not bring it up.
    """
    ready = urljoin(site.base_url + "/", site.ready)
    if answers(ready):
        yield
        return
    where = str(folder / SITE)
    if site.serve is None:
        raise ConfigError(f"nothing answers at {ready}", where=where,
                          remedy="start the site, or let `serve` say how it is started")  # fmt: skip
    port = urlsplit(site.base_url).port or (443 if site.base_url.startswith("https") else 80)
    words = [word.replace("{port}", str(port)) for word in shlex.split(site.serve)]
    if words[0] in ("python", "python3"):
        words[0] = sys.executable
    with tempfile.TemporaryFile() as log:
        process = _start(words, folder, log, where)
        try:
            _wait(process, ready, log, where)
            yield
        finally:
            _end(process)


def answers(url: str) -> bool:
    """Whether something answers at an address, be it with an error of its own making."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        opener.open(url, timeout=2).close()
    except urllib.error.HTTPError as error:
        error.close()
        return error.code < 500
    except (OSError, ValueError):
        return False
    return True


def _start(words: list[str], folder: Path, log: IO[bytes], where: str) -> subprocess.Popen[bytes]:
    parent = os.getpid()
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None

    def end_with_us() -> None:
        # Between fork and exec: the kernel ends the site when we are killed, even with -9.
        if libc is not None:
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
            if os.getppid() != parent:
                os._exit(1)

    try:
        return subprocess.Popen(
            words, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            preexec_fn=end_with_us,
        )  # fmt: skip
    except OSError as error:
        raise ConfigError(f"the site cannot be started: {error}", where=f"{where}, serve",
                          remedy=f"the command was {shlex.join(words)}, in {folder}") from None  # fmt: skip


def _wait(process: subprocess.Popen[bytes], ready: str, log: IO[bytes], where: str) -> None:
    deadline = time.monotonic() + START_S
    while not answers(ready):
        ended = process.poll()
        if ended is not None or time.monotonic() > deadline:
            log.seek(0)
            said = log.read().decode("utf-8", "replace").strip().splitlines()
            what = f"ended with {ended}" if ended is not None else f"did not answer {ready} within {START_S:g} s"
            last = f"; it said: {said[-1]}" if said else ""
            raise ConfigError(f"the site {what}{last}", where=f"{where}, serve", remedy="start it by hand to see why")
        time.sleep(0.02)


def _end(process: subprocess.Popen[bytes]) -> None:
    for way in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is not None:
            return
        os.killpg(process.pid, way)
        try:
            process.wait(END_S)
        except subprocess.TimeoutExpired:
            continue
