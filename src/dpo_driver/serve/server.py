"""The serving process: socket, models from the registry, and whom its aliases mean, looked up while it serves.

Called by cli/serve.py; must not know the command line.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import uvicorn

from dpo_driver.core.errors import ConfigError, DriverError
from dpo_driver.flywheel.inbox import Inbox
from dpo_driver.registry import ALIASES, Registry
from dpo_driver.serve.app import Site
from dpo_driver.serve.backend import VLLM, Backend, Local
from dpo_driver.serve.engine import Engine
from dpo_driver.serve.health import Health
from dpo_driver.serve.limits import Limits, Tokens
from dpo_driver.serve.metrics import Metrics
from dpo_driver.serve.routing import BASE, CHAMPION, PREVIOUS, Router, Split
from dpo_driver.web.listen import LOOPBACK, is_loopback, listen

REFRESH_S = 2.0  # between two looks at the registry


@dataclass(frozen=True)
class Settings:
    """How to serve.

    ``models``: name -> folder, hub id or registered version, loaded before the first request; ``project``: whose
    aliases count, needed where several have a champion; ``vllm``: address of a vLLM server, "" to decode here.
    """

    root: Path = Path("runs")
    models: Mapping[str, str] = field(default_factory=dict)
    project: str | None = None
    host: str = LOOPBACK
    port: int = 0
    tokens: tuple[str, ...] = ()
    split: Split | None = None
    shadow: str = ""
    limits: Limits = field(default_factory=Limits)
    device: str = "auto"
    dtype: str = "auto"
    max_length: int = 8192
    vllm: str = ""
    vllm_key: str = ""


def new_token() -> str:
    """A token for those who bring none."""
    return secrets.token_urlsafe(24)


def serve(settings: Settings, *, say: Callable[[str], None], log: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM.

    Args:
        say: told the address, once requests are taken.
        log: told a line for each request.

    Raises:
        ConfigError: others could connect without a token, or the port is taken. ModelError: a model cannot be loaded.
        KeyboardInterrupt: it was stopped.
    """
    if not is_loopback(settings.host) and not settings.tokens:
        raise ConfigError("others could connect, and there is no token", where=f"--host {settings.host}",
                          remedy="set DPO_DRIVER_SERVE_TOKEN, and put a proxy with TLS in front")  # fmt: skip
    # The tokens are the guard here: a Host header proves nothing to programs.
    bound = listen(settings.host, settings.port, has_password=True, page="serve")
    with Inbox(settings.root) as inbox, contextlib.closing(bound.socket):
        asyncio.run(_serve(settings, inbox, bound.socket, bound.address, say, log))


async def _serve(
    settings: Settings, inbox: Inbox, socket: object, address: str, say: Callable[[str], None],
    log: Callable[[str], None],
) -> None:  # fmt: skip
    metrics, health = Metrics(), Health()
    router = Router(health, settings.split)
    backend = await _backend(settings, metrics)
    watch = Aliases(settings, backend, router, log)
    try:
        await watch.begin()
        site = Site(backend, router, health, inbox, Tokens(settings.tokens), settings.limits, metrics=metrics,
                    shadow=settings.shadow, log=log)  # fmt: skip
        server = uvicorn.Server(
            uvicorn.Config(
                site.app,
                log_config=None,
                access_log=False,
                lifespan="off",
                ws="none",
                server_header=False,
                date_header=False,
                proxy_headers=False,
                timeout_graceful_shutdown=5,
            )
        )
        serving = asyncio.create_task(server.serve([socket]))  # type: ignore[list-item]
        looking = asyncio.create_task(watch.go_on())
        try:
            while not server.started and not serving.done():
                await asyncio.sleep(0.01)
            if server.started:
                say(address)
            await serving
        finally:
            looking.cancel()
            await site.close()
    finally:
        await backend.close()


async def _backend(settings: Settings, metrics: Metrics) -> Backend:
    if settings.vllm:
        remote = VLLM(settings.vllm, settings.vllm_key)
        await remote.refresh()
        return remote
    from dpo_driver.serve.models import Shelf

    shelf = Shelf(device=settings.device, dtype=settings.dtype, max_length=settings.max_length)
    return Local(shelf, Engine(lambda rows: metrics.rows.observe(rows)))


class Aliases:
    """Keeps the router's aliases as the registry has them; loads what they mean before they mean it."""

    def __init__(self, settings: Settings, backend: Backend, router: Router, log: Callable[[str], None]) -> None:
        self._settings, self._backend, self._router, self._log = settings, backend, router, log
        self._registry = Registry(settings.root, settings.project)
        self._known = (settings.root / "mlflow.db").is_file()
        self._wanted = {CHAMPION, PREVIOUS, settings.shadow, *(settings.split.shares if settings.split else ())}
        self._auto: set[str] = set()
        self._troubled = ""

    async def begin(self) -> None:
        """Load what the settings name, then what the aliases mean.

        Raises:
            ModelError: one cannot be loaded.
            ConfigError: there is nothing to serve.
        """
        for name, source in self._settings.models.items():
            folder = source
            if self._known and not Path(source).is_dir() and (found := self._registry.find(source)) is not None:
                self._registry.verify(found)
                folder = found.path
            await self._backend.load(name, folder)
            if name == BASE:
                self._router.aliases[BASE] = BASE
        if self._known:
            await self._look()
        if not self._backend.names():
            raise ConfigError("there is nothing to serve: no champion, and no model was named",
                              where=str(self._settings.root),
                              remedy="name one: dpo-driver serve --model base=pocket")  # fmt: skip

    async def go_on(self) -> None:
        """Look again and again; what goes wrong is logged, and the aliases stay as they were."""
        while True:
            await asyncio.sleep(REFRESH_S)
            try:
                self._known = self._known or (self._settings.root / "mlflow.db").is_file()
                if self._known:
                    await self._look()
                self._troubled = ""
            except DriverError as error:
                if str(error) != self._troubled:  # once, not every two seconds
                    self._log(f"the registry's aliases could not be followed: {error}")
                self._troubled = str(error)

    async def _look(self) -> None:
        found = await asyncio.to_thread(self._registry.aliases)
        plain = _plain(found, self._settings.project)
        for alias, version in plain.items():
            if alias.rpartition("@")[2] in self._wanted and version not in self._backend.names():
                checked = await asyncio.to_thread(self._registry.load, version)
                await self._backend.load(version, checked.path)
                self._auto.add(version)
                self._log(f"loaded {version}")
        moved = {alias: version for alias, version in plain.items() if version in self._backend.names()}
        gone = [alias for alias in self._router.aliases if alias != BASE and alias not in moved]
        for alias, version in moved.items():
            if self._router.aliases.get(alias) != version:
                self._log(f"{alias} is {version}")
        self._router.aliases |= moved
        for alias in gone:
            del self._router.aliases[alias]
        for version in self._auto - set(self._router.aliases.values()):
            self._auto.discard(version)
            await self._backend.unload(version)
            self._log(f"unloaded {version}")


def _plain(found: Mapping[str, str], project: str | None) -> dict[str, str]:
    """Aliases by their full names, and by the short ones where only one project has them."""
    holders: dict[str, list[str]] = {}
    for full in found:
        model, _, alias = full.rpartition("@")
        if project in (None, model):
            holders.setdefault(alias, []).append(full)
    short: dict[str, str] = {
        alias: found[full[0]] for alias, full in holders.items() if len(full) == 1 and alias in ALIASES
    }
    return {**found, **short} if project is None else {**short, **{f: v for f, v in found.items()
                                                                   if f.startswith(f"{project}@")}}  # fmt: skip


def parse_models(given: Sequence[str]) -> dict[str, str]:
    """``["base=pocket", "mine=runs/x/models/dpo-1"]`` as a mapping; a bare name stands for itself.

    Raises:
        ConfigError: a name comes twice.
    """
    found: dict[str, str] = {}
    for each in given:
        name, equals, source = each.partition("=")
        if not name or name in found:
            raise ConfigError(f"{each!r} names no model, or one twice", where="--model",
                              remedy="write --model NAME=FOLDER")  # fmt: skip
        found[name] = source if equals else name
    return found
