"""DPO-Driver trains small browser agents from what the browser itself reports.

Importing the package loads neither torch nor playwright: ask for what you need from its module, for example
``from dpo_driver.core.config import load_config``. It does make our environments known to gymnasium, once a program
imports that: ``gymnasium.make("dpo_driver/miniwob.click-button")``. What programs of others call is here by its name:
``collect_preference`` says which of two answers is better, ``record_episode`` what an agent did and what came of it,
``record_feedback`` more of that later; ``train_dpo_adapter`` trains a role in the background, and so on.
"""

from typing import TYPE_CHECKING, Any

from dpo_driver.envs.gym_hook import install

if TYPE_CHECKING:
    from dpo_driver.flywheel.inbox import record_episode
    from dpo_driver.flywheel.learn.api import (
        get_dpo_status,
        get_preference_data_path,
        get_training_status,
        record_feedback,
        should_run_dpo_training,
        train_dpo_adapter,
    )
    from dpo_driver.preferences.collect import collect_preference

_LEARN = (
    "get_dpo_status", "get_preference_data_path", "get_training_status", "record_feedback", "should_run_dpo_training",
    "train_dpo_adapter",
)  # fmt: skip
__all__ = [
    "__version__",
    "collect_preference",
    "get_dpo_status",
    "get_preference_data_path",
    "get_training_status",
    "record_episode",
    "record_feedback",
    "should_run_dpo_training",
    "train_dpo_adapter",
]
__version__ = "0.1.0"

install()


def __getattr__(name: str) -> Any:
    """What is named in ``__all__``, loaded when it is first asked for."""
    if name == "collect_preference":
        from dpo_driver.preferences.collect import collect_preference

        return collect_preference
    if name == "record_episode":
        from dpo_driver.flywheel.inbox import record_episode

        return record_episode
    if name in _LEARN:
        from dpo_driver.flywheel.learn import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
