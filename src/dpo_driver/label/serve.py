"""Serves the label page until it is interrupted: links, uvicorn. Called by cli/label.py; must not know the command
line."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Sequence

import uvicorn

from dpo_driver.label.app import Site
from dpo_driver.label.views import Views
from dpo_driver.label.work import Labelling
from dpo_driver.web.guard import Door
from dpo_driver.web.listen import Listening
from dpo_driver.web.password import Password

PASSWORD = "DPO_DRIVER_LABEL_PASSWORD"
KEEP_ALIVE_S = 75
TLS_ADVICE = (
    "What raters send can be read on the way, the password too. Better: keep the server on loopback and let them come "
    "by `ssh -L PORT:127.0.0.1:PORT THIS-MACHINE`; or put a proxy with TLS in front (for example `caddy reverse-proxy "
    "--from label.example.org --to 127.0.0.1:PORT`) and start this with --origin https://label.example.org."
)


def serve(
    work: Labelling,
    views: Views,
    listening: Listening,
    raters: Sequence[str],
    *,
    password: Password | None = None,
    say: Callable[[dict[str, str]], None],
) -> None:
    """Serve until SIGINT or SIGTERM; what was acknowledged is on disk.

    Args:
        raters: each gets a one-time link.
        password: lets raters on other machines in.
        say: told the links, by rater, once the server takes requests.

    Raises:
        KeyboardInterrupt: it was stopped.
    """
    door = Door()
    app = Site(work, views, door, listening.place, password).app
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
        async with work:
            serving = asyncio.create_task(server.serve([listening.socket]))
            while not server.started and not serving.done():
                await asyncio.sleep(0.01)
            gc.collect()
            gc.freeze()  # the log's comparisons stay: looking through them again and again would hold up answers
            if server.started:
                say({rater: f"{listening.address}/open?token={door.token(rater)}" for rater in raters})
            await serving

    with asyncio.Runner(loop_factory=server.config.get_loop_factory()) as runner:
        runner.run(run())
