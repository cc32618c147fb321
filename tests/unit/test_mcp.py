"""The MCP server, spoken to by the SDK's own client over a real process, driving a real browser."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

mcp = pytest.importorskip("mcp")
from mcp import ClientSession  # noqa: E402
from mcp.client.stdio import StdioServerParameters, stdio_client  # noqa: E402
from mcp_types import ElicitResult  # noqa: E402

from dpo_driver.testing.fault_endpoint import FaultEndpoint  # noqa: E402

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]


class _Site(BaseHTTPRequestHandler):
    posted = 0

    def do_GET(self) -> None:
        body = b"<title>Shop</title><form method=post action=/x><button>Delete account</button></form>"
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        type(self).posted += 1
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.do_GET()

    def log_message(self, format: str, *_: Any) -> None:
        pass


@pytest.fixture
def site() -> Iterator[str]:
    _Site.posted = 0
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Site)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def decide(messages: Any, _sampling: Any) -> str:
    page = messages[-1].content
    done = "What you did so far" in page
    return "thought: go\naction: " + ('send_msg_to_user("done")' if done else 'click("1")')


async def call(tmp_path: Path, tool: str, arguments: dict[str, Any], elicitation: Any = None, *more: str) -> Any:
    with FaultEndpoint(decide) as endpoint:
        arguments_of = ["-m", "dpo_driver", "mcp", "--endpoint", endpoint.provider().base_url, "--root", str(tmp_path)]
        parameters = StdioServerParameters(command=sys.executable, args=[*arguments_of, *more], env=dict(os.environ))
        async with (
            stdio_client(parameters) as (read, write),
            ClientSession(read, write, elicitation_callback=elicitation) as session,
        ):
            await session.initialize()
            assert {each.name for each in (await session.list_tools()).tools} == {"act", "observe"}
            return await session.call_tool(tool, arguments)


async def test_client_that_can_ask_is_asked(site: str, tmp_path: Path) -> None:
    asked: list[str] = []

    async def person(_context: Any, parameters: Any) -> ElicitResult:
        asked.append(parameters.message)
        return ElicitResult(action="accept", content={"answer": "yes"})

    result = await call(tmp_path, "act", {"url": site, "goal": "Delete the account"}, person)
    said = json.loads(result.content[0].text)
    assert (said["answer"], said["stop_reason"], _Site.posted) == ("done", "answered", 1)
    assert len(asked) == 1 and "Delete account" in asked[0] and said["consents"][0]["by"] == "person"


async def test_client_that_cannot_ask_has_it_refused(site: str, tmp_path: Path) -> None:
    said = json.loads((await call(tmp_path, "act", {"url": site, "goal": "Delete it"})).content[0].text)
    assert _Site.posted == 0 and said["consents"][0]["by"] == "nobody"


async def test_observe_and_the_servers_own_allow_list(site: str, tmp_path: Path) -> None:
    seen = json.loads((await call(tmp_path, "observe", {"url": site})).content[0].text)
    assert seen["title"] == "Shop" and seen["elements"][0]["name"] == "Delete account"
    outside = await call(tmp_path, "observe", {"url": site}, None, "--allow", "https://shop.example")
    assert outside.is_error and "--allow" in outside.content[0].text and _Site.posted == 0
