"""What tests let several processes do, and how they are started. ``torchrun ... several.py FOLDER`` does all of it;
tests/unit/test_processes.py compares with what one process does.

Each case leaves ``<case>.<rank>.json`` and the weights beside it, so that a test sees every process.
"""

from __future__ import annotations

import gc
import io
import json
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from safetensors.torch import save_file
from test_engine import pairs, samples
from test_online import fit as learn_online

from dpo_driver.agents.random import RandomAgent
from dpo_driver.core import ranks
from dpo_driver.core.config import RunConfig
from dpo_driver.core.errors import DriverError
from dpo_driver.core.records import Preference, TrainingSample
from dpo_driver.core.schema_training import LoraConfig
from dpo_driver.flywheel.collect import make_tasks, roll_out
from dpo_driver.flywheel.context import open_run
from dpo_driver.policies.loading import _fresh_adapter
from dpo_driver.testing.tiny_models import tiny_model
from dpo_driver.training.checkpoint import trainable
from dpo_driver.training.engine import TrainResult, train

TESTS = Path(__file__).resolve().parent
SETTINGS = {"learning_rate": 1e-4, "max_steps": 3, "logging_steps": 1, "save_steps": 100, "eval_steps": 2}
DPO = {"beta": 0.3, "rpo_alpha": 0.5, "replay_coefficient": 0.5, "per_device_train_batch_size": 7}
# Cases of training. Rows are cut into several forests (tokens_per_pass); ``few`` has one forest a step, for all.
TRAININGS: dict[str, dict[str, Any]] = {
    "sft": {"tokens_per_pass": 300, "per_device_train_batch_size": 7},
    "dpo": {"tokens_per_pass": 300, **DPO},
    "lora": {"tokens_per_pass": 300, **DPO},
    "few": {"per_device_train_batch_size": 1},
    "dropout": {"tokens_per_pass": 300, **DPO, "max_steps": 4},
}
ROLLOUTS = {"project": {"name": "toy"}, "env": {"name": "toy", "tasks": ["press", "login", "wizard"], "workers": 4},
            "tracking": {"mlflow": False}}  # fmt: skip
ONLINE: dict[str, Any] = {"episodes": 36, "groups_per_step": 3, "num_generations": 4, "algorithm": "rloo", "beta": 0.01}


def train_case(name: str, folder: Path, **more: Any) -> tuple[TrainResult, Any]:
    """Train a tiny model; ``lora`` and ``dropout`` an adapter on it, whose start is random and different in each
    process."""
    settings = SETTINGS | TRAININGS[name] | more
    model, tokenizer = tiny_model()
    if name in ("lora", "dropout"):
        torch.manual_seed(ranks.rank())
        model = _fresh_adapter(model, LoraConfig(r=4, dropout=0.3 if name == "dropout" else 0.0))
    else:
        model.requires_grad_(True)
    rows: list[Preference | TrainingSample] = [*samples(7)] if name == "sft" else [*pairs(7), *samples(5)]
    val = samples(9)[7:] if name == "sft" else pairs(9)[7:]
    callbacks = {key: settings.pop(key) for key in ("on_log", "resume") if key in settings}
    algorithm = "sft" if name == "sft" else "dpo"
    return train(algorithm, model, tokenizer, rows, val, settings, folder, **callbacks), model


def interrupt(step: int, in_rank: int = 0) -> Callable[[int, dict[str, float]], None]:
    """A callback that presses Ctrl-C in one process when a step is logged."""

    def on_log(at: int, metrics: dict[str, float]) -> None:
        if at == step and "loss" in metrics and ranks.rank() == in_rank:
            os.kill(os.getpid(), signal.SIGINT)

    return on_log


def roll_out_toys(run_dir: Path, stage: str = "tried", seeds: int = 5) -> int:
    """A small rollout into a run's store; how many trajectories finished. In the main process."""
    config = RunConfig.model_validate(ROLLOUTS | {"project": {"name": "toy", "run_dir": str(run_dir)}})
    with open_run(config, console=Console(file=io.StringIO())) as ctx:
        tasks = make_tasks(ctx, "train", dict.fromkeys(config.env.tasks, seeds))
        return roll_out(ctx, stage, "tried", tasks, RandomAgent(), group_size=2).finished


# -- the cases, in every process -------------------------------------------------------------------------------------


def keep(folder: Path, case: str, model: Any = None, **facts: Any) -> None:
    """Leave what a process found."""
    path = folder / f"{case}.{ranks.rank()}"
    path.with_suffix(path.suffix + ".json").write_text(json.dumps(facts))
    if model is not None:
        weights = {name: value.contiguous().clone() for name, value in trainable(model).items()}
        save_file(weights, folder / f"{case}.{ranks.rank()}.safetensors")


def trainings(folder: Path, kind: str) -> None:
    """Every case straight through; one of them stopped and continued."""
    logged: list[int] = []
    for name in ("sft", "lora") if kind == "fsdp" else TRAININGS:
        sharded: set[str] = set()

        def on_log(step: int, metrics: dict[str, float], sharded: set[str] = sharded, name: str = name) -> None:
            logged.append(step)
            if step == 1 and name == "sft":
                sharded |= {type(each).__name__ for each in gc.get_objects() if type(each).__name__.startswith("FSDP")}

        logged.clear()
        result, model = train_case(name, folder / f"{kind}-{name}", on_log=on_log)
        keep(folder, f"{kind}-{name}", model, history=result.history, logged=len(logged), path=result.path,
             best=result.best_step, sharing=result.sharing_ratio, sharded=sorted(sharded))  # fmt: skip
    if kind == "fsdp":
        learn_from_journal(folder, "fsdp-journal")
    name = "lora" if kind == "fsdp" else "dropout"
    stopped, _ = train_case(name, folder / f"{kind}-again", on_log=interrupt(1), save_steps=1)
    result, model = train_case(name, folder / f"{kind}-again", save_steps=1)
    keep(folder, f"{kind}-again", model, stopped=stopped.stop_reason, steps=stopped.steps, resumed=result.resumed_from,
         history=result.history)  # fmt: skip


def refusals(folder: Path) -> None:
    """What must end in all processes alike, with a message."""
    said = {}
    for name, more in (("inf", {"learning_rate": 1e30, "max_steps": 20}), ("rows", {"max_steps": 3 + ranks.rank()})):
        try:
            train_case("few", folder / f"refused-{name}", **more)
        except DriverError as error:
            said[name] = str(error)
    keep(folder, "refused", **said)


def stopped_for_fewer(folder: Path) -> None:
    """Two trainings that another number of processes shall go on with."""
    for name in ("lora", "dropout"):
        train_case(name, folder / f"left-{name}", on_log=interrupt(1), save_steps=1)


def learn_from_journal(folder: Path, name: str) -> None:
    """The rollouts are there already; what is learned from them must be what one process learned."""
    result, model = learn_online(folder / name, val=1, **ONLINE)
    keep(folder, name, model, history=result.history, episodes=result.episodes)


def online(folder: Path) -> None:
    """From a journal that one process wrote, and live: in turns with the updates, and ahead of them."""
    learn_from_journal(folder, "journal")
    for name, more in (("live", {}), ("ahead", {"max_staleness": 2, "episodes": 72})):
        result, model = learn_online(folder / name, val=1, **(ONLINE | more))
        keep(folder, name, model, history=result.history, episodes=result.episodes, stop=result.stop_reason)


def rollouts(folder: Path) -> None:
    """The flywheel's way: the main process asks, the others follow."""
    with ranks.job() as leads:
        if leads:
            keep(folder, "rollouts", first=roll_out_toys(folder / "run", seeds=2), all=roll_out_toys(folder / "run"))
        else:
            ranks.follow()


def main() -> None:
    torch.set_num_threads(1)
    folder, cases = Path(sys.argv[1]), sys.argv[2:]
    try:
        for case in cases:
            if case == "fsdp":
                os.environ |= {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2",
                               "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP"}  # fmt: skip
            if case in ("ddp", "fsdp"):
                trainings(folder, case)
            else:
                {"refusals": refusals, "fewer": stopped_for_fewer, "online": online, "rollouts": rollouts}[case](folder)
    except BaseException:
        traceback.print_exc()
        raise


def launch(*arguments: str, timeout: float, processes: int = 2) -> subprocess.CompletedProcess[str]:
    """``torchrun`` on this machine, one thread a process."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    found_at = os.pathsep.join([str(TESTS), str(TESTS / "unit")])
    env = {**os.environ, "OMP_NUM_THREADS": "1", "NO_COLOR": "1", "COLUMNS": "200", "PYTHONPATH": found_at}
    return subprocess.run([*command, *arguments], env=env, capture_output=True, text=True, timeout=timeout, check=False)


if __name__ == "__main__":
    main()
