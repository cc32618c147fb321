"""Models on disk: loading them safely, saving versions, and the hash that names what is in a folder.

Weights are safetensors, never pickles; code from a model's folder is never run. Every folder written here ends with a
``manifest.json`` (name, size, sha256), so that a damaged one is recognised. Called by policies/hf.py, training and the
flywheel. Must not import agents or environments.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from dpo_driver.core.errors import ModelError
from dpo_driver.core.schema_training import LoraConfig
from dpo_driver.policies.encoding import generation_header
from dpo_driver.policies.pocket import pocket_folder

MANIFEST = "manifest.json"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
# What decides a model's behaviour; the rest of a folder (cards, curves) does not change its hash.
_CONTENT = ("*.safetensors", "*.safetensors.index.json", "config.json", "adapter_config.json", "generation_config.json",
            "tokenizer*", "special_tokens_map.json", "vocab.*", "merges.txt", "chat_template*")  # fmt: skip


def resolve(name_or_path: str | Path) -> str:
    """A folder's path, or a hub id. ``pocket`` is the model in the package.

    Raises:
        ModelError: it can only be a folder, and there is none.
    """
    name = str(name_or_path)
    if name == "pocket":
        folder = pocket_folder()
        if not (folder / "config.json").is_file():
            raise ModelError(
                "the pocket model is missing from the package", where=str(folder), remedy="dpo-driver pretrain"
            )
        return str(folder)
    path = Path(name).expanduser()
    if path.is_dir():
        return str(path)
    if isinstance(name_or_path, Path) or name.startswith((".", "/", "~")) or name.count("/") > 1 or path.exists():
        remedy = "train it first, or give another folder, a hub id such as Qwen/Qwen3-4B, or pocket"
        raise ModelError("there is no such model folder", where=name, remedy=remedy)
    return name


def local_folder(name_or_path: str | Path) -> Path:
    """Where a model's files lie on this machine: its folder, or the hub's cache once they are there.

    Raises:
        ModelError: a hub id that is not in the cache.
    """
    source = resolve(name_or_path)
    if Path(source).is_dir():
        return Path(source)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(source, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError, HfHubHTTPError, OSError) as error:
        raise ModelError(f"the model is not in the hub's cache: {_first_line(error)}", where=source,
                         remedy="check the name and the network, or give a folder") from error  # fmt: skip


def check_name(name_or_path: str | Path) -> None:
    """What can be known of a model before it is loaded: that it is there, has a tokenizer and no pickled weights.

    Raises:
        ModelError: names what is wrong.
    """
    source = resolve(name_or_path)
    if Path(source).is_dir():
        check_folder(source)
    load_tokenizer(source)


def is_adapter(folder: str | Path) -> bool:
    """Whether a folder holds a PEFT adapter rather than a whole model."""
    return (Path(folder) / "adapter_config.json").is_file()


def invocation(model: Any) -> tuple[int, ...] | None:
    """The tokens at which a model's adapter begins to act (policies/after_prompt.py); None for an adapter that always
    does, and without one."""
    if not hasattr(model, "peft_config"):
        return None
    tokens = getattr(model.peft_config[model.active_adapter], "alora_invocation_tokens", None)
    return tuple(tokens) if tokens else None


def load_tokenizer(name_or_path: str | Path) -> Any:
    """The tokenizer of a model, or of an adapter's base model where the adapter's folder holds none."""
    from transformers import AutoTokenizer

    source = resolve(name_or_path)
    if is_adapter(source) and not (Path(source) / "tokenizer_config.json").is_file():
        return load_tokenizer(_base_of(Path(source)))
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"the tokenizer cannot be loaded: {_first_line(error)}", where=source) from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_model(
    name_or_path: str | Path,
    *,
    adapter: str | Path | None = None,
    dtype: str = "auto",
    device: str = "auto",
    quantization: Literal["none", "nf4"] = "none",
    trainable: Literal["full", "lora"] | None = None,
    lora: LoraConfig | None = None,
) -> Any:
    """A causal language model, ready to generate or to train.

    Args:
        name_or_path: ``pocket``, a folder (of a model, or of an adapter whose base is then loaded too), or a hub id.
        adapter: a PEFT adapter folder to put on top.
        dtype: ``float32``, ``bfloat16``, ``float16``, or ``auto``: float32 on CPU, else bfloat16.
        device: ``cpu``, ``cuda``, ..., or ``auto``: the first accelerator, else the CPU.
        quantization: ``nf4``: the linear layers in 4 bits with double quantisation, computing in bfloat16; embeddings,
            norms and head stay in ``dtype``, an adapter in float32.
        trainable: ``full``: all weights (an adapter is merged first); ``lora``: an adapter, the given or a fresh one;
            None: frozen, in evaluation mode.
        lora: shape of a fresh adapter; rank 16, alpha 32, all linear layers when not given.

    Raises:
        ModelError: missing, incomplete, damaged or pickled weights, an architecture that is not a causal LM, or
            quantisation without bitsandbytes and CUDA or of weights that are to be trained.
    """
    source = resolve(name_or_path)
    place = pick_device(device)
    if quantization != "none":
        require_bitsandbytes(f"quantization {quantization}", place)
        if trainable == "full":
            raise ModelError(f"{quantization} weights cannot be trained", where=source, remedy="train an adapter: lora")
    if is_adapter(source):
        if adapter is not None:
            raise ModelError(
                "an adapter cannot be put on an adapter", where=source, remedy="give its base model's name"
            )
        source, adapter = resolve(_base_of(Path(source))), source
    model = _load_base(source, _dtype(dtype, device), _nf4() if quantization == "nf4" else None, place)
    if adapter is not None:
        model = _put_on(model, Path(resolve(adapter)), trainable)
        if trainable == "lora" and lora is not None and lora.after_prompt and not invocation(model):
            raise ModelError("this adapter acts on prompts too, and lora.after_prompt asks for one that does not",
                             where=str(adapter), remedy="start from a model without an adapter")  # fmt: skip
    elif trainable == "lora":
        lora = lora or LoraConfig()
        model = _fresh_adapter(model, lora, generation_header(load_tokenizer(source)) if lora.after_prompt else None)
    if trainable is None:
        model.requires_grad_(False)
    if quantization == "none":  # a quantised one lies where it was loaded to
        model = model.to(place)
    return model.train(trainable is not None)


def require_bitsandbytes(what: str, device: torch.device) -> None:
    """Check that bitsandbytes can do its part: it is installed, and the device is its own.

    Args:
        what: wants it, such as ``quantization nf4``.

    Raises:
        ModelError: names what is missing.
    """
    if device.type != "cuda":
        remedy = "leave it out on this machine, or run on a machine with an NVIDIA GPU"
        raise ModelError(f"{what} needs a CUDA device, not {device.type}", remedy=remedy)
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ModelError(f"{what} needs bitsandbytes", remedy="pip install 'dpo-driver[gpu]'")


def _nf4() -> Any:
    """QLoRA's quantisation (Dettmers et al. 2023). What PEFT's prepare_model_for_kbit_training would add is left out:
    gradient checkpointing is the engine's, an adapter freezes its base anyway, and embeddings in float32 would take as
    much memory again as they do."""
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )


def pick_device(device: str = "auto") -> torch.device:
    """``auto`` is the first accelerator, else the CPU."""
    if device != "auto":
        return torch.device(device)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _dtype(dtype: str, device: str) -> torch.dtype:
    if dtype == "auto":
        return torch.float32 if pick_device(device).type == "cpu" else torch.bfloat16
    found = getattr(torch, dtype, None)
    if not isinstance(found, torch.dtype):
        raise ModelError(f"unknown dtype {dtype!r}", remedy="float32, bfloat16, float16 or auto")
    return found


def _load_base(source: str, dtype: torch.dtype, quantized: Any, device: torch.device) -> Any:
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    if Path(source).is_dir():
        check_folder(source)
        logging.disable_progress_bar()  # local folders load in a moment; a download keeps its bar
    more = {} if quantized is None else {"quantization_config": quantized, "device_map": {"": device}}
    try:
        return AutoModelForCausalLM.from_pretrained(
            source, dtype=dtype, trust_remote_code=False, use_safetensors=True, attn_implementation="sdpa", **more
        )
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        remedy = "check the name and the network" if not Path(source).is_dir() else "save the model again"
        raise ModelError(f"the model cannot be loaded: {_first_line(error)}", where=source, remedy=remedy) from error


def _put_on(model: Any, folder: Path, trainable: str | None) -> Any:
    from peft import PeftModel

    check_folder(folder)
    if not is_adapter(folder):
        raise ModelError("this folder holds no adapter", where=str(folder), remedy="it needs adapter_config.json")
    try:
        loaded = PeftModel.from_pretrained(model, str(folder), is_trainable=trainable == "lora")
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise ModelError(f"the adapter does not fit: {_first_line(error)}", where=str(folder)) from error
    if trainable != "full":
        return loaded
    if invocation(loaded):
        remedy = "serve it as an adapter, or train one without lora.after_prompt"
        what = "an adapter that acts only after the prompt cannot be merged"
        raise ModelError(what, where=str(folder), remedy=remedy)
    return loaded.merge_and_unload().requires_grad_(True)


def _fresh_adapter(model: Any, lora: LoraConfig, tokens: tuple[int, ...] | None = None) -> Any:
    """``tokens`` are those at which the adapter begins to act; None: it always does."""
    from peft import LoraConfig as PeftLora
    from peft import get_peft_model

    targets = lora.target_modules if isinstance(lora.target_modules, str) else list(lora.target_modules)
    config = PeftLora(
        r=lora.r, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=targets, use_rslora=lora.use_rslora,
        task_type="CAUSAL_LM", alora_invocation_tokens=list(tokens) if tokens else None,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):  # the same adapter every time: a stopped training finds its parent again
        torch.manual_seed(0)
        return get_peft_model(model, config)


def _base_of(folder: Path) -> str:
    base = json.loads((folder / "adapter_config.json").read_text()).get("base_model_name_or_path")
    if not base:
        raise ModelError("the adapter does not name its base model", where=str(folder / "adapter_config.json"))
    return str(base)


def check_folder(folder: str | Path) -> None:
    """Refuse a model folder that is incomplete, damaged or pickled.

    Raises:
        ModelError: names the file at fault.
    """
    from safetensors import SafetensorError, safe_open

    folder = Path(folder)
    if not (folder / "config.json").is_file() and not is_adapter(folder):
        raise ModelError("this is no model folder: config.json is missing", where=str(folder))
    weights = sorted(folder.glob("*.safetensors"))
    for index in folder.glob("*.safetensors.index.json"):
        wanted = {folder / name for name in json.loads(index.read_text())["weight_map"].values()}
        for missing in sorted(wanted - set(weights)):
            raise ModelError("a part of the weights is missing", where=str(missing), remedy="copy or download it again")
    if not weights:
        pickles = sorted(path.name for pattern in PICKLES for path in folder.glob(pattern))
        if pickles:
            remedy = "a pickle can run code when it is loaded; convert it to safetensors"
            raise ModelError(f"the weights are a pickle ({pickles[0]}) and refused", where=str(folder), remedy=remedy)
        raise ModelError("the folder holds no weights (*.safetensors)", where=str(folder))
    check_manifest(folder)
    for path in weights:
        try:
            with safe_open(str(path), framework="pt") as handle:
                handle.keys()
        except (SafetensorError, OSError) as error:
            raise ModelError(
                f"damaged weights: {_first_line(error)}", where=str(path), remedy="copy it again"
            ) from error


def check_manifest(folder: str | Path) -> None:
    """Compare a folder with its manifest, where it has one. ModelError names the first file that differs."""
    folder = Path(folder)
    if not (folder / MANIFEST).is_file():
        return
    for entry in json.loads((folder / MANIFEST).read_text())["files"]:
        path = folder / entry["name"]
        if not path.is_file() or path.stat().st_size != entry["size"] or file_hash(path) != entry["sha256"]:
            problem = "is missing" if not path.is_file() else "is not what was saved"
            raise ModelError(
                f"{entry['name']} {problem}", where=str(folder), remedy="copy it again or use an earlier version"
            )


def write_manifest(folder: str | Path) -> None:
    """List all files of a folder with size and sha256; flush everything to disk. Call it last."""
    folder = Path(folder)
    entries = []
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST):
        with path.open("rb") as handle:
            os.fsync(handle.fileno())
        entries.append({"name": str(path.relative_to(folder)), "size": path.stat().st_size, "sha256": file_hash(path)})
    with (folder / MANIFEST).open("w") as handle:
        json.dump({"files": entries}, handle, indent=1)
        handle.flush()
        os.fsync(handle.fileno())


def save_version(model: Any, tokenizer: Any, folder: str | Path) -> str:
    """Save a model (or, for LoRA, its adapter) and tokenizer; the folder appears whole or not at all.

    Returns:
        The folder's content hash.
    """
    from transformers.utils import logging

    logging.disable_progress_bar()
    folder = Path(folder)
    fresh, old = folder.with_name(folder.name + ".new"), folder.with_name(folder.name + ".old")
    for leftover in (fresh, old):
        shutil.rmtree(leftover, ignore_errors=True)
    fresh.mkdir(parents=True)
    model.save_pretrained(fresh, safe_serialization=True)
    tokenizer.save_pretrained(fresh)
    write_manifest(fresh)
    if folder.exists():
        folder.rename(old)
    fresh.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
    return content_hash(folder)


def content_hash(folder: str | Path) -> str:
    """16 hex digits over weights, configuration and tokenizer; an adapter's includes its base model's."""
    folder = Path(folder)
    names = sorted({path.name for pattern in _CONTENT for path in folder.glob(pattern)})
    digest = hashlib.sha256()
    for name in names:
        digest.update(f"{name}:{file_hash(folder / name)}\n".encode())
    if is_adapter(folder) and Path(_base_of(folder)).is_dir():
        digest.update(content_hash(_base_of(folder)).encode())
    return digest.hexdigest()[:16]


def weights_hash(model: nn.Module) -> str:
    """16 hex digits over the names and values of all weights of a model in memory, and where its adapter acts."""
    digest = hashlib.sha256()
    if tokens := invocation(model):
        digest.update(f"after {tokens}".encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


def file_hash(path: str | Path) -> str:
    """SHA-256 of a file, in hex."""
    with Path(path).open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0][:200] if text else type(error).__name__
