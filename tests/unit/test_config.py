"""The configuration: what it accepts, and that every mistake is named with file, line, key and a way out."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from dpo_driver.core.config import RunConfig, load_config
from dpo_driver.core.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
POCKET = ROOT / "configs" / "pocket.yaml"


def written(folder: Path, text: str) -> Path:
    path = folder / "config.yaml"
    path.write_text(text, encoding="utf-8")
    return path


OTHERS = ("azure", "learn", "prices.example")  # settings of other kinds; see their tests
RUNS = sorted(path for path in (ROOT / "configs").glob("*.yaml") if path.stem not in OTHERS)


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_every_shipped_config_is_valid(path: Path) -> None:
    assert load_config(path).env.tasks


@pytest.mark.parametrize("path", sorted((ROOT / "configs" / "pretrain").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_recipe_is_valid(path: Path) -> None:
    from dpo_driver.training.pretrain import load_pretrain_config

    assert load_pretrain_config(path).max_tokens > 0


def test_defaults_alone_are_a_valid_run() -> None:
    config = RunConfig()
    assert config.model.is_pocket
    assert config.model.prompt_profile == "pocket"
    assert not config.model.uses_adapter
    assert config.run_dir == Path("runs/pocket")


def test_pocket_config_names_its_families_once() -> None:
    config = load_config(POCKET)
    assert len(config.env.tasks) == len(set(config.env.tasks)) == 25


@pytest.mark.parametrize("card", ["8gb", "16gb"])
def test_qwen3_4b_as_it_was_trained_before(card: str) -> None:
    config = load_config(ROOT / "configs" / f"qwen3-4b-{card}.yaml")
    model, sft, dpo = config.model, config.sft, config.dpo
    assert (model.name, model.lora.r, model.lora.alpha, model.lora.dropout) == ("Qwen/Qwen3-4B", 16, 32, 0)
    every = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    assert model.lora.target_modules == every
    assert (model.max_length, model.max_prompt_length) == (6144, 5632)
    assert model.quantization == ("nf4" if card == "8gb" else "none")
    assert (sft.learning_rate, sft.num_train_epochs, sft.warmup_ratio) == (2e-4, 5, 0.1)
    assert (sft.per_device_train_batch_size, sft.gradient_accumulation_steps) == (2, 4)
    assert (dpo.beta, dpo.learning_rate, dpo.num_train_epochs) == (0.05, 5e-6, 2)
    assert (dpo.per_device_train_batch_size, dpo.gradient_accumulation_steps) == (1, 8)
    assert model.uses_adapter
    assert model.prompt_profile == "chat"


def test_other_models_as_they_were_trained_before() -> None:
    llama = load_config(ROOT / "configs" / "llama-3.1-8b-24gb.yaml")
    assert (llama.dpo.beta, llama.dpo.learning_rate, llama.dpo.num_train_epochs) == (0.1, 5e-5, 3)
    assert (llama.dpo.per_device_train_batch_size, llama.model.lora.dropout, llama.model.max_length) == (4, 0.05, 2048)
    qwen2 = load_config(ROOT / "configs" / "qwen2-7b-8gb.yaml")
    assert (qwen2.sft.learning_rate, qwen2.sft.max_steps) == (2e-4, 100)
    assert (qwen2.dpo.learning_rate, qwen2.dpo.max_steps, qwen2.dpo.beta) == (1e-6, 10, 0.1)


def test_hub_model_gets_a_lora_adapter_on_all_linear_layers() -> None:
    model = RunConfig.model_validate({"model": "Qwen/Qwen3-4B"}).model
    assert model.uses_adapter
    assert (model.lora.r, model.lora.alpha, model.lora.target_modules) == (16, 32, "all-linear")


def test_resolved_yaml_reads_back_to_an_equal_configuration(tmp_path: Path) -> None:
    config = load_config(POCKET, ["dpo.beta=0.3", "sft.learning_rate=1e-5", "project.run_dir=elsewhere/x"])
    again = load_config(written(tmp_path, config.resolved_yaml()))
    assert again == config
    assert again.hash() == config.hash()
    assert load_config(tmp_path) == config, "a run directory stands for its saved configuration"


def test_hash_changes_with_what_matters_and_only_with_that() -> None:
    base = load_config(POCKET)
    assert (
        load_config(POCKET, ["project.run_dir=x", "env.workers=1", "report.replays=3", "tracking.mlflow=false"]).hash()
        == base.hash()
    )
    changed = load_config(POCKET, ["dpo.beta=0.2"])
    assert changed.hash() != base.hash()
    assert changed.hash(["model", "sft"]) == base.hash(["model", "sft"])


def test_overrides_are_yaml_and_the_last_one_wins() -> None:
    config = load_config(
        POCKET, ["dpo.beta=0.2", "dpo.beta=5e-2", "env.tasks=[click-link]", "env.max_steps=null", "tracking.mlflow=no"]
    )
    assert config.dpo.beta == 0.05
    assert config.env.tasks == ("click-link",)
    assert config.env.max_steps is None
    assert config.tracking.mlflow is False


def test_model_may_be_its_name_alone_and_still_be_overridden(tmp_path: Path) -> None:
    config = load_config(written(tmp_path, "model: Qwen/Qwen3-4B\n"), ["model.dtype=bfloat16"])
    assert (config.model.name, config.model.dtype) == ("Qwen/Qwen3-4B", "bfloat16")


def test_empty_section_means_its_defaults(tmp_path: Path) -> None:
    assert load_config(written(tmp_path, "project:\n  name: x\nsft:\n")).sft == RunConfig().sft


@pytest.mark.parametrize(
    ("text", "what", "line", "remedy"),
    [
        ("sft:\n  learnin_rate: 1\n", "unknown key sft.learnin_rate", 2, "did you mean sft.learning_rate?"),
        ("sft:\n  beta: 1\n", "unknown key sft.beta", 2, "did you mean dpo.beta or grpo.beta?"),
        ("model:\n  lora:\n    rank: 4\n", "unknown key model.lora.rank", 3, "did you mean model.lora.r?"),
        ("evaluaet: {}\n", "unknown key evaluaet", 1, "did you mean evaluate?"),
        ("training:\n  sft: {}\n", "unknown key training", 1, "docs/migration.md"),
        ("zzz: 1\n", "unknown key zzz", 1, "known sections: project, model"),
        ("a: 1\nproject: {name: p}\n\nrounds: many\n", "rounds: should be a valid integer", 4, "unknown key a"),
        ("sft:\n  max_steps: 2.5\n", "sft.max_steps: should be a valid integer", 2, "the default is -1"),
        ("dpo:\n  beta: -1\n", "dpo.beta: should be greater than 0, not -1", 2, "the default is 0.1"),
        ("dpo: 3\n", "dpo: should be", 1, "dpo is a section: learning_rate"),
        ("env:\n  tasks: [a, b, a]\n", "listed twice: a", 1, ""),
        ("seeds:\n  demo: [1, 10]\n  val: [10, 20]\n", "demo [1, 10] and val [10, 20] overlap", 1, ""),
        ("seeds:\n  demo: [10, 1]\n", "[10, 1] is no block of seeds", 1, ""),
        ("evaluate:\n  episodes_per_task: 200000\n", "evaluate.episodes_per_task asks for 200000", None, ""),
        ("sft:\n  max_steps: 1\nsft:\n  max_steps: 2\n", "sft is written twice", 3, "keep one"),
        ("project: {name: ../../etc}\n", "project.name", 1, ""),
        ("sft:\n  learning_rate: .inf\n", "should be a finite number", 2, ""),
    ],
)  # fmt: skip
def test_mistakes_are_named(tmp_path: Path, text: str, what: str, line: int | None, remedy: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    message = str(caught.value)
    assert what in message
    assert remedy in message
    assert str(path) + (f":{line}" if line else "") in message


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "is empty"),
        (b"# only a comment\n", "is empty"),
        (b"- a\n- b\n", "a configuration is a list of `key: value`"),
        (b"sft: [1\n", "malformed YAML"),
        (b"sft:\n\tmax_steps: 1\n", "malformed YAML"),
        (b"\xff\xfe\x00", "cannot be read"),
        (b"project: {name: 2024-99-99}\n", "malformed YAML"),
        (b"sft: !!python/object/apply:os.system ['true']\n", "malformed YAML"),
        (b"a: &a {b: *a}\n", "unknown key a"),
    ],
)
def test_unreadable_files(tmp_path: Path, content: bytes, what: str) -> None:
    path = tmp_path / "broken.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=what) as caught:
        load_config(path)
    assert str(path) in str(caught.value)


def test_missing_file_suggests_a_near_one(tmp_path: Path) -> None:
    written(tmp_path, "rounds: 1\n")
    with pytest.raises(ConfigError, match=r"did you mean .*config\.yaml\?"):
        load_config(tmp_path / "confg.yaml")
    with pytest.raises(ConfigError, match="not a run directory"):
        load_config(tmp_path.parent)


@pytest.mark.parametrize(
    ("override", "what"),
    [
        ("dpo.beta", "an override is written section.key=value"),
        ("=3", "an override is written section.key=value"),
        ("dpo..beta=3", "an override is written section.key=value"),
        ("rounds.x=1", "rounds is a value, not a section"),
        ("dpo.bta=1", "did you mean dpo.beta?"),
        ("beta=1", "did you mean dpo.beta or grpo.beta?"),
        ("learning_rate=1", "did you mean sft.learning_rate or sft_best.learning_rate or dpo.learning_rate?"),
        ("dpo.beta=[", "has a value that is no YAML"),
        ("dpo.beta=hot", "dpo.beta: should be a valid number"),
        ("seeds.demo=[1, 20000]", "overlap"),
    ],
)
def test_bad_overrides_are_blamed_on_the_override(override: str, what: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(POCKET, [override])
    assert what in str(caught.value)
    assert f"--set {override}" in str(caught.value)


KEYS = st.sampled_from(["project", "model", "sft", "dpo", "env", "beta", "name", "tasks", "x"])
SCALARS = st.none() | st.booleans() | st.integers() | st.text(max_size=8)
DOCUMENTS = st.recursive(SCALARS, lambda inner: st.dictionaries(KEYS, inner, max_size=3), max_leaves=6)


@settings(deadline=None)  # a machine with other work on it is no error
@given(DOCUMENTS)
def test_any_yaml_gives_a_config_or_a_config_error(tmp_path_factory: pytest.TempPathFactory, content: object) -> None:
    path = written(tmp_path_factory.getbasetemp(), yaml.safe_dump(content))
    try:
        config = load_config(path)
    except ConfigError as error:
        assert str(path) in str(error)
    else:
        assert isinstance(config, RunConfig)


def test_pocket_grpo_is_the_main_job_up_to_dpo() -> None:
    """As the file's first lines say: only the name, the rounds and the online stage differ."""
    paths = (POCKET, POCKET.with_name("pocket-grpo.yaml"))
    main, online = (load_config(path).model_dump(exclude={"project"}) for path in paths)
    assert {key for key in main if main[key] != online[key]} == {"grpo", "rounds"}
