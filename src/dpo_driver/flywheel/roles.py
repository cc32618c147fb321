"""Aligning the model of one role from text preferences alone: no environment, no rollouts.

A role (CEO, support, ...) has a run directory of its own. Each set of rows is a round there: trained against the frozen
parent, measured on prompts that were held out and chose nothing, registered under the role's name, and let through a
gate, so every role has its own champion and candidate. Called by the command line (``train dpo --role``).
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from dpo_driver.core.config import RunConfig, load_config
from dpo_driver.core.errors import ConfigError, DataError
from dpo_driver.core.records import Decision, PairedDifference, Preference, Rate
from dpo_driver.core.stats import mean_interval, paired_difference, rate
from dpo_driver.flywheel.context import RunContext, open_run
from dpo_driver.flywheel.promote import decide
from dpo_driver.flywheel.train import fit_model
from dpo_driver.preferences import filters, rounds
from dpo_driver.preferences.decisions import REASONS, Refusals, digest
from dpo_driver.preferences.log import LOG, PreferenceLog
from dpo_driver.preferences.mix import KNOWN, of_sources, weighted

if TYPE_CHECKING:
    from dpo_driver.training.ranking import Ranked

# In place of a browser run's defaults, where no CONFIG is given: rows are few, and nothing else decides when to stop.
DEFAULTS = ("dpo.num_train_epochs=3", "dpo.per_device_train_batch_size=8", "pair.val_fraction=0.2")
LOGS = (".db", ".sqlite")


def train_role(
    role: str,
    data: Path,
    *,
    config: Path | None = None,
    overrides: Sequence[str] = (),
    model: str | None = None,
    out: Path | None = None,
    console: Console | None = None,
) -> dict[str, Any]:
    """Everything at once: read the rows of a role, train, measure, register, promote or refuse. Called again with the
    same rows it goes on where it stopped, or tells what was found.

    Args:
        role, config, overrides, model, out: see :func:`role_config`.
        data: see :func:`role_rows`.
        console: for progress; stderr when not given.

    Returns:
        See :func:`align`.
    """
    settings = role_config(role, config, overrides, model, out)
    refused: Refusals = Counter()
    rows = prepared(role_rows(data, role, refused), settings, refused)
    with open_role(settings, role, console) as ctx:
        if (log := _log_of(data)) is not None:
            ctx.store.set_fact("judgements", str(log.resolve()))  # whence `prefs audit` takes labels and comparisons
        for reason, count in sorted(refused.items()):
            if count:
                ctx.say(f"[dim]  left out: {count} x {REASONS[reason]}[/dim]")
        return align(ctx, rows)


# -- the role and its rows -------------------------------------------------------------------------------------------


def role_config(
    role: str, path: Path | None, overrides: Sequence[str], model: str | None = None, out: Path | None = None
) -> RunConfig:
    """The configuration of a role's run. Of a file for a browser agent only what training from rows asks for counts.

    Args:
        role: its name; what a folder's name cannot hold becomes a hyphen.
        path: a configuration file; None: ``DEFAULTS``.
        overrides: ``section.key=value`` each.
        model: ``pocket``, a folder, a hub id, or a registered version such as ``CEO@champion``, instead of the
            configuration's.
        out: the run directory; ``runs/<role>`` when not given.

    Raises:
        ConfigError: the role has no letter or digit, or see ``load_config``. ModelError: no such registered version.
    """
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", role).strip("-._")
    if not name:
        raise ConfigError(f"{role!r} is no name for a role", remedy="use letters and digits, such as --role CEO")
    config = load_config(path, overrides if path is not None else [*DEFAULTS, *overrides])
    folder = out or (config.project.run_dir if path is None else None) or Path("runs") / name
    project = config.project.model_copy(update={"name": name, "run_dir": folder})
    source = config.model.name if model is None else _registered(model, folder) if "@" in model else model
    return config.model_copy(
        update={"project": project, "model": config.model.model_copy(update={"name": source}), "rounds": 0}
    )


def _registered(reference: str, folder: Path) -> str:
    from dpo_driver.registry import Registry

    return Registry(folder.resolve().parent).load(reference).path


@contextmanager
def open_role(config: RunConfig, role: str, console: Console | None = None) -> Iterator[RunContext]:
    """The run directory of a role, open.

    Raises:
        ConfigError: it belongs to another role, to a browser agent's run, or to other settings.
    """
    with ExitStack() as stack:
        advice = "give this one a folder of its own: --out DIR"
        try:
            ctx = stack.enter_context(open_run(config, console=console))
        except ConfigError as error:
            raise ConfigError(error.what, where=error.where,
                              remedy=f"{(error.remedy or '').partition(';')[0]}; {advice}") from None  # fmt: skip
        kept = ctx.store.get_fact("role")
        if kept is None and ctx.store.stages():
            raise ConfigError("this folder holds the run of a browser agent", where=str(ctx.run_dir), remedy=advice)
        if kept not in (None, role):
            raise ConfigError(f"this folder belongs to the role {kept!r}", where=str(ctx.run_dir), remedy=advice)
        ctx.store.set_fact("role", role)
        yield ctx


def role_rows(data: Path, role: str, refused: Refusals) -> list[Preference]:
    """The pairs of one role: of a data file in any known format, of a preference log, or of a folder that holds one.

    Args:
        data: where they are.
        role: whose.
        refused: counts comparisons that gave no pair.

    Raises:
        DataError: there is none of this role; the roles that are there are named.
    """
    path = _log_of(data) or data
    if path.suffix in LOGS:
        with PreferenceLog(path, "read") as log:
            entries = log.standing("comparison", "label", "preference")
        there = Counter(str(entry.body.get("role", "")) for entry in entries if entry.kind != "label")
        rows = of_sources(entries, KNOWN, refused, role)
    else:
        from dpo_driver.preferences.readers import read_preferences

        read = read_preferences(path)
        there = Counter(row.role for row in read)
        rows = [row for row in read if row.role == role]
    refused.pop("other_role", None)
    if rows:
        return rows
    if there[role]:
        why = ", ".join(f"{count} x {REASONS[name]}" for name, count in refused.items() if count)
        raise DataError(f"what was judged of the role {role!r} gives no pair", where=str(path), remedy=why)
    known = ", ".join(f"{name or 'none'} ({count})" for name, count in sorted(there.items()))
    remedy = f"roles there: {known}" if there else "add some: dpo-driver prefs add, or dpo-driver label"
    if set(there) == {""}:
        remedy += f"; give them one: dpo-driver prefs import FILE --log runs/{LOG} --role {role}"
    raise DataError(f"there are no preferences of the role {role!r}", where=str(path), remedy=remedy)


def _log_of(data: Path) -> Path | None:
    """The preference log that is meant; None for a data file."""
    inside = data / LOG
    return inside if inside.is_file() else data if data.suffix in LOGS else None


def prepared(rows: Sequence[Preference], config: RunConfig, refused: Refusals) -> list[Preference]:
    """The rows that are learned from and those that are held out: no contradictions, no doubles, weights by the mix,
    split by prompt. A split that the data brings along is kept.

    Raises:
        DataError: nothing is left, or all rows have one prompt, so that none can be held out.
    """
    kept = filters.dedupe(filters.drop_contradictions(rows, refused), refused)
    if not kept:
        raise DataError("every pair is contradicted by another", remedy="look at them: dpo-driver prefs list")
    kept = filters.told_apart(weighted(kept, config.pair.mix))
    if all(row.split == "train" for row in kept):
        kept = _split(kept, config.pair.val_fraction)
    kept = filters.drop_leaks(kept, refused)
    if len({row.split for row in kept}) < 2:
        raise DataError("all pairs are of one prompt, or all of one split: none can be held out to measure by",
                        remedy="collect preferences for more prompts")  # fmt: skip
    return kept


def _split(rows: Sequence[Preference], fraction: float) -> list[Preference]:
    """By prompt, always the same ones; one prompt at least on either side where there are two."""
    split = filters.assign_split([row.model_copy(update={"task_name": "", "seed": None}) for row in rows], fraction)
    sides = {digest(row.messages): one.split for row, one in zip(rows, split, strict=True)}
    if len(sides) > 1 and len(set(sides.values())) == 1:
        sides[min(sides)] = "train" if "val" in sides.values() else "val"
    return [row.model_copy(update={"split": sides[digest(row.messages)]}) for row in rows]


# -- training --------------------------------------------------------------------------------------------------------


def align(ctx: RunContext, rows: Sequence[Preference]) -> dict[str, Any]:
    """Train on the rows, measure, register, and let the gate decide. The same rows again: what is done is not repeated.

    Args:
        ctx: the role's run, see :func:`open_role`.
        rows: see :func:`prepared`.

    Returns:
        What was found, as JSON: model folder, rows, and ``held_out`` (see :func:`measured`).
    """
    # Who said so how often is no other data, as long as the pairs and their weights are the same.
    learned_from = "".join(sorted(row.model_dump_json(exclude={"id", "evidence", "margin"}) for row in rows))
    number = _round_of(ctx, hashlib.sha256(learned_from.encode()).hexdigest()[:16])
    name = f"dpo-{number}"
    learned = [row for row in rows if row.split == "train"]
    held = [row for row in rows if row.split == "val"]
    if not ctx.store.preferences(number):
        rounds.keep(ctx.store, number, rows)
    fit = partial(fit_model, ctx, f"dpo/{number}", "dpo", "base", learned, ctx.config.dpo, name)
    trained = ctx.stage(f"dpo/{number}", f"{ctx.version_name(name)}: DPO on {len(learned)} pairs", fit)
    prove = partial(_prove, ctx, number, trained["version"], held)
    found = ctx.stage(f"held_out/{number}", f"{len(held)} held-out pairs", prove)
    account = {
        "role": ctx.store.get_fact("role"),
        "model": str(ctx.model_folder(name)),
        "version": ctx.version_name(name),
        "rows": {"train": len(learned), "val": len(held)},
        "steps": trained["steps"],
        "held_out": found["held_out"],
        "decision": found["decision"],
    }
    from dpo_driver.training.checkpoint import write_json

    write_json(ctx.run_dir / f"{name}.json", account)
    return account


def _round_of(ctx: RunContext, data: str) -> int:
    """The round of this data: the one that has it, or the next."""
    number = 1
    while ctx.store.get_fact(f"data/{number}") not in (None, data):
        number += 1
    ctx.store.set_fact(f"data/{number}", data)
    return number


def _prove(ctx: RunContext, number: int, version: str, held: Sequence[Preference]) -> dict[str, Any]:
    """Parent, candidate and champion on the same held-out pairs, and what the gate makes of it."""
    folder = ctx.model_folder(f"dpo-{number}")
    parent, candidate = _ranks(ctx, ctx.config.model.name, held), _ranks(ctx, folder, held)
    found = measured(held, parent, candidate, ctx.config.dpo.beta)
    decision = _gate(ctx, number, version, held, parent, candidate)
    before, after = (Rate.model_validate(found["ranked"][when]) for when in ("before", "after"))
    verdict = "promoted" if decision.promoted else f"refused, {decision.champion} stays champion"
    return {
        "summary": f"the chosen answer is the likelier one in {_shown(before)} before, in {_shown(after)} after; "
        f"{verdict}: {decision.reasons[0]}",
        "held_out": found,
        "decision": decision.model_dump(mode="json"),
    }


def _ranks(ctx: RunContext, source: str | Path, held: Sequence[Preference]) -> dict[str, Ranked]:
    from dpo_driver.training.ranking import rank

    return rank(source, held, ctx.config.model, ctx.config.dpo.tokens_per_pass)


def measured(
    held: Sequence[Preference], parent: Mapping[str, Ranked], candidate: Mapping[str, Ranked], beta: float
) -> dict[str, Any]:
    """What training changed on held-out pairs, each figure with n and interval.

    Returns:
        ``ranked``: the share of pairs whose chosen answer is the more probable one per token, before and after, and the
        paired ``gain``. ``rewards/accuracies`` and ``rewards/margins``: TRL's figures; before training every reward is
        0, so there is no accuracy before. ``overlong``: pairs that do not fit into the model and count nowhere.
    """
    scored = [row.id for row in held if row.id in parent and row.id in candidate]
    margins = [candidate[one].reward_margin(parent[one], beta) for one in scored]
    low, high = mean_interval(margins) or (None, None)
    gain = _gain(parent, candidate, scored)
    return {
        "rows": len(scored),
        "prompts": len({digest(row.messages) for row in held}),
        "overlong": [row.id for row in held if row.id not in scored],
        "ranked": {
            "before": rate(parent[one].right for one in scored).model_dump(),
            "after": rate(candidate[one].right for one in scored).model_dump(),
            "gain": gain.model_dump(),
        },
        "rewards/accuracies": {
            "before": rate(None for _ in scored).model_dump(),
            "after": rate(margin > 0 for margin in margins).model_dump(),
        },
        "rewards/margins": {"mean": sum(margins) / len(margins) if margins else None, "low": low, "high": high,
                            "n": len(margins)},
    }  # fmt: skip


def _gain(before: Mapping[str, Ranked], after: Mapping[str, Ranked], ids: Sequence[str]) -> PairedDifference:
    return paired_difference(
        {("", one): before[one].right for one in ids}, {("", one): after[one].right for one in ids}
    )


def _gate(
    ctx: RunContext, number: int, version: str, held: Sequence[Preference],
    parent: Mapping[str, Ranked], candidate: Mapping[str, Ranked],
) -> Decision:  # fmt: skip
    """The candidate against the role's champion; without one, its parent is the first champion. Decided once: a stage
    that was stopped after the promotion finds the candidate to be the champion."""
    if (kept := ctx.store.get_fact(f"decision/{number}")) is not None:
        decision = Decision.model_validate(kept)
    else:
        base = ctx.registry.lineage(version)[1]
        champion = ctx.registry.find("champion") or ctx.registry.set_alias("champion", base.content_hash)
        ctx.registry.verify(champion)
        theirs = parent if champion.content_hash == base.content_hash else _ranks(ctx, champion.path, held)
        gain = _gain(theirs, candidate, [row.id for row in held if row.id in theirs and row.id in candidate])
        decision = decide(gain, ctx.registry.get(version).name, champion.name, ctx.config.promote.min_gain)
        ctx.store.set_fact(f"decision/{number}", decision.model_dump(mode="json"))
    if decision.promoted:
        ctx.registry.promote(version, decision)
    else:
        ctx.registry.set_alias("candidate", version)
        ctx.registry.refuse(version, decision)
    return decision


def _shown(found: Rate) -> str:
    if found.success is None or found.low is None or found.high is None:
        return "no pair"
    return f"{found.success:.0%} [{found.low:.0%}, {found.high:.0%}] of {found.n}"
