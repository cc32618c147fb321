"""DPO-Driver trains small browser agents from what the browser itself reports.

Importing the package loads neither torch nor playwright: ask for what you need from its module, for example
``from dpo_driver.core.config import load_config``. The names of the older Python face are found here on first use.
"""

from __future__ import annotations

__version__ = "0.1.0"
