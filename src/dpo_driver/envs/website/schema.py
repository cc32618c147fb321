"""What a task file and a folder's ``site.yaml`` may say. Nothing about where it comes from: that is tasks.py.

``TaskFile`` is one task family, ``SiteFile`` what all families of a folder share. Unknown keys are errors. Used by
envs/website only. Must not import the browser.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from dpo_driver.core.actions import ACTIONS
from dpo_driver.core.section import Section

Url = Annotated[str, Field(pattern=r"^https?://[^/\s]+")]
Path_ = Annotated[str, Field(pattern=r"^(/|https?://)")]  # "/orders", below base_url, or a whole address
Seconds = Annotated[float, Field(gt=0, le=120)]
OFF_BY_DEFAULT = frozenset({"js_eval"})


def _one_of(section: Section, keys: tuple[str, ...]) -> None:
    given = [key for key in keys if getattr(section, key) is not None]
    if len(given) != 1:
        raise ValueError(f"give exactly one of {', '.join(keys)}" + (f", not {' and '.join(given)}" if given else ""))


def _is_range(bounds: tuple[float, ...]) -> bool:
    return len(bounds) in (2, 3) and bounds[0] <= bounds[1] and all(step > 0 for step in bounds[2:])


class Sample(Section):
    """``{from: [a, b, c], count: 2}``: several different values, in random order."""

    from_: tuple[Any, ...] | str = Field(alias="from")  # values, or the name of a text file with one a line
    count: Annotated[int, Field(ge=1)]


class Parameter(Section):
    """How one parameter is drawn from the seed. A bare list means ``choice``."""

    choice: tuple[Any, ...] | None = None  # one of these; mappings are read with dots: {person.name}
    range: tuple[float, ...] | None = None  # [first, last] or [first, last, step], both ends included
    file: str | None = None  # one line of a text file beside the task
    sample: Sample | None = None
    text: str | None = None  # put together from the parameters above: "{first}.{last}@example.org"

    @model_validator(mode="before")
    @classmethod
    def _list_is_choice(cls, data: Any) -> Any:
        return {"choice": data} if isinstance(data, list | tuple) else data

    @model_validator(mode="after")
    def _complete(self) -> Parameter:
        _one_of(self, ("choice", "range", "file", "sample", "text"))
        if self.choice is not None and not self.choice:
            raise ValueError("choice holds no values")
        if self.range is not None and not _is_range(self.range):
            raise ValueError("a range is [first, last] or [first, last, step] with first <= last and step > 0")
        return self


class ElementCheck(Section):
    """An element that the agent, too, can see: by role and name, and what it must hold."""

    role: str | None = None
    name: str | None = None
    value: str | None = None
    state: str | None = None  # "checked", "disabled", ...
    there: bool = True  # false: there must be no such element

    @model_validator(mode="after")
    def _says_something(self) -> ElementCheck:
        if self.role is None and self.name is None:
            raise ValueError("give role or name, or both")
        return self


class StateCheck(Section):
    """What the site itself says, asked with the visit's cookies: JSON of ``get``, each dotted key compared."""

    get: Path_
    equals: dict[str, Any] = Field(min_length=1)


class Check(Section):
    """One condition. Exactly one key is given; {parameters} are filled in."""

    url: str | None = None  # path of the page, "*" stands for anything; with "?" the query counts, too
    text: str | None = None  # stands somewhere on the page
    element: ElementCheck | None = None
    script: str | None = None  # JavaScript expression, read in an isolated world; `params` are the parameters
    state: StateCheck | None = None
    answer: str | None = None  # what the agent said last with send_msg_to_user

    @model_validator(mode="after")
    def _complete(self) -> Check:
        _one_of(self, ("url", "text", "element", "script", "state", "answer"))
        return self


class Reset(Section):
    """The site's own way to begin anew: called before the start page is opened. Its cookies go to the browser."""

    post: Path_
    json_: dict[str, Any] = Field(default_factory=dict, alias="json")  # {seed} and {parameters} are filled in
    gives: tuple[str, ...] = ()  # keys of the answer that become parameters


def _as_tuple(value: Any) -> Any:
    return (value,) if isinstance(value, dict) else value


Checks = tuple[Check, ...]


class _Shared(Section):
    """What a site may say for all its tasks and a task for itself."""

    actions: tuple[str, ...] | None = None  # None: all but js_eval
    reset: Reset | None = None
    secrets: tuple[str, ...] | None = None  # parameters that nobody sees: agents see and type [secret:NAME] instead

    @field_validator("actions")
    @classmethod
    def _known_actions(cls, names: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for name in names or ():
            if name not in ACTIONS:
                raise ValueError(f"unknown action {name!r}; known: {', '.join(ACTIONS)}")
        return names


class TaskFile(_Shared):
    """One task family: ``orders.yaml``, or the ``TASK`` of ``orders.py``."""

    goal: str = Field(min_length=1)
    start: Path_ = "/"
    parameters: dict[str, Parameter] = Field(default_factory=dict)
    success: Checks = ()  # all must hold; may be empty only if the file has a function check()
    done: Checks = ()  # any one ends the episode, solved or not
    partial: bool = False  # unsolved, the reward is the share of conditions that hold ("3 of 5 fields")
    max_steps: Annotated[int, Field(ge=1, le=1000)] = 15
    expert: str | None = None  # "experts.py:find_order": plays the task, for demonstrations

    @field_validator("success", "done", mode="before")
    @classmethod
    def _one_is_a_list(cls, value: Any) -> Any:
        return _as_tuple(value)

    @field_validator("parameters")
    @classmethod
    def _names(cls, parameters: dict[str, Parameter]) -> dict[str, Parameter]:
        for name in parameters:
            if not re.fullmatch(r"[a-z_]\w*", name) or name == "seed":
                raise ValueError(f"{name!r} is no name for a parameter: use small letters, digits and _, and not seed")
        return parameters


class SiteFile(_Shared):
    """``site.yaml``: where the site is and what its tasks have in common."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
    base_url: Url
    allowed: tuple[Url, ...] = ()  # other origins that pages may reach; base_url's own is always allowed
    serve: str | None = None  # command that starts the site, in this folder; {port} is that of base_url
    ready: Path_ = "/"  # answers once the site is up
    viewport: tuple[Annotated[int, Field(ge=200)], Annotated[int, Field(ge=200)]] = (1280, 720)
    ignore: tuple[str, ...] = ()  # regular expressions: what may differ between equal starts, such as session ids
    uploads: str | None = None  # folder beside site.yaml whose files upload_file may send
    quiet_ms: Annotated[float, Field(ge=0, le=2000)] = 50  # a page that has not changed for so long has settled
    settle_s: Seconds = 5.0  # how long an action's effects are waited for at most
    call_s: Seconds = 10.0  # deadline of each browser call

    @field_validator("ignore")
    @classmethod
    def _patterns(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in patterns:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"{pattern!r} is no regular expression: {error}") from None
        return patterns

    @field_validator("base_url", "allowed")
    @classmethod
    def _no_tail(cls, value: Any) -> Any:
        for url in (value,) if isinstance(value, str) else value:
            parts = urlsplit(url)
            if parts.path not in ("", "/") or parts.query or parts.fragment or parts.username:
                raise ValueError(f"{url} is more than scheme, host and port; write {parts.scheme}://{parts.netloc}")
        return value.rstrip("/") if isinstance(value, str) else tuple(url.rstrip("/") for url in value)


Kind = Literal["parameters", "reset", "check", "expert"]
FUNCTIONS: dict[Kind, str] = {  # what a Python task file may define beside TASK, and what it is given
    "parameters": "parameters(rng) -> dict",
    "reset": "reset(visit) -> dict | None",
    "check": "check(visit) -> bool | float",
    "expert": "expert(page) -> (thought, action)",
}
Function = Callable[..., Any]
