"""``dpo-driver plan``: will it fit, and how long does a step take? Called by cli/main.py; calls training/planner.py."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.table import Table

from dpo_driver.cli.options import DEFAULT_CONFIG, AsJson, ConfigPath, Overrides, console, print_json, results

if TYPE_CHECKING:
    from dpo_driver.core.config import RunConfig
    from dpo_driver.training.cards import Card
    from dpo_driver.training.planner import Memory, Plan
    from dpo_driver.training.proposals import Proposal

GIB = 2**30


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command(rich_help_panel="Training")(plan)


def plan(
    config: ConfigPath = None,
    overrides: Overrides = None,
    card: Annotated[
        str | None,
        typer.Option("--card", help="8GB, 24GB, rtx-4090, h200, ..., or cpu.", show_default="what this machine has"),
    ] = None,
    stage: Annotated[
        Literal["sft", "dpo"] | None, typer.Option("--stage", help="One stage only.", show_default="both")
    ] = None,
    prompt: Annotated[
        int | None,
        typer.Option("--prompt", min=1, help="Tokens of the longest prompt.", show_default="what max_length leaves"),
    ] = None,
    completion: Annotated[
        int | None,
        typer.Option("--completion", min=1, help="Tokens of the longest completion.",
                     show_default="collect.max_new_tokens"),
    ] = None,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Peak memory and seconds a step, before anything loads; settings that fit where these do not."""
    from dpo_driver.core.config import load_config
    from dpo_driver.training import planner, proposals
    from dpo_driver.training.cards import find_card

    path, given = config or DEFAULT_CONFIG, list(overrides or ())
    written = load_config(path, given)
    where = find_card(card, written.model.device)
    stages: tuple[planner.Stage, ...] = (stage,) if stage else ("sft", "dpo") if written.rounds else ("sft",)

    def read(changes: Sequence[str]) -> RunConfig:
        return load_config(path, [*given, *changes])

    def job(name: planner.Stage, changes: Sequence[str]) -> planner.Job:
        return planner.job_of(read(changes), name, where, prompt=prompt, completion=completion)

    _check_device(written, where)
    jobs = [job(name, []) for name in stages]
    asked = planner.measure(jobs, where) if where.present else [None] * len(jobs)
    found: list[tuple[Plan, Proposal | None]] = []
    for one, known in zip(jobs, asked, strict=True):
        first = planner.make_plan(one, where, known)
        proposal = None
        if not first.fits:
            runtime = first.memory.runtime

            def plan_with(changes: Sequence[str], of: planner.Job = one, runtime: int = runtime) -> Any:
                return read(changes), planner.make_plan(job(of.stage, changes), where, runtime=runtime)

            proposal = proposals.propose(one.stage, where, plan_with)
            if where.present:
                (again,) = planner.measure([proposal.plan.job], where)
                proposal = proposals.Proposal(proposal.changes, planner.make_plan(proposal.plan.job, where, again))
        found.append((first, proposal))
    if as_json:
        print_json({"card": _card(where), "stages": [_as_json(*item) for item in found]})
        return
    _show(written, where, found)


def _check_device(config: RunConfig, card: Card) -> None:
    """A configuration that needs a GPU cannot be planned for a processor."""
    from dpo_driver.core.errors import ConfigError
    from dpo_driver.training.config import BITSANDBYTES_OPTIMIZERS

    needs = [f"{name}.optim {section.optim}" for name, section in (("sft", config.sft), ("dpo", config.dpo))
             if section.optim in BITSANDBYTES_OPTIMIZERS]  # fmt: skip
    if config.model.quantization != "none":
        needs.insert(0, f"model.quantization {config.model.quantization}")
    if card.is_cpu and needs:
        raise ConfigError(f"{needs[0]} needs a GPU, and the plan is for a processor", where="--card",
                          remedy="name a card: --card 8GB")  # fmt: skip


def _card(card: Card) -> dict[str, Any]:
    return {"name": card.name, "memory": card.memory, "usable": card.usable, "present": card.present}


def _as_json(plan: Plan, proposal: Proposal | None) -> dict[str, Any]:
    job = plan.job
    found: dict[str, Any] = {
        "stage": job.stage,
        "parameters": job.shape.parameters,
        "trainable": job.trainable,
        "rows_per_step": job.rows,
        "passes": [asdict(layout) | {"times": times} for layout, times in job.passes.items()],
        "memory": asdict(plan.memory) | {"peak": plan.memory.peak},
        "seconds_per_step": plan.seconds,
        "seconds_from": plan.seconds_from,
        "fits": plan.fits,
    }
    if proposal is not None:
        found["proposal"] = {"changes": list(proposal.changes)} | _as_json(proposal.plan, None)
    return found


def _show(config: RunConfig, card: Card, found: Sequence[tuple[Plan, Proposal | None]]) -> None:
    shape = found[0][0].job.shape
    where = "this machine's processor" if card.is_cpu else card.name
    results.print(f"{config.model.name}: {shape.parameters / 1e6:,.1f}M parameters, on {where} "
                  f"({card.usable / GIB:.1f} of {card.memory / GIB:.1f} GiB usable)", highlight=False)  # fmt: skip
    for plan, proposal in found:
        results.print(_table(plan))
        results.print(_verdict(plan), highlight=False)
        if proposal is not None:
            results.print("  fits with " + " ".join(f"--set {change}" for change in proposal.changes), highlight=False,
                          soft_wrap=True)  # fmt: skip
            results.print(_verdict(proposal.plan), highlight=False)
    if config.model.lora.after_prompt:
        console.print("[dim]model.lora.after_prompt takes less: this plan is of an adapter on prompts too[/dim]")
    if any(plan.job.numerics.on_cpu for plan, _ in found):
        console.print("[dim]seconds are as fast as this machine was just now; other work beside it costs more[/dim]")


def _table(plan: Plan) -> Table:
    job, memory = plan.job, plan.memory
    table = Table(f"{job.stage}", "", box=None, header_style="bold")
    lora = f"LoRA rank {job.numerics.rank}, " if job.lora is not None else ""
    table.add_row("learned", f"{lora}{job.trainable / 1e6:,.2f}M parameters")
    sides = " and two completions" if job.stage == "dpo" else " and a completion"
    table.add_row("a step", f"{job.rows} rows in {sum(job.passes.values())} passes, prompt {job.prompt}{sides} of "
                  f"{job.completion} tokens")  # fmt: skip
    for name, size in _terms(memory):
        table.add_row(name, f"{size / GIB:9.3f} GiB")
    return table


def _terms(memory: Memory) -> list[tuple[str, int]]:
    return [
        ("weights", memory.weights),
        *([("adapter", memory.adapter)] if memory.adapter else []),
        ("optimizer", memory.optimizer),
        ("gradients", memory.gradients),
        ("activations kept", memory.activations),
        ("beside them at the worst moment", memory.transient),
        ("lost between tensors", memory.allocator),
        ("process without tensors", memory.runtime),
    ]


def _verdict(plan: Plan) -> str:
    worst = max(plan.memory.phases, key=lambda name: plan.memory.phases[name])
    fits = "[green]fits[/green]" if plan.fits else "[red]does not fit[/red]"
    took = f", {plan.seconds:.3g} s a step ({plan.seconds_from})" if plan.seconds is not None else ""
    return f"  peak {plan.memory.peak / GIB:.2f} GiB ({worst}): {fits}{took}"
