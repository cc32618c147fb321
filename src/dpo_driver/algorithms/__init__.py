"""Training objectives: one small file each, pure tensor functions over per-token log-probs of completions.

``ALGORITHMS`` maps a name to where its class lives; :func:`load_algorithm` imports it when asked. The engine
(training/engine.py) knows none of them by name. Must not import training, policies or transformers.
"""

from __future__ import annotations

from dataclasses import fields
from importlib import import_module
from typing import Any

from dpo_driver.core.errors import ConfigError, UnknownNameError

# name -> "module:class"
ALGORITHMS: dict[str, str] = {
    "sft": "dpo_driver.algorithms.sft:Sft",
    "dpo": "dpo_driver.algorithms.dpo:Dpo",
    "nll": "dpo_driver.algorithms.nll:Nll",
}
# Those that learn from their own rollouts (algorithms/rollouts.py).
ONLINE_ALGORITHMS: dict[str, str] = {
    "grpo": "dpo_driver.algorithms.grpo:Grpo",
    "rloo": "dpo_driver.algorithms.rloo:Rloo",
    "reinforce_pp": "dpo_driver.algorithms.reinforce_pp:ReinforcePp",
}


def algorithm_class(name: str) -> type[Any]:
    """The class behind a name; UnknownNameError lists the known ones."""
    known = ALGORITHMS | ONLINE_ALGORITHMS
    if name not in known:
        raise UnknownNameError("algorithm", name, known)
    module, _, attribute = known[name].partition(":")
    loaded: type[Any] = getattr(import_module(module), attribute)
    return loaded


def option_names(name: str) -> frozenset[str]:
    """The keys that an algorithm understands, such as ``beta``."""
    return frozenset(f.name for f in fields(algorithm_class(name)))


def load_algorithm(name: str, **options: Any) -> Any:
    """Make an :class:`~dpo_driver.algorithms.base.Algorithm`, or an online one: ``load_algorithm("dpo", beta=0.05)``.

    Raises:
        UnknownNameError: no such algorithm.
        ConfigError: an option that it does not have.
    """
    known = option_names(name)
    unknown = sorted(set(options) - known)
    if unknown:
        raise ConfigError(f"{name} has no option {unknown[0]!r}", remedy=f"known: {', '.join(sorted(known)) or 'none'}")
    return algorithm_class(name)(**options)
