"""What a machine needs, checked for real: one function per line that ``dpo-driver doctor`` prints.

Each check returns a ``Check`` and never raises: ``run_checks`` is a boundary, where a check that broke becomes an error
line of its own. Called by cli/doctor.py.
"""

from __future__ import annotations

import asyncio
import os
import platform
import shutil
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from dpo_driver.core.errors import DriverError, RolloutFailure

Status = Literal["ok", "warning", "error"]
GIB = 2**30
TESTED_PYTHON = (3, 11)
BROWSER_SECONDS = 60.0
PAGE = "data:text/html,<title>doctor</title><button>really here</button>"

REQUIRED = ("gymnasium", "jinja2", "miniwob", "playwright", "pydantic", "pyyaml", "rich", "typer", "zstandard")
TRAINING = ("torch", "transformers", "peft", "accelerate", "safetensors")
OPTIONAL_KEYS = ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "HF_TOKEN")


@dataclass(frozen=True)
class Check:
    """One line: what was looked at, how it stands, what to do about it. ``seconds`` is how long the look took."""

    name: str
    status: Status
    detail: str
    remedy: str = ""
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def run_checks(run_dir: Path) -> Iterator[Check]:
    """All checks, one after another, each as soon as it is known."""
    checks: tuple[tuple[str, Callable[[], Check]], ...] = (
        ("python", check_python),
        ("packages", check_packages),
        ("torch", check_torch),
        ("chromium", check_chromium),
        ("sandbox", check_sandbox),
        ("shared memory", check_shared_memory),
        ("sqlite", check_sqlite),
        ("memory", check_memory),
        ("disk", lambda: check_disk(run_dir)),
        ("run directory", lambda: check_run_directory(run_dir)),
        ("mlflow", check_mlflow),
        ("api keys", check_api_keys),
    )
    for name, check in checks:
        start = time.perf_counter()
        try:
            found = check()
        except Exception as error:  # noqa: BLE001 - a check that breaks is a finding, the others still run
            found = Check(
                name, "error", f"{type(error).__name__}: {error}", "this check itself failed; please report it"
            )
        yield Check(found.name, found.status, found.detail, found.remedy, round(time.perf_counter() - start, 3))


def verify(run_dir: Path) -> list[Check]:
    """What a run needs before it starts: the same checks without the optional ones. Returns the warnings.

    Raises:
        DriverError: a check failed; it says what to do.
    """
    warnings = []
    needed = (check_packages, check_chromium, check_shared_memory, check_sqlite, check_memory)
    for found in (*(check() for check in needed), check_disk(run_dir), check_run_directory(run_dir)):
        if found.status == "error":
            raise DriverError(f"this machine is not ready: {found.name}: {found.detail}", remedy=found.remedy)
        if found.status == "warning":
            warnings.append(found)
    return warnings


def check_python() -> Check:
    """Older ones cannot even import this; newer ones are not what the pinned packages were tested with."""
    found = f"{platform.python_version()} ({sys.executable})"
    if sys.version_info[:2] != TESTED_PYTHON:
        return Check(
            "python", "warning", f"{found}; tested with 3.11", "if a package fails: PYTHON=python3.11 ./setup.sh"
        )
    return Check("python", "ok", found)


def check_packages() -> Check:
    """The base and the training extra are installed."""
    missing = [name for name in REQUIRED if _version(name) is None]
    if missing:
        return Check("packages", "error", f"missing: {', '.join(missing)}", "run ./setup.sh, or pip install -e .")
    untrained = [name for name in TRAINING if _version(name) is None]
    if untrained:
        remedy = "pip install -e '.[train]'; rollouts and reports work without"
        return Check("packages", "warning", f"no training: {', '.join(untrained)} missing", remedy)
    return Check("packages", "ok", f"playwright {_version('playwright')}, transformers {_version('transformers')}")


def check_torch() -> Check:
    """Version and device; a product of two matrices is really computed there."""
    if _version("torch") is None:
        return Check("torch", "warning", "not installed", "pip install -e '.[train]'")
    import torch

    device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    ones = torch.ones(64, 64, device=device)
    if float((ones @ ones).sum()) != 64.0**3:
        return Check(
            "torch", "error", f"{torch.__version__}: wrong result on {device}", "check the driver and reinstall torch"
        )
    name = torch.cuda.get_device_name() if device == "cuda" else f"{device}, {torch.get_num_threads()} threads"
    if tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2]) < (2, 10):
        remedy = "pip install 'torch>=2.10': the safe loading of older ones was bypassed"
        return Check("torch", "warning", f"{torch.__version__} on {name}", remedy)
    return Check("torch", "ok", f"{torch.__version__} on {name}")


def check_chromium(page: str = PAGE) -> Check:
    """A Chromium is found, starts, and shows a page whose button we can see."""
    from dpo_driver.browser.chromium import find_chromium

    install = "as root: apt-get install chromium; anywhere: playwright install chromium --with-deps"
    try:
        binary = find_chromium()
    except DriverError as error:
        return Check("chromium", "error", error.what, error.remedy or install)
    start = time.perf_counter()
    try:
        seen = asyncio.run(asyncio.wait_for(_open_page(page), BROWSER_SECONDS))
    except TimeoutError:
        return Check("chromium", "error", f"{binary} did not show a page in {BROWSER_SECONDS:.0f} s", install)
    except (DriverError, RolloutFailure, OSError) as error:
        return Check("chromium", "error", f"{binary} does not start: {str(error).splitlines()[0]}", install)
    if "really here" not in seen:
        return Check("chromium", "error", f"{binary} opened a page, but its button was not seen", install)
    return Check("chromium", "ok", f"{binary} opened a page in {time.perf_counter() - start:.1f} s")


async def _open_page(page: str) -> str:
    """The text of a page, through the same launch that rollouts use."""
    from dpo_driver.browser.browser import Browser

    browser = await Browser.launch()
    try:
        session = await browser.new_context()
        await session.goto(page)
        return str(await session.isolated("document.body.innerText"))
    finally:
        await browser.close()


def check_sandbox() -> Check:
    """Chromium's own sandbox does not work for root."""
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        detail = "running as root: Chromium runs without its sandbox"
        return Check(
            "sandbox", "warning", detail, "fine for the bundled pages; use an ordinary account for pages of others"
        )
    restricted = Path("/proc/sys/kernel/unprivileged_userns_clone")
    if restricted.is_file() and restricted.read_text().strip() == "0":
        remedy = "sysctl kernel.unprivileged_userns_clone=1"
        return Check("sandbox", "warning", "user namespaces are off: Chromium may not start with its sandbox", remedy)
    return Check("sandbox", "ok", "Chromium's sandbox can be used")


def check_shared_memory() -> Check:
    """Chromium draws in /dev/shm; a container's 64 MB crash its pages."""
    folder = Path("/dev/shm")
    if not folder.is_dir():
        return Check("shared memory", "ok", "no /dev/shm on this system")
    total = shutil.disk_usage(folder).total
    if total < 256 * 2**20:
        remedy = "start the container with --shm-size=1g"
        return Check("shared memory", "warning", f"/dev/shm has {total / 2**20:.0f} MB: pages may crash", remedy)
    return Check("shared memory", "ok", f"/dev/shm has {total / GIB:.1f} GB")


def check_sqlite() -> Check:
    """WAL really works; the version is named because 3.7.0 - 3.51.2 can lose a WAL reset with two writers."""
    found = sqlite3.sqlite_version
    with tempfile.TemporaryDirectory() as folder:
        connection = sqlite3.connect(Path(folder) / "doctor.db")
        try:
            mode = connection.execute("PRAGMA journal_mode=WAL").fetchone()[0]
        finally:
            connection.close()
    if mode != "wal":
        return Check(
            "sqlite", "error", f"{found} cannot use a write-ahead log here", "keep runs and TMPDIR on a local disk"
        )
    if (3, 7, 0) <= sqlite3.sqlite_version_info <= (3, 51, 2):
        return Check("sqlite", "ok", f"{found}, WAL works; its WAL-reset bug needs two writers, a run has one")
    return Check("sqlite", "ok", f"{found}, WAL works")


def check_memory() -> Check:
    """The pocket run needs about 3 GB."""
    meminfo = Path("/proc/meminfo")
    if not meminfo.is_file():
        return Check("memory", "ok", "not measured on this system")
    fields = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
    available = int(fields["MemAvailable"].split()[0]) * 1024
    if available < 3 * GIB:
        return Check("memory", "warning", f"{available / GIB:.1f} GB available", "close programs or lower env.workers")
    return Check("memory", "ok", f"{available / GIB:.1f} GB available, {os.cpu_count()} cores")


def check_disk(run_dir: Path) -> Check:
    """Room for a run: weights, screenshots, checkpoints."""
    free = shutil.disk_usage(_existing(run_dir)).free
    detail = f"{free / GIB:.1f} GB free at {_existing(run_dir)}"
    if free < GIB:
        return Check("disk", "error", detail, "free some space, or point project.run_dir elsewhere")
    if free < 5 * GIB:
        return Check(
            "disk", "warning", detail, "a pocket run takes about 1 GB; a 4B model with checkpoints more than this"
        )
    return Check("disk", "ok", detail)


def check_run_directory(run_dir: Path) -> Check:
    """A file can be written, flushed to disk and renamed there."""
    folder = _existing(run_dir)
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".doctor-", delete=False) as file:
            file.write(b"x")
            file.flush()
            os.fsync(file.fileno())
        renamed = Path(file.name).with_suffix(".renamed")
        os.replace(file.name, renamed)
        renamed.unlink()
    except OSError as error:
        remedy = "change the owner of the folder, or set project.run_dir"
        return Check("run directory", "error", f"{folder}: {error.strerror or error}", remedy)
    return Check("run directory", "ok", f"{run_dir} can be written")


def check_mlflow() -> Check:
    """An experiment can be made in a sqlite store and read back."""
    if _version("mlflow") is None:
        remedy = "pip install -e '.[tracking]', or set tracking.mlflow=false"
        return Check("mlflow", "warning", "not installed: runs are not tracked", remedy)
    from dpo_driver.tracking import open_client

    with tempfile.TemporaryDirectory() as folder:
        client = open_client(folder)
        number = client.create_experiment("doctor", artifact_location=f"{folder}/artifacts")
        if client.get_experiment(number).name != "doctor":
            return Check("mlflow", "error", "what was written cannot be read back", "reinstall mlflow")
    return Check("mlflow", "ok", f"{_version('mlflow')} on sqlite")


def check_api_keys() -> Check:
    """Which optional keys are set. Their values are never shown."""
    found = [name for name in OPTIONAL_KEYS if os.environ.get(name)]
    missing = [name for name in OPTIONAL_KEYS if name not in found]
    detail = f"set: {', '.join(found) or 'none'}; not set (optional): {', '.join(missing) or 'none'}"
    return Check("api keys", "ok", detail)


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    folder = folder.absolute()
    while not folder.is_dir():
        folder = folder.parent
    return folder


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
