"""docs/interop.md is true: its Python runs as it stands, one block after the other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from dpo_driver.policies.loading import load_model, save_version
from tool_model import small_qwen3, tool_tokenizer
from tool_rows import ASKED, LOOKED, TOOLS, lines

pytest.importorskip("trl")


def test_the_blocks_run(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (root / "docs" / "interop.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 3
    monkeypatch.chdir(tmp_path)
    lines(tmp_path / "rows.jsonl", {"messages": [*ASKED, *LOOKED], "tools": TOOLS})
    tokenizer = tool_tokenizer([text])
    save_version(small_qwen3(tokenizer), tokenizer, tmp_path / "models" / "base")
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, "docs/interop.md", "exec"), names)
    assert names["result"].rows["train"] == 2  # type: ignore[attr-defined]
    ids_1T = torch.tensor([[5, 6, 7]])
    expected = load_model(tmp_path / "models" / "adapter", device="cpu")(ids_1T).logits
    assert torch.allclose(names["merged"].eval()(ids_1T).logits, expected, atol=1e-5)  # type: ignore[attr-defined]
    assert names["trainer"].state.global_step == 2  # type: ignore[attr-defined]
