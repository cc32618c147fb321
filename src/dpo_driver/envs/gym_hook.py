"""Makes our ids known to gymnasium whichever of the two is imported first; ``import dpo_driver`` calls ``install``.

Gymnasium (1.0 and later) looks for no plug-ins by itself, and importing it here would cost every command a quarter
of a second. So the registration waits until a program imports gymnasium. Must not import envs/gym.py.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType

from dpo_driver.core.plugins import load

NAMESPACE = "dpo_driver"
_TARGET = "gymnasium"


class _AfterImport(MetaPathFinder):
    """Finds gymnasium as everyone else would, and registers our ids once it has been loaded."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != _TARGET:
            return None
        sys.meta_path.remove(self)
        spec = find_spec(fullname)
        if spec is not None and spec.loader is not None:
            load = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                load(module)
                register()

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def install() -> None:
    """Register now if gymnasium is loaded, else as soon as it is. Calling it again changes nothing."""
    if _TARGET in sys.modules:
        register()
    elif not any(isinstance(finder, _AfterImport) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AfterImport())


def register() -> None:
    """Make all families of MiniWoB++ and of the gauntlet known to gymnasium. envs/gym.py itself is imported when one of
    them is made: it may be the very module whose import of gymnasium brought us here."""
    import gymnasium

    for environment in ("miniwob", "gauntlet"):
        for name, spec in load("tasks", environment).items():
            env_id = f"{NAMESPACE}/{environment}.{name}"
            if env_id not in gymnasium.registry:
                gymnasium.register(
                    env_id,
                    entry_point="dpo_driver.envs.gym:BrowserEnv",
                    kwargs={"task": name, "environment": environment},
                    max_episode_steps=spec.max_steps,
                )
