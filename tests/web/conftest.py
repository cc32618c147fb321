"""What the tests of our pages share: servers, clients, one Chromium."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect, sync_playwright

from dpo_driver.browser.chromium import find_chromium
from label_run import write_texts
from label_server import Caller, LabelServer, Serve, serving

# Every `expect` waits this long, in milliseconds: beside other tests a page may be slow, and is not wrong.
expect.set_options(timeout=45_000)


@pytest.fixture
def serve(tmp_path: Path) -> Serve:
    """``with serve("--texts", "t.jsonl") as server:`` in the test's own folder."""
    return lambda *arguments, **environment: serving(tmp_path, *arguments, **environment)


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """A file of twelve text pairs."""
    return write_texts(tmp_path / "pairs.jsonl")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """One Chromium for a module's tests. Not for the session: its event loop would be in the way of asynchronous tests
    that come after."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=str(find_chromium()), args=["--no-sandbox", "--disable-gpu"], timeout=30_000
        )
        yield browser
        browser.close()


@pytest.fixture
def call() -> Iterator[Callable[[LabelServer, str], Caller]]:
    """``call(server, "ann")``: a client for each rater, closed at the end."""
    made: list[Caller] = []

    def calling(server: LabelServer, rater: str) -> Caller:
        made.append(Caller(server, rater))
        return made[-1]

    yield calling
    for one in made:
        one.client.close()
