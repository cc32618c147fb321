"""How a page speaks of a code that counts and of codes that do not: expired, samples, withdrawn, somebody else's.

Used by the solvers of types whose task is to read. General English, no site's own phrases.
"""

from __future__ import annotations

import re

from dpo_driver.agents.solver.page import CODE, PuzzlePage

NEGATIVE = re.compile(
    r"expire|\bsample|specimen|example|\bdemo\b|\btest\b|practi[cs]e|pattern|placeholder|withdrawn|revoked|cancel"
    r"|yesterday|tomorrow|\b(?:last|next|previous|coming) \w+|\bvoid\b|invalid|\bnot\b|n't\b|no longer|\bnever\b"
    r"|\bolde?r?\b"
    r"|\bformer|retired|replaced|outdated|out of date|obsolete|ran out|run out|\bwrong\b|\bdecoy|\bfake|\bspare\b"
    r"|out of use|nowhere|nothing|no door|for instance",
    re.IGNORECASE,
)
POSITIVE = re.compile(
    r"\bvalid\b|\bcurrent|\btoday|\bnow\b|in force|\bin use\b|\bstill\b|\bgood\b|\bopens\b|\bactive\b|\bcounts\b",
    re.IGNORECASE,
)


def lines_with_codes(page: PuzzlePage) -> list[tuple[str, list[str]]]:
    """Every element's text that holds something like a code, with what it holds."""
    return [(line, CODE.findall(line)) for line in page.text.split("\n") if CODE.search(line)]


def standing(line: str) -> int:
    """What a line says of its code: 1 it counts, -1 it does not, 0 nothing."""
    around = CODE.sub(" ", line)
    if NEGATIVE.search(around):
        return -1
    return 1 if POSITIVE.search(around) else 0


def fresh(page: PuzzlePage, code: str | None) -> bool:
    """Whether there is a code, and it was not sent off in vain already."""
    return code is not None and code not in page.submissions()
