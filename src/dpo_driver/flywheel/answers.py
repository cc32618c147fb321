"""Answers of a model, kept under the address of their question: each file is whole or absent.

A file holds all answers to one question in their order, refused ones too, with what each took, so that nothing is paid
twice however a command ends. In a sealed run they are sealed, too. Called by annotate.py and teach.py; knows no checks
and no endpoint.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dpo_driver.core import blobs
from dpo_driver.core.errors import DataError
from dpo_driver.core.records import Message, Usage
from dpo_driver.core.secrets import known
from dpo_driver.core.store_files import vault_around

FOLDER = "annotations"


@dataclass(frozen=True)
class Answer:
    """One answer. ``text`` is None where it may not be written down; ``finish`` says how it ended: "length" was cut
    off, "error" means that the question does not fit the model."""

    text: str | None
    finish: Literal["stop", "length", "error"]
    usage: Usage


def address(model: str, version: int, messages: Sequence[Message], action: str) -> str:
    """SHA-256 over who is asked, the prompt's version, the messages and the action: 64 hex digits."""
    content = [model, version, [message.model_dump() for message in messages], action]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def added(one: Usage, other: Usage) -> Usage:
    """What two calls took together; a price that is not known stays so."""
    return Usage(
        input_tokens=one.input_tokens + other.input_tokens,
        output_tokens=one.output_tokens + other.output_tokens,
        cost=None if one.cost is None or other.cost is None else one.cost + other.cost,
        estimated=one.estimated or other.estimated,
    )


class Answers:
    """``Answers(run_dir)``: the folder ``annotations`` of a run directory, or another one beside it. One process writes
    at a time, which a lock of the caller's sees to."""

    def __init__(self, run_dir: Path, folder: str = FOLDER) -> None:
        self._folder = run_dir / folder
        self._vault = vault_around(self._folder)

    def get(self, key: str) -> list[Answer]:
        """All answers to a question, the first one first; none if it was not asked.

        Raises:
            DataError: somebody else wrote into the file.
        """
        path = self._path(key)
        try:
            found = json.loads(self._opened(path.read_text(encoding="utf-8"), key))
            return [Answer(row["text"], row["finish"], Usage(**row["usage"])) for row in found["answers"]]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise blobs.store_error(error, path) from error
        except (ValueError, KeyError, TypeError):
            raise DataError("a kept answer cannot be read", where=str(path),
                            remedy="remove the file; the question is then asked again") from None  # fmt: skip

    def put(self, key: str, model: str, action: str, answers: Sequence[Answer]) -> None:
        """Keep all answers to a question in place of what was kept; on disk when this returns."""
        rows = [{"text": one.text, "finish": one.finish, "usage": one.usage.model_dump()} for one in answers]
        content = known().cover_json({"model": model, "action": action, "answers": rows})
        text = json.dumps(content, ensure_ascii=False, indent=1)
        path = self._path(key)
        draft = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                with draft.open("w", encoding="utf-8") as file:
                    file.write(text if self._vault is None else self._vault.seal_text(text, key.encode()))
                    file.flush()
                    os.fsync(file.fileno())
                draft.replace(path)
            finally:
                draft.unlink(missing_ok=True)
        except OSError as error:
            raise blobs.store_error(error, path) from error

    def _opened(self, text: str, key: str) -> str:
        return text if self._vault is None else self._vault.open_text(text, key.encode())

    def _path(self, key: str) -> Path:
        return self._folder / key[:2] / f"{key[2:]}.json"
