"""A folder of tasks as the rest of the program knows it: its families, their tasks, their experts, and the site itself.

A folder is named by its *place*: ``examples/shop/tasks``, or ``examples/shop/tasks@http://127.0.0.1:9000`` when the
site is somewhere else than ``site.yaml`` says. Listed in core/plugins.py. Must not import the browser.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from dpo_driver.browser.egress import AllowList, parse_url
from dpo_driver.core.actions import ACTIONS
from dpo_driver.core.errors import ConfigError, UnknownNameError
from dpo_driver.core.records import Split, Task
from dpo_driver.envs.website.schema import OFF_BY_DEFAULT, SiteFile
from dpo_driver.envs.website.serve import served
from dpo_driver.envs.website.tasks import Family, read_families, read_site
from dpo_driver.envs.website.visit import Visit

MakeTask = Callable[..., Task]


@dataclass(frozen=True)
class Site:
    """``Site.open("examples/shop/tasks")``."""

    folder: Path
    says: SiteFile
    families: Mapping[str, Family]
    allowed: AllowList

    @classmethod
    def open(cls, place: str) -> Site:
        """Read a folder of tasks.

        Raises:
            ConfigError: the folder or a file in it is missing or wrong; file, line and key are named.
        """
        named, _, base_url = place.partition("@")
        folder = Path(named)
        if not folder.is_dir():
            raise ConfigError("there is no such folder of tasks", where=named, remedy="env.folder names one; "
                              "relative paths start where the command was called")  # fmt: skip
        says = read_site(folder)
        if base_url:
            if parse_url(base_url) is None:
                raise ConfigError("no address of a site", where=place, remedy="write http://HOST:PORT")
            says = says.model_copy(update={"base_url": base_url.rstrip("/")})
        return cls(folder, says, read_families(folder, says), AllowList((says.base_url, *says.allowed)))

    @property
    def origins(self) -> tuple[str, ...]:
        """Scheme, host and port of everything that its pages may reach."""
        return (self.says.base_url, *self.says.allowed)

    @property
    def uploads(self) -> Path | None:
        """The folder of files that an agent may upload."""
        return (self.folder / self.says.uploads).resolve() if self.says.uploads else None

    def allows(self, url: str) -> bool:
        """Whether an agent may open an address."""
        return self.allowed.allows(url)

    def family(self, name: str) -> Family:
        """The family of a name, with or without the site's: ``orders`` or ``shop.orders``.

        Raises:
            UnknownNameError: there is none.
        """
        name = name.removeprefix(f"{self.says.name}.")
        if name not in self.families:
            raise UnknownNameError(f"{self.says.name} task", name, self.families, where=str(self.folder))
        return self.families[name]

    def task(self, name: str, seed: int, split: Split = "train") -> Task:
        """``site.task("orders", 7).id == "shop.orders/7"``."""
        family = self.family(name)
        return Task(
            id=f"{self.says.name}.{family.name}/{seed}",
            env="website",
            name=family.name,
            seed=seed,
            split=split,
            max_steps=family.says.max_steps,
        )

    def actions_of(self, family: Family) -> frozenset[str]:
        """The actions that a task allows."""
        named = family.says.actions or self.says.actions
        return frozenset(named if named is not None else set(ACTIONS) - OFF_BY_DEFAULT)

    def secrets_of(self, family: Family, visit: Visit) -> dict[str, Any]:
        """Which parameters of a visit are secret, with their values.

        Raises:
            ConfigError: one of them is no parameter.
        """
        named = family.says.secrets if family.says.secrets is not None else self.says.secrets
        return {name: family.filled(f"{{{name}}}", visit.parameters, "secrets") for name in named or ()}

    def visit(self, family: Family, seed: int) -> Visit:
        """An episode's line to the site, with the parameters of the seed."""
        return Visit(self.says.base_url, family.name, seed, family.parameters(seed), self.says.call_s)

    @contextmanager
    def running(self) -> Iterator[None]:
        """The site answers for as long as the block lasts; it is started if it does not, and ``serve`` says how.

        Raises:
            ConfigError: it does not answer and cannot be started.
        """
        with served(self.says, self.folder):
            yield


@lru_cache(maxsize=8)
def _site_of(place: str, _changed: tuple[tuple[str, int], ...]) -> Site:
    return Site.open(place)


def _site(place: str) -> Site:
    """The site of a place, read again when a file in its folder has changed."""
    folder = Path(place.partition("@")[0])
    files = sorted(path for path in folder.glob("*") if path.is_file()) if folder.is_dir() else []
    return _site_of(place, tuple((path.name, path.stat().st_mtime_ns) for path in files))


def families(place: str) -> Mapping[str, Family]:
    """The task families of a folder, by name."""
    return _site(place).families


def make_task(place: str) -> MakeTask:
    """What makes the tasks of a folder: ``make_task("examples/shop/tasks")("orders", 7, "test")``."""
    return _site(place).task


def digest(place: str) -> str:
    """16 hex digits over the files of a folder of tasks: what is played follows from them."""
    site = _site(place)
    whole = hashlib.sha256()
    files = [path for path in site.folder.glob("*") if path.is_file()]
    if site.uploads is not None:
        files += [path for path in site.uploads.rglob("*") if path.is_file()]
    for path in sorted(files):
        whole.update(f"{path.name}\0{path.stat().st_size}\0".encode() + path.read_bytes())
    return whole.hexdigest()[:16]


def experts(place: str) -> dict[str, Callable[..., Any]]:
    """The scripted experts of a folder, by task family."""
    return {
        name: family.functions["expert"]
        for name, family in _site(place).families.items()
        if "expert" in family.functions
    }
