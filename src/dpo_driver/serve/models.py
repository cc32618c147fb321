"""Versions held in memory: adapters of one base share it, whole models stand alone. Loaded and dropped while serving.

Called by app.py, from threads; the engine runs one of them at a time, so switching adapters needs no lock.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from dpo_driver.core.errors import ModelError
from dpo_driver.core.records import Generation, Message, Sampling
from dpo_driver.policies.encoding import decode_completion, encode_prompt
from dpo_driver.policies.hf import Asked, HFPolicy, Watch
from dpo_driver.policies.loading import (
    check_folder,
    content_hash,
    is_adapter,
    load_model,
    load_tokenizer,
    local_folder,
    resolve,
)

MOST = 16  # versions in memory


class Served:
    """A version that can be asked; a ``Decoder`` for the engine.

    ``name`` is what it is called in answers, ``version`` its content hash.
    """

    def __init__(
        self, name: str, policy: HFPolicy, tokenizer: Any, active: Callable[[], AbstractContextManager[Any]]
    ) -> None:
        self.name, self.version = name, policy.version
        self._policy, self._tokenizer, self._active = policy, tokenizer, active

    def encode(self, messages: tuple[Message, ...]) -> tuple[int, ...]:
        """Token ids of a prompt."""
        return tuple(encode_prompt(self._tokenizer, messages))

    def decode(self, ids: list[int]) -> str:
        """The text of tokens so far, without the token that ends a turn."""
        return decode_completion(self._tokenizer, [i for i in ids if i not in self._policy.ends])

    def tokens(self, ids: tuple[int, ...]) -> list[str]:
        """The text of each token."""
        return [str(self._tokenizer.decode([i])) for i in ids]

    def generate(self, prompts: list[tuple[int, ...]], sampling: list[Sampling], watch: Watch) -> list[Generation]:
        """See ``HFPolicy.generate_ids``."""
        with self._active():
            return self._policy.generate_ids(prompts, sampling, watch)

    def generate_joining(
        self, joining: Callable[[int], Sequence[Asked]], watch: Watch, done: Callable[[int, Generation], None]
    ) -> None:
        """See ``HFPolicy.generate_joining``. Adapters are put on and taken off when it has returned."""
        with self._active():
            self._policy.generate_joining(joining, watch, done)


class Shelf:
    """``shelf.load("pocket/dpo-1", "runs/pocket/models/dpo-1")``; later ``shelf.get("pocket/dpo-1")``.

    Args:
        device, dtype: see ``load_model``.
        max_length: most tokens of prompt and answer together.
    """

    def __init__(self, *, device: str = "auto", dtype: str = "auto", max_length: int = 8192) -> None:
        self._how = {"device": device, "dtype": dtype}
        self._max_length = max_length
        self._mutex = threading.RLock()
        self._served: dict[str, Served] = {}
        self._folders: dict[str, str] = {}
        self._bases: dict[str, _Base] = {}

    def names(self) -> list[str]:
        """What is in memory."""
        return list(self._served)

    def folder(self, name: str) -> str:
        """Where a version was loaded from."""
        return self._folders[name]

    def get(self, name: str) -> Served | None:
        """A version that is in memory."""
        return self._served.get(name)

    def load(self, name: str, source: str | Path) -> Served:
        """Bring a version into memory under a name; the same content under that name again is nothing to do.

        Raises:
            ModelError: it cannot be loaded, the name stands for other weights, or there are too many.
        """
        with self._mutex:
            found = resolve(source)
            version = content_hash(found) if Path(found).is_dir() else ""
            known = self._served.get(name)
            if known is not None:
                if known.version == version:
                    return known
                raise ModelError(f"{name} is loaded with other weights", where=str(source), remedy="unload it first")
            if len(self._served) >= MOST:
                raise ModelError(f"{MOST} models are loaded already", where=str(source), remedy="unload one first")
            served = self._adapter(name, Path(found)) if is_adapter(found) else self._whole(name, found)
            self._served[name], self._folders[name] = served, str(source)
            return served

    def unload(self, name: str) -> None:
        """Drop a version; answers under way are finished.

        Raises:
            ModelError: there is none of this name.
        """
        with self._mutex:
            if name not in self._served:
                raise ModelError(f"no model {name!r} is loaded", remedy=f"loaded: {', '.join(self._served) or 'none'}")
            version = self._served.pop(name).version
            del self._folders[name]
            if all(other.version != version for other in self._served.values()):
                for base in self._bases.values():
                    base.without_adapter(version)
            self._bases = {key: base for key, base in self._bases.items() if base.in_use(self._served)}

    def _whole(self, name: str, source: str) -> Served:
        base = self._base(source)
        base.users.add(name)
        return Served(name, base.policy, base.tokenizer, base.bare)

    def _adapter(self, name: str, folder: Path) -> Served:
        check_folder(folder)
        config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        if config.get("alora_invocation_tokens"):  # acts after the prompt only: its forward is in two halves
            policy = HFPolicy(folder, max_length=self._max_length, **self._how)  # type: ignore[arg-type]
            return Served(name, policy, load_tokenizer(folder), contextlib.nullcontext)
        base = self._base(resolve(str(config["base_model_name_or_path"])))
        base.users.add(name)
        policy = base.with_adapter(folder, self._max_length)
        return Served(name, policy, base.tokenizer, lambda: base.adapted(policy.version))

    def _base(self, source: str) -> _Base:
        key = content_hash(local_folder(source)) if Path(source).is_dir() else source
        if key not in self._bases:
            model = load_model(source, **self._how)  # type: ignore[arg-type]
            self._bases[key] = _Base(model, load_tokenizer(source), key, self._max_length)
        return self._bases[key]


class _Base:
    """A whole model, and the adapters that were put on it."""

    def __init__(self, model: Any, tokenizer: Any, version: str, max_length: int) -> None:
        self.tokenizer, self.users = tokenizer, set[str]()
        self._using = threading.Lock()  # adapters are put on and taken off between runs
        self._model = model
        self._peft: Any = None
        self.policy = HFPolicy(model=model, tokenizer=tokenizer, version=version, max_length=max_length)

    def in_use(self, served: dict[str, Served]) -> bool:
        self.users &= served.keys()
        return bool(self.users)

    def with_adapter(self, folder: Path, max_length: int) -> HFPolicy:
        """Its policy under an adapter, which stands beside those that are there."""
        from peft import PeftModel

        version = content_hash(folder)
        with self._using:
            try:
                if self._peft is None:
                    self._peft = PeftModel.from_pretrained(self._model, str(folder), adapter_name=version)
                elif version not in self._peft.peft_config:
                    self._peft.load_adapter(str(folder), adapter_name=version)
            except (OSError, ValueError, RuntimeError, KeyError) as error:
                first = str(error).splitlines()[0]
                raise ModelError(f"the adapter does not fit: {first}", where=str(folder)) from error
            self._peft.requires_grad_(False).eval()
        return HFPolicy(model=self._peft, tokenizer=self.tokenizer, version=version, max_length=max_length)

    def without_adapter(self, version: str) -> None:
        """Free an adapter's memory, if it is one of this base."""
        with self._using:
            if self._peft is not None and version in self._peft.peft_config:
                self._peft.delete_adapter(version)

    @contextlib.contextmanager
    def adapted(self, version: str) -> Iterator[None]:
        """One adapter acts."""
        with self._using:
            if version not in self._peft.peft_config:
                raise ModelError("the model was unloaded before its turn came")
            self._peft.set_adapter(version)
            yield

    @contextlib.contextmanager
    def bare(self) -> Iterator[None]:
        """No adapter acts."""
        with self._using, contextlib.nullcontext() if self._peft is None else self._peft.disable_adapter():
            yield
