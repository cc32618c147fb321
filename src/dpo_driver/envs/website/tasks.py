"""Task files in a folder -> task families, or an error that names file, line and key.

A folder holds one ``site.yaml`` and a file for each family: YAML, or Python with a ``TASK`` of the same keys and, for
what keys cannot say, functions. Python in that folder is yours and runs with your rights. Called by site.py. Must not
import the browser.
"""

from __future__ import annotations

import difflib
import importlib.util
import inspect
import random
import sys
import traceback
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from dpo_driver.core.errors import ConfigError
from dpo_driver.envs.website.parameters import Parameters, Unfilled, Unknown, draw, fill, fill_text
from dpo_driver.envs.website.schema import FUNCTIONS, Function, Kind, SiteFile, TaskFile

SITE = "site.yaml"
_Model = TypeVar("_Model", bound=BaseModel)


@dataclass(frozen=True)
class Family:
    """One task family of a site: what its file says and the functions it brings."""

    name: str
    path: Path
    says: TaskFile
    functions: Mapping[Kind, Function] = field(default_factory=dict)

    @property
    def asks_the_site(self) -> bool:
        """Whether its success depends on what the site itself says, which is asked with the browser's cookies."""
        checks = (*self.says.success, *self.says.done)
        return "check" in self.functions or any(check.state is not None for check in checks)

    def parameters(self, seed: int) -> Parameters:
        """The parameters of a seed; ``seed`` is one of them."""
        try:
            drawn = draw(self.says.parameters, self.name, seed, self.path.parent)
        except Unfilled as unknown:
            raise self._unknown(str(unknown), self.says.parameters, "parameters") from None
        own = self.functions.get("parameters")
        if own is not None:
            drawn |= own(random.Random(f"{self.name}/{seed}"))
        return drawn

    def filled(self, value: Any, parameters: Parameters, key: str) -> Any:
        """A text, list or mapping of the file with its parameters filled in."""
        try:
            return fill(value, parameters)
        except Unfilled as unknown:
            raise self._unknown(str(unknown), parameters, key) from None

    def text(self, text: str, parameters: Parameters, key: str) -> str:
        """The same for what must be text."""
        try:
            return fill_text(text, parameters)
        except Unfilled as unknown:
            raise self._unknown(str(unknown), parameters, key) from None

    def _unknown(self, name: str, known: Mapping[str, Any], key: str) -> ConfigError:
        close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
        remedy = f"did you mean {{{close[0]}}}?" if close else f"known: {', '.join(known) or 'none'}"
        return ConfigError(f"{key} names {{{name}}}, which is no parameter", where=str(self.path), remedy=remedy)


def read_site(folder: Path) -> SiteFile:
    """The folder's ``site.yaml``.

    Raises:
        ConfigError: there is none, or it says something that it cannot.
    """
    path = folder / SITE
    if not path.is_file():
        remedy = f"a folder of tasks holds a {SITE} with name and base_url; see docs/environments.md"
        raise ConfigError("no site is described here", where=str(path), remedy=remedy)
    data, lines = _read_yaml(path)
    return _validate(SiteFile, data, path, lines)


def read_families(folder: Path, site: SiteFile) -> dict[str, Family]:
    """All task families of a folder, by name, sorted.

    Raises:
        ConfigError: a file that cannot be read, an unknown key, a wrong value; file, line and key are named.
    """
    families: dict[str, Family] = {}
    # A Python file that has no TASK holds experts or other functions of the tasks.
    for path in sorted((*folder.glob("*.yaml"), *folder.glob("*.yml"), *folder.glob("*.py"))):
        if path.name == SITE:
            continue
        family = _from_python(path, site) if path.suffix == ".py" else _from_yaml(path, site)
        if family is None:
            continue
        if family.name in families:
            where = f"{families[family.name].path} and {path}"
            raise ConfigError(f"the task {family.name!r} is written twice", where=where, remedy="rename one of them")
        families[family.name] = family
    if not families:
        raise ConfigError("the folder holds no tasks", where=str(folder), remedy="write one, such as orders.yaml")
    return families


def _from_yaml(path: Path, site: SiteFile) -> Family:
    data, lines = _read_yaml(path)
    says = _validate(TaskFile, data, path, lines)
    return _tried(Family(path.stem, path, says, _expert_of(says, path, {})), site)


def _from_python(path: Path, site: SiteFile) -> Family | None:
    names = load_python(path)
    if "TASK" not in names:
        return None
    functions: dict[Kind, Function] = {}
    for kind, signature in FUNCTIONS.items():
        own = names.get(kind)
        if own is None:
            continue
        if not callable(own) or len(inspect.signature(own).parameters) != 1:
            raise ConfigError(f"{kind} must be a function {signature}", where=str(path))
        functions[kind] = own
    says = _validate(TaskFile, names["TASK"], path, {})
    return _tried(Family(path.stem, path, says, _expert_of(says, path, functions)), site)


def load_python(path: Path) -> dict[str, Any]:
    """The names that a Python file defines.

    Raises:
        ConfigError: it does not compile, or fails while it is loaded.
    """
    name = f"dpo_driver_site.{path.parent.name}.{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # the file is the user's: whatever it raises is told with its place
        line = error.lineno if isinstance(error, SyntaxError) else line_in(path, error)
        where = f"{path}:{line}" if line else str(path)
        raise ConfigError(f"the file fails: {type(error).__name__}: {error}", where=where) from error
    return dict(vars(module))


def line_in(path: Path, error: BaseException) -> int | None:
    """The line of a file at which an error was raised."""
    frames = reversed(traceback.extract_tb(error.__traceback__))
    return next((frame.lineno for frame in frames if frame.filename == str(path)), None)


def _expert_of(says: TaskFile, path: Path, functions: Mapping[Kind, Function]) -> Mapping[Kind, Function]:
    """The functions, with the expert that ``expert: experts.py:name`` speaks of."""
    if says.expert is None:
        return functions
    file, _, name = says.expert.partition(":")
    source = path.parent / file
    remedy = "write it as file.py:function, the file beside the task"
    if not name or source.suffix != ".py" or not source.is_file():
        raise ConfigError(f"there is no expert {says.expert!r}", where=f"{path}, expert", remedy=remedy)
    found = load_python(source)
    if not callable(found.get(name)):
        known = [key for key, value in found.items() if isinstance(value, types.FunctionType)]
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        remedy = f"did you mean {close[0]}?" if close else f"known: {', '.join(known)}"
        raise ConfigError(f"{source} has no function {name!r}", where=f"{path}, expert", remedy=remedy)
    return {**functions, "expert": found[name]}


def _tried(family: Family, site: SiteFile) -> Family:
    """Checked as far as it goes without the site: something decides success, and the texts can be filled in."""
    says = family.says
    if not says.success and "check" not in family.functions:
        raise ConfigError("nothing says when the task is solved", where=f"{family.path}, success",
                          remedy="give success at least one condition, such as url: /thanks")  # fmt: skip
    reset = says.reset or site.reset
    gives = dict.fromkeys((reset.gives if reset else ()), Unknown())
    if "reset" in family.functions:  # it may give whatever parameters it likes
        return family
    parameters = family.parameters(0) | gives
    family.text(says.goal, parameters, "goal")
    family.text(says.start, parameters, "start")
    for key in ("success", "done"):
        for check in getattr(says, key):
            family.filled(check.model_dump(exclude_none=True, exclude={"script"}), parameters, key)
    return family


# -- reading, with the place of every mistake ---------------------------------------------------------------------


def _read_yaml(path: Path) -> tuple[dict[str, Any], dict[str, int]]:
    """Content of a YAML file and the line of each dotted key."""
    try:
        text = path.read_text(encoding="utf-8")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        lines = dict(_lines(node, ()))
        data = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError("the file cannot be read", where=str(path), remedy=str(error)) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ConfigError(
            f"malformed YAML: {problem}", where=where, remedy="put texts with : { or # in quotes"
        ) from None
    if not isinstance(data, dict):
        raise ConfigError("a task file is a list of `key: value`", where=f"{path}:1", remedy="see docs/environments.md")
    return data, lines


def _lines(node: yaml.Node | None, prefix: tuple[str, ...]) -> Iterator[tuple[str, int]]:
    if len(prefix) > 8:  # an anchor may hold itself
        return
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield ".".join((*prefix, str(key.value))), key.start_mark.line + 1
            yield from _lines(value, (*prefix, str(key.value)))
    elif isinstance(node, yaml.SequenceNode):
        for number, value in enumerate(node.value):
            yield ".".join((*prefix, str(number))), value.start_mark.line + 1
            yield from _lines(value, (*prefix, str(number)))


def _validate(model: type[_Model], data: Any, path: Path, lines: Mapping[str, int]) -> _Model:
    try:
        return model.model_validate(data)
    except ValidationError as error:
        first, *rest = [_problem(model, item, path, lines) for item in error.errors()]
        also = "".join(f"\n  also: {problem.what} ({problem.where})" for problem in rest[:6])
        raise ConfigError(first.what, where=first.where, remedy=(first.remedy or "mend the value") + also) from None


def _problem(model: type[BaseModel], item: Any, path: Path, lines: Mapping[str, int]) -> ConfigError:
    parts = [str(part) for part in item["loc"]]
    # A condition that stands alone instead of in a list has no number in the file.
    spelled = [*parts[:1], *parts[2:]] if parts[1:2] == ["0"] and f"{parts[0]}.0" not in lines else parts
    dotted = ".".join(spelled)
    line = next((lines[".".join(spelled[:n])] for n in range(len(spelled), 0, -1) if ".".join(spelled[:n]) in lines), 0)
    where = f"{path}:{line}, {dotted}" if line else f"{path}, {dotted}" if dotted else str(path)
    if item["type"] == "extra_forbidden":
        known = _keys(model, parts[:-1])
        close = difflib.get_close_matches(parts[-1], known, n=1, cutoff=0.5)
        remedy = f"did you mean {close[0]}?" if close else f"known: {', '.join(known)}"
        return ConfigError(f"unknown key {dotted}", where=where, remedy=remedy)
    if item["type"] == "missing":
        return ConfigError(f"{dotted} is missing", where=where, remedy=f"write {parts[-1]}: ...")
    if item["type"] == "value_error":
        return ConfigError(f"{dotted}: {item['ctx']['error']}" if dotted else str(item["ctx"]["error"]), where=where)
    message = str(item["msg"]).replace("Input should be", "should be")
    return ConfigError(f"{dotted}: {message}, not {str(item['input'])[:60]!r}", where=where)


def _keys(model: type[BaseModel], parts: list[str]) -> list[str]:
    """The keys known at a place of a schema."""
    for part in parts:
        field = next((f for name, f in model.model_fields.items() if part in (name, f.alias)), None)
        inner = _section_in(field.annotation) if field is not None else None
        model = inner or model  # a number in a list, a name in a mapping: stays where it is
    return [field.alias or name for name, field in model.model_fields.items()]


def _section_in(hint: Any) -> type[BaseModel] | None:
    """The section that a type hint holds, however deep: ``dict[str, Parameter]`` -> Parameter."""
    if isinstance(hint, type) and issubclass(hint, BaseModel):
        return hint
    return next((found for part in typing.get_args(hint) if (found := _section_in(part))), None)
