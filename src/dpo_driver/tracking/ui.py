"""MLflow's own pages on loopback: ``dpo-driver ui``."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

from dpo_driver.core.errors import ConfigError
from dpo_driver.tracking.client import ARTIFACTS, DATABASE, offline_environment, tracking_uri

UI_END_S = 5.0


def ui_command(root: str | Path, port: int) -> list[str]:
    """The server's command line: one worker, loopback, this root's database and artifacts.

    Raises:
        ConfigError: there is nothing to show, or the port is taken.
    """
    root = Path(root).resolve()
    if not (root / DATABASE).is_file():
        raise ConfigError(
            "nothing has been tracked here",
            where=str(root / DATABASE),
            remedy="start a run first, or name its folder: --root",
        )
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise ConfigError(
                f"port {port} is not free: {error.strerror}",
                where=f"127.0.0.1:{port}",
                remedy=f"stop what listens there, or choose another: dpo-driver ui --port {port % 65_535 + 1}",
            ) from None
    return [
        *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
        *("--backend-store-uri", tracking_uri(root), "--default-artifact-root", str(root / ARTIFACTS)),
        *("--no-serve-artifacts", "--allowed-hosts", f"127.0.0.1:{port},localhost:{port}"),
        *("--cors-allowed-origins", f"http://127.0.0.1:{port}"),
    ]


def open_ui(root: str | Path, port: int = 5000) -> int:
    """Serve MLflow's pages on 127.0.0.1 until Ctrl-C; returns the server's exit status.

    Raises:
        ConfigError: nothing was tracked, or the port is taken.
    """
    command = ui_command(root, port)
    print(f"MLflow: http://127.0.0.1:{port}  (Ctrl-C stops it)", file=sys.stderr, flush=True)
    # The server starts workers of its own: a group of its own lets all of them end together, also when we are told to.
    server = subprocess.Popen(command, env=os.environ | offline_environment(), start_new_session=True)
    earlier = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return server.wait()
    except KeyboardInterrupt:
        return 0
    finally:
        signal.signal(signal.SIGTERM, earlier)
        _end_group(server)


def _end_group(server: subprocess.Popen[bytes]) -> None:
    for sign in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(server.pid, sign)
            server.wait(UI_END_S)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue
