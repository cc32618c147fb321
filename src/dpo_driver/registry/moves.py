"""Who is champion, by hand: promote, step down, roll back.

The gate's promotions go through :meth:`Registry.promote`; these are a person's. Each happens whole or not at all
(standing.py). One that was killed on the way is finished by the same command, which then makes no second move.
Called by ``dpo-driver models``.
"""

from __future__ import annotations

from dpo_driver.core.errors import ModelError
from dpo_driver.core.records import Decision, ModelVersion
from dpo_driver.registry.standing import Alias, Move
from dpo_driver.registry.versions import Registry, address, model_of


def promote_by_hand(registry: Registry, reference: str, why: str) -> ModelVersion:
    """Make a version the champion without a measurement; the reason stands in its decision and in the history.

    Raises:
        ModelError: no such version, no reason, or its files changed since it was registered.
    """
    reason = _reason(why)
    version = registry.get(reference)
    champion = registry.find(f"{model_of(version.name)}@champion")
    decision = Decision(
        promoted=True,
        candidate=version.name,
        champion=champion.name if champion else "",
        reasons=(f"by hand: {reason}",),
    )
    return registry.promote(address(version), decision)


def demote(registry: Registry, model: str | None, why: str) -> Move:
    """The champion steps down: the champion before it takes its place, or nobody does.

    Args:
        model: the MLflow model; needed only where a root has several champions.

    Raises:
        ModelError: there is no champion, several models have one, no reason is given, or the files of the one before
            changed.
    """
    reason = _reason(why)
    if (stopped := registry.finish(model, "demote")) is not None:
        return stopped
    champion, previous = _standing(registry, model)
    name, before = model_of(champion.name), _numbers(champion, previous)
    heir = None if before["previous"] == champion.version else previous
    if heir is not None:
        registry.verify(heir)
    move = Move("demote", name, champion.name, heir.name if heir else "", reason)
    return registry.move(move, before, _numbers(heir, None))


def roll_back(registry: Registry, model: str | None, why: str = "") -> Move:
    """The champion and the one before it change places; done twice, nothing has changed.

    Raises:
        ModelError: there is no champion, or none before it; the files of the one before changed.
    """
    if (stopped := registry.finish(model, "rollback")) is not None:
        return stopped
    champion, previous = _standing(registry, model)
    name = model_of(champion.name)
    if previous is None or previous.version == champion.version:
        raise ModelError(f"{champion.name} is the first champion: there is nothing to go back to", where=name,
                         remedy="promote another version: dpo-driver models promote REF --why TEXT")  # fmt: skip
    registry.verify(previous)
    move = Move("rollback", name, champion.name, previous.name, why.strip())
    return registry.move(move, _numbers(champion, previous), _numbers(previous, champion))


def _reason(why: str) -> str:
    if not why.strip():
        raise ModelError("a move by hand needs a reason", remedy='say why: --why "it was tried on our own pages"')
    return why.strip()


def _standing(registry: Registry, model: str | None) -> tuple[ModelVersion, ModelVersion | None]:
    champion = registry.get(f"{model}@champion" if model else "champion")
    return champion, registry.find(f"{model_of(champion.name)}@previous")


def _numbers(champion: ModelVersion | None, previous: ModelVersion | None) -> dict[Alias, int | None]:
    return {"champion": champion.version if champion else None, "previous": previous.version if previous else None}
