"""The conformance check for policies: whatever generates for an agent must pass it. Used by tests and plug-in authors.

    check_policy(HFPolicy("models/pocket"))

Raises AssertionError with the rule that was broken. Must not import torch or any policy.
"""

from __future__ import annotations

import math

from dpo_driver.core.protocols import Policy
from dpo_driver.core.records import Generation, Message, Sampling

_PROMPTS = tuple(
    (Message(role="user", content=f"button Save[1]\nbutton Stop[2]\ngoal: Press {name}.\n"),)
    for name in ("Save", "Stop")
)


def check_policy(policy: Policy, *, too_long: str | None = None) -> None:
    """Check the rules of :class:`dpo_driver.core.protocols.Policy`.

    Args:
        policy: any policy; it generates a few dozen tokens.
        too_long: a prompt that does not fit the model; left out, that rule is not checked.
    """
    assert isinstance(policy, Policy), "a policy has `version` and `generate(prompts, sampling)`"
    assert policy.version, "`version` must name the weights"
    assert policy.generate([], []) == [], "no prompts give no generations"

    greedy = [Sampling(temperature=0.0, max_new_tokens=8)] * 2
    first = policy.generate(_PROMPTS, greedy)
    assert len(first) == 2, "one generation per prompt"
    for generation, sampling in zip(first, greedy, strict=True):
        _check_generation(policy, generation, sampling)
    assert [g.text for g in policy.generate(_PROMPTS, greedy)] == [g.text for g in first], "greedy must repeat itself"
    swapped = policy.generate(_PROMPTS[::-1], greedy)
    assert [g.text for g in swapped] == [g.text for g in first[::-1]], "generations come in the order of the prompts"

    drawn = [Sampling(temperature=1.0, top_p=0.95, max_new_tokens=8, seed=seed) for seed in (1, 2)]
    once = policy.generate(_PROMPTS, drawn)
    assert [g.text for g in policy.generate(_PROMPTS, drawn)] == [g.text for g in once], "equal seeds must draw equally"
    for generation, sampling in zip(once, drawn, strict=True):
        _check_generation(policy, generation, sampling)

    if too_long is not None:
        fits, refused = policy.generate([_PROMPTS[0], (Message(role="user", content=too_long),)], greedy)
        assert refused.finish_reason == "error", "a prompt that does not fit is answered with finish_reason='error'"
        assert refused.text == "", "a refused prompt has no text"
        assert fits.text == first[0].text, "a refused prompt does not disturb its neighbours"


def _check_generation(policy: Policy, generation: Generation, sampling: Sampling) -> None:
    assert generation.policy_version == policy.version, "a generation names the weights that made it"
    assert generation.sampling == sampling, "a generation keeps how it was drawn"
    assert generation.finish_reason in {"stop", "length"}, "a prompt that fits is answered"
    assert generation.prompt_tokens > 0, "the prompt's length is recorded"
    assert len(generation.token_ids) == len(generation.logprobs), "one log-probability per token"
    assert len(generation.token_ids) <= sampling.max_new_tokens, "max_new_tokens is kept"
    assert all(math.isfinite(p) and p <= 1e-6 for p in generation.logprobs), "log-probabilities are finite and <= 0"
