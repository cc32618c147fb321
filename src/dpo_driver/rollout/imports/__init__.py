"""Files of other recorders, read as intents: ``read(path, "playwright-codegen")``. Nothing in them is executed.

Called by ``dpo-driver collect --import``. A format is a file here and a line in the table. Must not import browsers or
environments.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from dpo_driver.core.errors import DataError, UnknownNameError
from dpo_driver.rollout.imports.browser_use import read as _browser_use
from dpo_driver.rollout.imports.playwright import read as _playwright
from dpo_driver.rollout.intents import Intent, tidy

FORMATS: dict[str, Callable[[str, str], list[Intent]]] = {  # (text, the file's name for messages) -> intents
    "browser-use": _browser_use,
    "playwright-codegen": _playwright,
}


def read(file: Path, form: str) -> list[Intent]:
    """What a file says was done, in order.

    Raises:
        UnknownNameError: there is no such format.
        DataError: the file cannot be read, or says something that is not understood; file and line are named.
    """
    if form not in FORMATS:
        raise UnknownNameError("format of recordings", form, FORMATS)
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"the recording cannot be read: {error}", where=str(file)) from None
    intents = list(tidy(FORMATS[form](text, str(file))))
    if not intents:
        raise DataError("nothing is done in this recording", where=str(file), remedy=f"is it a file of {form}?")
    return intents
