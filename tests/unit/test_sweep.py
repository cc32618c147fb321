"""Sweeps without a run: the grid, the names, what stages share, and the command's refusals."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from dpo_driver.agents.prompt import get_profile, parse_completion, render, render_completion
from dpo_driver.core.actions import Click
from dpo_driver.core.config import RunConfig, Section, load_config
from dpo_driver.core.errors import ConfigError, StoreError
from dpo_driver.core.records import Element, Observation, Step
from dpo_driver.core.store import RunStore
from dpo_driver.flywheel.sweep import _locked, check_folder, is_finished
from dpo_driver.flywheel.sweep_plan import Axis, Plan, make_plan, parse_over, read_sweep_file, slug
from dpo_driver.flywheel.sweep_share import keys, stages
from sample_sweep import first, played, small_plan

ROOT = Path(__file__).resolve().parents[2]
POCKET = ROOT / "configs" / "pocket.yaml"
ABLATIONS = sorted((ROOT / "configs" / "ablations").glob("*.yaml"))

CommandLine = Callable[..., "subprocess.CompletedProcess[str]"]


def plan_of(*over: str, config: Path = POCKET, given: Sequence[str] = ()) -> Plan:
    return make_plan(lambda more: load_config(config, [*given, *more]), [parse_over(text) for text in over])


# -- the grid --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "axis"),
    [
        ("dpo.beta=.05,.1,.2", Axis("dpo.beta", (".05", ".1", ".2"))),
        ("pair.sources=[step],[step, outcome]", Axis("pair.sources", ("[step]", "[step, outcome]"))),
        ("model.lora={r: 4, alpha: 8},{r: 8}", Axis("model.lora", ("{r: 4, alpha: 8}", "{r: 8}"))),
        ("model.name='a,b',c", Axis("model.name", ("'a,b'", "c"))),
        ("model.name=it's,b", Axis("model.name", ("it's", "b"))),
        ("rounds=1", Axis("rounds", ("1",))),
    ],
)
def test_values_are_parted_by_the_commas_between_them(text: str, axis: Axis) -> None:
    assert parse_over(text) == axis


@pytest.mark.parametrize("text", ["dpo.beta", "=1,2", "dpo.beta=", "dpo.beta=1,,2", "dpo.beta=1,"])
def test_a_key_without_values_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"section\.key=value,value") as caught:
        parse_over(text)
    assert caught.value.where == f"--over {text}"


def test_every_combination_becomes_a_run_of_its_own() -> None:
    plan = plan_of("dpo.beta=.05,1e-1", "rounds=1,2", "project.seed=0,7")
    assert plan.folder == Path("runs/pocket-sweep")
    assert [point.slug for point in plan.points] == [
        f"dpo.beta={beta},rounds={rounds},project.seed={seed}"
        for beta in ("0.05", "0.1")
        for rounds in (1, 2)
        for seed in (0, 7)
    ]
    last = plan.points[-1]
    assert last.config.run_dir == Path("runs/pocket-sweep/dpo.beta=0.1,rounds=2,project.seed=7")
    assert (last.config.dpo.beta, last.config.rounds, last.seed) == (0.1, 2, 7)
    assert last.values == {"dpo.beta": 0.1, "rounds": 2, "project.seed": 7}
    assert plan.keys == ("dpo.beta", "rounds")
    assert len({point.row for point in plan.points}) == 4
    names = [point.config.project.name for point in plan.points]
    assert len(set(names)) == 8
    assert names[-1] == "dpo.beta-0.1-rounds-2-project.seed-7"  # what the model registry can hold


def test_the_base_is_the_configs_own_value_or_the_first() -> None:
    assert plan_of("dpo.beta=.2,.05,.1").base == {"dpo.beta": 0.05}  # configs/pocket.yaml says 0.05
    assert plan_of("dpo.beta=.2,.1").base == {"dpo.beta": 0.2}
    assert plan_of("pair.sources=[outcome],[step,outcome]").base == {"pair.sources": ["step", "outcome"]}


def test_slugs_are_names_of_folders_that_no_two_values_share() -> None:
    assert slug({"dpo.beta": 0.05}) == "dpo.beta=0.05"
    assert slug({"a": 1e-05, "b": 5.0, "c": True, "d": None}) == "a=1e-05,b=5,c=true,d=none"
    assert slug({"pair.sources": ["step", "outcome"]}) == "pair.sources=step+outcome"
    one, other = slug({"model.name": "a/b"}), slug({"model.name": "a:b"})
    assert one.startswith("model.name=a-b-") and one != other
    long = slug({"env.tasks": ["click-button"] * 40})
    assert len(long) < 150 and "/" not in long
    plan = plan_of("env.rollouts=none,null")  # a name and the lack of one
    assert len({point.slug for point in plan.points}) == 2


@pytest.mark.parametrize(
    ("over", "what", "where"),
    [
        (["dpo.bta=.1,.2"], "unknown key dpo.bta", "--over dpo.bta=.1"),
        (["dpo.beta=.1,hot"], "dpo.beta: should be a valid number", "--over dpo.beta=hot"),
        (["dpo.beta=.1,-1"], "dpo.beta: should be greater than 0", "--over dpo.beta=-1"),
        (["dpo.beta=.1,0.10"], "dpo.beta has the value 0.1 twice", "--over dpo.beta=.1,0.10"),
        (["dpo.beta=.1", "dpo.beta=.2"], "dpo.beta is swept twice", "--over dpo.beta=.2"),
        (["env.workers=1,2"], "env.workers changes no result", "--over env.workers=1,2"),
        (["report.replays=1,2"], "report.replays changes no result", "--over report.replays=1,2"),
        (["rounds=0,1"], "a sweep compares what DPO reaches", "--over rounds=0,1"),
        (["evaluate.agents=[sft],[sft,dpo]"], "a sweep compares what DPO reaches", "--over evaluate.agents"),
        (["pair.sources=[step],[guess]"], "pair.sources", "--over pair.sources=[guess]"),
    ],
)
def test_a_wrong_key_or_value_is_named_before_anything_runs(over: list[str], what: str, where: str) -> None:
    with pytest.raises(ConfigError) as caught:
        plan_of(*over)
    assert what in caught.value.what
    assert where in str(caught.value.where)


def test_a_run_is_judged_by_its_last_model() -> None:
    assert plan_of("dpo.beta=.1,.2").agent == "dpo"
    assert plan_of("grpo.episodes=100,200").agent == "grpo"
    assert plan_of("grpo.episodes=0,200").agent == "dpo"  # what both points have
    assert plan_of("grpo.episodes=100,200", given=["rounds=0"]).agent == "grpo"


# -- sweep files -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ABLATIONS, ids=lambda path: path.stem)
def test_every_shipped_ablation_is_a_plan(path: Path) -> None:
    file = read_sweep_file(path)
    assert file is not None
    plan = make_plan(lambda more: load_config(file.base, [*file.overrides, *more]), file.axes, name=file.name)
    assert plan.folder == Path("runs") / f"ablation-{path.stem}"
    assert 2 <= len(plan.points) <= 6
    assert {"sft", "dpo"} <= set(plan.points[0].config.evaluate.agents)


def test_the_ablations_are_there() -> None:
    assert [path.stem for path in ABLATIONS] == [
        "after-prompt",
        "lora-rank",
        "loss",
        "pair-source",
        "sft-data",
        "source",
        "thought",
    ]


def test_a_configuration_is_no_sweep_file_and_a_broken_one_is_named(tmp_path: Path) -> None:
    assert read_sweep_file(POCKET) is None
    assert read_sweep_file(tmp_path / "none.yaml") is None
    path = tmp_path / "s.yaml"
    for text, key in (
        ("over: {dpo.beta: [1]}", "base"),
        ("base: x\nover: {}", "over"),
        ("base: x\nover: {a: 1}", "over.a"),
        ("base: x\nover: {a: [1]}\nsett: {}", "sett"),
        ("base: x\nover: {a: [1]}\nname: ../y", "name"),
    ):
        path.write_text(text)
        with pytest.raises(ConfigError, match=f"^{key}: ") as caught:
            read_sweep_file(path)
        assert caught.value.where == str(path)


# -- what stages share -----------------------------------------------------------------------------------------------

SETTINGS: dict[str, object] = {"rounds": 2, "grpo": {"episodes": 100}}
CONFIG = RunConfig.model_validate(SETTINGS)
ROUNDS = {f"{name}/{n}" for name in ("collect", "pair", "dpo", "control") for n in (1, 2)}
ROUNDS |= {f"evaluate/val/{name}-{n}" for name in ("dpo", "control") for n in (1, 2)}
GRPO = {"grpo", "evaluate/val/grpo", "evaluate/test/grpo"}
ROUNDS |= {"choose", "evaluate/test/dpo", "evaluate/test/control"} | GRPO
BEST = {f"sft-best/{n}" for n in (1, 2, 3)} | {f"evaluate/val/sft-best-{n}" for n in (1, 2, 3)}
BEST |= {"choose/sft_best", "evaluate/test/sft_best"}
SFT = {"sft", "evaluate/val/sft", "evaluate/test/sft"}
SCRIPTS = {"evaluate/test/random", "evaluate/test/oracle"}
BASE = {"evaluate/test/base"}
VALIDATIONS = {stage.name for stage in stages(CONFIG) if stage.name.startswith("evaluate/val/")}
TESTS = {stage.name for stage in stages(CONFIG) if stage.name.startswith("evaluate/test/")}


@pytest.mark.parametrize(
    ("changed", "redone"),
    [
        ({"dpo": {"beta": 0.3}}, ROUNDS - {"collect/1", "pair/1"}),
        ({"pair": {"sources": ["step"]}}, ROUNDS - {"collect/1"}),
        ({"pair": {"val_fraction": 0.2}}, ROUNDS - {"collect/1"}),
        ({"collect": {"temperature": 0.5}}, ROUNDS),
        ({"sft": {"max_steps": 9}}, ROUNDS | BEST | SFT),
        ({"demos": {"per_task": 2}}, ROUNDS | BEST | SFT | {"demos"}),
        ({"sft_best": {"learning_rate": 1e-3}}, BEST),
        ({"project": {"seed": 1}}, ROUNDS | BEST | SFT | {"evaluate/test/random"}),
        ({"model": {"lora": {"r": 4}}}, ROUNDS | BEST | SFT),
        ({"model": {"thought": False}}, ROUNDS | BEST | SFT | BASE | SCRIPTS | {"demos"}),
        ({"model": {"max_length": 512}}, ROUNDS | BEST | SFT | BASE),
        ({"env": {"max_steps": 3}}, ROUNDS | BEST | SFT | BASE | SCRIPTS | {"demos"}),
        ({"seeds": {"train": [20_000, 30_000]}}, ROUNDS),
        ({"seeds": {"test": [900_000, 900_099]}}, TESTS),
        ({"evaluate": {"episodes_per_task": 7}}, TESTS),
        # success on validation seeds says which families are rolled out more, and what is chosen
        ({"evaluate": {"choose_per_task": 7}}, VALIDATIONS | ROUNDS | {"choose/sft_best", "evaluate/test/sft_best"}),
        ({"grpo": {"episodes": 100, "beta": 0.5}}, GRPO),
        ({"evaluate": {"agents": ["sft", "dpo"]}}, set()),
        ({"promote": {"min_gain": 0.1}}, set()),
        ({"env": {"workers": 1}, "project": {"name": "x", "run_dir": "y"}, "report": {"replays": 1}}, set()),
    ],
)  # fmt: skip
def test_a_stage_is_done_again_exactly_if_it_hangs_on_a_key_that_changed(
    changed: dict[str, object], redone: set[str]
) -> None:
    before, after = keys(CONFIG), keys(RunConfig.model_validate({**SETTINGS, **changed}))
    assert {stage for stage in before if before[stage] != after[stage]} == redone


def test_a_further_round_changes_none_before_it() -> None:
    two, three = keys(CONFIG), keys(RunConfig.model_validate({**SETTINGS, "rounds": 3}))
    assert {stage for stage in two if two[stage] != three[stage]} == {
        "choose", "evaluate/test/dpo", "evaluate/test/control", *GRPO
    }  # fmt: skip
    assert {"collect/3", "dpo/3", "control/3"} <= three.keys() - two.keys()


def test_a_section_that_the_table_does_not_know_counts_for_every_stage() -> None:
    class Added(Section):
        depth: int = 1

    class Later(RunConfig):
        added: Added = Added()

    before, after = keys(Later()), keys(Later(added=Added(depth=2)))
    assert all(before[stage] != after[stage] for stage in before)


# -- what the ablations need ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["chat", "pocket"])
def test_a_profile_without_thought_says_so_and_reads_back(name: str) -> None:
    thinking, silent = get_profile(name), get_profile(f"{name}-no-thought")
    assert silent.id == thinking.id.replace(f"{name}-v", f"{name}-no-thought-v")
    seen = Observation(goal="Press Save.", elements=(Element(ref="1", role="button", name="Save"),))
    past = [Step(observation=seen, thought="button Save", action=Click(ref="1"))]
    told = {profile.name: "\n".join(m.content for m in render(profile, seen, past)) for profile in (thinking, silent)}
    assert "button Save; click(" in told[name] and "button Save; click(" not in told[silent.name]
    assert "thought" not in told[silent.name] and "click(" in told[silent.name]
    written = render_completion(silent, "button Save", Click(ref="1"))
    assert written.startswith("action: click(") and parse_completion(written) == ("", Click(ref="1"))


def test_the_configuration_chooses_the_variant_without_thought() -> None:
    assert load_config(POCKET, ["model.thought=false"]).model.prompt_profile == "pocket-no-thought"
    assert load_config(POCKET, ["model.thought=no", "model.profile=chat"]).model.prompt_profile == "chat-no-thought"
    assert load_config(POCKET).model.prompt_profile == "pocket"


# -- folders and the command -----------------------------------------------------------------------------------------


def test_a_point_of_another_configuration_is_refused_before_anything_runs(tmp_path: Path) -> None:
    plan = small_plan(tmp_path, "dpo.beta=.1,.2")
    played(plan.points[1], {"dpo": first(1)})
    assert [is_finished(point) for point in plan.points] == [False, True]
    check_folder(plan)
    changed = small_plan(tmp_path, "dpo.beta=.1,.2", overrides=("sft.max_steps=3",))
    with pytest.raises(ConfigError, match="another configuration") as caught:
        check_folder(changed)
    assert "dpo.beta=0.2" in str(caught.value.where)
    with RunStore(plan.folder):
        pass
    with pytest.raises(ConfigError, match="the directory of a run"):
        check_folder(plan)


def test_two_processes_do_not_sweep_into_one_folder(tmp_path: Path) -> None:
    with _locked(tmp_path), pytest.raises(StoreError, match="another process"), _locked(tmp_path):
        pass
    with _locked(tmp_path):
        pass


def test_the_command_names_what_is_wrong_and_runs_nothing(cli: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("env: {name: toy, tasks: [press]}\n")
    for arguments, what in (
        (["--over", "dpo.bta=.1,.2"], "did you mean dpo.beta?"),
        (["--over", "env.tasks=[press],[pres]"], "unknown toy task 'pres'"),
        ([], "nothing to sweep"),
        (["--over", "dpo.beta=.1", "--over", "dpo.beta=.2"], "dpo.beta is swept twice"),
        (["--over", "dpo.beta=.1,.2", "--seeds", "0,a"], "project.seed"),
    ):
        done = cli("sweep", "c.yaml", *arguments)
        assert done.returncode == 2 and what in done.stderr, done.stderr
        assert "Traceback" not in done.stderr
    assert not (tmp_path / "runs").exists()
