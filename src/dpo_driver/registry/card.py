"""A model card in the hub's format, from what is on record and nothing else. Called by models card and hub.py."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import yaml

from dpo_driver.core.records import Decision, ModelVersion, PairedDifference
from dpo_driver.registry.versions import Registry, address

UNKNOWN = "not recorded"


def model_card(registry: Registry, version: ModelVersion) -> str:
    """README.md of a version: YAML front matter, where it comes from, what was measured, how to load it."""
    parents = [known.name for known in registry.lineage(address(version))[1:]]
    decision = registry.decision(version)
    front: dict[str, Any] = {
        "base_model": version.base_model,
        "library_name": "peft" if version.adapter else "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["browser-agent", "dpo-driver", version.algorithm],
    }
    if decision is not None and decision.gain is not None and decision.gain.mean is not None:
        front["model-index"] = [_measurement(version, decision.gain)]
    sizes = weight_sizes(Path(version.path))
    lines = [
        "---", yaml.safe_dump(front, sort_keys=False, allow_unicode=True).rstrip(), "---", "",
        f"# {version.name}", "",
        "A browser agent's model, trained by DPO-Driver from what the browser itself reported.", "",
        "## Where it comes from", "",
        f"* algorithm: {version.algorithm}",
        f"* parents: {' <- '.join(parents) or 'none; not trained here'}",
        f"* base model: {version.base_model}",
        f"* size: {f'{sizes[0]:,} parameters in {sizes[1]:,} bytes' if sizes else UNKNOWN}"
        f"{', of the adapter alone' if sizes and version.adapter else ''}",
        f"* registered: {version.created}, content {version.content_hash}",
        f"* configuration {version.config_hash or UNKNOWN}, training rows {version.data_hash or UNKNOWN}, "
        f"code {version.git or UNKNOWN}",
        f"* prompt profile: {version.prompt_profile or UNKNOWN}",
        "", "## What was measured", "",
        *_measured(version, decision),
        "", "## Loading it", "", "```python", *_loading(version), "```", "",
        "## Limits", "",
        "It was trained and measured on the pages of its run; what it does on others was not measured. Prompts must be",
        "written by the profile that is named above. It may do on a page whatever its actions allow: give it an",
        "allow-list of origins.",
        "",
    ]  # fmt: skip
    return "\n".join(lines)


def weight_sizes(folder: Path) -> tuple[int, int] | None:
    """Parameters, and bytes of the files that hold them, from the heads of a folder's safetensors; None without any."""
    parameters = size = 0
    files = sorted(folder.glob("*.safetensors"))
    for path in files:
        with path.open("rb") as file:
            head = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        parameters += sum(math.prod(head[name]["shape"]) for name in head if name != "__metadata__")
        size += path.stat().st_size
    return (parameters, size) if files else None


def _measurement(version: ModelVersion, gain: PairedDifference) -> dict[str, Any]:
    """The entry of the hub's model-index: value, interval and n, in points of success."""
    interval = {} if gain.low is None or gain.high is None else {
        "low": round(100 * gain.low, 2), "high": round(100 * gain.high, 2), "level": 0.95}  # fmt: skip
    metric = {
        "type": "success_gain", "name": "paired gain in strict success, points",
        "value": round(100 * (gain.mean or 0), 2),
        "args": {**interval, "n": gain.n, "wins": gain.wins, "losses": gain.losses},
    }  # fmt: skip
    dataset = {"type": "dpo-driver", "name": "held-out pairs of episodes", "args": {"pairs": gain.n}}
    task = {"type": "text-generation"}
    return {"name": version.name, "results": [{"task": task, "dataset": dataset, "metrics": [metric]}]}


def _measured(version: ModelVersion, decision: Decision | None) -> list[str]:
    lines = [f"* {name}: {value:.4g}" for name, value in sorted(version.metrics.items())]
    if decision is not None:
        verdict = "promoted" if decision.promoted else "refused"
        lines.append(f"* {verdict} against {decision.champion or 'nobody'}: {'; '.join(decision.reasons)}")
        if decision.gain is not None and decision.gain.mean is not None:
            gain = decision.gain
            lines.append(
                f"* paired gain {gain.mean:+.1%}, 95 % interval [{gain.low:+.1%}, {gain.high:+.1%}], n = {gain.n}"
            )
    return lines or ["Nothing is on record."]


def _loading(version: ModelVersion) -> list[str]:
    if version.adapter:
        return [
            "from peft import AutoPeftModelForCausalLM", "from transformers import AutoTokenizer", "",
            f'model = AutoPeftModelForCausalLM.from_pretrained("{version.name}")',
            f'tokenizer = AutoTokenizer.from_pretrained("{version.name}")',
        ]  # fmt: skip
    return [
        "from transformers import AutoModelForCausalLM, AutoTokenizer", "",
        f'model = AutoModelForCausalLM.from_pretrained("{version.name}")',
        f'tokenizer = AutoTokenizer.from_pretrained("{version.name}")',
    ]  # fmt: skip
