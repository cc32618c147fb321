"""DPO-Driver trains small browser agents from what the browser itself reports.

Importing the package loads neither torch nor playwright: ask for what you need from its module, for example
``from dpo_driver.core.config import load_config``. It does make our environments known to gymnasium, once a program
imports that: ``gymnasium.make("dpo_driver/miniwob.click-button")``.
"""

from dpo_driver.envs.gym_hook import install

__version__ = "0.1.0"

install()
