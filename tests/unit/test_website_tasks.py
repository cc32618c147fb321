"""Task files of a web site: what they say, seeded parameters, and that every mistake is named with its place."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from dpo_driver.core import plugins
from dpo_driver.core.config import RunConfig, load_config
from dpo_driver.core.errors import ConfigError, UnknownNameError
from dpo_driver.envs.website.parameters import Unfilled, fill, fill_text
from dpo_driver.envs.website.site import Site, experts, families, make_task
from dpo_driver.flywheel.context import open_run

SHOP = Path(__file__).resolve().parents[2] / "examples" / "shop" / "tasks"
SITE = "name: site\nbase_url: http://127.0.0.1:9\n"
TASK = "goal: Open {thing}.\nparameters: {thing: [a, b, c]}\nsuccess: {url: '/{thing}'}\n"


def folder(tmp_path: Path, site: str = SITE, **files: str) -> Path:
    (tmp_path / "site.yaml").write_text(site)
    for name, text in files.items():
        stem, _, suffix = name.rpartition("_")
        (tmp_path / f"{stem}.{suffix}").write_text(text)
    return tmp_path


def refusal(place: Path) -> str:
    with pytest.raises(ConfigError) as refused:
        Site.open(str(place))
    return str(refused.value)


def test_the_example_has_five_tasks_and_an_expert_for_each() -> None:
    names = {"checkout", "orders", "returns", "settings", "trade"}
    assert set(families(str(SHOP))) == set(experts(str(SHOP))) == names
    task = make_task(str(SHOP))("shop.trade", 7, "test")
    assert (task.id, task.env, task.name, task.max_steps, task.split) == (
        "shop.trade/7",
        "website",
        "trade",
        18,
        "test",
    )


def test_equal_seed_equal_goal_other_seed_other_goal() -> None:
    for name, family in families(str(SHOP)).items():
        if name == "orders":  # its goal comes from the shop
            continue
        goals = [family.text(family.says.goal, family.parameters(seed), "goal") for seed in range(40)]
        assert goals == [family.text(family.says.goal, family.parameters(seed), "goal") for seed in range(40)]
        assert len(set(goals)) >= 20, name


def test_a_new_parameter_leaves_the_others_as_they_were(tmp_path: Path) -> None:
    before = Site.open(str(folder(tmp_path, one_yaml=TASK))).families["one"]
    things = [before.parameters(seed)["thing"] for seed in range(20)]
    more = TASK.replace("{thing: [a, b, c]}", "{other: [1, 2, 3], thing: [a, b, c]}")
    after = Site.open(str(folder(tmp_path, one_yaml=more))).families["one"]
    assert [after.parameters(seed)["thing"] for seed in range(20)] == things
    assert set(things) == {"a", "b", "c"}


def test_every_way_to_draw_a_parameter(tmp_path: Path) -> None:
    text = (
        "goal: '{n} {tenth} {name} {two} {mail} {who.name}'\n"
        "parameters:\n  n: {range: [3, 9, 3]}\n  tenth: {range: [0, 1, 0.1]}\n  name: {file: names.txt}\n"
        "  two: {sample: {from: [x, y, z], count: 2}}\n  mail: {text: '{name}.{n}@example.org'}\n"
        "  who: [{name: Kim, age: 5}]\nsuccess: {text: '{who.age}'}\n"
    )
    family = Site.open(str(folder(tmp_path, one_yaml=text, names_txt="# people\nAnn\n\nBob\n"))).families["one"]
    drawn = [family.parameters(seed) for seed in range(300)]
    assert {one["n"] for one in drawn} == {3, 6, 9}
    assert {one["tenth"] for one in drawn} == {0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0}
    assert {one["name"] for one in drawn} == {"Ann", "Bob"}
    assert {tuple(one["two"]) for one in drawn} == {(a, b) for a in "xyz" for b in "xyz" if a != b}
    assert all(one["mail"] == f"{one['name']}.{one['n']}@example.org" for one in drawn)
    assert drawn[0]["who"]["age"] == 5


@settings(deadline=None)
@given(st.text(), st.one_of(st.integers(), st.text(), st.lists(st.text())))
def test_braces_and_fields_are_told_apart(text: str, value: object) -> None:
    escaped = text.replace("{", "{{").replace("}", "}}")
    assert fill_text(escaped, {}) == text
    assert fill("{value}", {"value": value}) == value
    assert fill({"{k}": ["{value}"]}, {"k": "key", "value": value}) == {"key": [value]}


def test_an_unknown_field_is_not_left_empty() -> None:
    with pytest.raises(Unfilled, match=r"person\.age"):
        fill_text("{person.age}", {"person": {"name": "Kim"}})


MISTAKES = {
    "an unknown key": (TASK + "maxsteps: 3\n", ["unknown key maxsteps", "one.yaml:4", "did you mean max_steps?"]),
    "an unknown key inside": (
        TASK.replace("{url: '/{thing}'}", "\n  - ulr: /x"), ["unknown key success.0.ulr", "one.yaml:4", "mean url?"]),
    "an unknown key of a lone condition": (
        TASK.replace("{url: '/{thing}'}", "\n  txt: x"), ["unknown key success.txt", "one.yaml:4", "mean text?"]),
    "an unknown parameter": (
        TASK.replace("Open {thing}", "Open {thin}"), ["goal names {thin}", "one.yaml", "did you mean {thing}?"]),
    "an unknown parameter in a condition": (
        TASK.replace("'/{thing}'", "'/{think}'"), ["success names {think}", "did you mean {thing}?"]),
    "no success": ("goal: Do it.\n", ["nothing says when the task is solved", "one.yaml, success", "url: /thanks"]),
    "no goal": ("success: {url: /x}\n", ["goal is missing", "one.yaml"]),
    "two conditions in one": (TASK.replace("'/{thing}'", "/x, text: y"), ["exactly one of url, text", "one.yaml:3"]),
    "an action that is none": (TASK + "actions: [clik]\n", ["unknown action 'clik'", "one.yaml:4"]),
    "a range that is none": (
        TASK.replace("[a, b, c]", "{range: [9, 1]}"), ["parameters.thing", "first <= last", "one.yaml:2"]),
    "a start elsewhere": (TASK + "start: shop\n", ["start", "one.yaml:4"]),
    "malformed YAML": ("goal: a: b\n", ["malformed YAML", "one.yaml:1", "quotes"]),
    "no mapping": ("- goal\n", ["a list of `key: value`", "one.yaml:1"]),
    "a missing file of values": (
        TASK.replace("[a, b, c]", "{file: gone.txt}"), ["cannot be read", "gone.txt", "No such file"]),
    "a sample that is too large": (
        TASK.replace("[a, b, c]", "{sample: {from: [a], count: 2}}"), ["a sample of 2 from 1 values"]),
    "an expert that is not there": (TASK + "expert: play.py:x\n", ["there is no expert 'play.py:x'", "one.yaml"]),
    "a name that is none": (TASK.replace("{thing:", "{Thing:"), ["'Thing' is no name for a parameter", "one.yaml:2"]),
}  # fmt: skip


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_named_with_its_place_and_a_way_out(case: str, tmp_path: Path) -> None:
    text, expected = MISTAKES[case]
    told = refusal(folder(tmp_path, one_yaml=text))
    for part in expected:
        assert part in told, told


SITE_MISTAKES = {
    "no name": ("base_url: http://127.0.0.1:9\n", ["name is missing", "site.yaml"]),
    "a path in base_url": (SITE.replace(":9", ":9/shop"), ["more than scheme, host and port", "http://127.0.0.1:9"]),
    "no scheme": ("name: x\nbase_url: localhost:9\n", ["base_url", "site.yaml:2"]),
    "an unknown key": (SITE + "server: x\n", ["unknown key server", "site.yaml:3", "did you mean serve?"]),
    "a broken pattern": (SITE + "ignore: ['(']\n", ["'(' is no regular expression", "site.yaml:3"]),
    "user-info in an origin": (SITE + "allowed: ['http://a@b.example']\n", ["allowed", "site.yaml:3"]),
}


@pytest.mark.parametrize("case", SITE_MISTAKES)
def test_a_mistake_in_the_site_file(case: str, tmp_path: Path) -> None:
    text, expected = SITE_MISTAKES[case]
    told = refusal(folder(tmp_path, site=text, one_yaml=TASK))
    for part in expected:
        assert part in told, told


def test_folders_that_hold_no_tasks(tmp_path: Path) -> None:
    assert "there is no such folder of tasks" in refusal(tmp_path / "gone")
    assert "no site is described here" in refusal(tmp_path)
    assert "the folder holds no tasks" in refusal(folder(tmp_path))
    both = folder(tmp_path, one_yaml=TASK, one_py="TASK = {'goal': 'x', 'success': {'url': '/'}}\n")
    assert "'one' is written twice" in refusal(both)


def test_mistakes_in_python_files(tmp_path: Path) -> None:
    def told(text: str) -> str:
        return refusal(folder(tmp_path, one_py=text))

    assert "the file fails: SyntaxError" in told("TASK = {\n")
    assert "one.py:2" in told("x = 1\ny = x / 0\n")
    assert "check must be a function check(visit)" in told("TASK = {'goal': 'x'}\ndef check(): return True\n")
    assert "unknown key gaol" in told("TASK = {'gaol': 'x', 'goal': 'y', 'success': {'url': '/'}}\n")
    functions = "def parameters(rng): return {'b': 1}\ndef check(visit): return True\n"
    assert "goal names {a}, which is no parameter" in told("TASK = {'goal': '{a}'}\n" + functions)


def test_an_unknown_task_lists_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown shop task 'order' .*\n  -> did you mean orders"):
        make_task(str(SHOP))("order", 1)


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    place = str(folder(tmp_path, one_yaml=TASK))
    assert make_task(place)("one", 1).max_steps == 15
    folder(tmp_path, one_yaml=TASK + "max_steps: 3\n")
    assert make_task(place)("one", 1).max_steps == 3


def test_tables_need_the_folder() -> None:
    with pytest.raises(ConfigError, match=r"website needs the folder.*\n  -> set env.folder, or write website:FOLDER"):
        plugins.load("make_task", "website")
    assert plugins.load("make_task", f"website:{SHOP}")("orders", 3).id == "shop.orders/3"
    assert plugins.load("tasks", f"website:{SHOP}@http://127.0.0.1:1")["orders"].says.max_steps == 8


def test_the_configuration_names_folder_and_address(tmp_path: Path) -> None:
    config = load_config(SHOP.parents[2] / "configs" / "website.yaml", ["env.base_url=http://127.0.0.1:1234"])
    assert config.env.source == "website:examples/shop/tasks@http://127.0.0.1:1234"
    assert set(config.env.tasks) == set(families(str(SHOP)))
    # Where a site is served changes no result; which tasks are played does. Other environments know nothing of either.
    assert config.hash() == load_config(SHOP.parents[2] / "configs" / "website.yaml").hash()
    elsewhere = config.model_copy(update={"env": config.env.model_copy(update={"folder": "other"})})
    assert elsewhere.hash() != config.hash()
    pocket = load_config(SHOP.parents[2] / "configs" / "pocket.yaml")
    assert pocket.env.source == "miniwob"


def test_a_run_keeps_to_the_task_files_it_began_with(tmp_path: Path) -> None:
    tasks = tmp_path / "tasks"
    tasks.mkdir()
    folder(tasks, one_yaml=TASK)
    config = RunConfig.model_validate({
        "project": {"run_dir": tmp_path / "run"}, "tracking": {"mlflow": False},
        "env": {"name": "website", "folder": str(tasks), "tasks": ["one"]},
    })  # fmt: skip
    for _ in range(2):
        with open_run(config, console=Console(file=io.StringIO())):
            pass
    folder(tasks, one_yaml=TASK + "partial: true\n")
    with pytest.raises(ConfigError, match="the task files have changed since this run began"), open_run(config):
        pass


def test_the_command_line_tells_mistakes_in_one_line(cli: object, tmp_path: Path) -> None:
    shutil.copytree(SHOP, tmp_path / "tasks")
    (tmp_path / "run.yaml").write_text("env: {name: website, folder: tasks, tasks: [orders, oders]}\n")
    done = cli("collect", "run.yaml")  # type: ignore[operator]
    assert done.returncode == 2
    assert "unknown website task 'oders'" in done.stderr and "did you mean orders?" in done.stderr
    (tmp_path / "tasks" / "trade.yaml").write_text("goal: x\nsucces: {url: /}\n")
    done = cli("collect", "run.yaml")  # type: ignore[operator]
    assert done.returncode == 2
    assert "unknown key succes" in done.stderr and "tasks/trade.yaml:2" in done.stderr
    (tmp_path / "run.yaml").write_text("env: {name: website, tasks: [orders]}\n")
    done = cli("collect", "run.yaml")  # type: ignore[operator]
    assert done.returncode == 2
    assert "website needs the folder of its tasks" in done.stderr
