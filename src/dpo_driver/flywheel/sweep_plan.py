"""What a sweep runs: the swept keys, their values, and one configuration for each combination of them.

Called by cli/sweep.py, flywheel/sweep.py and the sweep's report. Imports core only. A plan is made before anything
runs, so a wrong key or value costs no time.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dpo_driver.core.config import RunConfig
from dpo_driver.core.errors import ConfigError

SEED = "project.seed"  # the training seed: rows of the table are taken together over it
SUFFIX = "-sweep"  # of the run directory's name
SLUG_CHARS = 120
SHARED = "shared/{}"  # fact of a point's run, by stage: where a stage was copied from

Read = Callable[[Sequence[str]], RunConfig]


@dataclass(frozen=True)
class Axis:
    """A swept key and its values as they were written, in YAML: ``Axis("dpo.beta", (".05", ".1"))``."""

    key: str
    texts: tuple[str, ...]


@dataclass(frozen=True)
class Point:
    """One combination: its folder's name, the value of every swept key (as JSON would hold it) and what it runs."""

    slug: str
    values: dict[str, Any]
    config: RunConfig

    @property
    def seed(self) -> int:
        return self.config.project.seed

    @property
    def row(self) -> str:
        """What points that differ in nothing but the training seed have in common."""
        return json.dumps({key: value for key, value in self.values.items() if key != SEED})


@dataclass(frozen=True)
class Plan:
    """A whole sweep. ``agent`` is what the points are compared by; ``base`` has the value of each key, the training
    seed left out, that others are compared with."""

    folder: Path
    agent: Literal["dpo", "grpo"]
    about: str
    values: dict[str, tuple[Any, ...]]  # by swept key, in the order given
    base: dict[str, Any]
    points: tuple[Point, ...]

    @property
    def keys(self) -> tuple[str, ...]:
        """The swept keys without the training seed."""
        return tuple(key for key in self.values if key != SEED)


@dataclass(frozen=True)
class State:
    """How far a point came; ``reason`` says why it failed."""

    state: Literal["waiting", "done", "failed"] = "waiting"
    reason: str = ""


States = dict[str, State]  # by the point's slug


class SweepFile(BaseModel):
    """A sweep as a file: ``base: ../pocket.yaml``, ``over: {dpo.beta: [.05, .1]}``, and optionally a name for its
    folder, a sentence about it, keys to ``set`` for all points, and training seeds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    base: str
    over: Annotated[dict[str, Annotated[list[Any], Field(min_length=1)]], Field(min_length=1)]
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] | None = None
    about: str = ""
    set: dict[str, Any] = {}
    seeds: Annotated[list[int], Field(min_length=1)] | None = None

    @property
    def axes(self) -> list[Axis]:
        axes = [Axis(key, tuple(json.dumps(value) for value in values)) for key, values in self.over.items()]
        return axes if self.seeds is None else [*axes, Axis(SEED, tuple(map(str, self.seeds)))]

    @property
    def overrides(self) -> list[str]:
        return [f"{key}={json.dumps(value)}" for key, value in self.set.items()]


def read_sweep_file(path: Path) -> SweepFile | None:
    """The sweep that a file describes, its ``base`` made relative to the working directory; None if the file is none.

    Raises:
        ConfigError: it has an ``over:`` but is wrong otherwise.
    """
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else None
    except (OSError, ValueError, yaml.YAMLError):
        return None  # whoever reads it as a configuration says what is wrong with it, and where
    if not isinstance(data, dict) or "over" not in data:
        return None
    try:
        found = SweepFile.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise ConfigError(f"{key}: {first['msg']}", where=str(path),
                          remedy=f"a sweep file has {', '.join(SweepFile.model_fields)}") from None  # fmt: skip
    return found.model_copy(update={"base": os.path.normpath(path.parent / found.base)})


def parse_over(text: str) -> Axis:
    """``dpo.beta=.05,.1`` -> its axis. Commas inside brackets, braces or quotes do not part values.

    Raises:
        ConfigError: there is no key or an empty value.
    """
    key, equals, written = text.partition("=")
    texts = _split(written)
    if not equals or not key.strip() or not all(texts):
        raise ConfigError("a swept key is written section.key=value,value", where=f"--over {text}",
                          remedy="for example --over dpo.beta=.05,.1,.2")  # fmt: skip
    return Axis(key.strip(), tuple(texts))


def _split(text: str) -> list[str]:
    parts, depth, quote = [""], 0, ""
    for char in text:
        if quote:
            quote = "" if char == quote else quote
        elif char in "\"'" and not parts[-1].strip():
            quote = char
        elif char in "[{":
            depth += 1
        elif char in "]}":
            depth -= 1
        if char == "," and depth == 0 and not quote:
            parts.append("")
        else:
            parts[-1] += char
    return [part.strip() for part in parts]


def make_plan(read: Read, axes: Sequence[Axis], *, name: str | None = None, about: str = "") -> Plan:
    """Every combination of the axes' values, the last axis changing fastest.

    Args:
        read: the configuration under further overrides, as ``core.config.load_config`` gives it.
        axes: at least one; a key once.
        name: of the sweep's folder, beside the run directory; the run directory's name and "-sweep" when None.
        about: a sentence for the report.

    Raises:
        ConfigError: an unknown key, a wrong or repeated value, a key that changes no result.
    """
    config = _read(read, [])
    folder = config.run_dir.with_name(name or config.run_dir.name + SUFFIX)
    values = _values(read, axes)
    points: list[Point] = []
    for texts in product(*(axis.texts for axis in axes)):
        overrides = [f"{axis.key}={text}" for axis, text in zip(axes, texts, strict=True)]
        made = _read(read, overrides)
        own = {axis.key: value_of(made, axis.key, text) for axis, text in zip(axes, texts, strict=True)}
        points.append(_placed(made, own, folder, points))
    configs = [point.config for point in points]
    agent: Literal["dpo", "grpo"] = "grpo" if all(map(_has_grpo, configs)) else "dpo"
    if agent == "dpo" and not all("dpo" in config.evaluate.agents and config.rounds for config in configs):
        raise ConfigError("a sweep compares what DPO reaches, but not every point trains and evaluates it",
                          where=" ".join(f"--over {axis.key}={','.join(axis.texts)}" for axis in axes),
                          remedy="add dpo to evaluate.agents and have one round at least")  # fmt: skip
    base = {}
    for key, every in values.items():
        if key != SEED:
            own_value = value_of(config, key, "")
            base[key] = own_value if own_value in every else every[0]
    return Plan(folder, agent, about, values, base, tuple(points))


def _has_grpo(config: RunConfig) -> bool:
    """The run ends with online training, so that is what it is judged by."""
    return bool(config.grpo.episodes) and "grpo" in config.evaluate.agents


def _read(read: Read, overrides: Sequence[str]) -> RunConfig:
    """``read``, with errors that blame ``--over`` where an override of ours is at fault."""
    try:
        return read(overrides)
    except ConfigError as error:
        ours = {f"--set {override}": f"--over {override}" for override in overrides}
        raise ConfigError(error.what, where=ours.get(error.where or "", error.where), remedy=error.remedy) from None


def _values(read: Read, axes: Sequence[Axis]) -> dict[str, tuple[Any, ...]]:
    """The values of each axis as the configuration understands them, each checked by itself."""
    found: dict[str, tuple[Any, ...]] = {}
    for axis in axes:
        where = f"--over {axis.key}={','.join(axis.texts)}"
        if axis.key in found:
            raise ConfigError(f"{axis.key} is swept twice", where=where, remedy="give all its values at once")
        configs = [_read(read, [f"{axis.key}={text}"]) for text in axis.texts]
        values = [value_of(config, axis.key, text) for config, text in zip(configs, axis.texts, strict=True)]
        for index, value in enumerate(values):
            if value in values[:index]:
                raise ConfigError(f"{axis.key} has the value {written(value)} twice", where=where, remedy="keep one")
        if len({config.hash() for config in configs}) < len(configs):
            raise ConfigError(f"{axis.key} changes no result, so there is nothing to compare", where=where,
                              remedy="sweep a key of what is trained, collected or evaluated")  # fmt: skip
        found[axis.key] = tuple(values)
    return found


def value_of(config: RunConfig, key: str, text: str) -> Any:
    """The value of a dotted key, as JSON holds it; ``text`` where the key is a whole section."""
    value: Any = config
    for part in key.split("."):
        value = getattr(value, part)
    if isinstance(value, BaseModel):
        return text
    inner: Any = config.model_dump(mode="json")
    for part in key.split("."):
        inner = inner[part]
    return inner


def _placed(config: RunConfig, values: dict[str, Any], folder: Path, before: Sequence[Point]) -> Point:
    """The point with a folder, and a name in the model registry, that none before it has."""
    own = slug(values)
    if any(point.slug == own for point in before):  # a text "none" beside no value
        own += f"-{_digest(json.dumps(values))}"
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", own)
    if any(point.config.project.name == name for point in before):
        name += f"-{_digest(own)}"
    project = config.project.model_copy(update={"name": name, "run_dir": folder / own})
    return Point(own, values, config.model_copy(update={"project": project}))


def slug(values: Mapping[str, Any]) -> str:
    """A folder's name for a combination: ``dpo.beta=0.05,dpo.loss_type=ipo``; with a digest where it had to be cut or
    cleaned."""
    text = ",".join(f"{key}={written(value)}" for key, value in values.items())
    plain = re.sub(r"[^A-Za-z0-9._+=,-]+", "-", text)
    if plain == text and len(text) <= SLUG_CHARS:
        return text
    return f"{plain[:SLUG_CHARS]}-{_digest(text)}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def written(value: Any) -> str:
    """A value for people: ``0.05``, ``true``, ``none``, ``step+outcome``."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "none"
    if isinstance(value, float):
        return repr(value).removesuffix(".0")
    if isinstance(value, list | tuple):
        return "+".join(written(item) for item in value)
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)
