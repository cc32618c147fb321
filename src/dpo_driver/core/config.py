"""Reading a configuration: YAML file + ``--set a.b=c`` -> ``RunConfig``, or an error that names file, line and key.

Called by the command line and by tests. The schema itself is ``core/schema.py``; its classes are handed on here, so
that ``from dpo_driver.core.config import RunConfig, load_config`` is all a caller needs. Must not import any other
layer.
"""

from __future__ import annotations

import difflib
import re
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from dpo_driver.core.errors import ConfigError
from dpo_driver.core.schema import (
    CollectConfig,
    DemosConfig,
    EnvConfig,
    EvaluateConfig,
    PairConfig,
    ProjectConfig,
    PromoteConfig,
    ReportConfig,
    RunConfig,
    SamplingConfig,
    SeedsConfig,
    TrackingConfig,
)
from dpo_driver.core.schema_training import DpoConfig, LoraConfig, ModelConfig, SftBestConfig, SftConfig, TrainingArgs
from dpo_driver.core.section import Section

__all__ = [
    "CollectConfig",
    "DemosConfig",
    "DpoConfig",
    "EnvConfig",
    "EvaluateConfig",
    "LoraConfig",
    "ModelConfig",
    "PairConfig",
    "ProjectConfig",
    "PromoteConfig",
    "ReportConfig",
    "RunConfig",
    "SamplingConfig",
    "Section",
    "SeedsConfig",
    "SftBestConfig",
    "SftConfig",
    "TrackingConfig",
    "TrainingArgs",
    "load_config",
    "load_settings",
]

SAVED_CONFIG = "config.yaml"  # what a run directory keeps of its configuration

# Keys of the older pipeline's config.yaml, and where their meaning lives now.
_MOVED = {
    "training": "sft: and dpo: are sections of their own",
    "paths": "everything a run writes lies under project.run_dir",
    "evaluation": "the section is called evaluate",
    "model.base_model": "the key is called model.name",
    "seed": "the key is project.seed; the seeds of tasks are the blocks under seeds:",
    "output_dir": "the key is project.run_dir",
}


Schema = TypeVar("Schema", bound=Section)


class _Loader(yaml.SafeLoader):
    """Safe YAML that reads ``1e-4`` as a number, which YAML 1.1 takes for text."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def load_config(path: str | Path | None, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a configuration file and apply overrides.

    Args:
        path: a YAML file, or a run directory, whose saved configuration is read; None: the defaults.
        overrides: ``section.key=value`` each, the value in YAML; later ones win.

    Raises:
        ConfigError: missing, unreadable or malformed file, unknown key, wrong value; file, line and key are named.
    """
    if path is not None and Path(path).is_dir():
        folder, path = path, Path(path) / SAVED_CONFIG
        if not path.is_file():
            raise ConfigError(
                "not a run directory", where=str(folder), remedy=f"it holds no {SAVED_CONFIG}; start a run first"
            )
    return load_settings(RunConfig, path, overrides)


def load_settings(schema: type[Schema], path: str | Path | None, overrides: Sequence[str] = ()) -> Schema:
    """The same for the settings of another kind: any section can be a file of its own.

    Raises:
        ConfigError: see :func:`load_config`.
    """
    data: dict[str, Any] = {}
    lines: dict[str, int] = {}
    if path is not None:
        data, lines = _read(Path(path))
    for override in overrides:
        _apply(data, override)
    try:
        return schema.model_validate(data)
    except ValidationError as error:
        where = Path("the defaults" if path is None else path)
        raise _explain(error, where, lines, overrides, schema) from None


def _read(path: Path) -> tuple[dict[str, Any], dict[str, int]]:
    """The file's content and the line of each dotted key."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError("there is no such configuration", where=str(path), remedy=_suggest_file(path)) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError("the configuration cannot be read", where=str(path), remedy=str(error)) from None
    try:
        node = yaml.compose(text, Loader=_Loader)
        lines = dict(_walk(node, (), path))
        data = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ConfigError(
            f"malformed YAML: {problem}", where=where, remedy="check the indentation and the colons"
        ) from None
    except (ValueError, RecursionError) as error:  # a date such as 2024-99-99, an anchor that holds itself
        raise ConfigError(f"malformed YAML: {error}", where=str(path), remedy="put quotes around the value") from None
    if data is None:
        raise ConfigError("the configuration is empty", where=str(path), remedy="start from configs/pocket.yaml")
    if not isinstance(data, dict):
        raise ConfigError(
            "a configuration is a list of `key: value`", where=f"{path}:1", remedy="see configs/pocket.yaml"
        )
    return data, lines


def _walk(node: yaml.Node | None, prefix: tuple[str, ...], path: Path) -> Iterator[tuple[str, int]]:
    """Dotted keys with their lines; a key written twice is an error, not a silent last-one-wins."""
    if not isinstance(node, yaml.MappingNode) or len(prefix) > 8:  # an anchor may hold itself
        return
    seen: set[str] = set()
    for key, value in node.value:
        name, line = str(key.value), key.start_mark.line + 1
        dotted = (*prefix, name)
        if name in seen:
            raise ConfigError(f"{'.'.join(dotted)} is written twice", where=f"{path}:{line}", remedy="keep one of them")
        seen.add(name)
        yield ".".join(dotted), line
        yield from _walk(value, dotted, path)


def _suggest_file(path: Path) -> str:
    folder = path.parent if path.parent.is_dir() else Path("configs")
    known = sorted(str(file) for pattern in ("*.yaml", "*.yml") for file in folder.glob(pattern))
    close = difflib.get_close_matches(str(path), known, n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]}?"
    return f"there is {', '.join(known)}" if known else "give the path of a YAML file, such as configs/pocket.yaml"


def _apply(data: dict[str, Any], override: str) -> None:
    """Write ``a.b=c`` into ``data``."""
    where = f"--set {override}"
    key, equals, written = override.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise ConfigError(
            "an override is written section.key=value", where=where, remedy="for example --set sft.max_steps=50"
        )
    try:
        value = yaml.load(written, Loader=_Loader)
    except (yaml.YAMLError, ValueError, RecursionError):
        raise ConfigError(f"{key} has a value that is no YAML", where=where, remedy="put quotes around it") from None
    section = data
    for depth, part in enumerate(parts[:-1]):
        inner = section.get(part)
        if inner is None:
            inner = {}
        elif parts[: depth + 1] == ["model"] and isinstance(inner, str):
            inner = {"name": inner}
        elif not isinstance(inner, dict):
            dotted = ".".join(parts[: depth + 1])
            raise ConfigError(f"{dotted} is a value, not a section", where=where, remedy=f"write --set {dotted}=...")
        section[part] = inner
        section = inner
    section[parts[-1]] = value


def _explain(
    error: ValidationError, path: Path, lines: dict[str, int], overrides: Sequence[str], schema: type[Section]
) -> ConfigError:
    """One error for all the problems that pydantic found, the first in full."""
    problems = [_problem(item, path, lines, overrides, schema) for item in error.errors()]
    first = problems[0]
    if len(problems) == 1:
        return first
    rest = "".join(f"\n  also: {problem.what} ({problem.where})" for problem in problems[1:8])
    more = f"\n  and {len(problems) - 8} more" if len(problems) > 8 else ""
    return ConfigError(first.what, where=first.where, remedy=f"{first.remedy or 'mend the value'}{rest}{more}")


def _problem(
    item: Any, path: Path, lines: dict[str, int], overrides: Sequence[str], schema: type[Section]
) -> ConfigError:
    location = tuple(str(part) for part in item["loc"])
    dotted = ".".join(location)
    where = _where(location, path, lines, overrides)
    if item["type"] == "extra_forbidden":
        return ConfigError(f"unknown key {dotted}", where=where, remedy=_suggest_key(location, schema))
    if item["type"] == "value_error":  # our own checks already say it in full
        return ConfigError(f"{dotted}: {item['ctx']['error']}" if dotted else str(item["ctx"]["error"]), where=where)
    message = str(item["msg"]).replace("Input should be", "should be")
    told = f"{dotted}: {message}, not {_shown(item['input'])}"
    return ConfigError(told, where=where, remedy=_expected(location, schema))


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _where(location: tuple[str, ...], path: Path, lines: dict[str, int], overrides: Sequence[str]) -> str:
    """``--set ...`` when an override wrote the key, else file and line."""
    for override in reversed(overrides):
        key = tuple(override.partition("=")[0].strip().split("."))
        if key[: len(location)] == location or location[: len(key)] == key:
            return f"--set {override}"
    for length in range(len(location), 0, -1):
        line = lines.get(".".join(location[:length]))
        if line is not None:
            return f"{path}:{line}"
    return str(path)


def _suggest_key(location: tuple[str, ...], schema: type[Section]) -> str:
    dotted = ".".join(location)
    for moved, advice in _MOVED.items() if schema is RunConfig else ():
        if dotted == moved or dotted.startswith(moved + "."):
            return f"{advice}; docs/migration.md lists every older key"
    every = list(_keys(schema))
    section = ".".join(location[:-1])
    siblings = [key.rpartition(".")[2] for key in every if key.rpartition(".")[0] == section]
    close = difflib.get_close_matches(location[-1], siblings, n=1, cutoff=0.6)
    if close:
        return f"did you mean {'.'.join([*location[:-1], close[0]])}?"
    elsewhere = [key for key in every if key.rpartition(".")[2] == location[-1]]
    elsewhere = elsewhere or difflib.get_close_matches(dotted, every, n=1, cutoff=0.7)
    if elsewhere:
        return f"did you mean {' or '.join(elsewhere[:3])}?"
    return f"known {'in ' + section if section else 'sections'}: {', '.join(siblings)}"


def _expected(location: tuple[str, ...], schema: type[Section]) -> str | None:
    """The default, as an example of what is meant."""
    value: Any = schema()
    for part in location:
        if not isinstance(value, BaseModel) or part not in type(value).model_fields:
            return None
        value = getattr(value, part)
    if isinstance(value, BaseModel):
        return f"{'.'.join(location)} is a section: {', '.join(type(value).model_fields)}"
    written = yaml.safe_dump(value, default_flow_style=True) if not isinstance(value, tuple) else str(list(value))
    return f"the default is {written.removesuffix('...' + chr(10)).strip()}"


def _keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """All dotted keys of a schema, sections included."""
    hints = typing.get_type_hints(model)
    for name, described in model.model_fields.items():
        yield prefix + (described.alias or name)
        hint = hints[name]
        if isinstance(hint, type) and issubclass(hint, BaseModel):
            yield from _keys(hint, f"{prefix}{name}.")
