"""Which training curves the report shows, and how rounds of the same stage are laid end to end. Used by page.py."""

from __future__ import annotations

import math
from collections.abc import Sequence

from dpo_driver.report.charts import Chart, Series
from dpo_driver.report.data import Curve

Points = list[tuple[float, float]]
LN2 = math.log(2)


def training_charts(curves: Sequence[Curve]) -> list[Chart]:
    """The charts that have values: losses, then rewards, margin and accuracy of the preference stage, then the rest."""
    line = _Lines(curves)
    breaks = line.breaks("dpo")
    candidates = [
        Chart(
            "SFT loss",
            "negative log-likelihood of the demonstrations",
            line.pair("sft", "loss", "sft"),
        ),
        Chart(
            "DPO loss",
            "of preferences; ln 2 where the candidate equals its reference",
            line.pair("dpo", "preference_loss", "dpo") or line.pair("dpo", "loss", "dpo"),
            (LN2, "ln 2"),
            breaks,
        ),
        Chart(
            "Control loss",
            "negative log-likelihood of the successes",
            line.pair("control", "loss", "control"),
            breaks=line.breaks("control"),
        ),
        Chart(
            "Implicit rewards",
            "beta × log-ratio to the reference",
            (
                *line.one("dpo", "rewards/chosen", "chosen", "good"),
                *line.one("dpo", "rewards/rejected", "rejected", "bad"),
                *line.one("dpo", "eval_rewards/chosen", "chosen, validation", "good", dotted=True),
                *line.one("dpo", "eval_rewards/rejected", "rejected, validation", "bad", dotted=True),
            ),
            (0.0, ""),
            breaks,
        ),
        Chart("Reward margin", "chosen minus rejected", line.pair("dpo", "rewards/margins", "dpo"), (0.0, ""), breaks),
        Chart(
            "Reward accuracy",
            "share of pairs whose chosen answer is rewarded more",
            line.pair("dpo", "rewards/accuracies", "dpo"),
            (0.5, "chance"),
            breaks,
        ),
        Chart(
            "Online reward",
            "mean of each generation batch; success on validation seeds",
            (
                *line.one("grpo", "reward", "rollouts", "grpo"),
                *line.one("grpo", "eval_success", "validation", "ink", dotted=True),
            ),
        ),
        Chart("KL to the parent", "k3 estimate per token, in nats", line.one("grpo", "kl", "GRPO", "grpo"), (0.0, "")),
        Chart("Entropy", "of each token that was written online, in nats", line.one("grpo", "entropy", "GRPO", "grpo")),
        Chart(
            "Horizon",
            "steps that a task may take to be drawn",
            line.one("grpo", "horizon", "GRPO", "grpo", exact=True),
        ),
        Chart(
            "Gradient norm",
            "before clipping",
            (
                *line.one("sft", "grad_norm", "SFT", "sft"),
                *line.one("control", "grad_norm", "control", "control"),
                *line.one("dpo", "grad_norm", "DPO", "dpo"),
                *line.one("grpo", "grad_norm", "GRPO", "grpo"),
            ),
        ),
        Chart(
            "Learning rate",
            "as scheduled",
            (
                *line.one("sft", "learning_rate", "SFT", "sft", exact=True),
                *line.one("control", "learning_rate", "control", "control", exact=True),
                *line.one("dpo", "learning_rate", "DPO", "dpo", exact=True),
            ),
        ),
    ]
    return [chart for chart in candidates if chart.series]


class _Lines:
    """Metrics by stage, with the rounds of a stage one after the other on one axis of steps."""

    def __init__(self, curves: Sequence[Curve]) -> None:
        self._points: dict[tuple[str, str], Points] = {}
        self._ends: dict[str, list[float]] = {}
        stages: dict[str, list[str]] = {}
        for curve in curves:
            head = curve.stage.partition("/")[0]
            if curve.stage not in stages.setdefault(head, []):
                stages[head].append(curve.stage)
        for head, members in stages.items():
            offset = 0.0
            for stage in members:
                own = [curve for curve in curves if curve.stage == stage]
                for curve in own:
                    shifted = [(step + offset, value) for step, value in curve.points]
                    self._points.setdefault((head, curve.name), []).extend(shifted)
                offset += max(step for curve in own for step, _ in curve.points)
                self._ends.setdefault(head, []).append(offset)

    def breaks(self, head: str) -> tuple[float, ...]:
        """Steps at which one round ends and the next begins."""
        return tuple(self._ends.get(head, [])[:-1])

    def one(
        self, head: str, name: str, shown: str, tone: str, *, dotted: bool = False, exact: bool = False
    ) -> tuple[Series, ...]:
        """A metric as one line, or nothing if it was not logged."""
        points = self._points.get((head, name))
        return (Series(shown, tone, points, dotted, exact, self.breaks(head)),) if points else ()

    def pair(self, head: str, name: str, tone: str) -> tuple[Series, ...]:
        """Training and validation of one metric."""
        training = self.one(head, name, "training", tone)
        return (*training, *self.one(head, f"eval_{name}", "validation", "ink", dotted=True))
