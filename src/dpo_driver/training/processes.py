"""Training by several processes: what torch's wrappers (DDP, FSDP2) and DeepSpeed need of a model, and that all begin
with the same one.

Called by training/engine.py, trainer.py and online.py. With one process nothing here changes anything; who is who is in
core/ranks.py.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from dpo_driver.core import ranks
from dpo_driver.core.errors import TrainingError
from dpo_driver.policies.loading import invocation, weights_hash
from dpo_driver.training.attention import plain_model
from dpo_driver.training.checkpoint import trainable
from dpo_driver.training.logprobs import Distribution, Scorer
from dpo_driver.training.pieces import whole
from dpo_driver.training.tree import Forest


class Scoring(nn.Module):
    """A scorer as a module: its ``forward`` is all that a gradient goes through, chunks of the head included, so torch
    can wrap it as it would wrap a model."""

    def __init__(self, scorer: Scorer) -> None:
        super().__init__()
        self.model = scorer.model
        self._scorer = scorer
        self._no_split_modules = getattr(plain_model(scorer.model), "_no_split_modules", None)  # FSDP shards by these

    def forward(self, forest: Forest, sampled: Distribution | None = None) -> tuple[Tensor, Tensor]:
        """Log-probs and entropies [N] of the forest's scored tokens."""
        scores = self._scorer.by_itself(forest, sampled)
        return scores.logps_N, scores.entropy_N


def to_train(scorer: Scorer) -> nn.Module:
    """What Trainer is given: the model, or what can be wrapped around it under a launcher."""
    return Scoring(scorer) if ranks.launched() else scorer.model


# -- the same start --------------------------------------------------------------------------------------------------


def same_weights(model: nn.Module) -> str:
    """Give all processes the main one's trainable weights (a fresh adapter is random), and check the others.

    Returns:
        The hash of all weights.

    Raises:
        TrainingError: the processes loaded different models.
    """
    found = ranks.gather(weights_hash(model))
    if len(set(found)) > 1:
        for value in trainable(model).values():
            value.copy_(ranks.broadcast(value.cpu()))
        found = ranks.gather(weights_hash(model))
    if len(set(found)) > 1:
        raise TrainingError("the processes of this run hold different models", where=", ".join(found),
                            remedy="all machines must see the same model folder")  # fmt: skip
    return found[0]


# -- FSDP ------------------------------------------------------------------------------------------------------------


def is_sharded() -> bool:
    """Whether the launcher asks for FSDP."""
    return ranks.launched() and os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"


@contextmanager
def learner(model: nn.Module) -> Iterator[nn.Module]:
    """The model that is trained in place of the given one: itself, or under FSDP a copy, because what FSDP does to a
    model cannot be undone. The given one, on the host meanwhile, gets the copy's weights in the end.

    Raises:
        TrainingError: a quantised model and FSDP, or an adapter that acts only after the prompt.
    """
    if not is_sharded():
        yield model
        return
    if getattr(plain_model(model), "is_quantized", False):
        raise TrainingError("quantised weights cannot be sharded", remedy="use configs/launch/ddp.yaml")
    if invocation(model) is not None:
        raise TrainingError("an adapter that acts only after the prompt cannot be trained with sharded weights",
                            remedy="use configs/launch/ddp.yaml, or turn model.lora.after_prompt off")  # fmt: skip
    if os.environ.get("FSDP_VERSION", "1") != "2":
        raise TrainingError("only FSDP2 is supported", where="fsdp_version", remedy="use configs/launch/fsdp2.yaml")
    device = next(model.parameters()).device
    model.to("cpu")
    twin = copy.deepcopy(model).to(device)
    try:
        yield twin
        learned = {name: whole(value) for name, value in trainable(twin).items()}
    finally:
        del twin
        model.to(device)
    for name, value in trainable(model).items():
        value.copy_(learned[name])
    model.eval()


def shard_on_cpu(trainer: Any) -> None:
    """Let Accelerate use FSDP2 on CPUs as well: torch can, and it is where this is tested. It looks for a GPU only
    because FSDP1 needed one."""
    state = trainer.accelerator.state
    if not is_sharded() or state.device.type != "cpu" or getattr(state, "fsdp_plugin", None) is not None:
        return
    from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin

    state.distributed_type = DistributedType.FSDP
    state.fsdp_plugin = FullyShardedDataParallelPlugin()
    trainer.is_fsdp_enabled = True
    trainer.place_model_on_device = False


# -- random generators -----------------------------------------------------------------------------------------------


def drops_out(model: nn.Module) -> bool:
    """Whether a training pass draws random numbers."""
    config = plain_model(model).config
    layers = any(isinstance(module, nn.Dropout) and module.p > 0 for module in model.modules())
    return layers or getattr(config, "attention_dropout", 0.0) > 0
