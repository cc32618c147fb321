"""The result of an audit in lines of text. Used by cli/gauntlet.py."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def lines(result: Mapping[str, Any]) -> Iterator[str]:
    """What was tried, what leaked and how to see it again, and what is reported apart."""
    width = max((len(name) for name in result["by_attack"]), default=10)
    for name, one in result["by_attack"].items():
        yield f"{name:<{width}}  {one['tries']:>7} tries  {one['leaks']:>3} leaks"
    for family, apart in result["apart"].items():
        yield f"apart, {family} ({apart['why']}):"
        for name, one in apart["by_attack"].items():
            yield f"{name:<{width}}  {one['tries']:>7} tries  {one['gains']:>3} got through"
    for name, value in result["figures"].items():
        yield f"{name}: {value:.3g}" if isinstance(value, float) else f"{name}: {value}"
    for leak in result["found"]:
        yield f"LEAK {leak['attack']} on {leak['type']}: {leak['what']}"
        yield f"     tried: {leak['tries']}"
        yield f"     again: {leak['again']}"
    for failure in result["failures"]:
        yield f"NOT TRIED {failure['attack'] or 'all'} on {failure['type']}: {failure['error']}"
    yield (
        f"{result['attempts']} attempts on {result['types']} types, seeds {result['seeds']}: {result['leaks']} leaks, "
        f"{result['failed']} attacks could not be made, {result['seconds']} s"
    )
