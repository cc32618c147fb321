"""Train: SFT on demonstrations, DPO on preferences, and the control that only imitates the successes.

Every model is a folder under the run's ``models/``, registered with its parent. Called by the command line and loop.py.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpo_driver.core import ranks
from dpo_driver.core.errors import DataError
from dpo_driver.core.provenance import git_revision
from dpo_driver.core.records import ModelVersion, Preference, TrainingSample
from dpo_driver.core.schema import RunConfig
from dpo_driver.core.schema_training import TrainingArgs
from dpo_driver.core.store import RunStore
from dpo_driver.flywheel.annotate import annotated, cut_short
from dpo_driver.flywheel.collect import make_tasks, next_round, oracle, parent_of_round, roll_out
from dpo_driver.flywheel.context import RunContext
from dpo_driver.flywheel.demos import families_of, recorded
from dpo_driver.flywheel.evaluate import measure
from dpo_driver.flywheel.fitting import Fitting, part_of_another
from dpo_driver.preferences import successes_as_samples
from dpo_driver.rollout.pool import RolloutProgress

if TYPE_CHECKING:
    from dpo_driver.training.engine import TrainResult

SFT_VALIDATION = 0.15  # of the demonstrated seeds, to stop by
# What is warned of: so many epochs over fewer rows than that, and an SFT loss below that (nats a token).
MANY_EPOCHS, SMALL_DATA, LOW_SFT_LOSS = 3, 500, 0.2
LAST_ROWS = 5  # logged rows that say where a training ended


def demonstrate(ctx: RunContext) -> None:
    """The expert's decisions on the first seeds of the demo block.

    Raises:
        DataError: a family has neither an expert nor saved plays.
    """

    def work() -> dict[str, Any]:
        expert = oracle(ctx)
        taken = recorded(ctx)
        # A family without an expert lives on what was recorded, or on what a person played and saved into the run.
        played = {name for name, _ in ctx.store.outcomes("demos")} | families_of(taken)
        live = ctx.config.demos.per_task > 0
        names = [name for name in ctx.config.env.tasks if live and name in expert.families]
        lacking = [name for name in ctx.config.env.tasks if name not in (*names, *played)]
        if lacking:
            command = f"dpo-driver play {lacking[0]} --env {ctx.config.env.source} --save {ctx.run_dir}"
            raise DataError(f"nobody demonstrates {', '.join(lacking)}", where=str(ctx.run_dir),
                            remedy=f"choose tasks that have an expert, or play some yourself: {command}")  # fmt: skip
        tasks = make_tasks(ctx, "demo", dict.fromkeys(names, ctx.config.demos.per_task))
        progress = RolloutProgress(0)
        if tasks:  # else no browser is needed
            progress = roll_out(ctx, "demos", "expert demonstrations", tasks, expert)
        # Last: what is played live is held to its own start states, not to those of another day.
        ctx.store.add_trajectories("demos", taken)
        own = len(played - set(names) - families_of(taken))
        more = f", {own} families played by hand" if own else ""
        more += f", {len(taken)} recorded ones" if taken else ""
        return {"summary": f"{progress.skipped + progress.finished} episodes of the expert{more}"}

    ctx.stage("demos", "demonstrations", work)


def demonstrations(ctx: RunContext) -> list[TrainingSample]:
    """Demonstrations as SFT rows split by seed, with the thoughts that the configuration asks for.

    Raises:
        DataError: a family has neither an expert nor saved plays, none was solved, or the annotated thoughts are
            missing.
    """
    demonstrate(ctx)
    rows = as_rows(ctx.store, ctx.config)
    if not rows:
        raise DataError("the expert solved none of the demonstrated tasks", where=str(ctx.run_dir),
                        remedy="choose tasks that have an oracle: see docs/concepts.md")  # fmt: skip
    return rows


def as_rows(store: RunStore, config: RunConfig | None) -> list[TrainingSample]:
    """What SFT of a run learns from; without a configuration the demonstrations as they are."""
    with_reasoning = config is not None and config.demos.thoughts == "annotated"
    shown = annotated(store, config) if config and with_reasoning else store.trajectories("demos")
    return successes_as_samples(shown, val_fraction=SFT_VALIDATION,
                                source="annotated" if with_reasoning else "oracle")  # fmt: skip


def sft(ctx: RunContext) -> dict[str, Any]:
    """Imitate the demonstrations: the parent of everything that follows."""
    rows = demonstrations(ctx)

    def work() -> dict[str, Any]:
        warning = _too_long_to_write(ctx, rows)
        found = fit_model(ctx, "sft", "sft", "base", rows, ctx.config.sft)
        return found if warning is None else {**found, "warnings": [*found["warnings"], warning]}

    facts = ctx.stage("sft", "supervised fine-tuning", work)
    measure(ctx, "sft", "sft", "val", ctx.config.evaluate.choose_per_task)
    return facts


def _too_long_to_write(ctx: RunContext, rows: Sequence[TrainingSample]) -> str | None:
    """Annotated thoughts are longer than labels: warns, and says so, where generation would cut such answers off."""
    if ctx.config.demos.thoughts != "annotated":
        return None
    from dpo_driver.policies.encoding import encode_completion
    from dpo_driver.policies.loading import load_tokenizer, resolve

    tokenizer = load_tokenizer(resolve(ctx.config.model.name))
    written = [row.completion for row in rows]
    warning = cut_short(written, ctx.config, lambda text: len(encode_completion(tokenizer, text)))
    if warning is not None:
        ctx.say(f"[yellow]{warning}[/yellow]")
    return warning


def sft_best(ctx: RunContext) -> None:
    """SFT trained to its best on the same demonstrations, as a yardstick: what more imitation alone would give.

    Every demonstration is trained on, for several lengths; as everywhere, success on validation seeds chooses.
    """
    rows = [row.model_copy(update={"split": "train"}) for row in demonstrations(ctx)]
    names = ["sft"]
    for number, epochs in enumerate(ctx.config.sft_best.epochs, 1):
        stage, name = f"sft-best/{number}", f"sft-best-{number}"
        changed = {"learning_rate": ctx.config.sft_best.learning_rate, "num_train_epochs": epochs}
        settings = ctx.config.sft.model_copy(update=changed)
        fit = partial(fit_model, ctx, stage, "sft", "base", rows, settings, name)
        ctx.stage(stage, f"SFT for {epochs} epochs", fit)
        measure(ctx, "sft_best", name, "val", ctx.config.evaluate.choose_per_task)
        names.append(name)
    ctx.stage("choose/sft_best", "choose SFT at its best", lambda: _choose(ctx, {"sft_best": names}))


def dpo(ctx: RunContext, round: int | None = None) -> dict[str, Any]:
    """Preference training of one round, against the model that acted in it."""
    number = next_round(ctx, "dpo", round)
    parent = parent_of_round(ctx, number)
    name = f"dpo-{number}"

    def work() -> dict[str, Any]:
        pairs = ctx.store.preferences(number)
        if not pairs:
            raise DataError(f"round {number} has no preference pairs", where=str(ctx.run_dir),
                            remedy="run `dpo-driver pair`; if it finds none, collect more episodes")  # fmt: skip
        return fit_model(ctx, f"dpo/{number}", "dpo", parent, [*pairs, *_replay(ctx, number)], ctx.config.dpo, name)

    facts = ctx.stage(f"dpo/{number}", f"round {number}: DPO", work)
    measure(ctx, "dpo", name, "val", ctx.config.evaluate.choose_per_task)
    return facts


def control(ctx: RunContext, round: int | None = None) -> dict[str, Any]:
    """The control beside DPO: the same rollouts and the same number of steps, but only imitation of the successes."""
    number = next_round(ctx, "control", round)
    parent = "sft" if number == 1 else f"control-{number - 1}"
    name = f"control-{number}"

    def work() -> dict[str, Any]:
        steps = int(ctx.stage_facts(f"dpo/{number}")["steps"])
        settings = ctx.config.dpo.model_copy(update={"max_steps": steps, "early_stopping_patience": 0})
        rows = successes_as_samples(ctx.store.trajectories(f"collect/{number}"), source="success",
                                    val_fraction=ctx.config.pair.val_fraction)  # fmt: skip
        return fit_model(ctx, f"control/{number}", "sft", parent, rows, settings, name)

    facts = ctx.stage(f"control/{number}", f"round {number}: control (imitates successes)", work)
    measure(ctx, "control", name, "val", ctx.config.evaluate.choose_per_task)
    return facts


def choose(ctx: RunContext) -> None:
    """Pick the round whose model did best on validation seeds, for DPO and, by the same rule, for the control."""

    lines = {line: [f"{line}-{n}" for n in range(1, ctx.config.rounds + 1)] for line in ("dpo", "control")}
    ctx.stage("choose", "choose by validation seeds", lambda: _choose(ctx, lines))


def _choose(ctx: RunContext, lines: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Of each line's models the one with the most success on validation seeds; the first of equals."""
    chosen = {}
    for line, names in lines.items():
        scores = {name: ctx.stage_facts(f"evaluate/val/{name}")["report"]["strict"]["success"] or 0.0 for name in names}
        chosen[line] = max(names, key=lambda name: scores[name])
        ctx.store.set_fact(f"chosen/{line}", chosen[line])
    return {"summary": ", ".join(chosen.values()), **chosen}


def _replay(ctx: RunContext, number: int) -> list[TrainingSample]:
    """Successes of the round's own rollouts from every family, so that families without pairs do not collapse."""
    if not ctx.config.dpo.replay_coefficient:
        return []
    rollouts = ctx.store.trajectories(f"collect/{number}")
    return successes_as_samples(rollouts, max_per_task=ctx.config.dpo.replay_per_task,
                                val_fraction=ctx.config.pair.val_fraction)  # fmt: skip


def fit_model(
    ctx: RunContext, stage: str, algorithm: str, parent: str, rows: Sequence[Preference | TrainingSample],
    settings: TrainingArgs, name: str | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Train ``parent`` on ``rows`` and keep the result as the run's model ``name``."""
    from dpo_driver.policies.loading import local_folder, resolve, save_version

    name = name or stage
    source = resolve(ctx.config.model.name if parent == "base" else ctx.require_model(parent, "train it first"))
    settings_of_model = ctx.config.model
    values = settings.model_dump(exclude={"replay_per_task"})
    values |= {"seed": ctx.config.project.seed, "max_length": settings_of_model.max_length}
    values["max_prompt_length"] = settings_of_model.max_prompt_length
    if settings.save_steps != settings.eval_steps:
        ctx.say(f"[dim]  validated every {settings.eval_steps} steps, saved every {settings.save_steps}: a multiple of "
                "it[/dim]")  # fmt: skip
    fitting = Fitting(
        algorithm, settings_of_model, str(source), tuple(rows), values, ctx.run_dir / "checkpoints" / name
    )
    most = settings.max_steps if settings.max_steps > 0 else 0
    with ctx.bar(f"training {name}", most) as advance, ranks.beside(part_of_another, fitting):

        def log(step: int, metrics: dict[str, float]) -> None:
            ctx.store.log_metric(stage, step, metrics)
            ctx.tracker.log_metrics(stage, step, metrics)
            shown = [
                f"{key} {metrics[key]:.3f}" for key in ("loss", "eval_loss", "rewards/accuracies") if key in metrics
            ]
            advance(step, ", ".join(shown))

        model, tokenizer, result = fitting.run(log)
    if result.interrupted:
        raise KeyboardInterrupt
    save_version(model, tokenizer, ctx.model_folder(name))
    overlong = [*result.overlong["train"], *result.overlong["val"]]
    warnings = _warnings(algorithm, result)
    _say_of(ctx, overlong, warnings)
    version = register(ctx, name, algorithm, local_folder(source), rows, result.metrics)
    kept = "last" if result.best_step is None else f"step {result.best_step}"
    return {
        "summary": f"{result.steps} steps on {result.rows['train']} rows ({result.stop_reason}), kept the {kept}; "
        f"{result.path}, {result.sharing_ratio:.2f} x shared, {result.tokens_per_second:.0f} tokens/s",
        "steps": result.steps, "best_step": result.best_step, "rows": dict(result.rows), "overlong": overlong,
        "version": version.content_hash, "path": result.path, "sharing_ratio": result.sharing_ratio,
        "tokens_per_second": result.tokens_per_second, "stop_reason": result.stop_reason, "warnings": warnings,
        "device": next(model.parameters()).device.type,
    }  # fmt: skip


def _say_of(ctx: RunContext, overlong: Sequence[str], warnings: Sequence[str]) -> None:
    """Rows that were left out, and what else the person at the console should know."""
    if overlong:
        model = ctx.config.model
        limit = f"{model.max_length} tokens"
        if model.max_prompt_length is not None:
            limit += f" (prompt: {model.max_prompt_length})"
        ctx.say(f"[yellow]{len(overlong)} rows are longer than {limit} and were left out:[/yellow] "
                f"{', '.join(overlong[:5])}")  # fmt: skip
    for warning in warnings:
        ctx.say(f"[yellow]{warning}[/yellow]")


def _warnings(algorithm: str, result: TrainResult) -> list[str]:
    """What hints at learning by heart (little data seen often, a loss that leaves nothing to learn), and chosen answers
    that preference training made less probable."""
    found = []
    logged = [row for row in result.history if "loss" in row]
    rows, epochs = result.rows["train"], logged[-1]["epoch"] if logged else 0.0
    if epochs > MANY_EPOCHS and rows < SMALL_DATA:
        found.append(f"{epochs:.1f} epochs over {rows} rows: more than {MANY_EPOCHS} over fewer than {SMALL_DATA} tend "
                     "to be learned by heart; collect more, or train shorter")  # fmt: skip
    low = next((row for row in logged if row["loss"] < LOW_SFT_LOSS), None) if algorithm == "sft" else None
    if low is not None:
        found.append(f"the SFT loss is {low['loss']:.3f} at step {low['step']:.0f}, under {LOW_SFT_LOSS}: little is "
                     "left for preferences to teach; train shorter, or with a lower learning rate")  # fmt: skip
    chosen = [row["rewards/chosen"] for row in logged if "rewards/chosen" in row][-LAST_ROWS:]
    if chosen and sum(chosen) < 0:
        found.append(f"likelihood displacement: the chosen answers are less probable than under the parent "
                     f"(rewards/chosen {sum(chosen) / len(chosen):.3f} at the end); raise rpo_alpha, or lower the "
                     "learning rate")  # fmt: skip
    return found


def register(
    ctx: RunContext, name: str, algorithm: str, source: Path,
    rows: Sequence[Preference | TrainingSample], metrics: dict[str, float],
) -> ModelVersion:  # fmt: skip
    """Enter a new model, and before it the base model it descends from, into the registry.

    A role's model answers whatever it is sent: no profile writes its prompts.
    """
    from dpo_driver.policies.loading import content_hash, is_adapter

    folder, config = ctx.model_folder(name), ctx.config
    digest = hashlib.sha256("".join(sorted(row.id for row in rows)).encode()).hexdigest()[:16]

    def version(name: str, path: Path, parent: str | None, algorithm: str, **more: Any) -> ModelVersion:
        return ModelVersion(
            name=ctx.version_name(name), version=1, path=str(path.resolve()), parent=parent,
            base_model=config.model.name, algorithm=algorithm, content_hash=content_hash(path), git=git_revision(),
            **more,
        )  # fmt: skip

    parent = content_hash(source)
    if all(known.content_hash != parent for known in ctx.registry.list()):
        ctx.registry.register(version("base", source, None, "pretraining"))
    return ctx.registry.register(
        version(name, folder, parent, algorithm, config_hash=config.hash(), data_hash=digest,
                prompt_profile="" if ctx.store.get_fact("role") else config.model.prompt_profile,
                adapter=is_adapter(folder), metrics=metrics)
    )  # fmt: skip
