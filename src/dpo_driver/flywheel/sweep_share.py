"""What the points of a sweep share: finished stages that would come out the same are copied, not done again.

A stage's *key* is a digest of every configuration key that it reads and of the keys of the stages whose results it
takes. A stage is copied from another point of the same sweep only if the keys are equal, both ran on the same packages
and task files, and every stage it builds on *is* the donor's, copied before: equal settings alone do not make two
trainings equal. What a stage reads is said in :func:`stages`; a configuration section that is not named there counts
for every stage, and a stage that is not named there is never shared. Called by flywheel/sweep.py.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from dpo_driver.core.config import RunConfig
from dpo_driver.core.errors import ModelError, StoreError
from dpo_driver.core.store import DATABASE, RunStore
from dpo_driver.flywheel.context import MODELS, RunContext
from dpo_driver.flywheel.sweep_plan import SHARED
from dpo_driver.preferences import rounds

# What RunConfig.hash() leaves out as well: it changes where and how fast, not what.
NO_RESULT = {"project": ("name", "run_dir", "encrypt"), "env": ("workers", "base_url")}
# Sections that no stage reads, beside those in the table; no round knows of the next, and only its own stage of grpo.
UNREAD = frozenset({"promote", "tracking", "report", "rounds", "grpo", "search"})
RUN_ID = "sweep/run"  # fact of a point's run
BATCH = 200  # trajectories in memory at once

# Section -> its keys that the stage does not read. A key that is added to a section later is read until said otherwise.
Reads = dict[str, tuple[str, ...]]
_ENV: Reads = {"env": NO_RESULT["env"]}
_SEED: Reads = {"project": NO_RESULT["project"]}
_FORM: Reads = {"model": ("training", "dtype", "device", "max_length", "lora")}  # how decisions are written down
_ACTS: Reads = {"model": ("training", "lora")}
_TRAINS: Reads = {"model": (), **_SEED}
_CHOICE: Reads = {"evaluate": ("agents", "episodes_per_task", "reference_episodes")}
_TEST: Reads = {"evaluate": ("agents", "choose_per_task")}
_DEMOS: Reads = {"demos": ("thoughts", "annotations")}  # how they are trained on is SFT's
_PAIRS = ("sources", "log", "mix", "rules", "exactly", "min_margin", "max_per_state", "max_per_task",
          "max_parse_error_share")  # fmt: skip
_VAL_SPLIT: Reads = {"pair": (*_PAIRS, "examples")}
_EXAMPLES: Reads = {"pair": (*_PAIRS, "val_fraction")}


def _block(*names: str) -> Reads:
    return {"seeds": tuple(block for block in ("demo", "train", "val", "test") if block not in names)}


@dataclass(frozen=True)
class Stage:
    """A stage that may be shared: what it reads, whose results it takes, and what it leaves beside its rows."""

    name: str
    reads: Reads
    after: tuple[str, ...] = ()
    model: str | None = None
    round: int | None = None  # of the preferences it leaves
    facts: tuple[str, ...] = ()


def stages(config: RunConfig) -> Iterator[Stage]:
    """The stages of a run in the order of flywheel/loop.py, but for ``replay`` (pictures) and ``promote`` (aliases)."""
    yield Stage("demos", {**_ENV, **_block("demo"), **_FORM, **_DEMOS})
    yield Stage("sft", {**_TRAINS, "sft": (), "demos": ()}, ("demos",), model="sft")
    yield _validated("sft", "sft")
    earlier: tuple[str, ...] = ()
    for n in range(1, config.rounds + 1):
        parent, stage_of_parent = ("sft", "sft") if n == 1 else (f"dpo-{n - 1}", f"dpo/{n - 1}")
        control = "sft" if n == 1 else f"control/{n - 1}"
        yield Stage(f"collect/{n}", {**_ENV, **_block("train"), **_ACTS, **_SEED, "collect": ()},
                    (stage_of_parent, f"evaluate/val/{parent}", *earlier), facts=(f"collect_span/{n}",))  # fmt: skip
        earlier = (*earlier, f"collect/{n}")
        paired: tuple[str, ...] = (f"collect/{n}",)
        if "search" in config.pair.sources:
            # A run's own, since its name is read too: what a search leaves is more than trajectories and few facts.
            yield Stage(f"search/{n}", {**_ENV, **_block("train"), **_ACTS, "search": (), "project": ()},
                        (stage_of_parent, f"collect/{n}"))  # fmt: skip
            paired = (*paired, f"search/{n}")
        if "memory" in config.pair.sources:
            yield Stage(f"remember/{n}", {**_ENV, **_block("train"), **_ACTS, **_SEED, **_EXAMPLES, "collect": ()},
                        (stage_of_parent, "demos", *earlier))  # fmt: skip
            paired = (*paired, f"remember/{n}")
        yield Stage(f"pair/{n}", {"pair": ()}, paired, round=n, facts=(f"pair_stats/{n}",))
        yield Stage(f"dpo/{n}", {**_TRAINS, **_VAL_SPLIT, "dpo": ()}, (stage_of_parent, f"collect/{n}", f"pair/{n}"),
                    model=f"dpo-{n}")  # fmt: skip
        yield _validated(f"dpo-{n}", f"dpo/{n}")
        yield Stage(f"control/{n}", {**_TRAINS, **_VAL_SPLIT, "dpo": ()}, (control, f"collect/{n}", f"dpo/{n}"),
                    model=f"control-{n}")  # fmt: skip
        yield _validated(f"control-{n}", f"control/{n}")
    lines = [f"{line}-{n}" for line in ("dpo", "control") for n in range(1, config.rounds + 1)]
    yield Stage("choose", {}, tuple(f"evaluate/val/{name}" for name in lines), facts=("chosen/dpo", "chosen/control"))
    if config.grpo.episodes:
        yield Stage("grpo", {**_ENV, **_block("train", "val"), **_TRAINS, **_CHOICE, "grpo": ()},
                    ("sft", "evaluate/val/sft", *earlier, "choose"), model="grpo")  # fmt: skip
        yield _validated("grpo", "grpo")
    bests = range(1, len(config.sft_best.epochs) + 1)
    for n in bests:
        yield Stage(f"sft-best/{n}", {**_TRAINS, "sft": (), "sft_best": (), "demos": ()}, ("demos",),
                    model=f"sft-best-{n}")  # fmt: skip
        yield _validated(f"sft-best-{n}", f"sft-best/{n}")
    yield Stage("choose/sft_best", {}, ("evaluate/val/sft", *(f"evaluate/val/sft-best-{n}" for n in bests)),
                facts=("chosen/sft_best",))  # fmt: skip
    scripts, acting = {**_ENV, **_block("test"), **_TEST, **_FORM}, {**_ENV, **_block("test"), **_TEST, **_ACTS}
    yield Stage("evaluate/test/random", {**scripts, **_SEED})
    yield Stage("evaluate/test/oracle", scripts)
    yield Stage("evaluate/test/base", acting)
    for agent, after in (("sft", "sft"), ("sft_best", "choose/sft_best"), ("control", "choose"), ("dpo", "choose")):
        yield Stage(f"evaluate/test/{agent}", acting, (after,))
    if "memory" in config.evaluate.agents:
        yield Stage("evaluate/test/memory", {**acting, **_EXAMPLES}, ("sft", "demos", *earlier))
    if config.grpo.episodes:
        yield Stage("evaluate/test/grpo", acting, ("grpo",))


def _validated(model: str, trained_by: str) -> Stage:
    return Stage(f"evaluate/val/{model}", {**_ENV, **_block("val"), **_CHOICE, **_ACTS}, (trained_by,))


def keys(config: RunConfig) -> dict[str, str]:
    """16 hex digits by stage: equal for two configurations exactly if the stage, and all before it that it depends on,
    read the same."""
    data = config.model_dump(mode="json")
    listed = list(stages(config))
    named = {section for stage in listed for section in stage.reads} | UNREAD
    unnamed: Reads = {section: () for section in data if section not in named}
    found: dict[str, str] = {}
    for stage in listed:
        read = {section: _without(data[section], out) for section, out in {**unnamed, **stage.reads}.items()}
        text = json.dumps([stage.name, read, [found[name] for name in stage.after]], sort_keys=True)
        found[stage.name] = hashlib.sha256(text.encode()).hexdigest()[:16]
    return found


def _without(section: Any, left_out: tuple[str, ...]) -> Any:
    if not isinstance(section, Mapping):
        return section
    return {key: value for key, value in section.items() if key not in left_out}


def share(ctx: RunContext) -> dict[str, str]:
    """Copy what another point has finished into this one's run, stage by stage.

    Returns:
        The donor's folder by copied stage; stages that were copied before are not among them.
    """
    store = ctx.store
    if store.get_fact(RUN_ID) is None:
        store.set_fact(RUN_ID, uuid.uuid4().hex[:12])
    own_keys, copied = keys(ctx.config), dict[str, str]()
    with _Donors(ctx) as donors:
        for stage in stages(ctx.config):
            begun = store.stage_status(stage.name).state
            halfway = begun == "running" and store.get_fact(SHARED.format(stage.name)) is not None
            if begun == "done" or (begun == "running" and not halfway):
                continue
            for donor in donors.of(own_keys[stage.name], stage, origins(store, stage.after)):
                if _copy(ctx, stage, donor):
                    copied[stage.name] = donor.store.run_dir.name
                    break
            else:
                if halfway:  # the donor is gone: what was copied of it stays, the rest is done here
                    store.set_fact(SHARED.format(stage.name), None)
    return copied


def origin(store: RunStore, stage: str) -> str | None:
    """In which run a finished stage was really done; None while it is not finished."""
    if store.stage_status(stage).state != "done":
        return None
    shared = store.get_fact(SHARED.format(stage))
    return str(shared["origin"]) if shared else str(store.get_fact(RUN_ID))


def origins(store: RunStore, names: tuple[str, ...]) -> list[str | None]:
    """Of several stages, in their order."""
    return [origin(store, name) for name in names]


@dataclass(frozen=True)
class _Donor:
    store: RunStore
    keys: dict[str, str]
    name: str  # of its models in the registry


class _Donors:
    """The other points of the sweep whose finished stages may be copied, open for reading."""

    def __init__(self, ctx: RunContext) -> None:
        self._ctx = ctx
        self._open: list[_Donor] = []

    def __enter__(self) -> _Donors:
        own = self._ctx.run_dir
        for path in sorted(own.parent.glob(f"*/{DATABASE}")):
            if path.parent.name == own.name:
                continue
            try:
                store = RunStore(path.parent, mode="read")
            except StoreError:
                continue  # not a run, or one of another version: nothing to take from it
            donor = self._donor(store)
            if donor is None:
                store.close()
            else:
                self._open.append(donor)
        return self

    def __exit__(self, *_: object) -> None:
        for donor in self._open:
            donor.store.close()

    def _donor(self, store: RunStore) -> _Donor | None:
        """A run of a sweep on equal packages and task files, or None."""
        saved, mine = store.get_fact("config"), self._ctx.store
        if store.get_fact(RUN_ID) is None or saved is None or _machine(store) != _machine(mine):
            return None
        if store.get_fact("tasks_hash") != mine.get_fact("tasks_hash"):
            return None
        try:
            config = RunConfig.model_validate(yaml.safe_load(saved))
        except ValueError:
            return None  # written under another schema
        return _Donor(store, keys(config), config.project.name)

    def of(self, key: str, stage: Stage, built_on: list[str | None]) -> Iterator[_Donor]:
        """Those that finished the stage under the same key, on the very results that it builds on here."""
        for donor in self._open:
            finished = donor.keys.get(stage.name) == key and origin(donor.store, stage.name) is not None
            if finished and None not in built_on and origins(donor.store, stage.after) == built_on:
                yield donor


def _machine(store: RunStore) -> dict[str, str]:
    """What a result may depend on beside the configuration: packages and machine. Commits are left out, as they are
    where a run goes on."""
    environment = store.get_fact("environment") or {}
    return {key: value for key, value in environment.items() if not key.startswith("git.")}


def _copy(ctx: RunContext, stage: Stage, donor: _Donor) -> bool:
    """Copy a stage's rows, facts and model, and mark it done last, so that a kill leaves nothing half believed. False,
    with nothing begun, if the donor's model is not what its records say."""
    status = donor.store.stage_status(stage.name)
    if stage.model and not _copy_model(ctx, stage.model, donor, str(status.facts["version"])):
        return False
    store = ctx.store
    shared = {"from": donor.store.run_dir.name, "origin": origin(donor.store, stage.name)}
    store.set_fact(SHARED.format(stage.name), shared)
    store.begin_stage(stage.name)
    rows = []
    for trajectory in donor.store.iterate(stage.name):
        rows.append(trajectory)
        if len(rows) == BATCH:
            store.add_trajectories(stage.name, rows)
            rows = []
    store.add_trajectories(stage.name, rows)
    if stage.round is not None:
        rounds.keep(store, stage.round, donor.store.preferences(stage.round))
    steps: dict[int, dict[str, float]] = {}
    for name, points in donor.store.metrics(stage.name).items():
        for step, value in points:
            steps.setdefault(step, {})[name] = value
    for step, values in steps.items():
        store.log_metric(stage.name, step, values)
    for key in stage.facts:
        store.set_fact(key, donor.store.get_fact(key))
    store.finish_stage(stage.name, status.seconds, status.facts)
    return True


def _copy_model(ctx: RunContext, name: str, donor: _Donor, version: str) -> bool:
    """Copy and register the model of a stage, if its content is the one that the stage recorded."""
    from dpo_driver.policies.loading import check_folder, content_hash
    from dpo_driver.registry import Registry

    known = Registry(ctx.registry.root, model=donor.name).list()
    record = next((one for one in known if (one.name, one.content_hash) == (f"{donor.name}/{name}", version)), None)
    source, target = donor.store.run_dir / MODELS / name, ctx.model_folder(name)
    if record is None or not source.is_dir():
        return False
    fresh = target.with_name(f"{name}.new")
    for leftover in (fresh, target):  # of a copy that was cut off: the stage is not done
        shutil.rmtree(leftover, ignore_errors=True)
    shutil.copytree(source, fresh)
    try:
        check_folder(fresh)
        right = content_hash(fresh) == version
    except (ModelError, OSError):
        right = False
    if not right:
        shutil.rmtree(fresh)
        return False
    fresh.rename(target)
    mine = {one.content_hash for one in ctx.registry.list()}
    for parent in known:  # the model before SFT, which is no stage's
        if parent.content_hash == record.parent and record.parent not in mine:
            ctx.registry.register(parent.model_copy(update={"name": ctx.version_name(parent.name.partition("/")[2])}))
            break
    changed = {"name": ctx.version_name(name), "path": str(target.resolve()), "config_hash": ctx.config.hash()}
    ctx.registry.register(record.model_copy(update=changed))
    return True
