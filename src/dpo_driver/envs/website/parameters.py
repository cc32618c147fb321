"""Seeded parameters and the texts that they are filled into. Equal seed, equal parameters.

Each parameter has a stream of random numbers of its own, so that adding one to a task leaves the others as they were.
Used by envs/website only. Must not import the browser.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

from dpo_driver.core.errors import ConfigError
from dpo_driver.envs.website.schema import Parameter

_FIELD = re.compile(r"\{\{|\}\}|\{([A-Za-z_][\w.]*)\}")
Parameters = dict[str, Any]


class Unfilled(Exception):
    """A text names a parameter that there is not; the message is its name."""


class Unknown(dict[str, Any]):
    """Stands for a parameter that only the site can give: every part of it is there."""

    def __contains__(self, _key: object) -> bool:
        return True

    def __getitem__(self, _key: str) -> Unknown:
        return self


def fill(value: Any, parameters: Mapping[str, Any]) -> Any:
    """``fill("{n} of {person.name}", {...})``; lists and mappings are filled inside. A text that is one field alone
    becomes the parameter itself, with its type. ``{{`` and ``}}`` are braces.

    Raises:
        Unfilled: no such parameter.
    """
    if isinstance(value, str):
        alone = _FIELD.fullmatch(value)
        if alone and alone[1]:
            return _look_up(alone[1], parameters)
        return _FIELD.sub(lambda field: _written(field, parameters), value)
    if isinstance(value, Mapping):
        return {fill_text(str(key), parameters): fill(inner, parameters) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [fill(inner, parameters) for inner in value]
    return value


def fill_text(text: str, parameters: Mapping[str, Any]) -> str:
    """The same, as text."""
    return _FIELD.sub(lambda field: _written(field, parameters), text)


def _written(field: re.Match[str], parameters: Mapping[str, Any]) -> str:
    if not field[1]:
        return field[0][0]
    value = _look_up(field[1], parameters)
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _look_up(dotted: str, parameters: Mapping[str, Any]) -> Any:
    value: Any = parameters
    for part in dotted.split("."):
        if isinstance(value, list | tuple) and part.isdigit() and int(part) < len(value):
            value = value[int(part)]
        elif isinstance(value, Mapping) and part in value:
            value = value[part]
        else:
            raise Unfilled(dotted)
    return value


def draw(parameters: Mapping[str, Parameter], family: str, seed: int, folder: Path) -> Parameters:
    """The parameters of one seed, in the order of the file.

    Raises:
        ConfigError: a file of values is missing or too short.
        Unfilled: a ``text`` names a parameter that is not above it.
    """
    drawn: Parameters = {"seed": seed}
    for name, parameter in parameters.items():
        drawn[name] = _draw_one(parameter, random.Random(f"{family}/{seed}/{name}"), drawn, folder)
    return drawn


def _draw_one(parameter: Parameter, rng: random.Random, drawn: Parameters, folder: Path) -> Any:
    if parameter.choice is not None:
        return rng.choice(parameter.choice)
    if parameter.range is not None:
        return _from_range(parameter.range, rng)
    if parameter.file is not None:
        return rng.choice(lines_of(folder / parameter.file))
    if parameter.sample is not None:
        source = parameter.sample.from_
        values = lines_of(folder / source) if isinstance(source, str) else list(source)
        if len(values) < parameter.sample.count:
            where = str(folder / source) if isinstance(source, str) else None
            raise ConfigError(f"a sample of {parameter.sample.count} from {len(values)} values", where=where)
        return rng.sample(values, parameter.sample.count)
    assert parameter.text is not None
    return fill_text(parameter.text, drawn)


def _from_range(bounds: tuple[float, ...], rng: random.Random) -> int | float:
    """Decimals, so that 0.1 steps give 0.3 and not 0.30000000000000004."""
    first, last = Decimal(str(bounds[0])), Decimal(str(bounds[1]))
    step = Decimal(str(bounds[2])) if len(bounds) == 3 else Decimal(1)
    value = first + step * rng.randint(0, int((last - first) / step))
    return int(value) if value == value.to_integral_value() and _whole(bounds) else float(value)


def _whole(bounds: tuple[float, ...]) -> bool:
    return all(float(bound).is_integer() for bound in bounds)


def lines_of(path: Path) -> list[str]:
    """The lines of a text file that are not empty and no comment."""
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError("the file of values cannot be read", where=str(path), remedy=str(error)) from None
    lines = [line for line in lines if line and not line.startswith("#")]
    if not lines:
        raise ConfigError("the file of values is empty", where=str(path), remedy="write one value a line")
    return lines
