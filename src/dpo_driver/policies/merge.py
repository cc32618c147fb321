"""Merging an adapter into its base model, for programs that want a plain model folder.

Called by the command line. Must not import agents or environments.
"""

from __future__ import annotations

import json
from pathlib import Path

from dpo_driver.core.errors import ModelError
from dpo_driver.policies.loading import is_adapter, load_model, load_tokenizer, resolve, save_version

DTYPES = ("auto", "float32", "bfloat16", "float16")


def export_merged(adapter: str | Path, folder: str | Path, *, dtype: str = "auto", device: str = "cpu") -> str:
    """Merge an adapter into its base model and save the result as a plain safetensors folder.

    The product of the adapter's matrices is added in float32 and rounded once, to the base model's own dtype.

    Args:
        adapter: its folder.
        folder: must not exist.
        dtype: of the saved weights, one of ``DTYPES``; ``auto``: the base model's own.
        device: where it is computed.

    Returns:
        The folder's content hash.

    Raises:
        ModelError: no adapter there, a base model that cannot be loaded, an unknown dtype, or a folder that exists.
    """
    import torch

    source, folder = Path(resolve(adapter)), Path(folder)
    if not is_adapter(source):
        raise ModelError("this folder holds no adapter", where=str(source), remedy="a whole model needs no merging")
    if folder.exists():
        raise ModelError("there is something already", where=str(folder), remedy="choose a folder that does not exist")
    if dtype not in DTYPES:
        raise ModelError(f"unknown dtype {dtype!r}", remedy=f"known: {', '.join(DTYPES)}")
    own = _dtype_of_base(source)
    model = load_model(source, dtype=own, device=device, trainable="full")
    return save_version(model.to(getattr(torch, own if dtype == "auto" else dtype)), load_tokenizer(source), folder)


def _dtype_of_base(adapter: Path) -> str:
    """As its configuration says; float32 where it says nothing."""
    from transformers import AutoConfig

    base = json.loads((adapter / "adapter_config.json").read_text())["base_model_name_or_path"]
    found = AutoConfig.from_pretrained(resolve(base), trust_remote_code=False).dtype
    return str(found or "float32").removeprefix("torch.")
