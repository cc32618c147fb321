"""Who is champion, by hand: promote, step down, roll back; and the history of all moves, automatic ones too.

The gate's promotions go through :meth:`Registry.promote`; these are a person's. An alias moves in one call, and the
champion's moves first, so a crash in between leaves one champion. Called by ``dpo-driver models``.
"""

from __future__ import annotations

from dpo_driver.core.errors import ModelError
from dpo_driver.core.records import Decision, ModelVersion
from dpo_driver.registry.versions import Move, Registry, model_of


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
    return registry.promote(f"{model_of(version.name)}:{version.version}", decision)


def demote(registry: Registry, model: str | None, why: str) -> Move:
    """The champion steps down: the champion before it takes its place, or nobody does.

    Args:
        model: the MLflow model; needed only where a root has several champions.

    Raises:
        ModelError: there is no champion, several models have one, or no reason is given.
    """
    reason = _reason(why)
    champion, previous = _standing(registry, model)
    name = model_of(champion.name)
    if previous is None or previous.version == champion.version:
        registry.drop_alias(name, "champion")
        previous = None
    else:
        registry.set_alias("champion", f"{name}:{previous.version}")
    registry.drop_alias(name, "previous")
    return registry.note(Move("demote", name, champion.name, previous.name if previous else "", reason))


def roll_back(registry: Registry, model: str | None, why: str = "") -> Move:
    """The champion and the one before it change places; done twice, nothing has changed.

    Raises:
        ModelError: there is no champion, or none before it; the files of the one before changed.
    """
    champion, previous = _standing(registry, model)
    name = model_of(champion.name)
    if previous is None or previous.version == champion.version:
        raise ModelError(f"{champion.name} is the first champion: there is nothing to go back to", where=name,
                         remedy="promote another version: dpo-driver models promote REF --why TEXT")  # fmt: skip
    registry.verify(previous)
    registry.set_alias("champion", f"{name}:{previous.version}")
    registry.set_alias("previous", f"{name}:{champion.version}")
    return registry.note(Move("rollback", name, champion.name, previous.name, why.strip()))


def _reason(why: str) -> str:
    if not why.strip():
        raise ModelError("a move by hand needs a reason", remedy='say why: --why "it was tried on our own pages"')
    return why.strip()


def _standing(registry: Registry, model: str | None) -> tuple[ModelVersion, ModelVersion | None]:
    champion = registry.get(f"{model}@champion" if model else "champion")
    return champion, registry.find(f"{model_of(champion.name)}@previous")
