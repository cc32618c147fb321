"""``dpo-driver mcp``: the same for programs that speak the Model Context Protocol. Called by cli/main.py."""

from __future__ import annotations

from pathlib import Path

import typer

from dpo_driver.cli import act as acting
from dpo_driver.cli.options import console

PANEL = "Use it"


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command(rich_help_panel=PANEL)(mcp)


def mcp(
    model: acting.Model = None,
    endpoint: acting.Endpoint = None,
    key_env: acting.KeyEnv = None,
    profile: acting.ProfileName = None,
    allow: acting.Allow = None,
    max_steps: acting.Steps = 15,
    deadline: acting.Deadline = 600.0,
    budget_tokens: acting.Tokens = None,
    budget_usd: acting.Dollars = None,
    yes: acting.Yes = False,
    secret: acting.SecretValues = None,
    private: acting.Private = False,
    root: acting.Root = Path("runs"),
) -> None:
    """Offer `act` and `observe` to an MCP client on stdin and stdout. --allow limits what a client may open at all."""
    from dpo_driver.serve.mcp import Limits, run

    values = acting.secrets(secret or [])
    limits = Limits(tuple(allow or ()), max_steps, deadline, yes, values, private, root)
    with acting.opened_agent(model, endpoint, key_env, profile, root, budget_tokens, budget_usd) as (agent, version):
        console.print(f"MCP on stdio, model {version}", highlight=False)
        run(agent, version, limits)
