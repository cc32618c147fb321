"""What the page's sealed script sends, read with care: JSON text -> Signal. Used by channel.py and visit.py.

A signal names parts by the tokens that the page knows; visit.py turns it into an event of the puzzle.
"""

from __future__ import annotations

import dataclasses
import hmac
import json
import math
from collections.abc import Mapping
from typing import Any

KINDS = frozenset("click dblclick contextmenu pointerdown pointerup pointermove keydown keyup wheel input drop".split())
MAX_CHARS = 2_000  # of one text
MAX_FIELDS = 50


@dataclasses.dataclass(frozen=True)
class Signal:
    """One trusted input. ``part``, ``field`` and ``source`` are tokens; ``fields`` maps tokens to trusted text.
    ``tainted`` names fields (or ``"value"``) whose content a script had a hand in: their text does not count."""

    kind: str
    part: str = ""
    field: str = ""
    source: str = ""
    x: float = 0.0
    y: float = 0.0
    width: float = 0.0
    height: float = 0.0
    button: int = 0
    key: str = ""
    value: str = ""
    delta: float = 0.0
    scroll: float = 0.0
    fields: Mapping[str, str] = dataclasses.field(default_factory=dict)
    tainted: frozenset[str] = frozenset()


def read_signal(message: str, seal: str | None = None) -> Signal | None:
    """None for what the sealed script would not have sent.

    Args:
        seal: what each of its messages carries; None: not asked for.
    """
    try:
        given = json.loads(message)
    except (ValueError, RecursionError):
        return None
    if not isinstance(given, dict) or given.get("kind") not in KINDS:
        return None
    if seal is not None and not hmac.compare_digest(_text(given.get("seal")).encode(errors="replace"), seal.encode()):
        return None
    values: dict[str, Any] = {"kind": given["kind"]}
    for name in ("part", "field", "source", "key", "value"):
        values[name] = _text(given.get(name))
    for name in ("x", "y", "width", "height", "delta", "scroll"):
        values[name] = _number(given.get(name))
    values["button"] = int(_number(given.get("button")))
    tainted = given.get("tainted")
    values["tainted"] = frozenset(map(str, tainted)) if isinstance(tainted, dict) else frozenset()
    fields = given.get("fields")
    if isinstance(fields, dict) and len(fields) <= MAX_FIELDS:
        values["fields"] = {n: "" if n in values["tainted"] else _text(text) for n, text in fields.items()}
    if "value" in values["tainted"]:
        values["value"] = ""
    return Signal(**values)


def _text(given: object) -> str:
    return given[:MAX_CHARS] if isinstance(given, str) else ""


def _number(given: object) -> float:
    if isinstance(given, bool) or not isinstance(given, int | float) or not math.isfinite(given):
        return 0.0
    return float(given)
