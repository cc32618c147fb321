"""Training objectives: one small file each, pure tensor functions over per-token log-probs of completions.

``ALGORITHMS`` maps a name to where its class lives; :func:`load_algorithm` imports it when asked. The engine
(training/engine.py) knows none of them by name. Must not import training, policies or transformers.
"""

from __future__ import annotations

from dataclasses import fields
from importlib import import_module
from typing import TYPE_CHECKING, Any

from dpo_driver.core.errors import ConfigError, UnknownNameError

if TYPE_CHECKING:
    from dpo_driver.algorithms.base import Algorithm

# name -> "module:class"
ALGORITHMS: dict[str, str] = {
    "sft": "dpo_driver.algorithms.sft:Sft",
    "dpo": "dpo_driver.algorithms.dpo:Dpo",
    "nll": "dpo_driver.algorithms.nll:Nll",
}


def algorithm_class(name: str) -> type[Algorithm]:
    """The class behind a name; UnknownNameError lists the known ones."""
    if name not in ALGORITHMS:
        raise UnknownNameError("algorithm", name, ALGORITHMS)
    module, _, attribute = ALGORITHMS[name].partition(":")
    loaded: type[Algorithm] = getattr(import_module(module), attribute)
    return loaded


def option_names(name: str) -> frozenset[str]:
    """The keys that an algorithm understands, such as ``beta``."""
    return frozenset(f.name for f in fields(algorithm_class(name)))  # type: ignore[arg-type]


def load_algorithm(name: str, **options: Any) -> Algorithm:
    """Make an algorithm: ``load_algorithm("dpo", beta=0.05)``.

    Raises:
        UnknownNameError: no such algorithm.
        ConfigError: an option that it does not have.
    """
    known = option_names(name)
    unknown = sorted(set(options) - known)
    if unknown:
        raise ConfigError(f"{name} has no option {unknown[0]!r}", remedy=f"known: {', '.join(sorted(known)) or 'none'}")
    return algorithm_class(name)(**options)
