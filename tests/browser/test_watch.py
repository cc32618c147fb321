"""Recorded episodes acted out again in a real browser: the same end, changed numbers survived, partings told."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from dpo_driver.agents.oracle import OracleAgent
from dpo_driver.cli.watch import resolve
from dpo_driver.core.actions import format_action
from dpo_driver.core.errors import StoreError, UnknownNameError
from dpo_driver.core.records import Element, Observation, Step, Trajectory, state_hash
from dpo_driver.core.store import RunStore
from dpo_driver.envs.miniwob.environment import MiniwobEnvironment
from dpo_driver.envs.miniwob.tasks import make_task
from dpo_driver.rollout.pool import rollout_sync

pytestmark = [pytest.mark.browser, pytest.mark.timeout(120)]
STAGE = "evaluate/test/oracle"
LOGIN = f"{STAGE}/miniwob.login-user/900000/0"
ACCENT = (255, 176, 0)


def renumbered(trajectory: Trajectory, by: int) -> Trajectory:
    """The record as another distiller would have made it: other numbers, the same page."""

    def element(old: Element) -> Element:
        return old if old.ref is None else old.model_copy(update={"ref": str(int(old.ref) + by)})

    def observation(old: Observation) -> Observation:
        elements = tuple(map(element, old.elements))
        return old.model_copy(update={"elements": elements, "state_hash": state_hash(old.goal, "/", elements)})

    def step(old: Step) -> Step:
        assert old.action is not None
        action = old.action.model_copy(update={"ref": str(int(getattr(old.action, "ref")) + by)})  # noqa: B009
        return old.model_copy(update={"observation": observation(old.observation), "action": action})

    return trajectory.model_copy(update={"id": "other/numbers", "steps": tuple(map(step, trajectory.steps))})


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A run with two real episodes of the expert and records that differ from them."""
    folder = tmp_path_factory.mktemp("watch")
    tasks = [make_task(name, 900_000, "test") for name in ("login-user", "click-tab-2")]
    with RunStore(folder / "run") as store:
        rollout_sync(
            tasks, OracleAgent("chat"), environments=MiniwobEnvironment.source, stage=STAGE, workers=2,
            on_trajectory=lambda trajectory: store.add_trajectory(STAGE, trajectory),
        )  # fmt: skip
        login = store.trajectory(LOGIN)
        assert login.success
        store.add_trajectory("other", renumbered(login, 40))
        last = login.steps[-1]
        elements = tuple(
            e.model_copy(update={"name": "Sign in"}) if e.name == "Login" else e for e in last.observation.elements
        )
        seen = last.observation.model_copy(update={"elements": elements, "state_hash": "0" * 16})
        gone = (*login.steps[:-1], last.model_copy(update={"observation": seen}))
        store.add_trajectory("other", login.model_copy(update={"id": "other/gone", "steps": gone}))
        wrong = login.model_copy(update={"id": "other/reward", "reward": 0.5})
        store.add_trajectory("other", wrong)
        store.add_trajectory("other", login.model_copy(update={"id": "other/empty", "steps": ()}))
    yield folder


def watch(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {k: v for k, v in os.environ.items() if k not in ("DISPLAY", "WAYLAND_DISPLAY")}
    env |= {"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb", **environment}
    command = [sys.executable, "-m", "dpo_driver", "watch", "run", *arguments]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=90, check=False)


@pytest.fixture(scope="module")
def login(recorded: Path) -> subprocess.CompletedProcess[str]:
    """The episode of login-user, watched once with a GIF and a trace."""
    done = watch(recorded, LOGIN, "--gif", "login.gif", "--trace", "trace.zip")
    assert done.returncode == 0, done.stderr
    return done


def test_a_record_ends_as_recorded_and_without_a_display_is_drawn(recorded: Path) -> None:
    told = json.loads(watch(recorded, f"{STAGE}/miniwob.click-tab-2", "--json").stdout)
    assert (told["parted"], told["stop_reason"], told["reward"]) == (None, "success", 1.0)
    assert all(line["state"] == "same" and line["found"] == line["recorded"] for line in told["lines"])
    with RunStore(recorded / "run", "read") as store:
        steps = store.trajectory(told["episode"]).steps
    assert [line["action"] for line in told["lines"]] == [format_action(s.action) for s in steps if s.action]
    assert told["headed"] is False
    assert told["gif"] == told["episode"].replace("/", "-") + ".gif"
    assert (recorded / told["gif"]).stat().st_size > 5_000


def test_what_is_done_is_told_in_words(login: subprocess.CompletedProcess[str]) -> None:
    assert "(textbox Username)" in login.stderr
    assert "success, reward 1\nas recorded, to the end\nwritten: login.gif\nwritten: trace.zip\n" in login.stderr


def test_the_gif_shows_page_pointer_and_ring(recorded: Path, login: subprocess.CompletedProcess[str]) -> None:
    with RunStore(recorded / "run", "read") as store:
        box = next(e.box for e in store.trajectory(LOGIN).steps[-1].observation.elements if e.name == "Login")
    assert box is not None
    with Image.open(recorded / "login.gif") as film:
        assert film.n_frames > 15
        width, height = film.size
        film.seek(film.n_frames - 2)  # the click on Login, ringed
        ringed = film.convert("RGB")
        film.seek(film.n_frames - 1)
        end = film.convert("RGB")
    # The page is 320 x 420 pixels, in the middle of the width and 72 below the top.
    x, y = (width - 320) // 2 + 2 * (box[0] + box[2] / 2), 72 + 2 * (box[1] + box[3] / 2)

    def near(picture: Image.Image, colour: tuple[int, int, int]) -> set[tuple[int, int]]:
        return {
            (i, j) for i in range(width) for j in range(height)
            if sum(abs(a - b) for a, b in zip(picture.getpixel((i, j)), colour, strict=True)) < 40  # type: ignore[arg-type]
        }  # fmt: skip

    ring = near(ringed, ACCENT)
    assert len(ring) > 150
    assert all(14 < ((i - x) ** 2 + (j - y) ** 2) ** 0.5 < 22 for i, j in ring)
    assert near(end, ACCENT) == set()
    assert len(near(end, (70, 196, 106))) > 40  # the verdict is green


def test_the_trace_opens_in_playwright(recorded: Path, login: subprocess.CompletedProcess[str]) -> None:
    with zipfile.ZipFile(recorded / "trace.zip") as archive:
        events = [json.loads(line) for line in archive.read("trace.trace").splitlines()]
        assert any(name.endswith(".jpeg") for name in archive.namelist())
    titles = [event["title"] for event in events if event["type"] == "before" and "title" in event]
    assert titles[0].startswith("step 1 of 3: textbox Username: fill(")
    assert titles[-1] == "the end: success, reward 1"
    assert sum(event["type"] == "frame-snapshot" for event in events) >= 4


def test_changed_numbers_are_survived(recorded: Path) -> None:
    told = json.loads(watch(recorded, "other/numbers", "--gif", "n.gif", "--json").stdout)
    assert (told["parted"], told["stop_reason"]) == (None, "success")
    assert {line["state"] for line in told["lines"]} == {"renumbered"}
    assert [line["action"][:8] for line in told["lines"]] == ['fill("1"', 'fill("2"', 'click("3']


def test_where_a_replay_parts_is_told(recorded: Path) -> None:
    told = json.loads(watch(recorded, "other/gone", "--gif", "g.gif", "--json").stdout)
    assert told["parted"].startswith("step 3: the state is ")
    assert "button Sign in is gone" in told["parted"]
    assert told["stop_reason"] is None
    told = json.loads(watch(recorded, "other/reward", "--gif", "r.gif", "--json").stdout)
    assert told["parted"] == "the end: reward 1, recorded: 0.5"


def test_unknown_and_ambiguous_episodes() -> None:
    ids = ["a/click/1/0", "a/click/10/0", "a/click/2/0", "a/click/2/1", "b/x/7/0"]
    assert resolve(ids, "a/click/1", Path("runs/x")) == "a/click/1/0"  # not seed 10
    assert resolve(ids, "a/click/2/1", Path("runs/x")) == "a/click/2/1"
    assert resolve(ids, "b", Path("runs/x")) == "b/x/7/0"
    with pytest.raises(StoreError, match="2 episodes begin with 'a/click/2'"):
        resolve(ids, "a/click/2", Path("runs/x"))
    with pytest.raises(UnknownNameError, match="did you mean a/click/2/0"):
        resolve(ids, "a/clik/2/0", Path("runs/x"))


def test_refusals_have_exit_code_2(recorded: Path) -> None:
    for arguments, part in (
        (["evaluate/test/oracle/miniwob.login-usr/900000"], LOGIN),
        (["other/empty"], "nothing was done in this episode"),
        ([LOGIN, "--headed"], "there is no display"),
    ):
        done = watch(recorded, *arguments)
        assert (done.returncode, done.stdout) == (2, ""), arguments
        assert part in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(
    not (shutil.which("Xvfb") and shutil.which("chromium")), reason="needs Xvfb and a Chromium with windows"
)
def test_a_window_opens_where_there_is_a_display(recorded: Path) -> None:
    read, write = os.pipe()
    with subprocess.Popen(["Xvfb", "-displayfd", str(write), "-screen", "0", "800x600x24"], pass_fds=[write]) as screen:
        os.close(write)
        try:
            with os.fdopen(read) as told:
                display = f":{told.readline().strip()}"
            done = watch(recorded, LOGIN, "--pause", "0.1", "--json", DISPLAY=display)
        finally:
            screen.terminate()
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert (figures["headed"], figures["parted"], figures["gif"]) == (True, None, None)
