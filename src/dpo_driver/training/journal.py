"""The journal of online training: what each update learned from, on disk before the update begins.

One zstd-compressed file of JSON an entry, written whole or not at all and flushed. After a kill -9 the updates since
the last checkpoint are done again from here, without a browser, so that only the entry in the making is lost. In a
sealed run entries are sealed. Called by training/online.py; knows neither models nor browsers.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import zstandard

from dpo_driver.core.errors import StoreError
from dpo_driver.core.store_files import vault_around
from dpo_driver.training.checkpoint import read_json, write_json

_NAME = re.compile(r"rollouts-(\d+)\.json\.zst")
SIGNATURE = "run.json"
LEVEL = 3  # a tenth of the text's size at a fraction of a rollout's time


class Journal:
    """Entries are numbered from 1, without gaps. ``Journal(folder).write(1, {"groups": [...]})``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._vault = vault_around(folder)

    def belongs_to(self, fingerprint: Mapping[str, Any]) -> bool:
        """Whether a run with this fingerprint has signed it."""
        signature = self.folder / SIGNATURE
        return signature.is_file() and read_json(signature) == json.loads(json.dumps(fingerprint))

    def sign(self, fingerprint: Mapping[str, Any]) -> None:
        """Note whose rollouts these are: without a checkpoint nothing else would say so."""
        write_json(self.folder / SIGNATURE, fingerprint)

    def path(self, number: int) -> Path:
        return self.folder / f"rollouts-{number:06d}.json.zst"

    def write(self, number: int, entry: Any) -> int:
        """Keep an entry for good; returns its bytes on disk."""
        packed = zstandard.ZstdCompressor(level=LEVEL).compress(json.dumps(entry, separators=(",", ":")).encode())
        if self._vault is not None:
            packed = self._vault.seal(packed, self.path(number).name.encode())
        path = self.path(number)
        fresh = path.with_suffix(".new")
        with fresh.open("wb") as file:
            file.write(packed)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
        handle = os.open(self.folder, os.O_RDONLY)
        try:
            os.fsync(handle)  # the name as well
        finally:
            os.close(handle)
        return len(packed)

    def read(self, number: int) -> Any:
        """An entry.

        Raises:
            StoreError: it is missing or damaged.
        """
        path = self.path(number)
        try:
            packed = path.read_bytes()
            if self._vault is not None:
                packed = self._vault.open(packed, path.name.encode())
            return json.loads(zstandard.ZstdDecompressor().stream_reader(packed).read())
        except (OSError, zstandard.ZstdError, ValueError) as error:
            raise StoreError(
                f"this entry of the rollout journal cannot be read: {error}",
                where=str(path),
                remedy="delete it and those after it: their rollouts are done again",
            ) from error

    def last(self) -> int:
        """The number of the newest entry that follows the others without a gap; 0 when there is none."""
        numbers = {int(match[1]) for path in self.folder.iterdir() if (match := _NAME.fullmatch(path.name))}
        number = 0
        while number + 1 in numbers:
            number += 1
        return number

    def drop_after(self, number: int) -> None:
        """Forget newer entries: they were made by weights that are gone."""
        for path in self.folder.iterdir():
            match = _NAME.fullmatch(path.name)
            if match and int(match[1]) > number:
                path.unlink()
