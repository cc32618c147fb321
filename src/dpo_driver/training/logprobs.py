"""Per-token log-probs of the completions of a forest: shared prefixes computed once, LM head on completion tokens only.

``Scorer`` picks the way a model can be computed and says which it took. ``unshared_logps`` gives the same numbers the
plain way, for models that cannot take a tree; tests hold the two equal. Called by training/trainer.py and
training/reference.py.

Shapes: T flat tokens, N scored tokens, E hidden size, V vocabulary, Q rows and L length of the unshared batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from dpo_driver.training.attention import plain_model, tree_attention, why_not
from dpo_driver.training.tree import Forest

HEAD_CHUNK = 1024  # positions whose logits exist at once


class Scorer:
    """Log-probs of a forest under a model, by the fastest exact way that the model allows.

    Args:
        model: a causal LM, plain or with LoRA layers.
        bf16: compute the linear layers in bfloat16 (autocast); log-probs stay float32.
        share: False computes every completion with its own prompt, for comparison.
    """

    def __init__(self, model: nn.Module, *, bf16: bool = False, share: bool = True) -> None:
        self.model = model
        self.bf16 = bf16
        reason = why_not(model) if share else "sharing is off"
        self.shares = reason is None
        self.path = "prefix tree" if self.shares else f"unshared: {reason}"

    @contextmanager
    def session(self) -> Iterator[Scorer]:
        """Prepare the model for scoring; afterwards it is as it was."""
        if not self.shares:
            yield self
            return
        with tree_attention(self.model):
            yield self

    def __call__(self, forest: Forest) -> Tensor:
        """[N] float32, in the order of ``forest.target``."""
        with torch.autocast(forest.input_ids.device.type, torch.bfloat16, enabled=self.bf16):
            return tree_logps(self.model, forest) if self.shares else unshared_logps(self.model, forest)


def tree_logps(model: nn.Module, forest: Forest, *, head_chunk: int = HEAD_CHUNK) -> Tensor:
    """Log-probs of all scored tokens in one pass over the flat sequence. Call it inside ``tree_attention(model)``.

    Args:
        model: a causal LM for which ``attention.why_not`` is None, plain or with LoRA layers.
        forest: the batch, on the model's device.
        head_chunk: at most this many positions get logits at once; more are recomputed in the backward pass.

    Returns:
        [N] float32, in the order of ``forest.target``.
    """
    plain = plain_model(model)
    hidden_1TE = plain.base_model(
        input_ids=forest.input_ids,
        position_ids=forest.position_ids,
        attention_mask=None,
        use_cache=False,
        forest=forest,
    ).last_hidden_state
    hidden_NE = hidden_1TE[0].index_select(0, forest.predict)
    head = plain.get_output_embeddings()
    if len(hidden_NE) <= head_chunk:
        return _head_logps(head, hidden_NE, forest.target)
    parts: list[Any] = [
        checkpoint(_head_logps, head, hidden, target, use_reentrant=False)
        for hidden, target in zip(hidden_NE.split(head_chunk), forest.target.split(head_chunk), strict=True)
    ]
    return torch.cat(parts)


def _head_logps(head: nn.Module, hidden_NE: Tensor, target_N: Tensor) -> Tensor:
    return -F.cross_entropy(head(hidden_NE).float(), target_N, reduction="none")


def unshared_logps(model: nn.Module, forest: Forest) -> Tensor:
    """The same as :func:`tree_logps`, every completion with its own copy of its prefix, by the model's own attention.

    Returns:
        [N] float32.
    """
    paths: list[list[int]] = []
    counts: list[int] = []
    for tree in forest.trees:
        for i, segment in enumerate(tree.segments):
            if segment.scored:
                paths.append(tree.path(i))
                counts.append(len(segment.ids))
    device = forest.input_ids.device
    length = max(map(len, paths))
    ids_QL = torch.zeros(len(paths), length, dtype=torch.long)
    mask_QL = torch.zeros(len(paths), length, dtype=torch.long)
    for row, path in enumerate(paths):
        ids_QL[row, : len(path)] = torch.tensor(path)
        mask_QL[row, : len(path)] = 1
    logits_QLV = model(input_ids=ids_QL.to(device), attention_mask=mask_QL.to(device), use_cache=False).logits
    rows = torch.repeat_interleave(torch.arange(len(paths)), torch.tensor(counts))
    columns = torch.cat([torch.arange(len(p) - n - 1, len(p) - 1) for p, n in zip(paths, counts, strict=True)])
    picked_NV = logits_QLV[rows.to(device), columns.to(device)]
    return -F.cross_entropy(picked_NV.float(), forest.target, reduction="none")
