"""Weights that FSDP keeps in pieces, one in each process: reading them whole, and writing whole ones over them.

For ordinary tensors everything here is the identity. Called by training/checkpoint.py, processes.py, actor.py and
parent.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor


def whole(value: Tensor) -> Tensor:
    """A tensor with all its pieces. All processes must ask for it together."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def wholes(values: Mapping[str, Any]) -> dict[str, Any]:
    """The same for many, in their order; what is no tensor stays."""
    return {name: whole(value) if isinstance(value, Tensor) else value for name, value in values.items()}


def like(pattern: Tensor, value: Tensor) -> Tensor:
    """A whole tensor in the pieces that another one lies in."""
    if not isinstance(pattern, DTensor):
        return value
    # Every process has the whole tensor already: nothing is sent.
    return distribute_tensor(value.to(pattern.device), pattern.device_mesh, pattern.placements, src_data_rank=None)


def drop_after_each_pass(module: nn.Module) -> None:
    """Let FSDP keep nothing whole between two passes, not the root either: weights that are changed in place would not
    be seen."""
    if isinstance(module, FSDPModule):
        module.set_reshard_after_forward(True)


def in_pieces(value: Tensor) -> bool:
    """Whether this process has only a piece of it."""
    return isinstance(value, DTensor)
