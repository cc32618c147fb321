"""``dpo-driver watch``: a recorded episode once more, in a real browser. Called by cli/main.py; calls rollout."""

from __future__ import annotations

import asyncio
import os
from dataclasses import asdict
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dpo_driver.cli.options import AsJson, console, find_run, print_json
from dpo_driver.cli.play import run_config
from dpo_driver.core.errors import DriverError, RolloutFailure, StoreError, UnknownNameError

if TYPE_CHECKING:
    from dpo_driver.browser.film import Film
    from dpo_driver.core.records import Trajectory
    from dpo_driver.rollout.reenact import Reenactment, Scene

PANEL = "See it"
SCALE = 2.0  # of the pictures in a GIF
POINTED_AT = frozenset(  # ringed; other targets are only pointed at
    {"click", "dblclick", "drag_and_drop", "mouse_click", "mouse_dblclick", "mouse_down", "mouse_drag_and_drop"}
)
SHOWN_AS_CLOSE = 8
OUTLINE = {"r": 255, "g": 176, "b": 0, "a": 0.35}


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command(rich_help_panel=PANEL)(watch)


def watch(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run directory or its configuration file.")],
    episode: Annotated[
        str,
        typer.Argument(metavar="EPISODE", help="Id, or a beginning that only one has: evaluate/test/dpo/miniwob..."),
    ],
    gif: Annotated[Path | None, typer.Option("--gif", metavar="FILE", help="Write an animated picture.")] = None,
    trace: Annotated[
        Path | None, typer.Option("--trace", metavar="FILE", help="Write a trace.zip for Playwright's trace viewer.")
    ] = None,
    headed: Annotated[
        bool | None, typer.Option("--headed/--headless", help="Show a window.", show_default="if there is a display")
    ] = None,
    pause: Annotated[
        float, typer.Option("--pause", min=0, max=60, help="Seconds to look at each step in a window.")
    ] = 1.0,
    as_json: AsJson = False,
) -> None:
    """Act a recorded episode out again and say where the page parts from the record."""
    from dpo_driver.core.store import RunStore

    run_dir = find_run(run)
    with RunStore(run_dir, mode="read") as store:
        trajectory = store.trajectory(resolve(store.trajectory_ids(), episode, run_dir))
    if not trajectory.steps:
        raise StoreError(
            f"nothing was done in this episode: {trajectory.failure or trajectory.stop_reason}",
            where=trajectory.id,
            remedy="choose another one: dpo-driver report --json",
        )
    visible = _display() if headed is None else headed
    if visible and not _display():
        raise DriverError("there is no display", remedy="leave out --headed, or start it under xvfb-run")
    for file in (gif, trace):
        if file is not None and not file.resolve().parent.is_dir():
            raise DriverError("there is no such folder", where=str(file.resolve().parent), remedy="make it first")
    if not visible and gif is None and trace is None:
        gif = Path(trajectory.id.replace("/", "-") + ".gif")
    try:
        found = asyncio.run(_watch(trajectory, _source(run_dir, trajectory), gif, trace, pause if visible else None))
    except RolloutFailure as failure:
        remedy = "try again; if it goes on, run `dpo-driver doctor`"
        raise DriverError(f"the replay broke: {failure}", where=trajectory.id, remedy=remedy) from failure
    if as_json:
        written = {"gif": gif and str(gif), "trace": trace and str(trace)}
        print_json({"episode": trajectory.id, "headed": visible, **written, **asdict(found)})
    else:
        _tell(trajectory, found, [file for file in (gif, trace) if file is not None])


def resolve(ids: list[str], asked: str, run_dir: Path) -> str:
    """The one id that is ``asked`` or begins with it.

    Raises:
        StoreError: several begin with it; they are listed.
        UnknownNameError: none does; close ones are listed.
    """
    if asked in ids:
        return asked
    # "…/7" is meant to be seed 7, not 70 as well; only if that gives none any beginning counts.
    matches = [one for one in ids if one.startswith(asked.rstrip("/") + "/")]
    matches = matches or [one for one in ids if one.startswith(asked)]
    if len(matches) == 1:
        return matches[0]
    if matches:
        listed = ", ".join(matches[:SHOWN_AS_CLOSE]) + (", ..." if len(matches) > SHOWN_AS_CLOSE else "")
        raise StoreError(f"{len(matches)} episodes begin with {asked!r}", where=str(run_dir), remedy=f"one of {listed}")
    raise UnknownNameError("episode", asked, ids, where=str(run_dir))


def _display() -> bool:
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _source(run_dir: Path, trajectory: Trajectory) -> str:
    """The environment as the tables know it: with its folder, where the run's configuration names one."""
    config = run_config(run_dir)
    return config.env.source if config is not None and config.env.name == trajectory.task.env else trajectory.task.env


async def _watch(
    trajectory: Trajectory, source: str, gif: Path | None, trace: Path | None, pause: float | None
) -> Reenactment:
    from dpo_driver.core import plugins
    from dpo_driver.core.redact import secrets_of
    from dpo_driver.rollout.reenact import reenact

    environments = plugins.load("environments", source)
    if pause is not None and "headed" not in signature(environments).parameters:
        raise DriverError(f"{source} cannot be shown in a window", remedy="add --headless")
    async with environments(**({} if pause is None else {"headed": True})) as make:
        environment = await make()
        if not hasattr(environment, "session"):
            raise DriverError(f"{source} has no browser to watch in", where=trajectory.id)
        await environment.reset(trajectory.task)  # from here on there is a page to look at
        watcher = _Watcher(environment, trajectory, filmed=gif is not None, traced=trace is not None, pause=pause)
        try:
            found = await reenact(environment, trajectory, watcher.look)
            if trace is not None and watcher.tracing is not None:
                await watcher.tracing.stop(path=trace)
                await asyncio.to_thread(secrets_of(trajectory).cover_zip, trace)
        finally:
            await environment.close()
    if gif is not None and watcher.film is not None:
        await asyncio.to_thread(watcher.film.save, gif)
    return found


class _Watcher:
    """What is done at every scene: an entry in the trace, frames of the GIF, a marked element in the window."""

    def __init__(
        self, environment: Any, trajectory: Trajectory, *, filmed: bool, traced: bool, pause: float | None
    ) -> None:
        self._environment, self._traced, self._pause = environment, traced, pause
        self.film: Film | None = None
        self.tracing: Any = None  # from the first scene on: the replay's own reset may bring another page
        viewport = environment.session.viewport
        self._area = getattr(environment, "picture_area", (0.0, 0.0, float(viewport[0]), float(viewport[1])))
        if filmed:
            from dpo_driver.browser.film import Film

            goal = trajectory.task.goal or ""
            self.film = Film(goal, f"{trajectory.agent}: {trajectory.task.id}", SCALE, self._area[:2])

    async def look(self, scene: Scene) -> None:
        """Called before every action and at the end."""
        session = self._environment.session
        if session is None:
            return  # the world broke; the replay says so
        head, caption = _words(scene)
        if self._traced and self.tracing is None:
            self.tracing = session.page.context.tracing
            await self.tracing.start(screenshots=True, snapshots=True)
        if self._traced:
            await self._entry(session, f"{head}: {caption}")
        if self.film is not None:
            picture = await session.screenshot(self._area, scale=SCALE, quality=90)
            if scene.step is None:
                self.film.end(picture, caption, good=scene.ended == "success")
            else:
                rings = scene.action is not None and scene.action.kind in POINTED_AT
                for point in _points(scene) or (None,):
                    self.film.add(picture, head, caption, point, rings=rings)
        if self._pause is not None:
            await _mark(session, scene)
            await asyncio.sleep(self._pause)  # for the eyes of whoever watches

    async def _entry(self, session: Any, title: str) -> None:
        """One line of the trace, with a snapshot of the page: what we do through CDP the tracer does not see."""
        async with session.deadline("the trace"):
            tracing = session.page.context.tracing
            await tracing.group(title)
            await session.page.evaluate("document.title")
            await tracing.group_end()


async def _mark(session: Any, scene: Scene) -> None:
    """Colour what is about to be acted on, by the browser's own overlay: the page is not touched."""
    await session.cdp("DOM.enable")
    await session.cdp("Overlay.enable")
    await session.cdp("Overlay.hideHighlight")
    for left, top, width, height in (target.box for target in scene.targets[-1:] if target.box):
        area = {"x": round(left), "y": round(top), "width": round(width), "height": round(height)}
        await session.cdp("Overlay.highlightRect", **area, color=OUTLINE)


def _points(scene: Scene) -> tuple[tuple[float, float], ...]:
    """Where an action happens: the middles of its elements, or the points that it names, in CSS pixels."""
    points = [(box[0] + box[2] / 2, box[1] + box[3] / 2) for target in scene.targets if (box := target.box)]
    for end in ("", "from_", "to_"):
        x, y = getattr(scene.action, f"{end}x", None), getattr(scene.action, f"{end}y", None)
        if x is not None and y is not None:
            points.append((x, y))
    return tuple(points)


def _words(scene: Scene) -> tuple[str, str]:
    """A small line and a large one for a scene."""
    if scene.step is None:
        earned = "" if scene.reward is None else f", reward {scene.reward:g}"
        return "the end", f"{scene.ended or 'the episode was not ended by the page'}{earned}"
    from dpo_driver.core.actions import format_action

    head = f"step {scene.number} of {scene.total}"
    if scene.action is None:
        return head, f"unreadable: {scene.step.completion[:80]!r}"
    thought = scene.step.thought or ", ".join(target.label for target in scene.targets)
    return f"{head}: {thought}" if thought else head, format_action(scene.action)


def _tell(trajectory: Trajectory, found: Reenactment, written: list[Path]) -> None:
    def say(text: str, style: str = "") -> None:
        console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)

    say(f"{trajectory.id}\n{trajectory.agent}: {trajectory.task.goal or ''}")
    for line in found.lines:
        target = f"  ({line.label})" if line.label else ""
        state = {"same": "", "renumbered": "  [same page, other numbers]", "differs": "  [another page]"}[line.state]
        say(f"{line.number:3}  {line.action}{target}{state}")
    ended = found.stop_reason or "not ended by the page"
    say(f"     {ended}" + (f", reward {found.reward:g}" if found.reward is not None else ""))
    if found.parted is None:
        say("as recorded, to the end", "green")
    else:
        say(f"parts from the record at {found.parted}", "yellow")
    for file in written:
        say(f"written: {file}")
