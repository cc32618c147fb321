"""The gauntlet agent's data: step_NN.json trajectories and pairs {obs_text, chosen_action, rejected_action}.

What is read, liberally:

* A file of trajectories is one ``{"steps": [...]}``, a list of them, or a search result ``{"trajectories": [...]}``.
* A folder holds such files (``step_*.json``, ``challenge_*.json``), or one step a file (``step_00.json``, ...), which
  together are one trajectory; folders of folders are walked.
* A step has its page under ``obs_text``, ``observation`` or ``obs`` (a text, or an object with one of these), its
  action under ``action`` or ``completion``, its thought under ``reasoning``, ``thought`` or ``think`` or inside the
  action as ``<think>...</think>``, and perhaps a ``reward``.
* A trajectory may say ``success``; else its last reward does (>= 0.99), else it is a demonstration without a score.
* Pairs are JSONL, a JSON list, a search result ``{"preference_pairs": [...]}``, or a folder of such files.

Called through readers.py. Actions our grammar lacks stay in the text as written.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dpo_driver.core.errors import DataError
from dpo_driver.core.records import Message, Preference, TrainingSample
from dpo_driver.preferences.decisions import digest
from dpo_driver.preferences.jsonl import (
    Row,
    RowError,
    as_object,
    kind_of,
    load_object,
    parse_rows,
    read_bytes,
    require,
    require_text,
)
from dpo_driver.preferences.legacy import SOURCE, modern_text, text_preference

TASK_NAME = "gauntlet"
SUCCESS_REWARD = 0.99
_PAGE_KEYS = ("obs_text", "observation", "obs")
_THOUGHT_KEYS = ("reasoning", "thought", "think")
_FILES = ("step_*.json", "challenge_*.json", "*.jsonl")


@dataclass(frozen=True)
class GauntletStep:
    """One decision: the page as text and the assistant's text in today's form."""

    page: str
    completion: str
    reward: float | None


@dataclass(frozen=True)
class GauntletTrajectory:
    """One attempt. ``success`` is None when the file does not say how it ended."""

    name: str
    steps: tuple[GauntletStep, ...]
    success: bool | None


def read_gauntlet_trajectories(path: str | Path) -> list[GauntletTrajectory]:
    """All trajectories of a file or folder, see the module's own words for what is read.

    Raises:
        DataError: names the file and every broken row of it; or there is nothing to read.
    """
    path = Path(path)
    if not path.is_dir():
        return _trajectories_in(path)
    files = _files(path)
    singles = [file for file in files if _is_single_step(file)]
    found = [trajectory for file in files if file not in singles for trajectory in _trajectories_in(file)]
    by_folder: dict[Path, list[GauntletStep]] = {}
    for file in singles:
        by_folder.setdefault(file.parent, []).extend(parse_rows(_numbered(_load(file)), _step, file, "row"))
    found += [_trajectory(str(folder), tuple(steps), None) for folder, steps in by_folder.items()]
    return found


def read_gauntlet_samples(path: str | Path) -> list[TrainingSample]:
    """The steps of all trajectories that did not fail, as rows to imitate; equal rows once.

    Raises:
        DataError: broken files, or every trajectory failed, so that nothing is left to imitate.
    """
    trajectories = read_gauntlet_trajectories(path)
    samples: dict[str, TrainingSample] = {}
    for trajectory in trajectories:
        if trajectory.success is False:
            continue
        for step in trajectory.steps:
            messages = (Message(role="user", content=step.page),)
            identity = digest(messages, step.completion)
            samples[identity] = TrainingSample(
                id=identity, messages=messages, completion=step.completion, source=SOURCE, task_name=TASK_NAME
            )
    if not samples:
        what = f"none of the {len(trajectories)} trajectories succeeded"
        raise DataError(what, where=str(path), remedy="imitation needs at least one success")
    return list(samples.values())


def read_gauntlet_pairs(path: str | Path) -> list[Preference]:
    """Rows ``{obs_text, chosen_action, rejected_action}``; other keys are kept as evidence.

    Raises:
        DataError: names the file and every broken row.
    """
    path = Path(path)
    files = _files(path) if path.is_dir() else [path]
    return [pair for file in files for pair in parse_rows(_pair_rows(file), _pair, file, _unit(file))]


def _files(folder: Path) -> list[Path]:
    files = sorted({file for pattern in _FILES for file in folder.rglob(pattern)})
    if not files:
        remedy = f"a folder with {' or '.join(_FILES)} is needed"
        raise DataError("the folder holds nothing that can be read", where=str(folder), remedy=remedy)
    return files


def _unit(file: Path) -> str:
    return "line" if file.suffix == ".jsonl" else "row"


def _load(file: Path) -> Any:
    """The file's JSON value; a .jsonl file gives the list of its rows."""
    content = read_bytes(file)
    if file.suffix == ".jsonl":
        return [load_object(line) for line in content.split(b"\n") if line.strip()]
    try:
        return json.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise DataError("not UTF-8", where=str(file)) from None
    except (json.JSONDecodeError, RecursionError) as error:
        line = getattr(error, "lineno", 1)
        raise DataError(f"broken JSON: {error}", where=f"{file}, line {line}", remedy="mend the file") from None


def _numbered(value: Any) -> Iterator[tuple[str, Row | RowError]]:
    rows = value if isinstance(value, list) else [value]
    for number, row in enumerate(rows, start=1):
        yield str(number), row if isinstance(row, RowError) else as_object(row)


def _is_single_step(file: Path) -> bool:
    if file.suffix == ".jsonl":
        return False
    value = _load(file)
    return isinstance(value, dict) and not value.keys() & {"steps", "trajectories", "preference_pairs"}


def _trajectories_in(file: Path) -> list[GauntletTrajectory]:
    value = _load(file)
    if isinstance(value, dict) and "trajectories" in value:
        value = value["trajectories"]
    if isinstance(value, dict) and "steps" not in value:
        value = {"steps": [value]}
    return parse_rows(_numbered(value), lambda row: _from_row(str(file), row), file, _unit(file))


def _from_row(name: str, row: Row) -> GauntletTrajectory:
    steps = require(row, "steps")
    if not isinstance(steps, list) or not steps:
        raise RowError("'steps' must be a list of steps that is not empty")
    parsed = []
    for number, item in enumerate(steps):
        if not isinstance(item, dict):
            raise RowError(f"step {number}: an object is needed, not {kind_of(item)}")
        try:
            parsed.append(_step(item))
        except RowError as error:
            raise RowError(f"step {number}: {error}") from None
    success = row.get("success")
    if success is not None and not isinstance(success, bool):
        raise RowError(f"'success' must be true or false, not {kind_of(success)}")
    return _trajectory(name, tuple(parsed), success)


def _trajectory(name: str, steps: tuple[GauntletStep, ...], success: bool | None) -> GauntletTrajectory:
    rewards = [step.reward for step in steps if step.reward is not None]
    if success is None and rewards:
        success = rewards[-1] >= SUCCESS_REWARD
    return GauntletTrajectory(name, steps, success)


def _step(row: Row) -> GauntletStep:
    thought = next((row[key] for key in _THOUGHT_KEYS if isinstance(row.get(key), str)), "")
    text = require_text(row, "completion" if "completion" in row else "action")
    reward = row.get("reward")
    if reward is not None and (isinstance(reward, bool) or not isinstance(reward, int | float)):
        raise RowError(f"'reward' must be a number, not {kind_of(reward)}")
    return GauntletStep(_page(row), modern_text(text, thought), None if reward is None else float(reward))


def _page(row: Row) -> str:
    for key in _PAGE_KEYS:
        if isinstance(row.get(key), dict):
            return _page(row[key])
        if key in row:
            return require_text(row, key)
    raise RowError(f"no page: one of the keys {', '.join(_PAGE_KEYS)} is needed")


def _pair_rows(file: Path) -> Iterator[tuple[str, Row | RowError]]:
    value = _load(file)
    if isinstance(value, dict) and "preference_pairs" in value:
        value = value["preference_pairs"]
    return _numbered(value)


def _pair(row: Row) -> Preference:
    messages = (Message(role="user", content=require_text(row, "obs_text")),)
    evidence = {key: value for key, value in row.items() if key not in {"obs_text", "chosen_action", "rejected_action"}}
    chosen, rejected = require_text(row, "chosen_action"), require_text(row, "rejected_action")
    preference = text_preference(messages, chosen, rejected, {"metadata": evidence} if evidence else {})
    margin = _margin(row)
    return preference.model_copy(update={"task_name": TASK_NAME, **({} if margin is None else {"margin": margin})})


def _margin(row: Row) -> float | None:
    """The difference of the search's values, where the row has both."""
    values = [row.get("chosen_q"), row.get("rejected_q")]
    if any(isinstance(value, bool) or not isinstance(value, int | float) for value in values):
        return None
    return float(values[0]) - float(values[1])  # type: ignore[arg-type]
