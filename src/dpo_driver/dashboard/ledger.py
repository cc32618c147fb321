"""What runs cost: tokens, seconds of browsers, models and training, and money by the user's own prices.

Called by app.py. Everything is added up from records; what no record holds is not guessed. Bodies are read once each,
for a short while in every call, so that a page over large runs answers at once and its sums grow until all is counted.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml
import zstandard

from dpo_driver.core.errors import StoreError
from dpo_driver.core.prices import Prices
from dpo_driver.core.store_files import vault_of
from dpo_driver.dashboard.reader import Reader

WORK_S = 0.25  # of one answer
BATCH = 50
# Stages whose seconds are spent on weights; what else has seconds rolls out, pairs or decides.
TRAINING = ("sft", "dpo", "control", "grpo", "pretrain", "held_out")
FITTING = frozenset({"sft", "sft-best", "dpo", "control", "grpo"})  # those that note where they ran


@dataclass
class Spent:
    """Sums over episodes. Those of several at once overlap in time: seconds are of browsers and of answers, not of a
    clock on the wall. ``billed`` is in US dollars, as endpoints' prices were recorded."""

    episodes: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    browser_s: float = 0.0
    policy_s: float = 0.0
    billed: float = 0.0

    def add(self, other: Spent) -> None:
        """Add another's sums to these."""
        self.episodes += other.episodes
        self.input_tokens += other.input_tokens
        self.output_tokens += other.output_tokens
        self.browser_s += other.browser_s
        self.policy_s += other.policy_s
        self.billed += other.billed


@dataclass
class _Counted:
    """How far one run is counted: by episode, with the size of its body, so that one rolled out again counts anew."""

    done: dict[str, tuple[int, str, Spent]] = field(default_factory=dict)
    stages: dict[str, Spent] = field(default_factory=dict)
    inode: int = -1


class Ledger:
    """``Ledger(prices).of("pocket", reader)``.

    Args:
        prices: None: money is not shown.
        clock: seconds, any zero.
    """

    def __init__(self, prices: Prices | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.prices, self._clock = prices, clock
        self._mutex = threading.Lock()
        self._runs: dict[str, _Counted] = {}

    def of(self, run: str, reader: Reader, work_s: float = WORK_S) -> dict[str, Any]:
        """A run's account so far: ``{"run", "counted", "episodes", "total": {...}, "stages": [...], "training_s",
        "gpu_s", "device", "money"}``; it is whole when ``counted`` equals ``episodes``.

        Args:
            run: its id.
            reader: of its database.
            work_s: seconds to go on counting for.
        """
        with self._mutex:
            kept = self._runs.setdefault(run, _Counted())
            there = reader.kept(
                "sizes", lambda: {identity: (size, stage) for identity, size, stage in reader.rows(
                    "SELECT id, length(body), stage FROM trajectories")}
            )  # fmt: skip
            error = self._go_on(kept, there, reader, work_s)
            return {"run": run, "error": error, **self._account(kept, len(there), reader)}

    def _go_on(self, kept: _Counted, there: dict[str, tuple[int, str]], reader: Reader, work_s: float) -> str:
        """Read bodies for a while; what went wrong, or ""."""
        inode = reader.path.stat().st_ino
        if inode != kept.inode or kept.done.keys() - there.keys():
            kept.done, kept.stages, kept.inode = {}, {}, inode
        missing = [key for key, (size, _) in there.items() if key not in kept.done or kept.done[key][0] != size]
        if not missing or work_s <= 0:
            return ""
        until = self._clock() + work_s
        try:
            vault = vault_of(reader.path.parent)
            for first in range(0, len(missing), BATCH):
                chosen = missing[first : first + BATCH]
                marks = ",".join("?" * len(chosen))
                query = f"SELECT id, stage, body FROM trajectories WHERE id IN ({marks})"
                for identity, stage, body in reader.rows(query, chosen):
                    packed = body if vault is None else vault.open(body, f"trajectory/{identity}".encode())
                    kept.done[identity] = len(body), stage, cost(json.loads(zstandard.decompress(packed)))
                if self._clock() > until:
                    break
        except (StoreError, zstandard.ZstdError, ValueError) as error:
            return str(error)
        finally:
            kept.stages = {}
            for _, stage, spent in kept.done.values():
                kept.stages.setdefault(stage, Spent()).add(spent)
        return ""

    def _account(self, kept: _Counted, episodes: int, reader: Reader) -> dict[str, Any]:
        total = Spent()
        for spent in kept.stages.values():
            total.add(spent)
        rows = reader.rows("SELECT stage, seconds, facts FROM stages ORDER BY started, stage")
        walls = {stage: seconds for stage, seconds, _ in rows}
        training = sum(seconds for stage, seconds in walls.items() if is_training(stage))
        named = [*walls, *(stage for stage in sorted(kept.stages) if stage not in walls)]
        return {
            "episodes": episodes, "counted": len(kept.done), "total": asdict(total), "training_s": training,
            "stages_s": sum(walls.values()), "gpu_s": gpu_seconds(rows), "device": device(reader.path.parent),
            "stages": [{"stage": stage, "seconds": walls.get(stage), "training": is_training(stage),
                        **asdict(kept.stages.get(stage, Spent()))} for stage in named],
            "money": money(total, training, self.prices) if self.prices else None,
        }  # fmt: skip


def cost(body: dict[str, Any]) -> Spent:
    """What a trajectory's record says it took. A remote model's usage counts; else the tokens that were kept."""
    found = Spent(episodes=1)
    for step in body.get("steps", ()):
        timing, generation = step.get("timing") or {}, step.get("generation")
        found.browser_s += timing.get("browser", 0.0)
        found.policy_s += timing.get("policy", 0.0)
        if not generation:
            continue
        usage = generation.get("usage")
        found.input_tokens += usage["input_tokens"] if usage else generation.get("prompt_tokens", 0)
        found.output_tokens += usage["output_tokens"] if usage else len(generation.get("token_ids", ()))
        found.billed += (usage.get("cost") or 0.0) if usage else 0.0
    return found


def money(spent: Spent, training_s: float, prices: Prices) -> float:
    """In the prices' currency: browsers and training by the hour, tokens by the million."""
    return prices.money(spent.browser_s, training_s, spent.input_tokens, spent.output_tokens)


def is_training(stage: str) -> bool:
    """Whether a stage's seconds went into weights."""
    return stage.partition("/")[0] in TRAINING


def gpu_seconds(rows: Iterable[tuple[str, float, str]]) -> float | None:
    """Seconds of training stages on a GPU, by what each noted when it was done; None where one noted nothing."""
    found = 0.0
    for stage, seconds, facts in rows:
        if stage.partition("/")[0] in FITTING and (noted := json.loads(facts)):
            if "device" not in noted:
                return None
            found += seconds if noted["device"] == "cuda" else 0.0
    return found


def device(folder: Path) -> str:
    """Where the run was told to train: "cuda", "cpu", or "auto"; "" where its configuration does not say. With "auto"
    no record tells which it was."""
    try:
        told = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
        return str(told["model"]["device"])
    except (OSError, yaml.YAMLError, KeyError, TypeError):
        return ""
