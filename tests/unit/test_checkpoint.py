"""Training state survives: kill -9 and resume are bit-equal to a straight run; damaged checkpoints are passed over."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from dpo_driver.core.errors import TrainingError
from dpo_driver.training import checkpoint as disk

# Trains 20 steps of DPO with LoRA and dropout (so that random numbers matter); kills itself after the given step. Reads
# "folder step" lines and runs each in a fork of its own, so that libraries are imported once.
SCRIPT = textwrap.dedent(
    """
    import os, signal, sys
    from pathlib import Path
    import peft, torch, transformers
    from dpo_driver.core.records import Message, Preference, TrainingSample
    from dpo_driver.core.schema_training import LoraConfig
    from dpo_driver.policies.loading import _fresh_adapter
    from dpo_driver.testing.tiny_models import tiny_model
    from dpo_driver.training.engine import train

    torch.set_num_threads(1)

    def run(output, die_at):
        model, tokenizer = tiny_model()
        torch.manual_seed(0)
        model = _fresh_adapter(model, LoraConfig(r=4, dropout=0.2))
        rows = []
        for i in range(13):
            messages = (Message(role="user", content=f"goal {i}\\n" * (1 + i % 3)),)
            pair = {"chosen": f"yes {i}", "rejected": "no", "level": "step", "source": "t"}
            rows.append(Preference(id=f"p{i}", messages=messages, **pair))
            rows.append(TrainingSample(id=f"s{i}", messages=messages, completion=f"sure {i}", source="t"))

        def on_log(step, metrics):
            if step == die_at:
                os.kill(os.getpid(), signal.SIGKILL)

        train("dpo", model, tokenizer, rows, rows[:4], {
            "max_steps": 20, "per_device_train_batch_size": 4, "logging_steps": 1, "eval_steps": 5, "save_steps": 3,
            "learning_rate": 1e-2, "warmup_ratio": 0.2, "replay_coefficient": 0.5,
        }, output, on_log=on_log)

    for line in sys.stdin:
        output, die_at = line.split()
        child = os.fork()
        if child == 0:
            run(Path(output), int(die_at))
            os._exit(0)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
    """
)
Run = Callable[[Path, int], int]


@pytest.fixture
def run() -> Iterator[Run]:
    """``run(folder, die_at)`` trains in a process of its own and gives its exit code, negative for a signal."""
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None

        def ask(folder: Path, die_at: int) -> int:
            print(folder, die_at, file=server.stdin, flush=True)
            return int(server.stdout.readline())  # type: ignore[union-attr]

        yield ask
        server.stdin.close()


def test_kill_9_and_resume_is_bit_equal(tmp_path: Path, run: Run) -> None:
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    assert run(straight, -1) == 0
    assert run(killed, 10) == -signal.SIGKILL
    assert disk.newest(killed)[0] == killed / "checkpoint-9"
    (killed / "checkpoint-9" / "optimizer.safetensors").unlink()  # damaged on top: the one before is used
    assert disk.newest(killed)[0] == killed / "checkpoint-6"
    assert run(killed, 14) == -signal.SIGKILL
    assert run(killed, -1) == 0
    a, b = straight / "checkpoint-20", killed / "checkpoint-20"
    for name in ("weights.safetensors", "optimizer.safetensors", "rng.safetensors", "rng.json", "optimizer.json"):
        assert (a / name).read_bytes() == (b / name).read_bytes(), name
    one, other = (json.loads((folder / "state.json").read_text()) for folder in (a, b))
    losses = [[row["loss"] for row in state["history"] if "loss" in row] for state in (one, other)]
    assert losses[0] == losses[1]  # the same rows in the same order
    assert len(losses[0]) == 20
    assert one["best"] == other["best"]
    assert one["scheduler"] == other["scheduler"]
    best = f"best-{one['best']['step']}"
    assert (straight / best / disk.WEIGHTS).read_bytes() == (killed / best / disk.WEIGHTS).read_bytes()


def make(folder: Path, value: float) -> Path:
    disk.write_folder(folder, {disk.WEIGHTS: {"w": torch.full((50,), value)}}, {"state.json": {"value": value}})
    return folder


def test_the_newest_sound_checkpoint_is_used_and_the_damaged_are_named(tmp_path: Path) -> None:
    assert disk.newest(tmp_path) == (None, [])
    first, second, third, fourth = (make(tmp_path / f"checkpoint-{n}", n) for n in (5, 10, 15, 100))
    assert disk.newest(tmp_path) == (fourth, [])
    (fourth / disk.WEIGHTS).write_bytes((fourth / disk.WEIGHTS).read_bytes()[:-3])
    (third / "manifest.json").unlink()
    assert disk.newest(tmp_path) == (
        second,
        ["checkpoint-100: weights.safetensors is not what was saved", "checkpoint-15: incomplete, it has no manifest"],
    )
    damaged = bytearray((second / disk.WEIGHTS).read_bytes())
    damaged[-1] ^= 1  # one bit
    (second / disk.WEIGHTS).write_bytes(damaged)
    (tmp_path / "checkpoint-20.new").mkdir()  # left behind by a kill while writing
    found, problems = disk.newest(tmp_path)
    assert found == first
    assert problems[-1] == "checkpoint-10: weights.safetensors is not what was saved"
    (first / "manifest.json").write_text("{")
    assert disk.newest(tmp_path)[0] is None
    (first / "state.json").unlink()
    assert disk.problem(first) is not None


def test_rotation_keeps_the_newest(tmp_path: Path) -> None:
    for n in (5, 10, 15, 100):
        make(tmp_path / f"checkpoint-{n}", n)
    disk.rotate(tmp_path, 2)
    assert [path.name for path in disk.checkpoints(tmp_path)] == ["checkpoint-100", "checkpoint-15"]


@pytest.mark.parametrize("make_optimizer", [torch.optim.AdamW, torch.optim.SGD, torch.optim.RMSprop])
def test_optimizer_state_survives_json_and_safetensors(
    make_optimizer: type[torch.optim.Optimizer], tmp_path: Path
) -> None:
    def problem() -> tuple[torch.nn.Linear, torch.optim.Optimizer]:
        torch.manual_seed(0)
        layer = torch.nn.Linear(3, 2)
        return layer, make_optimizer(layer.parameters(), lr=0.1)

    def step(layer: torch.nn.Linear, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        layer(torch.ones(1, 3)).square().sum().backward()
        optimizer.step()

    layer, optimizer = problem()
    step(layer, optimizer)
    tensors, document = disk.pack_optimizer(optimizer.state_dict())
    disk.write_folder(tmp_path / "x", {"o.safetensors": tensors}, {"o.json": document})
    twin, fresh = problem()
    twin.load_state_dict(layer.state_dict())
    kept = disk.unpack_optimizer(
        disk.read_tensors(tmp_path / "x" / "o.safetensors"), disk.read_json(tmp_path / "x" / "o.json")
    )
    fresh.load_state_dict(kept)
    step(layer, optimizer)
    step(twin, fresh)
    assert torch.equal(layer.weight, twin.weight)


def test_random_generators_are_restored() -> None:
    tensors, document = disk.rng_state()
    drawn = [torch.rand(1).item(), float(np.random.rand()), random.random(), random.gauss(0, 1)]
    disk.restore_rng(tensors, json.loads(json.dumps(document)))
    assert [torch.rand(1).item(), float(np.random.rand()), random.random(), random.gauss(0, 1)] == drawn


def test_weights_of_another_model_are_refused() -> None:
    with pytest.raises(TrainingError, match="another model"):
        disk.load_weights(torch.nn.Linear(2, 2), {"weight": torch.zeros(2, 3), "bias": torch.zeros(2)}, "here")
