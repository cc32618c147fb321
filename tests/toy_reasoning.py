"""Demonstrations of the browserless toy environment that tests have annotated, and what a server answers about them."""

from __future__ import annotations

import asyncio
import io
import re
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from dpo_driver.agents.experts.page import Decision, Page
from dpo_driver.agents.oracle import OracleAgent
from dpo_driver.core.actions import Click
from dpo_driver.core.config import RunConfig
from dpo_driver.core.records import Message, Sampling
from dpo_driver.core.store import RunStore
from dpo_driver.flywheel.annotate import STAGE, Annotation
from dpo_driver.flywheel.answers import FOLDER
from dpo_driver.flywheel.collect import make_tasks, roll_out
from dpo_driver.flywheel.context import open_run
from dpo_driver.policies.calls import Patience
from dpo_driver.policies.endpoint import EndpointPolicy

QUICK = Patience(call_s=5.0, total_s=20.0, tries=4, first_wait_s=0.01, longest_wait_s=0.02)
FAMILIES = ("press", "login", "wizard")
PER_TASK = 3
QUESTIONS = PER_TASK * (1 + 3 + 3)  # decisions of a seed: one press, three of the login, three of the wizard
_NEXT = re.compile(r"# What you do next: (.*)\n\[\d+\] \w+ \"([^\"]*)\"")


def press(page: Page) -> Decision:
    return page.click(page.named(page.read(r'"(\w+)"')[1]))


def login(page: Page) -> Decision:
    user, password = re.findall(r'"(\w+)"', page.goal)
    field, secret = page.all("textbox")
    return page.fill_all([(field, user), (secret, password)]) or page.submit("Log in")


def wizard(page: Page) -> Decision:
    wanted = re.findall(r'"(\w+)"', page.goal)[len(page.history)]
    return f"button {wanted}", Click(ref=str(page.named(wanted).ref))


EXPERTS = {"press": press, "login": login, "wizard": wizard}


def config(folder: Path, **sections: object) -> RunConfig:
    given = {"project": {"run_dir": folder}, "env": {"name": "toy", "tasks": FAMILIES, "workers": 1},
             "tracking": {"mlflow": False}, "demos": {"per_task": PER_TASK}}  # fmt: skip
    return RunConfig.model_validate(given | sections)


def record(settings: RunConfig) -> Path:
    """Real demonstrations in a run directory."""
    with open_run(settings, console=Console(file=io.StringIO())) as ctx:
        tasks = make_tasks(ctx, "demo", dict.fromkeys(settings.env.tasks, settings.demos.per_task))
        roll_out(ctx, "demos", "played", tasks, OracleAgent(settings.model.prompt_profile, EXPERTS))
    return settings.run_dir


def next_of(messages: Sequence[Message]) -> tuple[str, str]:
    """The call and the label that a question is about."""
    found = _NEXT.search(messages[-1].content)
    assert found is not None
    return found[1], found[2]


def good(messages: Sequence[Message], sampling: Sampling) -> str:
    """An answer that may stand."""
    call, label = next_of(messages)
    text = re.match(r'fill\("\d+", "(\w+)"\)', call)
    doing = f'type "{text[1]}" into "{label}"' if text else f'click "{label}"'
    return f"Thought: The goal asks for this, and the page has it.\nSo I {doing}."


def wrong(messages: Sequence[Message], sampling: Sampling) -> str:
    """Names another element of the page."""
    label = next_of(messages)[1]
    others = [name for name in re.findall(r'\n\[\d+\] \w+ "([^"]*)"', messages[-1].content) if name != label]
    return f"The page has several things to click. I click {others[0]}."


def annotate(folder: Path, policy: EndpointPolicy, jobs: int = 4) -> Annotation:
    with RunStore(folder, mode="write") as store:
        work = Annotation(store, policy.version)
        asyncio.run(work.run(policy, jobs))
        work.write(None)
    return work


def files(folder: Path) -> list[Path]:
    return sorted((folder / FOLDER).rglob("*.json"))


def thoughts(folder: Path) -> list[str]:
    with RunStore(folder, mode="read") as store:
        return [step.thought for one in store.trajectories(STAGE) for step in one.steps]
