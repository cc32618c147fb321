"""What all pages of reports share: their templates' environment, and files that appear whole or not at all.

Called by page.py and sweep.py. Must not import torch, playwright or mlflow.
"""

from __future__ import annotations

import os
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from dpo_driver.core.errors import StoreError
from dpo_driver.report import words

HERE = Path(__file__).resolve().parent


def templates() -> Environment:
    """Everything is escaped, nothing may be undefined, and numbers read alike on every page."""
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    shared = ("percent", "points", "interval", "p_value", "duration", "stop_name")
    environment.filters |= {name: getattr(words, name) for name in shared}
    return environment


def write_whole(target: Path, text: str) -> Path:
    """Write a text file that is there whole or as it was before; returns its path.

    Raises:
        StoreError: it cannot be written.
    """
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise StoreError(
            f"the report cannot be written: {error.strerror}", where=str(target), remedy="check space and permissions"
        ) from error
    return target
