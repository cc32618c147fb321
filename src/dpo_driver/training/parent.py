"""The frozen parent beside the model in training: only the weights that training changes are kept twice.

For an adapter that is the adapter; the base model below it is shared. Called by training/online.py and experience.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor, nn

from dpo_driver.training.checkpoint import trainable
from dpo_driver.training.pieces import in_pieces, like


class Parent:
    """What the model was when this was made."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._weights = {name: value.detach().clone() for name, value in trainable(model).items()}

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Inside, the model computes as the parent does; no gradient may be taken."""
        own = dict(self._model.named_parameters())
        if any(in_pieces(own[name]) for name in self._weights):
            with self._copied_over(own):
                yield
            return
        before: dict[str, Tensor] = {name: own[name].data for name in self._weights}
        try:
            for name, value in self._weights.items():
                own[name].data = value
            yield
        finally:
            for name, value in before.items():
                own[name].data = value

    @contextmanager
    def _copied_over(self, own: Mapping[str, Tensor]) -> Iterator[None]:
        """The same where FSDP holds on to the memory of its pieces: their values are changed and changed back."""
        before = {name: own[name].detach().clone() for name in self._weights}
        try:
            for name, value in self._weights.items():
                own[name].data.copy_(like(own[name].data, value))
            yield
        finally:
            for name, value in before.items():
                own[name].data.copy_(value)
