"""The repetition penalty: what stands in the prompt or was written already is made less probable. As transformers'
RepetitionPenaltyLogitsProcessor has it, for generation and training alike.

It acts on raw scores, before temperature and top_p: a score of a token that was seen is divided by the penalty, or
multiplied where it is negative. Called by policies/hf.py and training/logprobs.py, which must agree to the last bit of
what they can. Imports torch only.

Shapes: N positions, V vocabulary, P tokens of a prompt.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def penalised(scores_NV: Tensor, seen_NV: Tensor, penalty_N: Tensor) -> Tensor:
    """Scores in float32 with the penalty on what was seen.

    Args:
        scores_NV: raw.
        seen_NV: bool: stands in the prompt or was written before this position.
        penalty_N: 1 changes nothing.
    """
    scores_NV = scores_NV.float()
    penalty_N1 = penalty_N[:, None]
    lowered_NV = torch.where(scores_NV < 0, scores_NV * penalty_N1, scores_NV / penalty_N1)
    return torch.where(seen_NV, lowered_NV, scores_NV)


def mask_of(ids: Sequence[int], vocabulary: int, device: torch.device) -> Tensor:
    """[V] bool: which tokens are among ``ids``. An id beyond the vocabulary of the scores can never be drawn."""
    seen_V = torch.zeros(vocabulary, dtype=torch.bool, device=device)
    known = sorted({token for token in ids if token < vocabulary})
    seen_V[torch.tensor(known, dtype=torch.long, device=device)] = True
    return seen_V


def seen_before(prompts: Sequence[Tensor], written_M: Tensor, first_N: Tensor, at_N: Tensor, vocabulary: int) -> Tensor:
    """[N, V] bool: what each position of some completions had before it.

    Args:
        prompts: for each position the ids of its prompt; the positions of a completion share one tensor.
        written_M: completions one after the other.
        first_N: where in it each position's completion begins ...
        at_N: ... and where the position itself is.
        vocabulary: V.
    """
    device = written_M.device
    seen_NV = torch.zeros(len(prompts), vocabulary, dtype=torch.bool, device=device)
    start = 0
    for end in range(1, len(prompts) + 1):  # runs of positions with one prompt
        if end == len(prompts) or prompts[end] is not prompts[start]:
            ids_P = prompts[start]
            seen_NV[start:end, ids_P[ids_P < vocabulary]] = True
            start = end
    count_N = at_N - first_N
    rows = torch.repeat_interleave(torch.arange(len(prompts), device=device), count_N)
    within = torch.arange(len(rows), device=device) - torch.repeat_interleave(count_N.cumsum(0) - count_N, count_N)
    seen_NV[rows, written_M[first_N[rows] + within]] = True
    return seen_NV
