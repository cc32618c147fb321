"""What two versions differ in: settings, data, figures, files and weights. Called by ``dpo-driver models diff``."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from dpo_driver.core.config import SAVED_CONFIG
from dpo_driver.core.errors import ModelError
from dpo_driver.core.records import ModelVersion
from dpo_driver.registry.versions import Registry


@dataclass(frozen=True)
class Difference:
    """``fields`` of the records, ``settings`` of their runs' configurations and ``metrics`` as (first, second);
    ``files``: names whose content differs; ``weights`` is None where one has other tensors altogether or is gone."""

    fields: dict[str, tuple[Any, Any]]
    settings: dict[str, tuple[Any, Any]]
    metrics: dict[str, tuple[float | None, float | None]]
    files: tuple[str, ...]
    weights: WeightChange | None


@dataclass(frozen=True)
class WeightChange:
    """``relative``: the norm of the change over the norm of the first, all common tensors taken as one vector."""

    tensors: int
    changed: int
    only_first: tuple[str, ...]
    only_second: tuple[str, ...]
    relative: float


def differences(registry: Registry, first: str, second: str) -> Difference:
    """Compare two versions; weights are read where both folders are there.

    Raises:
        ModelError: no such version.
    """
    a, b = registry.get(first), registry.get(second)
    fields = ("parent", "base_model", "algorithm", "config_hash", "data_hash", "prompt_profile", "adapter", "git",
              "content_hash")  # fmt: skip
    old, new = registry.files(a), registry.files(b)
    return Difference(
        fields={name: (getattr(a, name), getattr(b, name)) for name in fields if getattr(a, name) != getattr(b, name)},
        settings=_changed(_flat(_settings(a)), _flat(_settings(b))),
        metrics=_changed(a.metrics, b.metrics),
        files=tuple(sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))),
        weights=_weights(Path(a.path), Path(b.path)),
    )


def _changed(a: dict[str, Any], b: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    return {key: (a.get(key), b.get(key)) for key in sorted(a.keys() | b.keys()) if a.get(key) != b.get(key)}


def _settings(version: ModelVersion) -> Any:
    """The resolved configuration of the run that made it, where that is still there."""
    path = Path(version.path).parent.parent / SAVED_CONFIG
    return yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {prefix: value}
    return {
        key: item for name in value for key, item in _flat(value[name], f"{prefix}.{name}" if prefix else name).items()
    }


def _weights(first: Path, second: Path) -> WeightChange | None:
    """Tensor by tensor, so that two large models need the memory of two tensors."""
    try:
        a, b = _tensors(first), _tensors(second)
    except ModelError:
        return None
    common = sorted(a.keys() & b.keys())
    if not common:
        return None
    changed, moved, size = 0, 0.0, 0.0
    for name in common:
        x, y = _read(a[name], name), _read(b[name], name)
        if x.shape != y.shape:
            changed += 1
            continue
        change = float((x - y).norm()) ** 2
        changed += change > 0
        moved += change
        size += float(x.norm()) ** 2
    return WeightChange(
        tensors=len(common), changed=changed, only_first=tuple(sorted(a.keys() - b.keys())),
        only_second=tuple(sorted(b.keys() - a.keys())), relative=math.sqrt(moved / size) if size else 0.0,
    )  # fmt: skip


def _tensors(folder: Path) -> dict[str, Path]:
    """The file of each tensor in a model folder."""
    from safetensors import safe_open

    found: dict[str, Path] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            found |= dict.fromkeys(file.keys(), path)
    if not found:
        raise ModelError("there are no weights", where=str(folder))
    return found


def _read(path: Path, name: str) -> Any:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return file.get_tensor(name).double()
