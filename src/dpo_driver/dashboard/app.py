"""The dashboard's routes: the page, its files, and everything it shows as JSON. Called by serve.py.

Nothing here changes anything: apart from signing in there are only GETs. Answers carry an ETag over their content, and
one that the page has already is not sent again. Knows the other files of this folder, which read.
"""

from __future__ import annotations

import hashlib
import json
import math
import mimetypes
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Scope

from dpo_driver.core.errors import DataError, DriverError
from dpo_driver.core.vault import VaultError
from dpo_driver.dashboard import curves, episodes, failures, jobs, labels, ledger, models, pairs, pictures
from dpo_driver.dashboard.arrivals import Arrivals
from dpo_driver.dashboard.runs import Runs
from dpo_driver.preferences.log import LOG
from dpo_driver.web.guard import Door, Guard, Place
from dpo_driver.web.password import Password, TooManyGuesses

HERE = Path(__file__).resolve().parent
OPEN_PATHS = ("/static/", "/open", "/login")
WHO = "viewer"
LIVE = 24
Answer = Callable[[Request], Any]


class Site:
    """The dashboard as an ASGI application: ``Site(Runs("runs"), door, place).app``.

    Args:
        runs: what is shown.
        door: tokens and sessions.
        place: what we are called.
        password: of people on other machines; None: a token is the only way in.
        prices: of the cost ledger.
    """

    def __init__(
        self, runs: Runs, door: Door, place: Place, password: Password | None = None,
        prices: ledger.Prices | None = None,
    ) -> None:  # fmt: skip
        self._runs, self._door, self._place, self._password = runs, door, place, password
        self._ledger, self._models = ledger.Ledger(prices), models.Models(runs.root)
        self._feedback = labels.Feedback(runs.root)
        self._logs: dict[str, labels.Labels] = {}
        self._arrivals: dict[str, Arrivals] = {}
        self._static = {path.name: path.read_bytes() for path in (HERE / "static").iterdir() if path.is_file()}
        self._templates = Environment(
            loader=FileSystemLoader(HERE / "templates"), autoescape=True, undefined=StrictUndefined,
            trim_blocks=True, lstrip_blocks=True,
        )  # fmt: skip
        answers: dict[str, Answer] = {
            "overview": self.overview, "episodes": self.episodes, "episode": self.episode, "live": self.live,
            "curves": self.curves, "pairs": self.pairs, "pair": self.pair, "labels": self.labels,
            "feedback": self.feedback, "failures": self.failures, "jobs": self.jobs, "job": self.job,
            "models": self.models, "ledger": self.ledger,
        }  # fmt: skip
        routes = [
            Route("/", self.page),
            Route("/open", self.open),
            Route("/login", self.login, methods=["GET", "POST"]),
            Route("/picture", self.picture),
            Route("/static/{name}", self.static),
            *(Route(f"/api/{name}", _json_of(answer)) for name, answer in answers.items()),
        ]
        handlers: Any = {DriverError: _told, 404: self._missing}
        self.app: ASGIApp = Guard(
            Starlette(routes=routes, exception_handlers=handlers), door, place, OPEN_PATHS, self._refuse
        )

    # -- what is shown -------------------------------------------------------------------------------------------------

    def overview(self, _request: Request) -> Any:
        """All runs, and what else there is below the root."""
        return {"root": str(self._runs.root), "runs": self._runs.list()}

    def episodes(self, request: Request) -> Any:
        """A page of a run's episodes, and its stages."""
        ask, reader = request.query_params, self._runs.reader(_run(request))
        found = episodes.page(
            reader, stage=ask.get("stage", ""), outcome=ask.get("outcome", ""), text=ask.get("text", ""),
            stop=ask.get("stop", ""), after=ask.get("after", ""),
            limit=_number(request, "limit") or episodes.PAGE,
        )  # fmt: skip
        return {**found, "stages": episodes.stages(reader)}

    def episode(self, request: Request) -> Any:
        """One episode in full."""
        return episodes.one(self._runs.folder(_run(request)), request.query_params.get("id", ""))

    def live(self, request: Request) -> Any:
        """The newest episodes of a run as thumbnails."""
        run = _run(request)
        reader = self._runs.reader(run)
        return {"run": self._runs.summary(run), "latest": self._arrivals_of(run, reader).latest(LIVE)}

    def curves(self, request: Request) -> Any:
        """The curves of one stage."""
        return curves.curves(self._runs.reader(_run(request)), request.query_params.get("stage") or None)

    def pairs(self, request: Request) -> Any:
        """A page of a run's pairs."""
        run = _run(request)
        return pairs.page(self._runs.reader(run), self._runs.folder(run), round_number=_number(request, "round"),
                          after=request.query_params.get("after", ""))  # fmt: skip

    def pair(self, request: Request) -> Any:
        """One pair in full."""
        run = _run(request)
        return pairs.one(self._runs.reader(run), self._runs.folder(run), _number(request, "round") or 0,
                         request.query_params.get("id", ""))  # fmt: skip

    def labels(self, request: Request) -> Any:
        """Labels of a preference log; the root's own when no run is named."""
        run = request.query_params.get("run", "")
        folder = self._runs.folder(run) if run else self._runs.root
        log = self._logs.setdefault(run, labels.Labels(folder / LOG))
        return {"logs": labels.logs(self._runs.root, self._runs.ids()), **log.page(_number(request, "before"))}

    def feedback(self, request: Request) -> Any:
        """What the inbox holds."""
        return self._feedback.page(_number(request, "before"))

    def failures(self, request: Request) -> Any:
        """A run's stop reasons."""
        reader = self._runs.reader(_run(request))
        found = failures.failures(reader, request.query_params.get("stage", ""))
        return {**found, "stages": [each["name"] for each in episodes.stages(reader)]}

    def jobs(self, _request: Request) -> Any:
        """All jobs below the root."""
        return {"jobs": jobs.jobs(self._runs.root)}

    def job(self, request: Request) -> Any:
        """One job with its log."""
        return jobs.one(self._runs.root, request.query_params.get("id", ""), _number(request, "after"))

    def models(self, _request: Request) -> Any:
        """The registry."""
        return self._models.list()

    def ledger(self, _request: Request) -> Any:
        """The account of every run, as far as it is counted."""
        until = time.monotonic() + ledger.WORK_S
        found = []
        for run in self._runs.ids():
            try:
                found.append(self._ledger.of(run, self._runs.reader(run), until - time.monotonic()))
            except DriverError as error:
                found.append({"run": run, "error": str(error), "episodes": None})
        prices = self._ledger.prices
        return {"runs": found, "prices": prices.model_dump() if prices else None}

    def _arrivals_of(self, run: str, reader: Any) -> Arrivals:
        return self._arrivals.setdefault(run, Arrivals(reader))

    # -- files ---------------------------------------------------------------------------------------------------------

    def page(self, _request: Request) -> Response:
        """The one page; its scripts do the rest."""
        return Response(self._static["index.html"], media_type="text/html")

    def picture(self, request: Request) -> Response:
        """A screenshot. Its name is the hash of its content, so it never changes."""
        folder = self._runs.folder(_run(request))
        content, kind = pictures.picture(folder, request.query_params.get("sha", ""), _number(request, "w"))
        return Response(content, media_type=kind, headers={"Cache-Control": "private, max-age=86400, immutable"})

    def static(self, request: Request) -> Response:
        """Style and scripts."""
        name = request.path_params["name"]
        if name not in self._static:
            return self._problem(404, "There is no such file")
        kind = mimetypes.guess_type(name)[0] or "text/plain"
        return _tagged(request, self._static[name], "text/javascript" if name.endswith(".js") else kind)

    # -- coming in -----------------------------------------------------------------------------------------------------

    def open(self, request: Request) -> Response:
        """Exchange a one-time token for a session."""
        if request.method == "HEAD":  # a program that looks at links must not use them up
            return Response(status_code=204)
        found = self._door.redeem(request.query_params.get("token", ""))
        if found is None:
            return self._problem(
                403, "This link was used before, or is too old",
                "A link opens once. If this browser has it open in another tab, go on there or open the start page. "
                "Otherwise stop the server with Ctrl-C and start it again: it prints a new link.",
            )  # fmt: skip
        # A page, no redirection: a browser that came here from another site would not send the new cookie along.
        return self._let_in(self._door_page(what="Opening the dashboard", to="/"), found[0])

    async def login(self, request: Request) -> Response:
        """The password's way in, for people on other machines."""
        if self._password is None:
            return self._problem(404, "There is no password here", "Open the link that the server printed.")
        if request.method == "GET":
            return self._door_page(what="Dashboard", ask=True)
        wrong, status = "That is not the password.", 403
        try:
            address = request.client.host if request.client else ""
            if await self._password.check(request.scope["state"]["form"].get("password", ""), address):
                return self._let_in(RedirectResponse("/", 303), self._door.open(WHO)[0])
        except TooManyGuesses as error:
            wrong, status = f"Too many wrong passwords. Try again in {error.seconds:.0f} seconds.", 429
        return self._door_page(status, what="Dashboard", ask=True, wrong=wrong)

    def _let_in(self, answer: Response, cookie: str) -> Response:
        answer.set_cookie(
            self._place.cookie, cookie, max_age=12 * 3600, path="/", secure=self._place.secure, httponly=True,
            samesite="strict",
        )  # fmt: skip
        return answer

    def _door_page(self, status: int = 200, **values: Any) -> Response:
        given = {"to": "", "ask": False, "wrong": "", "remedy": "", **values}
        return Response(self._templates.get_template("door.html.j2").render(**given), status, media_type="text/html")

    def _problem(self, status: int, what: str, remedy: str = "") -> Response:
        return self._door_page(status, what=what, remedy=remedy)

    def _refuse(self, scope: Scope, status: int, reason: str) -> Response:
        """The answer to what the guard stopped."""
        is_page = scope["method"] == "GET" and not scope["path"].startswith("/api/")
        if status == 401 and is_page and self._password is not None:
            return RedirectResponse("/login", 303)
        if status == 401:
            what = "You are not signed in here"
            remedy = (
                "Open the link that `dpo-driver dashboard` printed. If it was used already, stop the server with "
                "Ctrl-C and start it again: it prints a new one."
            )
            return self._problem(status, what, remedy) if is_page else _error(what, status)
        return Response(f"{reason}\n", status, media_type="text/plain")

    async def _missing(self, _request: Request, _error: Exception) -> Response:
        return self._problem(404, "There is no such page")


def _json_of(answer: Answer) -> Callable[[Request], Any]:
    """A route for what a function gives: worked out in a thread, with an ETag."""

    async def route(request: Request) -> Response:
        value = await run_in_threadpool(answer, request)
        body = await run_in_threadpool(lambda: json.dumps(_finite(value), ensure_ascii=False, allow_nan=False).encode())
        return _tagged(request, body, "application/json")

    return route


def _tagged(request: Request, body: bytes, kind: str) -> Response:
    tag = f'"{hashlib.sha256(body).hexdigest()[:20]}"'
    headers = {"ETag": tag, "Cache-Control": "no-cache"}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(body, media_type=kind, headers=headers)


def _finite(value: Any) -> Any:
    """What JSON has no word for becomes null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    return [_finite(each) for each in value] if isinstance(value, list | tuple) else value


def _run(request: Request) -> str:
    return request.query_params.get("run", "")


def _number(request: Request, name: str) -> int | None:
    given = request.query_params.get(name, "")
    if not given:
        return None
    if not given.isascii() or not given.isdigit() or len(given) > 15:
        raise DataError(f"{name} is no number", where=given[:40])
    return int(given)


def _error(text: str, status: int) -> Response:
    return Response(json.dumps({"error": text}).encode(), status, media_type="application/json")


async def _told(_request: Request, error: Exception) -> Response:
    status = 404 if isinstance(error, DataError) else 423 if isinstance(error, VaultError) else 503
    return _error(str(error), status)
