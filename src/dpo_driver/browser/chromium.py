"""Where Chromium is and with which switches it starts. Called by browser/browser.py and ``dpo-driver doctor``.

Order: the environment variable ``DPO_DRIVER_CHROMIUM``, the system's ``chromium-headless-shell`` (about 1.7x faster
than the full browser for page work), the system's ``chromium``, then what ``playwright install chromium``
downloaded. Must not import playwright: looking for the browser costs nothing.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from dpo_driver.core.errors import BrowserMissingError

ENVIRONMENT_VARIABLE = "DPO_DRIVER_CHROMIUM"
SYSTEM_NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
HEAP_MB = 512  # of JavaScript objects in a page; what else a page may hold is bounded by browser/watchdog.py
# Newest first within each pattern; the shell before the full browser.
PLAYWRIGHT_PATTERNS = (
    "chromium_headless_shell-*/*/headless_shell",
    "chromium_headless_shell-*/*/chrome-headless-shell",
    "chromium-*/*/chrome",
)


def find_chromium(*, headed: bool = False) -> Path:
    """Path of the browser to start; ``headed``: one that can open a window.

    Raises:
        BrowserMissingError: nothing is installed, or the environment variable names no executable file.
    """
    named = os.environ.get(ENVIRONMENT_VARIABLE)
    if named:
        if not os.access(named, os.X_OK) or Path(named).is_dir():
            remedy = f"point {ENVIRONMENT_VARIABLE} at a Chromium executable, or unset it"
            raise BrowserMissingError("the named browser is not an executable file", where=named, remedy=remedy)
        return Path(named)
    for name in SYSTEM_NAMES:
        if not (headed and "headless" in name) and (found := shutil.which(name)):
            return Path(found)
    for pattern in PLAYWRIGHT_PATTERNS:
        if headed and "headless" in pattern:
            continue
        for path in sorted(_playwright_folder().glob(pattern), reverse=True):
            if os.access(path, os.X_OK):
                return path
    raise BrowserMissingError(
        "no Chromium found",
        remedy="run ./setup.sh, or `apt-get install chromium-headless-shell`, or `playwright install chromium`; "
        f"{ENVIRONMENT_VARIABLE} may name one",
    )


def _playwright_folder() -> Path:
    named = os.environ.get("PLAYWRIGHT_BROWSERS_PATH")
    return Path(named) if named else Path.home() / ".cache" / "ms-playwright"


def runs_as_root() -> bool:
    """Chromium's sandbox refuses to run as root; only then is it switched off."""
    return hasattr(os, "geteuid") and os.geteuid() == 0


def launch_switches(owner_switch: str) -> list[str]:
    """Switches beside Playwright's own. Pages reach only what a context's proxy lets through: names resolve to nothing,
    and WebRTC may not go round the proxy."""
    return [
        owner_switch,
        f"--js-flags=--max-old-space-size={HEAP_MB}",
        "--disable-gpu",
        "--disable-background-networking",
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
        "--webrtc-ip-handling-policy=disable_non_proxied_udp",
        "--force-webrtc-ip-handling-policy=disable_non_proxied_udp",
    ]
