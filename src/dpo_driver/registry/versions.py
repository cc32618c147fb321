"""Model versions with lineage, aliases and content hashes, kept by MLflow's model registry on the runs' sqlite.

The flywheel registers what it trained and promotes what its gate let through; ``dpo-driver models`` and the report
read. A version is called ``pocket/dpo-1``: the part before the slash is the MLflow model, the rest says what made it,
and MLflow numbers the versions of a model 1, 2, 3. Aliases are ``champion`` (what is served and what the next turn
starts from), ``candidate`` (waits for the gate) and ``previous`` (the champion before). mlflow is imported on first
use: opening takes 0.6 to 2 s, each call 10 ms. Must not import flywheel, report or cli.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from dpo_driver.core.errors import ModelError
from dpo_driver.core.records import Decision, ModelVersion
from dpo_driver.registry.files import check_manifest, check_unchanged, file_hashes, folder_hash
from dpo_driver.registry.standing import ALIASES, Alias, Move, MoveKind, Standing, now, plain
from dpo_driver.tracking import open_client


class Registry:
    """Model versions below one root. ``Registry("runs").get("champion")``.

    Args:
        root: folder of ``mlflow.db``, usually the parent of the run directories.
        model: the MLflow model that bare aliases mean; needed only where a root has several.
    """

    def __init__(self, root: str | Path, model: str | None = None) -> None:
        self.root = Path(root).resolve()
        self.model = model
        self._client: Any = None
        self._standing = Standing(self.root, self._open)

    # -- writing -----------------------------------------------------------------------------------------------------

    def register(self, version: ModelVersion) -> ModelVersion:
        """Add a version and return it with its number, absolute path, content hash and time filled in.

        ``version.version`` is ignored: MLflow counts. An empty ``content_hash`` becomes the hash of the folder's files.
        The same name with the same content is registered once, so a resumed run adds nothing.

        Raises:
            ModelError: the folder is missing or unsafe, its manifest does not hold, or the parent is unknown.
        """
        model = model_of(version.name)
        folder = Path(version.path).resolve()
        hashes = file_hashes(folder)
        check_manifest(folder, hashes)
        content = version.content_hash or folder_hash(hashes)
        with self.turn():
            known = self._versions(model)
            for old in known:
                if (old.name, old.content_hash) == (version.name, content) and Path(old.path) == folder:
                    return old
            if version.parent is not None and all(old.content_hash != version.parent for old in self.list()):
                raise ModelError(
                    f"the parent {version.parent} of {version.name} is not registered",
                    where=str(self.root),
                    remedy="register the parent first, or give parent=None for a model that has none",
                )
            client = self._open()
            if not known and not self._standing.known(model):
                client.create_registered_model(model)
            created = version.created or now()
            filled = {"path": self._relative(folder), "content_hash": content, "created": created}
            record = version.model_copy(update=filled)
            # Everything goes into the one call that makes the version: a version without its record cannot exist.
            tags = _readable(record) | {
                "record": record.model_dump_json(exclude={"version"}),
                "files": json.dumps(hashes, sort_keys=True),
            }
            made = client.create_model_version(model, source=folder.as_uri(), tags=tags, description=_describe(record))
        return self._absolute(record.model_copy(update={"version": int(made.version)}))

    def set_alias(self, alias: Alias, reference: str) -> ModelVersion:
        """Point an alias at a version; it leaves whatever it pointed at before. A new champion is told to the history.

        Raises:
            ModelError: no such alias or version.
        """
        if alias not in ALIASES:
            raise ModelError(f"unknown alias {alias!r}", where=reference, remedy=f"known: {', '.join(ALIASES)}")
        version = self.get(reference)
        model = model_of(version.name)
        if alias != "champion":
            self._standing.set_alias(model, alias, version.version)
            return version
        with self.turn():
            self._standing.finish(model)
            before = self._holders(model).get(alias)
            if before is None or before.version != version.version:
                move = Move("set", model, before.name if before else "", version.name, "where a run starts from")
                self._standing.change(move, {alias: version.version})
        return version

    def promote(self, candidate: str, decision: Decision) -> ModelVersion:
        """Make the candidate the champion, the champion ``previous``, and drop the alias ``candidate``: all of it or
        nothing, together with the decision and the history. A decision that says no is kept with the candidate too.

        Raises:
            ModelError: the decision says no, is about another model, or its gain's interval does not lie above 0; no
                alias moved. Also when the candidate's files changed since it was registered.
        """
        version = self.get(candidate)
        model, number = model_of(version.name), version.version
        reason = _refusal(version, decision)
        if not reason:
            self.verify(version)
        with self.turn():
            self._standing.finish(model)
            holders = self._holders(model)
            before, waiting = holders.get("champion"), holders.get("candidate")
            champion, kept = before.name if before else "", {"decision": decision.model_dump_json()}
            if reason:
                move = Move("refuse", model, champion, version.name, reason)
                self._standing.change(move, {}, {number: kept})
            elif before is None or before.version != number:
                aliases: dict[Alias, int | None] = {"champion": number}
                if before is not None:
                    aliases["previous"] = before.version
                if waiting is not None and waiting.version == number:
                    aliases["candidate"] = None
                why = "; ".join(decision.reasons)
                self._standing.change(Move("promote", model, champion, version.name, why), aliases, {number: kept})
            elif self.decision(version) is None:  # champion already, as a run's first is
                self._open().set_model_version_tag(model, str(number), "decision", kept["decision"])
        if reason:
            raise ModelError(
                f"promotion refused: {reason}",
                where=version.name,
                remedy="the champion stays; train further or measure more",
            )
        return version

    def refuse(self, candidate: str, decision: Decision) -> ModelVersion:
        """Keep a decision that says no, with the candidate and in the history, once; no alias moves.

        Raises:
            ModelError: no such version.
        """
        version = self.get(candidate)
        model = model_of(version.name)
        with self.turn():
            self._standing.finish(model)
            if self.decision(version) != decision:
                champion = self._holders(model).get("champion")
                move = Move("refuse", model, champion.name if champion else "", version.name,
                            "; ".join(decision.reasons))  # fmt: skip
                self._standing.change(move, {}, {version.version: {"decision": decision.model_dump_json()}})
        return version

    def move(self, move: Move, before: Mapping[Alias, int | None], after: Mapping[Alias, int | None]) -> Move:
        """Move aliases and say so in the history: all of it or nothing.

        Args:
            move: for the history; who and when are filled in.
            before: the holders' numbers that the move was decided by, None for nobody.
            after: the new holders'.

        Raises:
            ModelError: somebody else has moved one meanwhile; nothing was moved.
        """
        with self.turn():
            self._standing.finish(move.model)
            found = self._standing.aliases(move.model)
            if any(found.get(alias) != number for alias, number in before.items()):
                raise ModelError(f"the aliases of {move.model} were moved meanwhile", where=str(self.root),
                                 remedy="see dpo-driver models history, and repeat the command")  # fmt: skip
            return self._standing.change(move, after)

    def finish(self, model: str | None, kind: MoveKind) -> Move | None:
        """Finish what a killed process began to move; the move if it was of this kind. Without a model: of all."""
        models = [model] if model else [self.model] if self.model else self._models()
        moves = [self._standing.finish(name) for name in models]
        return next((move for move in moves if move is not None and move.kind == kind), None)

    def note(self, move: Move) -> Move:
        """Add to the history, which only grows; who and when are filled in."""
        return self._standing.note(move)

    def mark_removed(self, version: ModelVersion) -> None:
        """Its weights are about to go; its record stays."""
        self._open().set_model_version_tag(model_of(version.name), str(version.version), "removed", now())

    def turn(self) -> contextlib.AbstractContextManager[None]:
        """The one writer of this root, until the end of the block; may be nested.

        Raises:
            ModelError: another writer did not finish in a minute, or the root cannot be written.
        """
        return self._standing.turn()

    # -- reading -----------------------------------------------------------------------------------------------------

    def get(self, reference: str) -> ModelVersion:
        """A version by alias (``champion``, ``pocket@champion``), number (``pocket:3``), name (``pocket/dpo-1``: the
        newest of that name) or content hash. Its files are not looked at; :meth:`load` does that.

        Raises:
            ModelError: nothing or more than one model matches.
        """
        found = self.find(reference)
        if found is None:
            known = sorted({version.name for version in self.list()})
            raise ModelError(
                f"no registered model {reference!r}",
                where=str(self.root),
                remedy=f"known: {', '.join([*known, *ALIASES])}"
                if known
                else "nothing is registered yet; start a run first",
            )
        return found

    def find(self, reference: str) -> ModelVersion | None:
        """Like :meth:`get`, but None when there is none: the first run has no champion."""
        model, at, alias = reference.rpartition("@")
        if at or reference in ALIASES:
            models = [model] if at else [self.model] if self.model else self._models()
            found = [holders[alias] for holders in map(self._holders, models) if alias in holders]
            if len(found) > 1:
                raise ModelError(
                    f"several models have a {alias}",
                    where=str(self.root),
                    remedy="name one: " + ", ".join(f"{model_of(match.name)}@{alias}" for match in found),
                )
            return found[0] if found else None
        model, colon, number = reference.rpartition(":")
        if colon:
            return next((v for v in self._versions(model) if str(v.version) == number), None)
        return next((v for v in reversed(self.list()) if reference in (v.name, v.content_hash)), None)

    def load(self, reference: str) -> ModelVersion:
        """A version whose files were just checked against the hashes they were registered with.

        Raises:
            ModelError: unknown, missing, changed or unsafe; the file is named.
        """
        version = self.get(reference)
        self.verify(version)
        return version

    def verify(self, version: ModelVersion) -> None:
        """Compare a version's files with what was registered.

        Raises:
            ModelError: a file is missing, added or changed.
        """
        if when := self.removed(version):
            raise ModelError(f"the weights of {version.name} were removed on {when}", where=version.path,
                             remedy="restore the folder from a copy, or name another version")  # fmt: skip
        check_unchanged(version.name, Path(version.path), self.files(version))

    def history(self, model: str) -> tuple[Move, ...]:
        """What became of a model, oldest first."""
        return self._standing.history(model)

    def models(self) -> tuple[str, ...]:
        """Names of the models that have versions here."""
        return tuple(sorted({model_of(version.name) for version in self.list()}))

    def decision(self, version: ModelVersion) -> Decision | None:
        """What the gate, or a person, said of a version."""
        kept = self._tags(version).get("decision")
        return Decision.model_validate_json(kept) if kept else None

    def files(self, version: ModelVersion) -> dict[str, str]:
        """SHA-256 of its files, as registered."""
        return dict(json.loads(self._tags(version)["files"]))

    def removed(self, version: ModelVersion) -> str:
        """When its weights were removed, in UTC; "" as long as its folder is there, or is there again."""
        return "" if Path(version.path).is_dir() else str(self._tags(version).get("removed", ""))

    def _tags(self, version: ModelVersion) -> dict[str, str]:
        return dict(self._open().get_model_version(model_of(version.name), str(version.version)).tags)

    def lineage(self, reference: str) -> tuple[ModelVersion, ...]:
        """The version, its parent, and so on to the model that was not trained here."""
        by_hash: dict[str, ModelVersion] = {}
        for version in self.list():
            by_hash.setdefault(version.content_hash, version)
        line = [self.get(reference)]
        seen = {line[0].content_hash}
        while (parent := line[-1].parent) is not None and parent in by_hash and parent not in seen:
            seen.add(parent)
            line.append(by_hash[parent])
        return tuple(line)

    def holders(self) -> dict[str, ModelVersion]:
        """The version behind each alias, by ``pocket@champion``."""
        found = {model: self._holders(model) for model in self._models()}
        return {f"{model}@{alias}": found[model][alias] for model in found for alias in sorted(found[model])}

    def aliases(self) -> dict[str, str]:
        """What each alias means, as ``{"pocket@champion": "pocket/dpo-1"}``; ``pocket:1`` where a newer version has
        taken over the name."""
        newest = {version.name: version.version for version in self.list()}
        return {
            alias: holder.name if newest[holder.name] == holder.version else f"{model_of(holder.name)}:{holder.version}"
            for alias, holder in self.holders().items()
        }

    def list(self) -> tuple[ModelVersion, ...]:
        """All versions of all models, in the order they were registered."""
        models = [self.model] if self.model else self._models()
        found = [version for model in models for version in self._versions(model)]
        return tuple(sorted(found, key=lambda version: (version.created, model_of(version.name), version.version)))

    # -- MLflow ------------------------------------------------------------------------------------------------------

    def _open(self) -> Any:
        if self._client is None:
            self._client = open_client(self.root)
        return self._client

    def _models(self) -> tuple[str, ...]:
        return tuple(model.name for model in _pages(self._open().search_registered_models) if plain(model.name))

    def _holders(self, model: str) -> dict[str, ModelVersion]:
        """The version behind each alias of a model."""
        aliases = self._standing.aliases(model)
        by_number = {version.version: version for version in self._versions(model)} if aliases else {}
        return {alias: by_number[number] for alias, number in aliases.items() if number in by_number}

    def _versions(self, model: str) -> tuple[ModelVersion, ...]:
        """Versions of one model, oldest first; those that something else put into the registry are not ours to read."""
        found: list[ModelVersion] = []
        if not plain(model):
            return ()
        for row in _pages(self._open().search_model_versions, filter_string=f"name='{model}'"):
            if "record" in row.tags:
                record = ModelVersion.model_validate({**json.loads(row.tags["record"]), "version": int(row.version)})
                found.append(self._absolute(record))
        return tuple(sorted(found, key=lambda version: version.version))

    def _relative(self, folder: Path) -> str:
        """Below the root a path is kept relative, so that the folder of runs can be moved as a whole."""
        return str(folder.relative_to(self.root)) if folder.is_relative_to(self.root) else str(folder)

    def _absolute(self, version: ModelVersion) -> ModelVersion:
        return version.model_copy(update={"path": str(self.root / version.path)})


def model_of(name: str) -> str:
    """The MLflow model of a version's name."""
    model, _, stage = name.partition("/")
    if not plain(model) or any(sign in stage for sign in ":@'"):
        raise ModelError(f"{name!r} is no name for a model", remedy="write project/stage, such as pocket/dpo-1")
    return model


def address(version: ModelVersion) -> str:
    """The reference that means this version and no other: ``pocket:3``."""
    return f"{model_of(version.name)}:{version.version}"


def _pages(search: Any, **arguments: Any) -> Iterable[Any]:
    """All results of an MLflow search, page after page."""
    token = None
    while True:
        page = search(max_results=500, page_token=token, **arguments)
        yield from page
        token = page.token
        if not token:
            return


def _refusal(version: ModelVersion, decision: Decision) -> str | None:
    """Why a decision does not allow promotion, or None. The interval is checked again here, behind the gate."""
    if decision.candidate not in (version.name, version.content_hash, address(version)):
        return f"the decision is about {decision.candidate}, not about {version.name}"
    if not decision.promoted:
        return "; ".join(decision.reasons) or "the decision gives no reason"
    if decision.gain is not None and (decision.gain.low is None or decision.gain.low <= 0):
        return "the interval of the gain contains 0"
    return None


def _readable(record: ModelVersion) -> dict[str, str]:
    """What a person looks for in MLflow's pages."""
    fields = ("algorithm", "base_model", "content_hash", "config_hash", "data_hash", "parent", "prompt_profile",
              "adapter", "git")  # fmt: skip
    tags = {field: str(getattr(record, field)) for field in fields if getattr(record, field) not in (None, "")}
    return {"name": record.name} | tags | {f"metric.{name}": f"{value:.6g}" for name, value in record.metrics.items()}


def _describe(record: ModelVersion) -> str:
    origin = f"from {record.parent}" if record.parent else f"base {record.base_model}"
    return f"{record.name}: {record.algorithm}, {origin}"
