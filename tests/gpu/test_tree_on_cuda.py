"""The tree on a CUDA device: both back-ends give the log-probs and gradients of the unshared computation."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch

from dpo_driver.testing.tiny_models import tiny_model
from dpo_driver.training.logprobs import Scorer, unshared_scores
from dpo_driver.training.tree import Tree, pack

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
ARCHITECTURES = ("qwen2", "qwen3", "llama", "mistral", "gemma", "gemma3_text")


def forest() -> Any:
    rng = random.Random(0)

    def ids(count: int) -> tuple[int, ...]:
        return tuple(rng.randrange(400) for _ in range(count))

    return pack([Tree.star(ids(200), [ids(40) for _ in range(4)]), Tree.star(ids(90), [ids(7), ids(30)])]).to("cuda")


def gradients(model: Any, logps: torch.Tensor) -> torch.Tensor:
    model.zero_grad(set_to_none=True)
    (logps * torch.linspace(-1, 2, len(logps), device=logps.device)).sum().backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@pytest.mark.parametrize("attention", ["sdpa", "flex"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_log_probs_and_gradients_equal_the_unshared_computation(architecture: str, attention: str) -> None:
    # FlexAttention's kernels want heads of 16 at least.
    model, _ = tiny_model(architecture, width=128)
    model.to("cuda").requires_grad_(True)
    batch, scorer = forest(), Scorer(model, attention=attention)
    with scorer.session():
        shared = scorer(batch).logps_N
        found = gradients(model, shared)
    plain = unshared_scores(model, batch).logps_N
    expected = gradients(model, plain)
    assert torch.allclose(shared, plain, atol=1e-4)
    assert torch.cosine_similarity(found.double(), expected.double(), dim=0) >= 0.99999
