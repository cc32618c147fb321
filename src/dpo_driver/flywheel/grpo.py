"""GRPO: the DPO champion goes on learning on live pages. Called by the command line and loop.py.

Training seeds go on where the rounds of DPO stopped; validation seeds are those that choose everywhere.
"""

from __future__ import annotations

from typing import Any

from dpo_driver.core import plugins
from dpo_driver.core.errors import ConfigError
from dpo_driver.core.records import Task
from dpo_driver.flywheel.collect import make_tasks, one_thread
from dpo_driver.flywheel.context import RunContext
from dpo_driver.flywheel.evaluate import measure
from dpo_driver.flywheel.train import register
from dpo_driver.rollout.kept import LiveRollouts

NAME = "grpo"


def grpo(ctx: RunContext) -> dict[str, Any]:
    """Online training from the model that DPO ended with; ``sft`` where the run has no DPO.

    Raises:
        ConfigError: the configuration asks for no episodes.
    """
    settings = ctx.config.grpo
    if settings.episodes == 0:
        raise ConfigError("this run asks for no online training", where="grpo.episodes",
                          remedy="give it a number of episodes: --set grpo.episodes=4000")  # fmt: skip
    parent = parent_of_grpo(ctx)
    facts = ctx.stage("grpo", f"online training ({settings.algorithm}) from {parent}", lambda: _learn(ctx, parent))
    measure(ctx, "grpo", NAME, "val", ctx.config.evaluate.choose_per_task)
    return facts


def parent_of_grpo(ctx: RunContext) -> str:
    """The model that online training starts from, and is compared with."""
    return ctx.store.get_fact("chosen/dpo") or ("sft" if ctx.config.rounds == 0 else "dpo-1")


def _learn(ctx: RunContext, parent: str) -> dict[str, Any]:
    from dpo_driver.flywheel.stage import LiveStage
    from dpo_driver.policies.loading import load_model, load_tokenizer, local_folder, save_version
    from dpo_driver.training.curriculum import Curriculum
    from dpo_driver.training.online import train_online

    config, settings, env = ctx.config, ctx.config.grpo, ctx.config.env
    source = ctx.require_model(parent, "train it first")
    model = load_model(source, dtype=config.model.dtype, device=config.model.device, lora=config.model.lora,
                       quantization=config.model.quantization,
                       trainable="lora" if config.model.uses_adapter else "full")  # fmt: skip
    tokenizer = load_tokenizer(source)
    limits = {task.name: task.max_steps for task in make_tasks(ctx, "train", dict.fromkeys(env.tasks, 1))}
    curriculum = Curriculum(limits, settings.curriculum, config.project.seed, _success(ctx, parent))
    environments = plugins.load("environments", env.rollouts or env.source)
    val_tasks = make_tasks(ctx, "val", dict.fromkeys(env.tasks, config.evaluate.choose_per_task))
    with (
        ctx.bar("online training", settings.episodes) as advance,
        one_thread(),
        LiveRollouts(environments, env.workers) as live,
    ):
        seen = 0

        def log(step: int, metrics: dict[str, float]) -> None:
            nonlocal seen
            ctx.store.log_metric("grpo", step, metrics)
            ctx.tracker.log_metrics("grpo", step, metrics)
            if "reward" in metrics:
                seen += int(metrics["episodes"])
                note = (
                    f"reward {metrics['reward']:.2f}, kl {metrics.get('kl', 0.0):.4f}, horizon {metrics['horizon']:.0f}"
                )
                advance(min(seen, settings.episodes), f"update {step}: {note}")
                if metrics["overlong"]:
                    ctx.say(f"[yellow]  update {step}: {metrics['overlong']:.0f} episodes ended because a prompt did not "
                            f"fit into {config.model.max_length} tokens; the journal names them[/yellow]")  # fmt: skip
                if metrics["opened"]:
                    ctx.say(f"  update {step}: the horizon opens to {metrics['horizon']:.0f} steps, "
                            f"{metrics['families']:.0f} families")  # fmt: skip

        stage = LiveStage(live, _numbered(ctx), val_tasks, settings, profile=config.model.prompt_profile,
                          seed=config.project.seed, max_batch=env.workers)  # fmt: skip
        result = train_online(model, tokenizer, stage, curriculum, settings, ctx.run_dir / "checkpoints" / NAME,
                              seed=config.project.seed, max_length=config.model.max_length, on_log=log)  # fmt: skip
    if result.interrupted:
        raise KeyboardInterrupt
    save_version(model, tokenizer, ctx.model_folder(NAME))
    version = register(ctx, NAME, settings.algorithm, local_folder(source), [], result.metrics)
    before, after = result.start_metrics.get("eval_success", 0.0), result.best_metrics.get("success", 0.0)
    return {
        "summary": f"{result.steps} updates on {result.episodes} episodes ({result.stop_reason}), validation "
        f"{before:.1%} -> {after:.1%} at update {result.best_step}; {result.path}, "
        f"{result.sharing_ratio:.2f} x shared",
        "parent": parent, "steps": result.steps, "episodes": result.episodes, "best_step": result.best_step,
        "stop_reason": result.stop_reason, "version": version.content_hash, "path": result.path,
        "sharing_ratio": result.sharing_ratio, "tokens_per_second": result.tokens_per_second,
    }  # fmt: skip


def _numbered(ctx: RunContext) -> Any:
    """(family, number) -> the training task of that number, behind those that the rounds have used."""
    used = sum(ctx.store.get_fact(f"collect_span/{number}", 0) for number in range(1, ctx.config.rounds + 1))
    first, last = ctx.config.seeds.train
    make_task, limit = plugins.load("make_task", ctx.config.env.source), ctx.config.env.max_steps

    def task(family: str, number: int) -> Task:
        # A long run comes round to the first seeds again; by then the model is another.
        seed = first + (used + number) % (last - first + 1)
        made: Task = make_task(family, seed, "train")
        lap = (used + number) // (last - first + 1)
        changed = {"id": f"{made.id}/lap{lap}"} if lap else {}
        return made.model_copy(update=changed | ({} if limit is None else {"max_steps": limit}))

    return task


def _success(ctx: RunContext, parent: str) -> dict[str, float]:
    """What validation said of each family, for the first draws."""
    status = ctx.store.stage_status(f"evaluate/val/{parent}")
    if status.state != "done":
        return {}
    tasks = status.facts["report"]["tasks"]
    return {name: found["success"] for name, found in tasks.items() if found["success"] is not None}
