"""Checkpoints: training state that survives kill -9. Safetensors and JSON only, a manifest written last.

A folder is filled under a temporary name, flushed, given its manifest and renamed; one that is incomplete or damaged is
recognised, named, and the one before it is used. Called by training/trainer.py and training/engine.py.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from dpo_driver.core import ranks
from dpo_driver.core.errors import ModelError, TrainingError
from dpo_driver.policies.loading import MANIFEST, check_manifest, write_manifest
from dpo_driver.training.pieces import like

WEIGHTS = "weights.safetensors"
OPTIMIZER = "optimizer"
RNG = "rng"
_NAME = re.compile(r"checkpoint-(\d+)")


def write_folder(folder: Path, tensors: Mapping[str, Mapping[str, Tensor]], documents: Mapping[str, Any]) -> None:
    """Write a folder that appears whole or not at all.

    Args:
        folder: replaced if it exists.
        tensors: file name -> name -> tensor.
        documents: file name -> anything JSON can hold.
    """
    fresh = folder.with_name(folder.name + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    for name, values in tensors.items():
        save_file({key: value.detach().cpu().contiguous() for key, value in values.items()}, fresh / name)
    for name, document in documents.items():
        (fresh / name).write_text(json.dumps(document))
    write_manifest(fresh)
    shutil.rmtree(folder, ignore_errors=True)
    fresh.rename(folder)


def problem(folder: Path) -> str | None:
    """What is wrong with a checkpoint, or None."""
    if not (folder / MANIFEST).is_file():
        return f"{folder.name}: incomplete, it has no manifest"
    try:
        check_manifest(folder)
    except (ModelError, ValueError, KeyError) as error:
        what = error.what if isinstance(error, ModelError) else "its manifest is unreadable"
        return f"{folder.name}: {what}"
    return None


def checkpoints(output_dir: Path) -> list[Path]:
    """All checkpoint folders, newest step first, sound or not."""
    found = [path for path in output_dir.glob("checkpoint-*") if _NAME.fullmatch(path.name)]
    return sorted(found, key=step_of, reverse=True)


def newest(output_dir: Path) -> tuple[Path | None, list[str]]:
    """The newest sound checkpoint, and what is wrong with those newer than it."""
    problems: list[str] = []
    for folder in checkpoints(output_dir):
        trouble = problem(folder)
        if trouble is None:
            return folder, problems
        problems.append(trouble)
    return None, problems


def rotate(output_dir: Path, keep: int) -> None:
    """Delete all but the newest ``keep`` checkpoints."""
    for folder in checkpoints(output_dir)[keep:]:
        (folder / MANIFEST).unlink(missing_ok=True)  # first, so that a half-deleted one is seen as incomplete
        shutil.rmtree(folder, ignore_errors=True)


def step_of(folder: Path) -> int:
    """The step in a checkpoint's name."""
    match = _NAME.fullmatch(folder.name)
    return int(match.group(1)) if match else -1


def trainable(model: nn.Module) -> dict[str, Tensor]:
    """The weights that training changes, by name; tied ones once."""
    return {name: parameter.data for name, parameter in model.named_parameters() if parameter.requires_grad}


def load_weights(model: nn.Module, values: Mapping[str, Tensor], where: str) -> None:
    """Copy weights into the model, in place.

    Raises:
        TrainingError: names or shapes differ.
    """
    own = trainable(model)
    if own.keys() != values.keys() or any(own[name].shape != values[name].shape for name in own):
        raise TrainingError("the checkpoint belongs to another model", where=where, remedy="use another output folder")
    for name, value in own.items():
        value.copy_(like(value, values[name]))


def pack_optimizer(state: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """An optimizer's ``state_dict`` as tensors and JSON."""
    tensors: dict[str, Tensor] = {}
    numbers: dict[str, dict[str, Any]] = {}
    for index, entries in state["state"].items():
        for name, value in _flat(entries):
            if isinstance(value, Tensor):
                tensors[f"{index}.{name}"] = value
            else:
                numbers.setdefault(str(index), {})[name] = value
    return tensors, {"numbers": numbers, "param_groups": state["param_groups"]}


def _flat(entries: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Names and values; bitsandbytes keeps a dictionary within the dictionary: ``outer/inner``."""
    for name, value in entries.items():
        if isinstance(value, Mapping):
            yield from ((f"{name}/{inner}", part) for inner, part in value.items())
        else:
            yield name, value


def unpack_optimizer(tensors: Mapping[str, Tensor], document: Mapping[str, Any]) -> dict[str, Any]:
    """The ``state_dict`` that :func:`pack_optimizer` took apart."""
    state: dict[int, dict[str, Any]] = {}
    found: list[tuple[str, Any]] = list(tensors.items())
    found += [(f"{i}.{name}", value) for i, values in document["numbers"].items() for name, value in values.items()]
    for key, value in found:
        index, _, name = key.partition(".")
        entries = state.setdefault(int(index), {})
        outer, inside, inner = name.partition("/")
        if inside:
            entries.setdefault(outer, {})[inner] = value
        else:
            entries[name] = value
    return {"state": state, "param_groups": document["param_groups"]}


def in_pieces(state: dict[str, Any], groups: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """An optimizer's ``state_dict`` for parameters that FSDP keeps in pieces; as it was for all others."""
    parameters = [parameter for group in groups for parameter in group["params"]]
    for index, entries in state["state"].items():
        for name, value in entries.items():
            if isinstance(value, Tensor) and value.shape == parameters[index].shape:
                entries[name] = like(parameters[index].data, value)
    return state


def rng_name(rank: int) -> str:
    """The file of a process's random generators, without suffix."""
    return RNG if rank == 0 else f"{RNG}-{rank}"


def rng_state() -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The state of all global random generators as tensors and JSON."""
    kind, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)
    version, words, python_gauss = random.getstate()
    tensors = {"torch": torch.get_rng_state(), "numpy": torch.from_numpy(np.asarray(keys).astype(np.int64))}
    if torch.cuda.is_available():
        states = torch.cuda.get_rng_state_all() if ranks.count() == 1 else [torch.cuda.get_rng_state()]
        tensors |= {f"cuda.{i}": state for i, state in enumerate(states)}
    return tensors, {
        "numpy": [kind, int(position), int(has_gauss), float(gauss)],
        "python": [version, list(words), python_gauss],
    }


def restore_rng(tensors: Mapping[str, Tensor], document: Mapping[str, Any]) -> None:
    """Set all global random generators."""
    torch.set_rng_state(tensors["torch"])
    kind, position, has_gauss, gauss = document["numpy"]
    np.random.set_state((kind, tensors["numpy"].numpy().astype(np.uint32), position, has_gauss, gauss))
    version, words, python_gauss = document["python"]
    random.setstate((version, tuple(words), python_gauss))
    cuda = [tensors[f"cuda.{i}"] for i in range(sum(name.startswith("cuda.") for name in tensors))]
    if cuda and torch.cuda.is_available():
        if ranks.count() == 1:
            torch.cuda.set_rng_state_all(cuda)
        else:
            torch.cuda.set_rng_state(cuda[0])  # this process's own device


def read_tensors(path: Path) -> dict[str, Tensor]:
    """A safetensors file, on the CPU, read into memory (not mapped: the file may be rotated away)."""
    return {name: tensor.clone() for name, tensor in load_file(path).items()}


def write_json(path: Path, document: Any) -> None:
    """Write a JSON file that appears whole or not at all."""
    fresh = path.with_name(path.name + ".new")
    with fresh.open("w") as handle:
        json.dump(document, handle)
        handle.flush()
        os.fsync(handle.fileno())
    fresh.rename(path)


def read_json(path: Path) -> Any:
    """A JSON file."""
    return json.loads(path.read_text())
