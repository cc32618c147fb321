"""The engine against plain computations, and its promises: best weights kept, nothing dropped silently, clean stops."""

from __future__ import annotations

import json
import math
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from dpo_driver.algorithms.pair_losses import PAIR_LOSSES
from dpo_driver.core.errors import ConfigError, DataError, TrainingError
from dpo_driver.core.records import Message, Preference, TrainingSample, Turn
from dpo_driver.core.schema_training import DpoConfig, SftConfig
from dpo_driver.policies.encoding import encode_completion, encode_prompt
from dpo_driver.policies.loading import weights_hash
from dpo_driver.testing.tiny_models import tiny_model
from dpo_driver.training.batches import StepSampler, step_batch
from dpo_driver.training.checkpoint import read_tensors, trainable
from dpo_driver.training.config import TrainConfig, split_config
from dpo_driver.training.engine import TrainResult, train
from dpo_driver.training.rows import encode_rows

WORDS = ("Save", "Stop", "Open", "Close", "Send", "Back")


def prompt(i: int) -> tuple[Message, ...]:
    return (Message(role="user", content=f"button {WORDS[i % 6]}[{i % 9 + 1}]\n" * (1 + i % 4) + "goal: go\n"),)


def samples(count: int) -> list[TrainingSample]:
    return [
        TrainingSample(id=f"s{i}", messages=prompt(i), completion=f"thought: button {WORDS[i % 6]}", source="t")
        for i in range(count)
    ]


def pairs(count: int) -> list[Preference]:
    return [
        Preference(
            id=f"p{i}",
            messages=prompt(i),
            chosen=f"thought: {WORDS[i % 6]}",
            rejected=f"no {i}",
            level="step",
            source="t",
        )
        for i in range(count)
    ]


def fit(
    folder: Path, algorithm: str = "sft", rows: Any = None, val: Any = (), **config: Any
) -> tuple[TrainResult, Any]:
    model, tokenizer = tiny_model()
    model.requires_grad_(True)
    defaults = {"learning_rate": 1e-3, "max_steps": 4, "per_device_train_batch_size": 4, "logging_steps": 1}
    callbacks = {key: config.pop(key) for key in ("on_log", "on_checkpoint", "on_eval", "resume") if key in config}
    rows = samples(8) if rows is None else rows
    return train(algorithm, model, tokenizer, rows, val, defaults | config, folder, **callbacks), model


def test_sft_equals_a_plain_transformers_loop(tmp_path: Path) -> None:
    """Three AdamW steps on right-padded rows with masked labels, by the model's own loss."""
    rows = samples(6)
    result, model = fit(tmp_path, rows=rows, max_steps=3, per_device_train_batch_size=6, lr_scheduler_type="constant")
    plain, tokenizer = tiny_model()
    plain.train().requires_grad_(True)
    encoded = [(encode_prompt(tokenizer, r.messages), encode_completion(tokenizer, r.completion)) for r in rows]
    longest = max(len(p) + len(c) for p, c in encoded)
    pad = [longest - len(p) - len(c) for p, c in encoded]
    ids = torch.tensor([p + c + [0] * n for (p, c), n in zip(encoded, pad, strict=True)])
    mask = torch.tensor([[1] * (longest - n) + [0] * n for n in pad])
    labels = torch.tensor([[-100] * len(p) + c + [-100] * n for (p, c), n in zip(encoded, pad, strict=True)])
    optimizer = torch.optim.AdamW(plain.parameters(), lr=1e-3, weight_decay=0.0)
    for step in range(3):
        loss = plain(input_ids=ids, attention_mask=mask, labels=labels).loss
        assert result.history[step]["loss"] == pytest.approx(loss.item(), abs=1e-5)
        optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(plain.parameters(), 1.0)
        assert result.history[step]["grad_norm"] == pytest.approx(norm.item(), rel=1e-4)
        optimizer.step()
    # Adam moves a weight by the sign of its gradient, so where that is rounding noise the two may part; nowhere else.
    pairs_of = zip(model.parameters(), plain.parameters(), strict=True)
    difference = torch.cat([(ours - theirs).abs().flatten() for ours, theirs in pairs_of])
    assert (difference < 2e-5).float().mean() > 0.999


@pytest.mark.parametrize(
    "loss_type", [pytest.param(name, marks=() if name == "sigmoid" else pytest.mark.slow) for name in PAIR_LOSSES]
)
def test_dpo_equals_trl_on_the_same_weights_and_rows(loss_type: str) -> None:
    """TRL's own DPOTrainer, with and without its precomputed reference, over three updates, for every pair loss."""
    pytest.importorskip("trl")
    from dpo_driver.training.bench import bench_train

    report = bench_train([(40, 12, 2)], steps=3, loss_type=loss_type)
    (row,) = report["rows"]
    scale = 25.0 if loss_type == "ipo" else 1.0  # the loss begins there, so its rounding is as much coarser
    assert 0 < row["max_loss_diff"] < 1e-5 * scale
    assert 0 < row["max_grad_diff"] < 1e-4
    assert set(row["seconds"]) == set(row["peak_mb"]) == {"ours", "trl_default", "trl_tuned"}
    assert all(value > 0 for value in (*row["seconds"].values(), *row["peak_mb"].values()))


def test_the_grid_leaves_out_what_does_not_fit_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer that the kernel kills for its memory would take every row of the benchmark along."""
    pytest.importorskip("trl")
    from dpo_driver.training import bench

    monkeypatch.setattr(bench, "grid", lambda full: [(40, 12, 1), (40, 12, 2), (4_000_000, 12, 4)])
    report = bench.bench_train(full=True, steps=2)
    assert [row["pairs"] for row in report["rows"]] == [1, 2]
    assert report["left_out"] == [{"prompt": 4_000_000, "completion": 12, "pairs": 4, "why": "too little memory"}]


def test_grpo_equals_trl_on_the_same_weights_and_rollouts() -> None:
    """TRL's own GRPOTrainer, given our rollouts: three updates with clip, KL and group-relative advantages."""
    pytest.importorskip("trl")
    from dpo_driver.training.bench_online import bench_grpo

    (row,) = bench_grpo([(40, 12)], steps=3)["rows"]
    assert 0 < row["max_loss_diff"] < 1e-6
    assert row["max_grad_diff"] < 1e-3


def test_sft_equals_trl_on_the_same_weights_and_rows(tmp_path: Path) -> None:
    """TRL's own SFTTrainer, loss on the assistant's tokens only, over three updates."""
    pytest.importorskip("trl")
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    rows = samples(6)
    ours, _ = fit(
        tmp_path / "ours", rows=rows, max_steps=3, per_device_train_batch_size=6, lr_scheduler_type="constant"
    )
    model, tokenizer = tiny_model()
    model.requires_grad_(True)
    data = [
        {"prompt": [{"role": "user", "content": row.messages[0].content}],
         "completion": [{"role": "assistant", "content": row.completion}]}
        for row in rows
    ]  # fmt: skip
    config = SFTConfig(
        output_dir=str(tmp_path / "trl"), per_device_train_batch_size=6, max_steps=3, learning_rate=1e-3,
        lr_scheduler_type="constant", logging_steps=1, save_strategy="no", report_to="none", disable_tqdm=True,
        bf16=False, use_cpu=True, completion_only_loss=True, gradient_checkpointing=False, max_length=512,
        dataloader_pin_memory=False,
    )  # fmt: skip
    trainer = SFTTrainer(model=model, args=config, train_dataset=Dataset.from_list(data), processing_class=tokenizer)
    trainer.train()
    theirs = [entry for entry in trainer.state.log_history if "loss" in entry]
    for mine, other in zip(ours.history, theirs, strict=True):
        assert mine["loss"] == pytest.approx(other["loss"], abs=1e-5)
        assert mine["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-4)
        assert mine["entropy"] == pytest.approx(other["entropy"], abs=1e-4)


def test_trajectory_dpo_equals_a_plain_computation(tmp_path: Path) -> None:
    """Sums over the agent's turns, each turn with its own prompt, by the model's plain forward; gradients too."""
    more = [Turn(messages=prompt(i), completion=f"thought: {WORDS[i]}") for i in range(1, 5)]
    one, two = pairs(2)
    rows = [
        one.model_copy(update={"level": "trajectory", "chosen_more": tuple(more[:2]), "rejected_more": (more[2],)}),
        two.model_copy(update={"level": "trajectory", "rejected_more": tuple(more[1:])}),
    ]
    options = {"beta": 0.3, "max_steps": 1, "learning_rate": 1e-3, "per_device_train_batch_size": 2}
    result, _ = fit(tmp_path, "dpo", rows, weight_decay=0.0, **options)
    assert result.history[0]["loss"] == pytest.approx(math.log(2), abs=1e-5)
    plain, tokenizer = tiny_model()
    plain.requires_grad_(True)

    def logp(messages: tuple[Message, ...], completion: str) -> torch.Tensor:
        before, ids = encode_prompt(tokenizer, messages), encode_completion(tokenizer, completion)
        logits = plain(torch.tensor([before + ids])).logits[0, len(before) - 1 : -1]
        return logits.log_softmax(-1).gather(1, torch.tensor(ids)[:, None]).sum()

    def side(first: str, messages: tuple[Message, ...], turns: tuple[Turn, ...]) -> torch.Tensor:
        return logp(messages, first) + sum(logp(turn.messages, turn.completion) for turn in turns)

    margins = [side(r.chosen, r.messages, r.chosen_more) - side(r.rejected, r.messages, r.rejected_more) for r in rows]
    # The reference is the model itself: at the start only its gradient is missing.
    loss = sum(-torch.nn.functional.logsigmoid(0.3 * (m - m.detach())) for m in margins) / 2
    loss.backward()
    norm = torch.cat([p.grad.flatten() for p in plain.parameters() if p.grad is not None]).norm()
    assert result.history[0]["grad_norm"] == pytest.approx(norm.item(), rel=1e-4)


def test_a_step_cut_into_small_forests_is_the_same_step(tmp_path: Path) -> None:
    rows = [*pairs(7), *samples(5)]
    options = {"beta": 0.3, "rpo_alpha": 0.5, "replay_coefficient": 0.5, "per_device_train_batch_size": 7}
    whole, one = fit(tmp_path / "a", "dpo", rows, tokens_per_pass=100_000, **options)
    cut, other = fit(tmp_path / "b", "dpo", rows, tokens_per_pass=1, **options)
    for a, b in zip(whole.history, cut.history, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], abs=1e-5)
        assert a["rewards/margins"] == pytest.approx(b["rewards/margins"], abs=1e-5)
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-5)


def test_a_shared_prompt_is_computed_again_where_its_pairs_do_not_fit(tmp_path: Path) -> None:
    """Pairs of one state, two of them with the same chosen side, and a budget for about two of them."""
    same = [p.model_copy(update={"messages": prompt(0)}) for p in pairs(6)]
    same[5] = same[0].model_copy(update={"id": "again", "rejected": same[5].rejected})
    _, tokenizer = tiny_model()
    examples = encode_rows(tokenizer, same, max_length=999).examples
    slots = [len(e.prompt) + sum(len(completion) for _, completion in e.branches) for e in examples]
    budget = max(slots) + min(slots) - min(len(e.prompt) for e in examples)
    assert len(step_batch(examples, tokens_per_pass=9999).batches) == 1
    batches = step_batch(examples, tokens_per_pass=budget).batches
    assert len(batches) >= 3 and sum(batch.chosen_R.numel() for batch in batches) == 6
    assert all(batch.forest.tokens <= budget for batch in batches)
    whole, one = fit(tmp_path / "a", "dpo", same, tokens_per_pass=9999, beta=0.3)
    cut, other = fit(tmp_path / "b", "dpo", same, tokens_per_pass=budget, beta=0.3)
    for a, b in zip(whole.history, cut.history, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], abs=1e-5)
        assert a["rewards/margins"] == pytest.approx(b["rewards/margins"], abs=1e-5)
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-5)


def test_accumulation_multiplies_the_rows_of_a_step(tmp_path: Path) -> None:
    _, one = fit(tmp_path / "a", per_device_train_batch_size=8)
    _, other = fit(tmp_path / "b", per_device_train_batch_size=2, gradient_accumulation_steps=4)
    assert weights_hash(one) == weights_hash(other)


def test_weights_of_rows_count(tmp_path: Path) -> None:
    """A row of weight 2 is the row twice."""
    once = samples(3)
    heavy = [once[0].model_copy(update={"weight": 2.0}), *once[1:]]
    twice = [once[0], once[0].model_copy(update={"id": "again"}), *once[1:]]
    a, _ = fit(tmp_path / "a", rows=heavy, max_steps=2)
    b, _ = fit(tmp_path / "b", rows=twice, max_steps=2)
    assert a.metrics["loss"] == pytest.approx(b.metrics["loss"], abs=1e-6)


def test_rows_with_one_prompt_share_its_tree() -> None:
    _, tokenizer = tiny_model()
    same = [p.model_copy(update={"messages": prompt(0)}) for p in pairs(4)]
    encoded = encode_rows(tokenizer, same, max_length=999)
    (batch,) = step_batch(encoded.examples, tokens_per_pass=9999).batches
    assert batch.forest.size == 1
    assert len(batch.forest.lengths) == 8
    repeated = encode_rows(
        tokenizer, [same[0], same[0].model_copy(update={"id": "x", "rejected": "z"})], max_length=999
    )
    (batch,) = step_batch(repeated.examples, tokens_per_pass=9999).batches
    assert len(batch.forest.lengths) == 3  # the chosen side is one completion in two pairs
    assert batch.chosen_R.tolist() == [0, 0]
    (batch,) = step_batch(repeated.examples, tokens_per_pass=9999, reads_rejected=False).batches
    assert len(batch.forest.lengths) == 1


def test_dpo_starts_at_ln2_and_learns_with_sharing(tmp_path: Path) -> None:
    result, _ = fit(tmp_path, "dpo", pairs(8), pairs(3), beta=0.5, max_steps=6, eval_steps=3)
    assert result.history[0]["step"] == 0
    assert result.start_metrics["eval_loss"] == pytest.approx(math.log(2), abs=1e-4)
    assert result.history[1]["preference_loss"] == pytest.approx(math.log(2), abs=1e-4)
    assert result.metrics["rewards/accuracies"] == 1.0
    assert result.path == "prefix tree, two-part SDPA"
    assert 1.2 < result.sharing_ratio < 2
    assert result.tokens_per_second > 0
    assert result.rows == {"train": 8, "val": 3}


def test_reference_is_kept_and_a_wrong_one_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    fit(tmp_path, "dpo", pairs(4), max_steps=1, resume=False)
    (path,) = tmp_path.glob("reference-*.safetensors")
    kept, written = read_tensors(path), path.stat().st_mtime_ns
    fit(tmp_path, "dpo", pairs(4), max_steps=1, resume=False)
    assert path.stat().st_mtime_ns == written
    path.write_bytes(path.read_bytes()[:100])  # damaged: computed again
    fit(tmp_path, "dpo", pairs(4), max_steps=1, resume=False)
    assert torch.equal(read_tensors(path)["logps"], kept["logps"])
    save_file(kept | {"logps": kept["logps"] * 1.1}, path)  # another model's: the self-check sees it
    with pytest.raises(TrainingError, match="not ln 2"):
        fit(tmp_path, "dpo", pairs(4), max_steps=1, resume=False)


def test_best_weights_are_kept_and_training_stops_early(tmp_path: Path) -> None:
    """Validation rows that contradict the training rows: every step makes them worse, so the parent is kept."""
    against = [
        p.model_copy(update={"id": "v" + p.id, "chosen": p.rejected, "rejected": p.chosen, "split": "val"})
        for p in pairs(4)
    ]
    parent, _ = tiny_model()
    result, model = fit(tmp_path, "dpo", pairs(4), against, max_steps=50, eval_steps=2, early_stopping_patience=3)
    assert result.stop_reason == "early_stopping"
    assert result.steps == 6
    assert result.best_step == 0
    assert weights_hash(model) == weights_hash(parent)


def test_best_step_is_the_one_with_the_lowest_loss(tmp_path: Path) -> None:
    result, _ = fit(tmp_path, rows=samples(6), val=samples(6), max_steps=9, eval_steps=2, learning_rate=5e-3)
    evaluated = {row["step"]: row["eval_loss"] for row in result.history if "eval_loss" in row}
    assert list(evaluated) == [0, 2, 4, 6, 8, 9]
    assert result.best_step == min(evaluated, key=lambda step: evaluated[step])
    assert result.best_metrics["loss"] == min(evaluated.values())


def test_metric_for_the_best_model_can_be_chosen(tmp_path: Path) -> None:
    result, _ = fit(
        tmp_path, "dpo", pairs(4), pairs(4), max_steps=4, eval_steps=2, metric_for_best_model="rewards/margins"
    )
    margins = {row["step"]: row["eval_rewards/margins"] for row in result.history if "eval_loss" in row}
    assert result.best_step == max(margins, key=lambda step: margins[step])
    with pytest.raises(TrainingError, match="no validation metric 'f1'"):
        fit(tmp_path / "b", "dpo", pairs(4), pairs(4), metric_for_best_model="f1")


def test_callback_can_stop(tmp_path: Path) -> None:
    seen: list[int] = []

    def on_eval(step: int, metrics: dict[str, float]) -> bool:
        seen.append(step)
        assert "eval_loss" in metrics
        return step >= 4

    result, _ = fit(tmp_path, val=samples(2), max_steps=20, eval_steps=2, on_eval=on_eval)
    assert (result.stop_reason, result.steps, seen) == ("callback", 4, [0, 2, 4])


def test_overlong_rows_are_named(tmp_path: Path) -> None:
    rows = samples(4)
    rows.append(rows[0].model_copy(update={"id": "giant", "messages": (Message(role="user", content="x" * 500),)}))
    result, _ = fit(tmp_path, rows=rows, max_length=200)
    assert result.overlong == {"train": ("giant",), "val": ()}
    assert result.rows["train"] == 4
    with pytest.raises(TrainingError, match=r"no samples to learn from \(1 rows were too long\)"):
        fit(tmp_path / "b", rows=rows[-1:], max_length=200)


def test_nothing_to_learn_from(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no pairs"):
        fit(tmp_path, "dpo", samples(3))
    with pytest.raises(TrainingError, match="no samples"):
        fit(tmp_path, "sft", pairs(3))


def test_equal_sides_are_refused(tmp_path: Path) -> None:
    bad = pairs(1)[0].model_copy(update={"rejected": pairs(1)[0].chosen})
    with pytest.raises(DataError, match="chosen and rejected are the same"):
        fit(tmp_path, "dpo", [bad])


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_loss_that_is_not_finite_stops_and_saves_the_batch(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="not finite"):
        fit(tmp_path, learning_rate=1e30, max_steps=20)
    saved = json.loads((tmp_path / "bad_batch.json").read_text())
    assert saved["step"] > 0
    assert set(saved["rows"]) <= {f"s{i}" for i in range(8)}
    assert all(len(tree) >= 2 for tree in saved["trees"])


def test_ctrl_c_stops_cleanly_and_the_same_call_continues(tmp_path: Path) -> None:
    straight, expected = fit(tmp_path / "straight", max_steps=8)
    assert straight.stop_reason == "finished"

    def press(step: int, metrics: dict[str, float]) -> None:
        if step == 3:
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    stopped, _ = fit(tmp_path / "stopped", max_steps=8, on_log=press)
    assert stopped.interrupted
    assert stopped.steps in (3, 4)
    assert (tmp_path / "stopped" / f"checkpoint-{stopped.steps}" / "manifest.json").is_file()
    assert signal.getsignal(signal.SIGINT) is before
    continued, model = fit(tmp_path / "stopped", max_steps=8)
    assert continued.resumed_from == stopped.steps
    assert (continued.stop_reason, continued.steps) == ("finished", 8)
    assert weights_hash(model) == weights_hash(expected)
    assert [row["loss"] for row in continued.history] == [row["loss"] for row in straight.history]


@pytest.mark.parametrize("early", [False, True], ids=["last step", "early stopping"])
def test_ctrl_c_is_not_lost_at_the_very_end(tmp_path: Path, early: bool) -> None:
    """It is too late to stop the training then, but whoever called it must know."""
    config: dict[str, Any] = {"max_steps": 2}
    if early:
        config = {"max_steps": 60, "eval_steps": 2, "early_stopping_patience": 2, "learning_rate": 3e-2}
    rows = {"rows": samples(3), "val": samples(9)[6:]} if early else {}
    straight, expected = fit(tmp_path / "straight", **rows, **config)

    def press(step: int, metrics: dict[str, float]) -> None:
        if step == straight.steps and "loss" in metrics:  # its update is made, its validation is to come
            os.kill(os.getpid(), signal.SIGINT)

    pressed, model = fit(tmp_path / "pressed", **rows, **config, on_log=press)
    assert not straight.interrupted and pressed.interrupted
    assert (pressed.steps, pressed.stop_reason) == (straight.steps, straight.stop_reason)
    assert weights_hash(model) == weights_hash(expected)
    again, other = fit(tmp_path / "pressed", **rows, **config)
    assert (again.interrupted, again.stop_reason) == (False, straight.stop_reason)
    assert weights_hash(other) == weights_hash(expected)


def test_time_limit(tmp_path: Path) -> None:
    result, _ = fit(tmp_path, val=samples(2), max_steps=100_000, eval_steps=50_000, max_seconds=0.3)
    assert result.stop_reason == "max_seconds"
    assert 0 < result.steps < 100_000
    assert result.seconds < 10
    assert result.history[-1]["eval_loss"] < result.start_metrics["eval_loss"]  # validated once more at the end
    assert result.best_step == result.steps


@pytest.mark.parametrize("marked", [True, False])
def test_a_finished_run_is_not_trained_again(tmp_path: Path, marked: bool) -> None:
    """Also when it was killed between its last checkpoint and its end (the marker), in the middle of an epoch."""
    once, model = fit(tmp_path, max_steps=3)
    if not marked:
        (tmp_path / "finished.json").unlink()
    again, other = fit(tmp_path, max_steps=3)
    assert (again.steps, again.stop_reason, again.resumed_from) == (3, "finished", 3)
    assert weights_hash(other) == weights_hash(model)
    assert again.metrics == once.metrics


def test_an_early_stopped_run_keeps_its_best(tmp_path: Path) -> None:
    config = {"max_steps": 60, "eval_steps": 2, "save_steps": 5, "early_stopping_patience": 2, "learning_rate": 3e-2}
    once, model = fit(tmp_path, rows=samples(3), val=samples(9)[6:], **config)
    assert once.stop_reason == "early_stopping"
    again, other = fit(tmp_path, rows=samples(3), val=samples(9)[6:], **config)
    assert (again.steps, again.best_step, again.stop_reason) == (once.steps, once.best_step, "early_stopping")
    assert weights_hash(other) == weights_hash(model)


def test_another_run_is_not_continued(tmp_path: Path) -> None:
    fit(tmp_path)
    with pytest.raises(TrainingError, match="had another data"):
        fit(tmp_path, rows=samples(7))
    with pytest.raises(TrainingError, match="had another config"):
        fit(tmp_path, learning_rate=2e-3)
    result, _ = fit(tmp_path, rows=samples(7), resume=False)
    assert result.resumed_from is None


def test_the_model_is_left_as_it_was(tmp_path: Path) -> None:
    plain, _ = fit(tmp_path / "a")
    result, model = fit(tmp_path / "b", gradient_checkpointing=True)
    assert result.metrics["loss"] == pytest.approx(plain.metrics["loss"], abs=1e-6)
    assert model.config.use_cache
    assert model.config._attn_implementation == "sdpa"
    assert not model.is_gradient_checkpointing
    assert not model.training


def test_only_the_adapter_learns(tmp_path: Path) -> None:
    from dpo_driver.core.schema_training import LoraConfig
    from dpo_driver.policies.loading import _fresh_adapter

    model, tokenizer = tiny_model()
    frozen = weights_hash(model)
    adapted = _fresh_adapter(model, LoraConfig(r=4))
    result = train("dpo", adapted, tokenizer, pairs(4), [], {"max_steps": 3, "learning_rate": 1e-2}, tmp_path)
    assert result.metrics["rewards/margins"] > 0
    assert all("lora_" in name for name in trainable(adapted))
    assert weights_hash(adapted.unload()) == frozen


def test_bfloat16_is_close(tmp_path: Path) -> None:
    exact, _ = fit(tmp_path / "a", "dpo", pairs(8), max_steps=3)
    rough, _ = fit(tmp_path / "b", "dpo", pairs(8), max_steps=3, bf16=True)
    assert rough.metrics["loss"] == pytest.approx(exact.metrics["loss"], abs=0.02)
    assert rough.metrics["loss"] != exact.metrics["loss"]


def test_bfloat16_starts_within_its_rounding_and_still_refuses_a_wrong_reference(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    # Packed otherwise than the reference was, log-probs differ by more than float32's tolerance allows.
    options = {"beta": 0.5, "bf16": True, "tokens_per_pass": 200, "max_steps": 1, "per_device_train_batch_size": 8}
    fit(tmp_path, "dpo", pairs(16), resume=False, **options)
    (path,) = tmp_path.glob("reference-*.safetensors")
    kept = read_tensors(path)
    save_file(kept | {"logps": kept["logps"] * 1.1}, path)
    with pytest.raises(TrainingError, match="not ln 2"):
        fit(tmp_path, "dpo", pairs(16), resume=False, **options)


def test_an_epoch_visits_every_row_once_and_depends_only_on_seed_and_epoch() -> None:
    _, tokenizer = tiny_model()
    rows = encode_rows(tokenizer, [*pairs(10), *samples(5)], max_length=999).examples
    sampler = StepSampler(rows, 4, seed=3, learns_from="pairs")
    first = list(sampler)
    assert [len(step) for step in first] == [8, 8, 6]  # pairs and as many samples
    assert sorted(i for step in first for i in step if i < 10) == list(range(10))
    assert {i for step in first for i in step if i >= 10} == set(range(10, 15))
    assert list(sampler) == first
    sampler.set_epoch(1)
    assert list(sampler) != first
    replayed = [i for step in first for i in step if i >= 10]
    assert sorted(replayed[:5]) == sorted(replayed[5:10]) == list(range(10, 15))  # round and round
    only = StepSampler(rows, 2, seed=3, learns_from="samples")
    assert sorted(i for step in only for i in step) == list(range(10, 15))


def test_sections_become_settings() -> None:
    section = DpoConfig(beta=0.3, learning_rate=3e-5)
    algorithm, settings = split_config("dpo", section, seed=7, max_length=99)
    assert (algorithm.beta, settings.learning_rate, settings.seed, settings.max_length) == (0.3, 3e-5, 7, 99)  # type: ignore[attr-defined]
    _, settings = split_config("sft", SftConfig())
    assert settings.num_train_epochs == SftConfig().num_train_epochs
    algorithm, _ = split_config("nll", DpoConfig(beta=0.3))  # the control reads DPO's section
    assert not hasattr(algorithm, "beta")
    with pytest.raises(ConfigError, match="unknown training key 'lerning_rate'"):
        split_config("sft", {"lerning_rate": 1})
    with pytest.raises(ConfigError, match="learning_rate"):
        split_config("sft", {"learning_rate": -1})
    assert TrainConfig(metric_for_best_model="rewards/accuracies").best_is_greatest
    assert not TrainConfig().best_is_greatest


def test_chosen_answers_that_become_less_probable_are_reported(tmp_path: Path) -> None:
    """Likelihood displacement: a margin can grow while both sides fall. Imitation keeps the chosen side up."""
    from dpo_driver.flywheel.train import _warnings

    rows = [row.model_copy(update={"chosen": "thought: go", "rejected": "thought: no"}) for row in pairs(4)]
    options = {"beta": 0.1, "max_steps": 12, "learning_rate": 3e-3, "lr_scheduler_type": "constant"}
    held, _ = fit(tmp_path / "held", "dpo", rows, rpo_alpha=1.0, **options)
    assert held.history[-1]["rewards/chosen"] > 0
    assert not any("displacement" in warning for warning in _warnings("dpo", held))
    fallen = [row | {"rewards/chosen": -0.5} for row in held.history]
    (warning,) = [each for each in _warnings("dpo", replace(held, history=tuple(fallen))) if "displacement" in each]
    assert "rewards/chosen -0.500 at the end" in warning
