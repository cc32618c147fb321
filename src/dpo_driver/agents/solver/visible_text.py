"""Notices with several codes: finds out by reading which one counts, and enters it.

Four ways of telling: by words of validity beside a code, by a name that the task gives, by days that contain today, by
following replacements to the last.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from dpo_driver.agents.experts.page import Decision, Lost
from dpo_driver.agents.solver.page import CODE, PuzzlePage
from dpo_driver.agents.solver.wanted import fresh, lines_with_codes, standing

ENTERS = True

TASK = (
    r"[^\n]*(?:(?:code|key|one|which)[^\n]*(?:valid|current|in force|in use|opens|is good|counts|today|is the one)"
    r"|(?:code|key)[^\n]*(?:stands|listed|noted|list\b|entry|register)|(?:list|entry|register|door)[^\n]*(?:code|key))[^\n]*"
)
HIDDEN = r"hidden|conceal|invisible|unseen|out of sight|fold|scroll"
TODAY = r"\b(?:today|calendar says|it is|date)\b\D{0,24}?(?P<day>\d{1,2})\b"
QUOTED = r"[\"“](?P<name>[^\"”\n]{2,60})[\"”]"
# Words between two codes that say that the second is the newer one, and that it is the older one.
NEWER_SECOND = r"replaced by|gave way|became|\bthen\b|is now|please use|\bafter\b|superseded by|\buse\b|followed by"
OLDER_SECOND = r"takes? the place|\breplaces\b|succeed|supersedes|\bfollowed\b|instead of|\bfor\b"


def recognise(page: PuzzlePage) -> float:
    """How sure it is that several codes are shown, one of which counts."""
    if page.says(TASK) is None or page.says(HIDDEN):
        return 0.0
    return 0.85 if any(way(page) for way in WAYS) and len(page.codes()) > 1 else 0.0


def solve(page: PuzzlePage) -> Decision:
    """Enter the first code that one of the ways finds and that was not refused."""
    for way in WAYS:
        code = way(page)
        if fresh(page, code):
            assert code is not None
            return page.enter(code)
    raise Lost("no notice says that its code counts")


def by_replacement(page: PuzzlePage) -> str | None:
    """The end of a chain of replacements."""
    newer: dict[str, str] = {}
    for line, codes in lines_with_codes(page):
        if len(codes) != 2:
            continue
        between = line[line.index(codes[0]) + len(codes[0]) : line.index(codes[1])]
        before = line[: line.index(codes[0])]
        if re.search(NEWER_SECOND, between, re.IGNORECASE) or re.search(r"instead of|\bafter\b", before, re.IGNORECASE):
            newer[codes[0]] = codes[1]
        elif re.search(OLDER_SECOND, between, re.IGNORECASE):
            newer[codes[1]] = codes[0]
    last = [code for code in newer.values() if code not in newer]
    return last[0] if len(last) == 1 else None


def by_day(page: PuzzlePage) -> str | None:
    """The code whose days contain today."""
    today = page.says(TODAY)
    if today is None:
        return None
    for line, codes in lines_with_codes(page):
        days = [int(day) for day in re.findall(r"\b\d{1,2}\b", CODE.sub(" ", line))]
        if len(codes) == 1 and len(days) == 2 and days[0] <= int(today["day"]) <= days[1]:
            return codes[0]
    return None


def by_name(page: PuzzlePage) -> str | None:
    """The code beside the name that the task quotes: in its line, or in the next one (the cell beside it)."""
    lines = page.text.split("\n")
    for name in map(re.escape, re.findall(QUOTED, page.text)):
        for line, following in zip(lines, [*lines[1:], ""], strict=True):
            same = re.fullmatch(rf"\W*{name}\W+(?P<rest>\w+)\W*", line, re.IGNORECASE)
            if same and CODE.fullmatch(same["rest"]):
                return same["rest"]
            if re.fullmatch(rf"\W*{name}\W*", line, re.IGNORECASE) and (found := CODE.fullmatch(following)):
                return found[0]
    return None


def by_validity(page: PuzzlePage) -> str | None:
    """The only code of which words say that it counts."""
    live = [codes[0] for line, codes in lines_with_codes(page) if standing(line) == 1 and not re.search(QUOTED, line)]
    return live[0] if len(set(live)) == 1 else None


WAYS: tuple[Callable[[PuzzlePage], str | None], ...] = (by_replacement, by_day, by_name, by_validity)
