"""What the shop remembers of each visitor, in memory, by the word in their cookie."""

from __future__ import annotations

import secrets
import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

from content import PRODUCT_BY_ID, Order, Product, orders_of, settings_of, wanted_of

MOST = 2000  # the oldest visits are forgotten


@dataclass
class Visit:
    """One visitor's shop. Everything that is shown follows from the seed and from what they did."""

    seed: int
    orders: list[Order]
    find: dict[str, str]
    settings: dict[str, dict[str, Any]]
    saved_settings: int = 0
    cart: dict[str, int] = field(default_factory=dict)
    placed: dict[str, Any] | None = None
    trade: dict[str, str] = field(default_factory=dict)
    trade_step: int = 1
    trade_sent: bool = False
    claim: dict[str, Any] | None = None

    @classmethod
    def of_seed(cls, seed: int) -> Visit:
        orders = orders_of(seed)
        return cls(seed, orders, wanted_of(seed, orders), settings_of(seed))

    @property
    def lines(self) -> list[tuple[Product, int]]:
        """The cart as products and quantities."""
        return [(PRODUCT_BY_ID[name], count) for name, count in self.cart.items()]

    @property
    def total(self) -> int:
        """In pence."""
        return sum(product.price * count for product, count in self.lines)

    def state(self) -> dict[str, Any]:
        """What tasks are judged by."""
        return {
            "settings": self.settings,
            "saved_settings": self.saved_settings,
            "cart": self.cart,
            "placed": self.placed,
            "trade": {**self.trade, "sent": self.trade_sent},
            "claim": self.claim,
        }


class Visits:
    """All visits. Requests come from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._visits: OrderedDict[str, Visit] = OrderedDict()

    def begin(self, seed: int) -> tuple[str, Visit]:
        """A new visit and the word for its cookie."""
        token, visit = secrets.token_hex(16), Visit.of_seed(seed)
        with self._lock:
            self._visits[token] = visit
            while len(self._visits) > MOST:
                self._visits.popitem(last=False)
        return token, visit

    def find(self, token: str | None) -> tuple[str, Visit, bool]:
        """The visit of a cookie; a new one, with seed 0, for a visitor without."""
        with self._lock:
            visit = self._visits.get(token or "")
        if token is not None and visit is not None:
            return token, visit, False
        return (*self.begin(0), True)
