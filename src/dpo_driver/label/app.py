"""The label page's routes: comparisons, answers, results, exports, and the same as JSON. Called by serve.py.

Pages work without scripts; htmx then swaps a comparison for the next without a new page, and keys.js adds keys. What a
browser gets says nothing about where an answer came from. Knows work.py and views.py; must not touch the log itself.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from dpo_driver.core.errors import DriverError, StoreError
from dpo_driver.label.agreement import words_for
from dpo_driver.label.queue import Showing
from dpo_driver.label.views import Views
from dpo_driver.label.work import VERDICTS, Act, LabelError, Labelling, Receipt
from dpo_driver.preferences.formats import preference_row
from dpo_driver.preferences.human import preferences_from_labels
from dpo_driver.web.guard import Door, Guard, Place, Session
from dpo_driver.web.password import Password, TooManyGuesses

HERE = Path(__file__).resolve().parent
STATIC = {"style.css": "text/css", "keys.js": "text/javascript", "htmx.min.js": "text/javascript"}
LABELS = "/api/labels"
OPEN_PATHS = ("/static/", "/open", "/login")
SKIP = "skip"
MOST_SECONDS = 86_400.0
_RATER = re.compile(r"[^\W_][\w .@+-]{0,39}")
_SUBMISSION = re.compile(r"[A-Za-z0-9_-]{8,64}")
_SHA = re.compile(r"[0-9a-f]{64}")
_SAID = {
    "a": "A is better", "b": "B is better", "tie": "a tie", "both_bad": "both are bad",
}  # fmt: skip


def is_rater(name: str) -> bool:
    """Whether this can be a rater's name: up to 40 letters, digits, blanks and . @ + - _, beginning with a letter or
    digit."""
    return _RATER.fullmatch(name) is not None


class Site:
    """The label page as an ASGI application: ``Site(work, views, door, place).app``.

    Args:
        work: what is labelled; entered by whoever serves.
        views: how comparisons look.
        door: tokens and sessions.
        place: what we are called.
        password: of raters on other machines; None: a token is the only way in.
    """

    def __init__(
        self, work: Labelling, views: Views, door: Door, place: Place, password: Password | None = None
    ) -> None:
        self._work, self._views, self._door, self._place, self._password = work, views, door, place, password
        self._static = {name: (HERE / "static" / name).read_bytes() for name in STATIC}
        self._templates = Environment(
            loader=FileSystemLoader(HERE / "templates"), autoescape=True, undefined=StrictUndefined,
            trim_blocks=True, lstrip_blocks=True,
        )  # fmt: skip
        self._templates.filters["kappa_words"] = words_for
        self._templates.globals["asset"] = {
            name: f"/static/{name}?v={hashlib.sha256(content).hexdigest()[:10]}"
            for name, content in self._static.items()
        }
        routes = [
            Route("/", self.begin),
            Route("/compare/{showing}", self.compare),
            Route("/label", self.label, methods=["POST"]),
            Route("/undo", self.undo, methods=["POST"]),
            Route("/results", self.results),
            Route("/picture/{sha}", self.picture),
            Route("/export/{name}", self.export),
            Route("/api/next", self.api_next),
            Route("/api/undo", self.api_undo, methods=["POST"]),
            Route("/open", self.open),
            Route("/login", self.login, methods=["GET", "POST"]),
            Route("/leave", self.leave, methods=["POST"]),
            Route("/static/{name}", self.static),
        ]
        handlers: Any = {LabelError: self._refused_label, StoreError: self._not_saved, 404: self._missing}
        self._pages = Starlette(routes=routes, exception_handlers=handlers)
        self.app: ASGIApp = Guard(self._dispatch, door, place, OPEN_PATHS, self._refuse)

    async def _dispatch(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == LABELS and scope["method"] == "POST":
            await self._api_label(scope, send)
        else:
            await self._pages(scope, receive, send)

    # -- comparisons ---------------------------------------------------------------------------------------------------

    async def begin(self, request: Request) -> Response:
        """To the next comparison, or to the results where there is none."""
        showing = self._work.next(_session(request).who)
        return RedirectResponse(f"/compare/{showing.id}" if showing else "/results", 303)

    async def compare(self, request: Request) -> Response:
        """One comparison; its address stays the same, so a reload shows it again."""
        session = _session(request)
        showing = self._work.open(session.who, request.path_params["showing"])
        if showing is None:
            return RedirectResponse("/", 303)
        return self._page("page.html.j2", **self._work_of(session, showing))

    async def label(self, request: Request) -> Response:
        """Take an answer and show the next comparison."""
        session, form = _session(request), _form(request)
        verdict, showing_id = form.get("verdict", ""), form.get("showing", "")
        if verdict == SKIP:
            self._work.skip(session.who, showing_id)
            said = "Skipped. It comes again when the others are done."
        else:
            receipt = await self._take(session, form)
            said = f"Saved: {_SAID.get(verdict, verdict)}." if not receipt.before else "That one was saved already."
        return self._go_on(request, session, said)

    async def undo(self, request: Request) -> Response:
        """Take back an answer and show its comparison again."""
        session = _session(request)
        act = await self._work.undo(session.who, _form(request).get("act") or None, session.id)
        return self._go_on(request, session, _undone(act))

    def _go_on(self, request: Request, session: Session, said: str) -> Response:
        """The next comparison: as a part for htmx, as a redirection without."""
        showing = self._work.next(session.who)
        to = f"/compare/{showing.id}" if showing else "/results"
        if "hx-request" not in request.headers:
            return RedirectResponse(to, 303)
        if showing is None:
            return Response(headers={"HX-Redirect": to})
        answer = self._page("part.html.j2", said=said, **self._work_of(session, showing))
        answer.headers["HX-Replace-Url"] = to
        return answer

    def _work_of(self, session: Session, showing: Showing) -> dict[str, Any]:
        rater = session.who
        last = self._work.last_act(rater)
        view = self._views.of(self._work.comparisons[showing.comparison], showing.swapped)
        return {
            "session": session, "showing": showing.id, "view": view, "progress": self._work.progress(rater),
            "pace": self._work.pace(rater), "last": last.token if last else "",
        }  # fmt: skip

    async def _take(self, session: Session, given: dict[str, Any]) -> Receipt:
        submission, seconds = str(given.get("submission", "")), _seconds(given.get("seconds"))
        if not _SUBMISSION.fullmatch(submission):
            raise LabelError("the answer has no submission id", remedy="load the page again")
        return await self._work.label(
            session.who, str(given.get("showing", "")), str(given.get("verdict", "")),
            submission=submission, session=session.id, seconds=seconds,
        )  # fmt: skip

    async def picture(self, request: Request) -> Response:
        """A screenshot of the run."""
        sha = request.path_params["sha"]
        found = self._views.pictures.file(sha) if _SHA.fullmatch(sha) else None
        if found is None:
            return self._problem(404, "There is no such picture")
        return Response(found[0], media_type=found[1])

    # -- results -------------------------------------------------------------------------------------------------------

    async def results(self, request: Request) -> Response:
        """What came of it so far; the last page when all is done."""
        session = _session(request)
        progress, last = self._work.progress(session.who), self._work.last_act(session.who)
        return self._page(
            "results.html.j2", session=session, results=self._work.results(), progress=progress,
            pace=self._work.pace(session.who), last=last.token if last else "", verdicts=VERDICTS,
        )  # fmt: skip

    async def export(self, request: Request) -> Response:
        """Labels, or the preferences that they give, as JSON lines."""
        name = request.path_params["name"]
        entries = await asyncio.to_thread(self._work.standing)
        if name == "labels.jsonl":
            rows: Iterable[dict[str, Any]] = (
                {"seq": entry.seq, "at": entry.at, **entry.body} for entry in entries if entry.kind == "label"
            )
        elif name == "preferences.jsonl":
            rows = map(preference_row, await asyncio.to_thread(preferences_from_labels, entries))
        else:
            return self._problem(404, "There is no such export")
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        return Response(
            lines, media_type="application/x-ndjson", headers={"Content-Disposition": f'attachment; filename="{name}"'}
        )

    # -- the same as JSON ----------------------------------------------------------------------------------------------

    async def api_next(self, request: Request) -> Response:
        """``{"showing": "6f0c...", "messages": [...], "a": "...", "b": "..."}``; ``{"showing": null}`` at the end."""
        showing = self._work.next(_session(request).who)
        if showing is None:
            return _json({"showing": None})
        comparison = self._work.comparisons[showing.comparison]
        texts = (comparison.second, comparison.first) if showing.swapped else (comparison.first, comparison.second)
        messages = [message.model_dump() for message in comparison.messages]
        return _json({"showing": showing.id, "messages": messages, "a": texts[0], "b": texts[1]})

    async def _api_label(self, scope: Scope, send: Send) -> None:
        """``POST /api/labels``: ``{"showing", "verdict", "submission", "seconds"}`` in; once it is on disk ``{"seq": 7,
        "before": false, "next": "81a..."}`` out. Without Starlette, which would take a fifth of the time."""
        session: Session = scope["state"]["session"]
        try:
            receipt = await self._take(session, _object(scope["state"]["body"]))
            following = self._work.next(session.who)
            status = 200
            said = {"seq": receipt.seq, "before": receipt.before, "next": following.id if following else None}
        except DriverError as error:
            status, said = 503 if isinstance(error, StoreError) else 409, {"error": str(error)}
        body = json.dumps(said).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def api_undo(self, request: Request) -> Response:
        """``{"act": "label-7"}`` in, or ``{}`` for the last one; ``{"undone": "label-7", "showing": "6f..."}`` out."""
        session, given = _session(request), _object(request.scope["state"]["body"])
        act = await self._work.undo(session.who, given.get("act"), session.id)
        return _json({"undone": act.token if act else None, "showing": act.showing.id if act else None})

    # -- coming in -----------------------------------------------------------------------------------------------------

    async def open(self, request: Request) -> Response:
        """Exchange a one-time token for a session."""
        if request.method == "HEAD":  # a program that looks at links must not use them up
            return Response(status_code=204)
        found = self._door.redeem(request.query_params.get("token", ""))
        if found is None:
            return self._problem(
                403, "This link was used before, or is too old",
                "A link opens once. If this browser has it open in another tab, go on there or open the start page. "
                "Otherwise stop the server with Ctrl-C and start it again: it prints a new link, and nothing is lost.",
            )  # fmt: skip
        # A page, no redirection: a browser that came here from another site would not send the new cookie along.
        return self._let_in(self._page("open.html.j2"), found[0])

    async def login(self, request: Request) -> Response:
        """The password's way in, for raters on other machines."""
        if self._password is None:
            return self._problem(404, "There is no password here", "Open the link that the server printed.")
        if request.method == "GET":
            return self._page("login.html.j2", wrong="", rater="")
        rater, wrong, status = _form(request).get("rater", "").strip(), "", 403
        if not is_rater(rater):
            wrong = "Please give your name: up to 40 letters, digits, blanks and . @ + - _"
        else:
            address = request.client.host if request.client else ""
            try:
                if await self._password.check(_form(request).get("password", ""), address):
                    return self._let_in(RedirectResponse("/", 303), self._door.open(rater)[0])
                wrong = "That is not the password."
            except TooManyGuesses as error:
                wrong, status = f"Too many wrong passwords. Try again in {error.seconds:.0f} seconds.", 429
        return self._page("login.html.j2", status=status, wrong=wrong, rater=rater[:40])

    async def leave(self, request: Request) -> Response:
        """End the session."""
        self._door.close(request.cookies.get(self._place.cookie, ""))
        answer = self._page("left.html.j2", password=self._password is not None)
        answer.delete_cookie(self._place.cookie, path="/")
        return answer

    def _let_in(self, answer: Response, cookie: str) -> Response:
        answer.set_cookie(
            self._place.cookie, cookie, max_age=12 * 3600, path="/", secure=self._place.secure, httponly=True,
            samesite="strict",
        )  # fmt: skip
        return answer

    # -- parts ---------------------------------------------------------------------------------------------------------

    async def static(self, request: Request) -> Response:
        """Style, script, htmx; their addresses change with their content."""
        name = request.path_params["name"]
        if name not in self._static:
            return self._problem(404, "There is no such file")
        headers = {"Cache-Control": "public, max-age=31536000, immutable"}
        return Response(self._static[name], media_type=STATIC[name], headers=headers)

    def _page(self, template: str, status: int = 200, **values: Any) -> Response:
        text = self._templates.get_template(template).render(**values)
        return Response(text, status, media_type="text/html")

    def _problem(self, status: int, what: str, remedy: str = "") -> Response:
        return self._page("problem.html.j2", status=status, what=what, remedy=remedy)

    def _refuse(self, scope: Scope, status: int, reason: str) -> Response:
        """The answer to what the guard stopped."""
        is_page = scope["method"] == "GET" and not scope["path"].startswith("/api/")
        if status == 401 and is_page and self._password is not None:
            return RedirectResponse("/login", 303)
        if status == 401:
            what = "You are not signed in here"
            remedy = (
                "Open the link that `dpo-driver label` printed. If it was used already, stop the server with Ctrl-C "
                "and start it again: it prints a new one, and every saved answer is still there."
            )
            return self._problem(status, what, remedy) if is_page else _json({"error": what}, status)
        return Response(f"{reason}\n", status, media_type="text/plain")

    async def _refused_label(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, DriverError)
        if request.url.path.startswith("/api/"):
            return _json({"error": str(error)}, 409)
        if "hx-request" in request.headers:
            return self._go_on(request, _session(request), f"Not saved: {error.what}.")
        return self._problem(409, f"Not saved: {error.what}", "Go on with the next comparison.")

    async def _not_saved(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, DriverError)
        if request.url.path.startswith("/api/") or "hx-request" in request.headers:
            return _json({"error": str(error)}, 503)
        return self._problem(503, "Not saved", str(error))

    async def _missing(self, request: Request, _error: Exception) -> Response:
        return self._problem(404, "There is no such page")


def _session(request: Request) -> Session:
    session = request.scope["state"]["session"]
    assert isinstance(session, Session)
    return session


def _form(request: Request) -> dict[str, str]:
    return dict(request.scope["state"]["form"])


def _json(value: dict[str, Any], status: int = 200) -> Response:
    return Response(json.dumps(value, ensure_ascii=False).encode(), status, media_type="application/json")


def _object(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body or b"{}")
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise LabelError("the request is not a JSON object")
    return value


def _seconds(value: Any) -> float | None:
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        return None
    return round(seconds, 2) if 0 <= seconds <= MOST_SECONDS else None


def _undone(act: Act | None) -> str:
    if act is None:
        return "Nothing to take back."
    return "Taken back. Here it is again." if act.seq else "Here is the one that you skipped."
