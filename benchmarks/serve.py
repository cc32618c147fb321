"""Load test of the server: ``python benchmarks/serve.py`` starts it and asks it as fast as it answers.

The prompts are those of real rollouts of the pocket model, in their order, asked by the openai client over HTTP from
this process, at several numbers of requests at once; greedy, so that all write the same text. Side by side in one run:
this server, this server with two adapters asked in turn, and ``transformers serve`` with the same weights. Both servers
stay up; they take turns, so each is measured while the other is idle. Prints a line per row and, last, JSON. About six
minutes on two idle cores.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import platform
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import torch
from openai import AsyncOpenAI, OpenAIError

from dpo_driver.core.records import Message
from dpo_driver.core.schema_training import LoraConfig
from dpo_driver.policies.hf import HFPolicy
from dpo_driver.policies.loading import load_model, load_tokenizer, save_version
from dpo_driver.rollout.bench_prompts import messages_of_rollouts

AT_ONCE = (1, 8, 32, 128)
NEW_TOKENS = 64
TOKEN = "benchmark"
START_S = 120.0
Asked = Sequence[Sequence[Message]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prompts", type=int, default=192)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--at-once", type=int, action="append", help="may be repeated")
    given = parser.parse_args()
    asked = messages_of_rollouts(HFPolicy("pocket"), given.prompts)
    with tempfile.TemporaryDirectory() as scratch, contextlib.ExitStack() as stack:
        base, first, second = _weights(Path(scratch))
        mine = stack.enter_context(_server(
            [sys.executable, "-m", "dpo_driver", "serve", "--root", scratch, "--device", "cpu", "--at-once", "256",
             "--model", f"base={base}", "--model", f"one={first}", "--model", f"two={second}"]))  # fmt: skip
        theirs = stack.enter_context(_server(
            [str(Path(sys.executable).with_name("transformers")), "serve", "--device", "cpu", "--log-level", "error",
             "--host", "127.0.0.1", str(base)]))  # fmt: skip
        servers = {"ours": (mine, ["base"]), "ours, two adapters in turn": (mine, ["one", "two"]),
                   "transformers serve": (theirs, [str(base)])}  # fmt: skip
        for url, names in servers.values():
            asyncio.run(_load(url, names, asked[:8], 4))  # nothing is measured cold
        rows = [_row(servers, asked, at_once, given.repeats) for at_once in given.at_once or AT_ONCE]
    machine = f"{platform.processor() or platform.machine()}, {os.cpu_count()} processors"
    print(json.dumps({"machine": machine, "torch": torch.__version__, "prompts": len(asked), "rows": rows}))


def _row(servers: dict[str, tuple[str, list[str]]], asked: Asked, at_once: int, repeats: int) -> dict[str, Any]:
    """All of them at one number of requests at once, taking turns."""
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in servers}
    for _ in range(repeats):
        for name, (url, models) in servers.items():
            found[name].append(asyncio.run(_load(url, models, asked, at_once)))
    row: dict[str, Any] = {"at_once": at_once}
    for name, runs in found.items():
        waits = sorted(wait for run in runs for wait in run["waits"])
        rates = [run["rate"] for run in runs]
        against = [ours["rate"] / run["rate"] for ours, run in zip(found["ours"], runs, strict=True) if run["rate"]]
        row[name] = {
            "requests_a_second": round(statistics.median(rates), 2),
            "p50_ms": round(1000 * statistics.median(waits)) if waits else None,
            "p95_ms": round(1000 * waits[int(0.95 * (len(waits) - 1))]) if waits else None,
            "failed": sum(run["failed"] for run in runs), "answered": len(waits),
            "ours_against_it": [round(f(against), 2) for f in (statistics.median, min, max)] if against else None,
            "same_texts": sum(map(_same, found["ours"][0]["texts"], runs[0]["texts"])),
        }  # fmt: skip
        print(f"{at_once:4} at once  {name:28} {row[name]}", flush=True)
    return row


def _same(ours: str | None, other: str | None) -> bool:
    """``transformers serve`` repeats this model's prompt before its answer and writes its end token behind it."""
    return ours is not None and other is not None and other.removesuffix("<eos>").endswith(ours)


async def _load(url: str, models: list[str], asked: Asked, at_once: int) -> dict[str, Any]:
    """Ask everything once, so many at a time. Seconds of each answer, and requests a second of all."""
    texts: list[str | None] = [None] * len(asked)
    waits: list[float] = []
    numbers = iter(range(len(asked)))
    async with AsyncOpenAI(base_url=url, api_key=TOKEN, max_retries=0, timeout=300) as client:

        async def worker() -> None:
            for number in numbers:
                began = time.perf_counter()
                with contextlib.suppress(OpenAIError):
                    answer = await client.chat.completions.create(
                        model=models[number % len(models)], temperature=0, max_tokens=NEW_TOKENS,
                        messages=[message.model_dump() for message in asked[number]],  # type: ignore[misc]
                    )  # fmt: skip
                    texts[number] = answer.choices[0].message.content
                    waits.append(time.perf_counter() - began)

        began = time.perf_counter()
        await asyncio.gather(*(worker() for _ in range(at_once)))
        rate = len(waits) / (time.perf_counter() - began)
    return {"rate": rate, "waits": waits, "failed": len(asked) - len(waits), "texts": texts}


def _weights(folder: Path) -> tuple[Path, Path, Path]:
    """The pocket model, and two adapters on it, random in their B."""
    tokenizer = load_tokenizer("pocket")
    save_version(load_model("pocket", device="cpu"), tokenizer, folder / "base")
    for seed, name in enumerate(("one", "two")):
        torch.manual_seed(seed)
        model = load_model(folder / "base", device="cpu", trainable="lora", lora=LoraConfig(r=8))
        for key, parameter in model.named_parameters():
            if "lora_B" in key:
                torch.nn.init.normal_(parameter, std=0.01)
        save_version(model, tokenizer, folder / name)
    return folder / "base", folder / "one", folder / "two"


@contextlib.contextmanager
def _server(command: list[str]) -> Iterator[str]:
    """Its address, once it answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = {**os.environ, "DPO_DRIVER_SERVE_TOKEN": TOKEN, "HF_HUB_OFFLINE": "1"}
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen([*command, "--port", str(port)], env=env, stdout=log, stderr=log)
        try:
            url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + START_S
            while not _answers(url):
                if process.poll() is not None or time.monotonic() > deadline:
                    log.seek(0)
                    raise SystemExit(f"{command}\n{log.read().decode()[-2000:]}")
                time.sleep(0.2)
            yield f"{url}/v1"
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


if __name__ == "__main__":
    main()
