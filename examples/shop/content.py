"""What the shop sells and whom it has sold to. Orders follow from a seed; the catalogue is always the same."""

from __future__ import annotations

import random
from dataclasses import dataclass

STATUSES = ("Open", "Shipped", "Returned")
FREQUENCIES = ("Never", "Weekly", "Daily", "At once")


@dataclass(frozen=True)
class Product:
    """Price in pence."""

    id: str
    name: str
    about: str
    price: int


PRODUCTS = (
    Product("spade", "Border Spade", "Ash handle, forged head", 4200),
    Product("trowel", "Hand Trowel", "Stainless, for pots and beds", 1450),
    Product("can", "Watering Can", "Nine litres, brass rose", 3650),
    Product("shears", "Hedge Shears", "Wavy blades, 25 cm", 3900),
    Product("gloves", "Leather Gloves", "Goatskin, three sizes", 1875),
    Product("rake", "Leaf Rake", "Bamboo, light as a feather", 2250),
)
PRODUCT_BY_ID = {product.id: product for product in PRODUCTS}

_FIRST = "Ada Bram Cleo Dorit Emil Freya Gita Hugo Ines Jonas Kaya Lars Mina Nils Olga Pavel".split()
_LAST = "Abbott Berger Castell Dunmore Eklund Fairley Grover Holm Ivers Jessop Keller Lindqvist".split()


@dataclass(frozen=True)
class Order:
    """One line of the table. Total in pence."""

    number: str
    customer: str
    date: str
    status: str
    total: int


def orders_of(seed: int) -> list[Order]:
    """21 orders of 7 customers: each customer has one of every status."""
    rng = random.Random(f"orders/{seed}")
    last = rng.sample(_LAST, 7)
    customers = [f"{first} {name}" for first, name in zip(rng.sample(_FIRST, 7), last, strict=True)]
    numbers = rng.sample(range(1000, 10_000), 21)
    lines = [(customer, status) for customer in customers for status in STATUSES]
    rng.shuffle(lines)
    days = sorted((rng.randrange(1, 29), rng.randrange(1, 13)) for _ in lines)
    return [
        Order(str(number), customer, f"2026-{month:02d}-{day:02d}", status, rng.randrange(900, 24_000))
        for number, (customer, status), (day, month) in zip(numbers, lines, days, strict=True)
    ]


def wanted_of(seed: int, orders: list[Order]) -> dict[str, str]:
    """The order that a task of this seed asks for."""
    order = random.Random(f"wanted/{seed}").choice(orders)
    return {"customer": order.customer, "status": order.status, "order": order.number}


def settings_of(seed: int) -> dict[str, dict[str, object]]:
    """Notification settings as a visitor finds them."""
    rng = random.Random(f"settings/{seed}")
    names = ("Order updates", "Price drops", "New arrivals", "Garden tips")
    return {
        name: {"frequency": rng.choice(FREQUENCIES), "email": rng.random() < 0.5, "phone": rng.random() < 0.5}
        for name in names
    }
