"""docs/gauntlet.md tells of every type of puzzle, and its figures are the code's."""

from __future__ import annotations

import json
import re
from pathlib import Path

from dpo_driver.envs.gauntlet.plan import DISTRACTORS
from dpo_driver.envs.gauntlet.puzzles import HELD_OUT, TYPES
from dpo_driver.envs.gauntlet.tasks import ACTIONS_A_RUN, ACTIONS_A_STEP, FAMILIES, find_family
from dpo_driver.policies.budget import PRICES
from dpo_driver.policies.providers import PROVIDERS
from dpo_driver.rollout.solve import metrics

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE = (DOCS / "gauntlet.md").read_text(encoding="utf-8")
MOST_BYTES = 60 * 1024  # of a picture


def section(title: str) -> str:
    return PAGE.partition(f"## {title}\n")[2].partition("\n## ")[0]


def test_every_type_is_listed_and_whether_it_is_held_out() -> None:
    rows = re.findall(r"^\| `([\w-]+)` \| .+ \| .+ \| (yes)? ?\|$", section(f"The {len(TYPES)} types"), re.MULTILINE)
    assert [name for name, _ in rows] == sorted(TYPES)
    assert {name for name, held_out in rows if held_out} == HELD_OUT


def test_families_that_are_named_exist() -> None:
    text = section("As an environment")
    names = set(re.findall(r"`((?:run|step)-[a-z0-9-]+)`", text)) | set(
        re.findall(r"dpo_driver/gauntlet\.([\w-]+)", text)
    )
    assert {"run-5", "step-slider-d2-b"} <= names and all(find_family(name).name in FAMILIES for name in names)
    listed = re.search(r"tasks: \[([\w, -]+)\]", text)
    assert listed is not None and all(find_family(name) for name in listed[1].split(", "))
    limits = [family.max_steps for family in FAMILIES.values() if family.kind == "step" and family.difficulty == 1]
    assert {FAMILIES[f"step-{name}-d2"].max_steps for name in TYPES} == {ACTIONS_A_STEP}
    assert f"| {ACTIONS_A_RUN} |" in text and f"{min(limits)} to {max(limits)} by type" in text
    assert (
        f"{ACTIONS_A_STEP} a step, {ACTIONS_A_RUN} at most" in text and f"{ACTIONS_A_STEP} from difficulty 2 on" in text
    )


def test_distractors_are_as_many_as_it_says() -> None:
    rows = re.findall(r"^\| (\d) \| .+ \| (\d) (?:or|to) (\d) of", section("Serving it to people"), re.MULTILINE)
    assert {int(level): (int(few), int(many)) for level, few, many in rows} == {
        level: (few, many) for level, (few, many, _) in DISTRACTORS.items()
    }
    kinds = set(DISTRACTORS[3][2])
    assert kinds <= set(re.findall(r"`(\w+)`", section("Serving it to people")))


def test_providers_and_their_models_are_listed() -> None:
    rows = re.findall(r"^\| `(\w+)` \| `?([\w.-]+)", section("Solving"), re.MULTILINE)
    listed = {name: model for name, model in rows if name in PROVIDERS}
    assert set(listed) == set(PROVIDERS)
    assert {listed[name] for name in ("google", "anthropic", "openai")} <= set(PRICES)


def test_the_example_of_metrics_has_the_real_keys() -> None:
    found = re.search(r"```json\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None
    shown = json.loads(found[1])
    real = metrics([])
    assert list(shown["summary"]) == list(real["summary"]) and list(shown) == list(real)


def test_ten_pictures_are_small() -> None:
    pictures = sorted((DOCS / "gauntlet").iterdir())
    assert [path.name for path in pictures] == sorted(set(re.findall(r"\]\(gauntlet/([\w.-]+)\)", PAGE)))
    assert len(pictures) == 10 and all(path.stat().st_size < MOST_BYTES for path in pictures)
