"""Serves the dashboard until it is interrupted: a link, uvicorn. Called by cli/dashboard.py; must not know the command
line."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import uvicorn

from dpo_driver.dashboard.app import WHO, Site
from dpo_driver.dashboard.ledger import Prices
from dpo_driver.dashboard.runs import Runs
from dpo_driver.web.guard import Door
from dpo_driver.web.listen import Listening
from dpo_driver.web.password import Password

PASSWORD = "DPO_DRIVER_DASHBOARD_PASSWORD"
KEEP_ALIVE_S = 75
TLS_ADVICE = (
    "What people send can be read on the way, the password too. Better: keep the server on loopback and let them come "
    "by `ssh -L PORT:127.0.0.1:PORT THIS-MACHINE`; or put a proxy with TLS in front and start this with --origin."
)


def serve(
    runs: Runs,
    listening: Listening,
    *,
    password: Password | None = None,
    prices: Prices | None = None,
    say: Callable[[str], None],
) -> None:
    """Serve until SIGINT or SIGTERM; nothing is written.

    Args:
        runs: what is shown.
        listening: where.
        password: lets people on other machines in.
        prices: of the cost ledger.
        say: told the one-time link once the server takes requests.

    Raises:
        KeyboardInterrupt: it was stopped.
    """
    door = Door()
    app = Site(runs, door, listening.place, password, prices).app
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
        serving = asyncio.create_task(server.serve([listening.socket]))
        while not server.started and not serving.done():
            await asyncio.sleep(0.01)
        if server.started:
            say(f"{listening.address}/open?token={door.token(WHO)}")
        await serving

    with asyncio.Runner(loop_factory=server.config.get_loop_factory()) as runner:
        runner.run(run())
