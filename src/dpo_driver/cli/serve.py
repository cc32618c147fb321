"""Serving: dpo-driver serve. Called by cli/main.py; calls serve."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from dpo_driver.cli.options import AsJson, console

TOKEN = "DPO_DRIVER_SERVE_TOKEN"
VLLM_KEY = "DPO_DRIVER_VLLM_KEY"


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command(rich_help_panel="Results")(serve)


def serve(
    model: Annotated[
        list[str] | None,
        typer.Option("--model", metavar="NAME=SOURCE", help="A folder, hub id or registered version; may be repeated."),
    ] = None,
    root: Annotated[Path, typer.Option("--root", help="Folder that holds the runs.")] = Path("runs"),
    project: Annotated[
        str | None, typer.Option("--project", help="Whose champion, where several projects have one.")
    ] = None,
    host: Annotated[str, typer.Option("--host", help="Other than loopback only with a token.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0 takes a free one.")] = 8000,
    split: Annotated[str, typer.Option("--split", help="champion=90,candidate=10")] = "",
    shadow: Annotated[str, typer.Option("--shadow", help="An arm that answers too, unseen.")] = "",
    timeout: Annotated[float, typer.Option("--timeout", min=0.1, help="Seconds for an answer.")] = 60.0,
    at_once: Annotated[int, typer.Option("--at-once", min=1, help="Requests under way; more get 429.")] = 128,
    max_tokens: Annotated[int, typer.Option("--max-tokens", min=1, help="New tokens of an answer.")] = 2048,
    max_length: Annotated[int, typer.Option("--max-length", min=64, help="Tokens of prompt and answer.")] = 8192,
    device: Annotated[str, typer.Option("--device")] = "auto",
    dtype: Annotated[str, typer.Option("--dtype", help="auto, float32, bfloat16 or float16.")] = "auto",
    vllm: Annotated[str, typer.Option("--vllm", metavar="URL", help="Answers come from this vLLM server.")] = "",
    no_token: Annotated[bool, typer.Option("--no-token", help="Let in every program on this machine.")] = False,
    as_json: AsJson = False,
) -> None:
    """Serve the champion, and other models by name, as an OpenAI-compatible endpoint.

    The bearer token is DPO_DRIVER_SERVE_TOKEN's; without one a new token is printed.
    """
    from dpo_driver.core.errors import ConfigError
    from dpo_driver.serve.limits import Limits
    from dpo_driver.serve.routing import Split
    from dpo_driver.serve.server import Settings, new_token, parse_models
    from dpo_driver.serve.server import serve as run
    from dpo_driver.web.listen import is_loopback

    given = os.environ.get(TOKEN, "")
    if no_token and not is_loopback(host):
        raise ConfigError("--no-token is for loopback only", where=f"--host {host}", remedy=f"set {TOKEN}")
    token = "" if no_token else given or (new_token() if is_loopback(host) else "")
    limits = Limits(timeout=timeout, at_once=at_once, at_once_each=at_once, most_tokens=max_tokens,
                    default_tokens=min(256, max_tokens))  # fmt: skip
    settings = Settings(
        root=root, models=parse_models(model or []), project=project, host=host, port=port,
        tokens=(token,) if token else (), split=Split.parse(split) if split else None, shadow=shadow, limits=limits,
        device=device, dtype=dtype, max_length=max_length, vllm=vllm, vllm_key=os.environ.get(VLLM_KEY, ""),
    )  # fmt: skip

    def say(address: str) -> None:
        if as_json:
            print(json.dumps({"base_url": f"{address}/v1", "token": token if not given else None}), flush=True)
        console.print(f"serving at {address}/v1; stop with Ctrl-C", highlight=False, soft_wrap=True)
        if token and not given:
            console.print(f"token: {token}", highlight=False, soft_wrap=True)
        if not is_loopback(host):
            console.print("Tokens and prompts can be read on the way: put a proxy with TLS in front.", style="yellow")

    def log(line: str) -> None:
        print(time.strftime("%H:%M:%S"), line, file=sys.stderr, flush=True)

    run(settings, say=say, log=log)
