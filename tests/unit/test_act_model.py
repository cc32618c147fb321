"""Which model acts, and by which profile its prompts are written: that of the version, where nobody says otherwise."""

from __future__ import annotations

from pathlib import Path

import pytest

from dpo_driver.agents.prompt import get_profile
from dpo_driver.cli.act import opened_agent
from dpo_driver.core.records import ModelVersion
from dpo_driver.policies.loading import save_version
from dpo_driver.registry import Registry
from dpo_driver.testing.tiny_models import tiny_model


@pytest.mark.parametrize(
    ("base", "recorded", "asked", "expected"),
    [
        ("pocket", "chat-no-thought", None, "chat-no-thought"),
        ("pocket", "chat-no-thought", "chat-turns", "chat-turns"),
        ("pocket", "", None, "pocket"),  # versions from before profiles were recorded
        ("Qwen/Qwen3-4B", "", None, "chat"),
        ("models/mine", "pocket", None, "pocket"),
    ],
)
def test_a_version_gets_the_prompts_that_it_was_trained_with(
    tmp_path: Path, base: str, recorded: str, asked: str | None, expected: str
) -> None:
    save_version(*tiny_model("qwen3"), tmp_path / "model")
    version = ModelVersion(name="p/dpo-1", version=0, path=str(tmp_path / "model"), parent=None, base_model=base,
                           algorithm="dpo", content_hash="", prompt_profile=recorded)  # fmt: skip
    Registry(tmp_path).register(version)
    with opened_agent("p/dpo-1", None, None, asked, tmp_path) as (agent, name):
        assert (agent.context_policy, name) == (get_profile(expected).id, "p/dpo-1")
