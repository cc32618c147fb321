"""The tabs of a session whose environment keeps them: the pages of one context, one of which is seen.

A session without tabs closes what its page opens. One with tabs keeps it; ``follow`` then looks at what was opened, as
a person's browser does by itself. Called by browser/session.py and browser/execute.py. Must not import environments.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from playwright.async_api import Page

from dpo_driver.core.errors import ActionError

if TYPE_CHECKING:
    from dpo_driver.browser.session import Session
    from dpo_driver.browser.wire import Wire

MAX_TABS = 8


class Tabs:
    """``session.tabs``: ``len(session.tabs.pages)``, ``await session.tabs.focus(1)``.

    Args:
        kept: what the page opens by itself becomes a tab; otherwise it is closed.
        connect: opens a DevTools connection to a page of the context.
    """

    def __init__(
        self, session: Session, page: Page, wire: Wire, kept: bool, connect: Callable[[Page], Awaitable[Wire]]
    ) -> None:
        self.pages = [page]
        self.kept = kept
        self._session, self._connect = session, connect
        self._wires = {page: wire}
        self._new: list[Page] = []

    def keep(self, page: Page) -> bool:
        """Take a page that has appeared in; False when it is to be closed."""
        if not self.kept or len(self.pages) >= MAX_TABS:
            return False
        self.pages.append(page)
        self._new.append(page)
        return True

    def drop(self, page: Page) -> bool:
        """Forget a page that was closed; True when the session can go on."""
        if page in self.pages:
            self.pages.remove(page)
        if page in self._new:
            self._new.remove(page)
        if page is self._session.page and self.pages and self.pages[-1] in self._wires:
            self._session.show(self.pages[-1], self._wires[self.pages[-1]])  # as a browser does
        return page is not self._session.page

    async def follow(self) -> bool:
        """See the newest tab that the page has opened since the last call; False when there is none."""
        opened, self._new = self._new, []
        if not opened:
            return False
        await self.focus(self.pages.index(opened[-1]))
        return True

    async def focus(self, index: int) -> None:
        """See another tab.

        Raises:
            ActionError: there is no such tab.
        """
        if not 0 <= index < len(self.pages):
            raise ActionError(f"there is no tab {index}; there are {len(self.pages)}, the first is 0")
        page = self.pages[index]
        async with self._session.deadline("changing tabs"):
            if page not in self._wires:
                self._wires[page] = await self._connect(page)
            await page.bring_to_front()
        self._session.show(page, self._wires[page])

    async def open(self) -> None:
        """An empty tab, which is then seen. Raises ActionError when there are no tabs here, or too many."""
        self._need()
        if len(self.pages) >= MAX_TABS:
            raise ActionError(f"there are {MAX_TABS} tabs already")
        async with self._session.deadline("opening a tab"):
            page = await self._session.page.context.new_page()
        await self.focus(self.pages.index(page))
        self._new.clear()

    async def close(self) -> None:
        """Close the tab that is seen, and see the latest of the others. Raises ActionError when it is the only one."""
        self._need()
        if len(self.pages) == 1:
            raise ActionError("this is the only tab")
        page = self._session.page
        self.pages.remove(page)
        await self.focus(len(self.pages) - 1)
        await self._wires.pop(page).close()
        async with self._session.deadline("closing a tab"):
            await page.close()

    async def disconnect(self) -> None:
        """End the connections to all tabs."""
        for wire in self._wires.values():
            await wire.close()

    def _need(self) -> None:
        if not self.kept:
            raise ActionError("there are no tabs here")
