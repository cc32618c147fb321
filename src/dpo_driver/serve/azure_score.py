"""What a managed online endpoint runs: ``init()`` once, ``run(body)`` for each request, a chat completion of OpenAI's.

Azure checks the key, counts requests and restarts; this answers. Sent along by cloud/azure/files.py.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

MOST_TOKENS, DEFAULT_TOKENS = 2048, 256
_served: Any = None


def init() -> None:
    """Load the model, or the adapter on the base that ``DPO_DRIVER_BASE`` names."""
    global _served
    from dpo_driver.serve.models import Shelf

    folder = find_model(Path(os.environ["AZUREML_MODEL_DIR"]))
    _served = Shelf().load("champion", with_base(folder, os.environ.get("DPO_DRIVER_BASE", "")))


def run(body: str | bytes) -> dict[str, Any]:
    """One request; what is wrong with it comes back as OpenAI's error object."""
    from dpo_driver.serve import protocol

    content = body.encode() if isinstance(body, str) else body
    try:
        asked = protocol.parse_chat(_named(content), default_tokens=DEFAULT_TOKENS, most_tokens=MOST_TOKENS)
    except protocol.RequestError as error:
        return error.body
    prompts = [_served.encode(asked.messages)] * asked.choices
    seed = asked.sampling.seed
    sampling = [asked.sampling if seed is None else asked.sampling.model_copy(update={"seed": seed + number})
                for number in range(asked.choices)]  # fmt: skip
    answers = _served.generate(prompts, sampling, lambda row, ids: True)
    texts = [_before_stop(answer.text, asked.stop) for answer in answers]
    return protocol.completion(protocol.new_id(), asked.model or "champion", texts, answers, [None] * len(texts))


def _named(content: bytes) -> bytes:
    """An endpoint has one model: who names none means it."""
    try:
        given = json.loads(content)
    except ValueError:
        return content  # whoever reads it next says what is wrong
    return json.dumps({"model": "champion", **given}).encode() if isinstance(given, dict) else content


def find_model(folder: Path) -> Path:
    """Azure puts a model's files into a folder below: the one that has a configuration."""
    for name in ("adapter_config.json", "config.json"):
        found = sorted(folder.rglob(name), key=lambda path: len(path.parts))
        if found:
            return found[0].parent
    raise FileNotFoundError(f"no model below {folder}")


def with_base(folder: Path, base: str) -> Path:
    """An adapter names its base as it was found when it was trained; here it may lie elsewhere."""
    import shutil
    import tempfile

    if not base or not (folder / "adapter_config.json").is_file():
        return folder
    copy = Path(tempfile.mkdtemp(prefix="adapter-")) / folder.name
    shutil.copytree(folder, copy)
    (copy / "manifest.json").unlink(missing_ok=True)  # it vouches for the file that is changed next
    config = json.loads((copy / "adapter_config.json").read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = base
    (copy / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    return copy


def _before_stop(text: str, stops: tuple[str, ...]) -> str:
    return text[: min((text.find(stop) for stop in stops if stop in text), default=len(text))]
