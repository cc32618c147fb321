"""The shop's forms: which fields they have and what it takes for good."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Field:
    """``kind`` is text, radio, select or file; ``pattern`` is what a text must match, ``hint`` says so in words."""

    name: str
    label: str
    kind: str = "text"
    options: tuple[str, ...] = ()
    pattern: str = r".+"
    hint: str = ""


@dataclass(frozen=True)
class Step:
    title: str
    fields: tuple[Field, ...]
    button: str


_EMAIL = r"[\w.+-]+@[\w-]+(\.[\w-]+)+"

TRADE = {
    "1": Step(
        "Your company",
        (
            Field("company", "Company name"),
            Field("vat", "VAT number", pattern=r"GB\d{6}", hint="GB and six digits, such as GB123456"),
        ),
        "Continue",
    ),
    "2": Step(
        "Whom we write to",
        (
            Field("contact", "Contact name"),
            Field("email", "Email", pattern=_EMAIL, hint="An address such as kim@example.org"),
            Field("phone", "Phone", pattern=r"\d{7,12}", hint="7 to 12 digits, no spaces"),
        ),
        "Continue",
    ),
    "3": Step(
        "How you order",
        (
            Field("terms", "Payment terms", "radio", ("On delivery", "14 days", "30 days")),
            Field("day", "Delivery day", "select", ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday")),
        ),
        "Send application",
    ),
}

CHECKOUT = Step(
    "Checkout",
    (
        Field("name", "Full name"),
        Field("postcode", "Postcode", pattern=r"[A-Z]{1,2}\d{1,2} \d[A-Z]{2}", hint="Such as LS1 4DY"),
        Field("delivery", "Delivery", "radio", ("Standard", "Next day", "Collect in shop")),
    ),
    "Place order",
)

RETURN = Step(
    "Report a damaged item",
    (
        Field("order", "Order number", pattern=r"\d{4}", hint="Four digits"),
        Field("reason", "What is wrong", "select", ("Broken", "Wrong item", "Parts missing", "Rust")),
        Field("proof", "Receipt or photo", "file"),
    ),
    "Send claim",
)


def errors_of(fields: Sequence[Field], given: Mapping[str, Any]) -> dict[str, str]:
    """What is wrong with a form, by field; empty if it can be taken."""
    errors = {}
    for field in fields:
        value = given.get(field.name, "")
        if field.kind == "file":
            if not isinstance(value, dict) or not value["name"]:
                errors[field.name] = "Choose a file"
        elif field.options and value not in field.options:
            errors[field.name] = "Choose one"
        elif not value:
            errors[field.name] = f"{field.label} is needed"
        elif not field.options and not re.fullmatch(field.pattern, value):
            errors[field.name] = field.hint
    return errors
