"""The README in two languages names the same commands, figures and pages."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

NUMBER = re.compile(r"[+-]?\d+(?:\.\d+)?")


@pytest.fixture(scope="module")
def both(root: Path) -> tuple[str, str]:
    return (root / "README.md").read_text(encoding="utf-8"), (root / "README.zh.md").read_text(encoding="utf-8")


def commands(text: str) -> list[str]:
    """Lines of all code blocks without their comments, which are translated."""
    lines = [line for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
    return [line.partition(" #")[0].strip() for line in lines if line.strip()]


def test_the_same_commands(both: tuple[str, str]) -> None:
    english, chinese = map(commands, both)
    assert english == chinese and len(english) > 30
    inline = [sorted(set(re.findall(r"`(dpo-driver [^`]+)`", text))) for text in both]
    assert inline[0] == inline[1]


def test_the_same_figures(both: tuple[str, str]) -> None:
    found = []
    for text in both:
        section = re.split(r"^## ", text, flags=re.MULTILINE)[3]
        rows = [NUMBER.findall(line) for line in section.splitlines() if line.startswith("| ") and "%" in line]
        online = section[section.index("configs/pocket-grpo.yaml") :]
        found.append((rows, NUMBER.findall(online.partition("!")[0])))
    assert found[0] == found[1]
    assert len(found[0][0]) >= 7 and "85.0" in found[0][1]


def test_the_same_pages_and_pictures_which_exist(both: tuple[str, str], root: Path) -> None:
    english, chinese = (sorted(re.findall(r"\]\(([^)#]+)\)", text)) for text in both)
    assert [link for link in english if link != "README.zh.md"] == [link for link in chinese if link != "README.md"]
    assert all((root / link).is_file() for link in english)
