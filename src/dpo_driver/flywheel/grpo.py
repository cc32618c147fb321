"""GRPO: the DPO champion goes on learning on live pages. Called by the command line and loop.py.

Training seeds go on where the rounds of DPO stopped; validation seeds are those that choose everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpo_driver.core import plugins, ranks
from dpo_driver.core.config import RunConfig
from dpo_driver.core.errors import ConfigError
from dpo_driver.core.records import Task
from dpo_driver.flywheel.collect import make_tasks
from dpo_driver.flywheel.context import RunContext
from dpo_driver.flywheel.evaluate import measure
from dpo_driver.flywheel.shares import one_thread
from dpo_driver.flywheel.train import register
from dpo_driver.rollout.kept import LiveRollouts

if TYPE_CHECKING:
    from dpo_driver.training.online import OnlineResult

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
    from dpo_driver.policies.loading import local_folder, save_version

    config, settings, env = ctx.config, ctx.config.grpo, ctx.config.env
    source = ctx.require_model(parent, "train it first")
    learning = Learning(
        config=config,
        source=source,
        output=ctx.run_dir / "checkpoints" / NAME,
        limits={task.name: task.max_steps for task in make_tasks(ctx, "train", dict.fromkeys(env.tasks, 1))},
        success=_success(ctx, parent),
        used=sum(ctx.store.get_fact(f"collect_span/{number}", 0) for number in range(1, config.rounds + 1)),
        val_tasks=tuple(make_tasks(ctx, "val", dict.fromkeys(env.tasks, config.evaluate.choose_per_task))),
    )
    with ctx.bar("online training", settings.episodes) as advance, ranks.beside(part_of_another, learning):
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
                    ctx.say(f"[yellow]  update {step}: {metrics['overlong']:.0f} episodes had a prompt that does not "
                            f"fit into {config.model.max_length} tokens; the journal names them[/yellow]")  # fmt: skip
                if metrics["opened"]:
                    ctx.say(f"  update {step}: the horizon opens to {metrics['horizon']:.0f} steps, "
                            f"{metrics['families']:.0f} families")  # fmt: skip

        model, tokenizer, result = learning.run(log)
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
        "device": next(model.parameters()).device.type,
        "sharing_ratio": result.sharing_ratio, "tokens_per_second": result.tokens_per_second,
    }  # fmt: skip


@dataclass(frozen=True)
class Learning:
    """What online training works on: all that a process must know for its part of it. Pickles."""

    config: RunConfig
    source: Path  # the parent
    output: Path
    limits: Mapping[str, int]  # of steps, by family
    success: Mapping[str, float]  # by family, measured before
    used: int  # training seeds of each family that the rounds have used
    val_tasks: tuple[Task, ...]

    def run(self, on_log: Callable[[int, dict[str, float]], None]) -> tuple[Any, Any, OnlineResult]:
        """Train. Returns the model, its tokenizer and what happened."""
        from dpo_driver.flywheel.stage import LiveStage
        from dpo_driver.policies.loading import load_model, load_tokenizer
        from dpo_driver.training.curriculum import Curriculum
        from dpo_driver.training.online import train_online

        env, settings, model_config = self.config.env, self.config.grpo, self.config.model
        seed = self.config.project.seed
        model = load_model(self.source, dtype=model_config.dtype, device=model_config.device, lora=model_config.lora,
                           quantization=model_config.quantization,
                           trainable="lora" if model_config.uses_adapter else "full")  # fmt: skip
        tokenizer = load_tokenizer(self.source)
        curriculum = Curriculum(self.limits, settings.curriculum, seed, self.success)
        environments = plugins.load("environments", env.rollouts or env.source)
        workers = max(1, env.workers // ranks.count_here())
        # Up to that staleness rollouts and updates still take turns (training/stream.py), and updates have all cores.
        in_turns = settings.max_staleness < settings.steps_per_generation * settings.num_iterations
        beside = nullcontext() if in_turns else one_thread()
        with beside, LiveRollouts(environments, workers) as live:
            stage = LiveStage(live, self._train_task, self.val_tasks, settings, profile=model_config.prompt_profile,
                              seed=seed, max_batch=workers)  # fmt: skip
            result = train_online(model, tokenizer, stage, curriculum, settings, self.output, seed=seed,
                                  max_length=model_config.max_length, on_log=on_log)  # fmt: skip
        return model, tokenizer, result

    def _train_task(self, family: str, number: int) -> Task:
        """The training task of that number, behind those that the rounds have used."""
        first, last = self.config.seeds.train
        limit = self.config.env.max_steps
        # A long run comes round to the first seeds again; by then the model is another.
        lap, place = divmod(self.used + number, last - first + 1)
        made: Task = plugins.load("make_task", self.config.env.source)(family, first + place, "train")
        changed = {"id": f"{made.id}/lap{lap}"} if lap else {}
        return made.model_copy(update=changed | ({} if limit is None else {"max_steps": limit}))


def part_of_another(learning: Learning) -> None:
    """What a process that is not the main one does."""
    learning.run(lambda step, metrics: None)


def _success(ctx: RunContext, parent: str) -> dict[str, float]:
    """What validation said of each family, for the first draws."""
    status = ctx.store.stage_status(f"evaluate/val/{parent}")
    if status.state != "done":
        return {}
    tasks = status.facts["report"]["tasks"]
    return {name: found["success"] for name, found in tasks.items() if found["success"] is not None}
