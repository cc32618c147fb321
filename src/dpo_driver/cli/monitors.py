"""Reward-hacking monitors over a finished run: dpo-driver monitors. Called by cli/main.py; calls flywheel/monitors."""

from __future__ import annotations

from typing import Annotated

import typer

from dpo_driver.cli.options import AsJson, RunPath, find_run, print_json, results


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command(rich_help_panel="Results")(monitors)


def monitors(
    run: RunPath = None,
    held_out: Annotated[
        str | None, typer.Option("--stage", help="Held-out episodes to look at.", show_default="the last candidate's")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Does success still mean what it says? Exit code 1 where a monitor has something to say."""
    from dpo_driver.core.errors import DataError
    from dpo_driver.core.store import RunStore
    from dpo_driver.flywheel.monitors import MONITORS, run_monitors
    from dpo_driver.flywheel.monitors.gather import evidence_of

    folder = find_run(run)
    with RunStore(folder) as store:
        known = store.trajectory_stages()
        judged: list[str] = [stage for stage in ("evaluate/test/dpo", "evaluate/test/grpo") if stage in known]
        judged += sorted((each for each in known if each.startswith("gate/") and "/dpo-" in each),
                         key=lambda stage: int(stage.split("/")[1]))  # fmt: skip
        if held_out is not None and held_out not in known:
            raise DataError(f"the run has no episodes of {held_out!r}", where=str(folder),
                            remedy=f"stages: {', '.join(known)}")  # fmt: skip
        if held_out is None and not judged:
            raise DataError("the run has no held-out episodes of a candidate yet", where=str(folder),
                            remedy="run `dpo-driver evaluate` first, or name a stage: --stage")  # fmt: skip
        stage = held_out or judged[-1]
        gate = stage.split("/")
        expert = f"gate/{gate[1]}/expert" if gate[0] == "gate" else "evaluate/test/oracle"
        evidence = evidence_of(store, stage, expert)
    alarms = run_monitors(evidence)
    if as_json:
        print_json({"run": str(folder), "stage": stage, "training": len(evidence.training),
                    "held_out": len(evidence.held_out), "expert": len(evidence.expert), "monitors": list(MONITORS),
                    "alarms": [alarm.model_dump(mode="json") for alarm in alarms]})  # fmt: skip
    else:
        results.print(f"{stage}: {len(evidence.held_out)} held-out and {len(evidence.training)} training episodes")
        for name in MONITORS:
            said = next((alarm for alarm in alarms if alarm.monitor == name), None)
            results.print(f"{name}: {said.why if said else 'silent'}", highlight=False)
            if said and said.examples:
                results.print(f"  look: dpo-driver watch {folder} {said.examples[0]}", highlight=False, soft_wrap=True)
    if alarms:
        raise typer.Exit(1)
