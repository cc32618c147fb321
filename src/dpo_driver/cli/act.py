"""``dpo-driver act``: a model pursues a goal on a live page. Called by cli/main.py; calls rollout
and the inbox."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dpo_driver.cli.options import AsJson, console, print_json
from dpo_driver.core.errors import ConfigError

if TYPE_CHECKING:
    from dpo_driver.core.protocols import Agent
    from dpo_driver.rollout.live import Ask, Done
    from dpo_driver.rollout.live_page import Question

PANEL = "Use it"
STYLES = {"sees": "dim", "thinks": "cyan", "does": "bold", "result": "", "consent": "yellow", "end": "bold green"}
ANSWERS = {"y": "yes", "yes": "yes", "n": "no", "no": "no", "": "no", "a": "always", "always": "always",
           "s": "stop", "stop": "stop", "q": "stop"}  # fmt: skip

Model = Annotated[
    str | None,
    typer.Option("--model", metavar="REF", help="champion, a registered version, a folder, pocket; with --endpoint its "
                 "name there.", show_default="champion"),
]  # fmt: skip
Endpoint = Annotated[
    str | None, typer.Option("--endpoint", metavar="URL", help="OpenAI-compatible: http://127.0.0.1:8000/v1")
]
KeyEnv = Annotated[str | None, typer.Option("--key-env", help="Variable that holds the endpoint's key.")]
ProfileName = Annotated[
    str | None, typer.Option("--profile", help="Prompt profile.", show_default="what the version was trained with")
]
Root = Annotated[Path, typer.Option("--root", help="Folder of runs, models and the inbox.")]
Allow = Annotated[
    list[str] | None,
    typer.Option("--allow", metavar="ORIGIN", help="One more origin, as in https://*.example.org. May be repeated."),
]
SecretValues = Annotated[
    list[str] | None,
    typer.Option("--secret", metavar="NAME=ENV_VAR", help="The model writes [secret:NAME]; the value is typed."),
]
Steps = Annotated[int, typer.Option("--max-steps", min=1, max=200, help="Most decisions.")]
Deadline = Annotated[float, typer.Option("--deadline", min=1, help="Seconds for all of it.")]
Yes = Annotated[bool, typer.Option("--yes", help="Ask nobody: do what cannot be taken back, too.")]
Private = Annotated[bool, typer.Option("--private", help="Allowed names may lead to a private network.")]
Tokens = Annotated[int | None, typer.Option("--budget-tokens", min=1, help="Of an endpoint.")]
Dollars = Annotated[float | None, typer.Option("--budget-usd", min=0, help="Of an endpoint.")]


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command(rich_help_panel=PANEL)(act)


def act(
    url: Annotated[str, typer.Argument(metavar="URL", help="Where to begin; its origin is allowed.")],
    goal: Annotated[str, typer.Argument(metavar="GOAL", help="What is wanted, in words.")],
    model: Model = None,
    endpoint: Endpoint = None,
    key_env: KeyEnv = None,
    profile: ProfileName = None,
    allow: Allow = None,
    max_steps: Steps = 15,
    deadline: Deadline = 600.0,
    budget_tokens: Tokens = None,
    budget_usd: Dollars = None,
    yes: Yes = False,
    secret: SecretValues = None,
    private: Private = False,
    headed: Annotated[bool, typer.Option("--headed", help="Show a window.")] = False,
    pictures: Annotated[bool, typer.Option("--screenshots", help="Keep one of every step.")] = False,
    gif: Annotated[Path | None, typer.Option("--gif", metavar="FILE", help="Write an animated picture.")] = None,
    trace: Annotated[
        Path | None, typer.Option("--trace", metavar="FILE", help="Write a trace.zip for Playwright's viewer.")
    ] = None,
    feedback: Annotated[
        str | None, typer.Option("--feedback", metavar="yes|no", help="Did it work? Asked on a terminal otherwise.")
    ] = None,
    root: Root = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Pursue a goal on a live page, inside an allow-list of origins. Asks before what cannot be taken back."""
    from dpo_driver.rollout import live

    if feedback not in (None, "yes", "no"):
        raise ConfigError(f"{feedback!r} is no feedback", where="--feedback", remedy="write yes or no")
    for file in (gif, trace):
        if file is not None and not file.resolve().parent.is_dir():
            raise ConfigError("there is no such folder", where=str(file.resolve().parent), remedy="make it first")
    wish = live.Wish(url, goal, tuple(allow or ()), max_steps, deadline, yes, secrets(secret or []),
                     pictures or gif is not None, trace, headed, private)  # fmt: skip
    _ = wish.origins  # before a model is loaded
    person = sys.stdin.isatty() and sys.stderr.isatty()
    with opened_agent(model, endpoint, key_env, profile, root, budget_tokens, budget_usd) as (agent, version):
        done = asyncio.run(live.act(agent, wish, ask=_asker() if person and not yes else None, tell=_tell))
    folder = live.keep(done, root)
    if gif is not None:
        live.film(done, gif)
    success = {"yes": True, "no": False}.get(feedback or "")
    if success is None and person and not as_json:
        success = _worked(done)
    if success is not None:
        remember(done, version, success, root)
    if as_json:
        written = {"gif": gif and str(gif), "trace": trace and str(trace)}
        print_json({**done.told(), "version": version, "success": success, "record": str(folder), **written})
        return
    if done.answer:
        print(done.answer)
    console.print(f"kept: {folder}", highlight=False, soft_wrap=True)


def secrets(written: list[str]) -> dict[str, str]:
    """``NAME=ENV_VAR`` pairs to values. ConfigError names the variable that is not set, never a value."""
    found = {}
    for pair in written:
        name, sign, variable = pair.partition("=")
        if not sign or not name.isidentifier() or not variable.isidentifier():
            raise ConfigError("a secret is given by the variable that holds it", where="--secret",
                              remedy="write --secret shop=SHOP_PASSWORD")  # fmt: skip
        value = os.environ.get(variable, "")
        if not value.strip():
            raise ConfigError(f"{variable} is not set", where="--secret", remedy=f"export {variable}=...")
        found[name] = value
    return found


@contextmanager
def opened_agent(
    model: str | None, endpoint: str | None, key_env: str | None, profile: str | None, root: Path,
    tokens: int | None = None, dollars: float | None = None,
) -> Iterator[tuple[Agent, str]]:  # fmt: skip
    """The agent of a model, and the name of the version that acts.

    Raises:
        ModelError: no such model, or no champion yet.
    """
    from dpo_driver.agents.llm import PolicyAgent
    from dpo_driver.core.records import Sampling

    if endpoint is not None:
        from dpo_driver.cli.endpoint_options import endpoint as connecting

        connect = connecting("local", model, endpoint, key_env, None, tokens, dollars, 1)
        with connect() as (remote, _meter):
            yield PolicyAgent(remote, profile or "chat", Sampling(max_new_tokens=512)), remote.version
        return
    from dpo_driver.policies.hf import HFPolicy

    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    folder, version, base, recorded = model or "champion", model or "champion", model or "", ""
    if folder != "pocket" and not Path(folder).is_dir():
        from dpo_driver.registry import Registry

        found = Registry(root).load(folder)
        folder, version, base, recorded = found.path, found.name, found.base_model, found.prompt_profile
    chosen = profile or recorded or ("pocket" if "pocket" in base else "chat")
    policy = HFPolicy(folder, max_length=2048 if chosen.startswith("pocket") else 8192)
    yield PolicyAgent(policy, chosen, Sampling(max_new_tokens=64 if chosen.startswith("pocket") else 512)), version


def remember(done: Done, version: str, success: bool, root: Path) -> None:
    """Whether it worked, for the next training."""
    import time

    from dpo_driver.core.records import Interaction
    from dpo_driver.flywheel.inbox import Inbox

    judged = done.trajectory
    if judged.failure is None:
        judged = judged.model_copy(update={"success": success, "reward": float(success)})
    with Inbox(root) as inbox:
        inbox.append(Interaction(id=judged.id, at=time.time(), source="act", model=version, trajectory=judged,
                                 response=done.answer, success=success, reward=float(success)))  # fmt: skip


def _tell(kind: str, text: str) -> None:
    lead = {"sees": "sees   ", "thinks": "thinks ", "does": "does   ", "result": "  ->   ", "consent": "asked  "}
    console.print(lead.get(kind, "") + text, style=STYLES.get(kind, ""), markup=False, highlight=False, soft_wrap=True)


def _asker() -> Ask:
    from dpo_driver.agents.human import TypedLines

    lines = TypedLines(0, lambda prompt: console.print(prompt, end="", markup=False, highlight=False))

    async def ask(question: Question) -> Any:
        console.print(f"\n{question.action}\n  on    {question.element}\n  page  {question.title} ({question.url})\n"
                      f"  it    {', and '.join(question.why)}",
                      style="yellow", markup=False, highlight=False, soft_wrap=True)  # fmt: skip
        while True:
            line = await lines.read("Do it? y = yes, n = no, a = always for this element, s = stop: ")
            if line is None:
                return "stop"
            if (answer := ANSWERS.get(line.strip().lower())) is not None:
                return answer

    return ask


def _worked(done: Done) -> bool | None:
    if not done.trajectory.steps:
        return None
    line = console.input("Did it work? y/n, Enter to leave it open: ").strip().lower()
    return {"y": True, "yes": True, "n": False, "no": False}.get(line)
