"""The docs are true: every command, override, make target, link and file that they show exists."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path, PurePosixPath

import pytest
import typer

from dpo_driver.cli.main import app
from dpo_driver.core.config import load_config

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
OTHER_SETTINGS = ("cloud", "cost", "learn")  # whose --set is about a file of their own
SNIPPETS = re.compile(r"```(?:bash|sh|console)\n(?P<block>.*?)```|`(?P<inline>[^`\n]+)`", re.DOTALL)


def commands(page: Path, program: str) -> Iterator[list[str]]:
    """Arguments of every call of a program, in code blocks and in the text."""
    for found in SNIPPETS.finditer(page.read_text(encoding="utf-8")):
        for line in (found["block"] or found["inline"]).splitlines():
            words = shlex.split(line.removeprefix("$ "), comments=True)
            if words and words[0] in (program, f".venv/bin/{program}"):
                yield words[1:]


def listed(program: str) -> list[tuple[str, list[str]]]:
    return [(page.name, words) for page in PAGES for words in commands(page, program)]


@pytest.mark.parametrize(
    ("page", "words"), listed("dpo-driver"), ids=lambda value: value if isinstance(value, str) else " ".join(value)
)
def test_every_command_in_the_docs_exists(page: str, words: list[str]) -> None:
    command = typer.main.get_command(app)
    rest = list(words)
    context = None
    while hasattr(command, "commands") and rest and not rest[0].startswith("-"):
        assert rest[0] in command.commands, f"{page}: there is no command {' '.join(words)}"
        command = command.commands[rest.pop(0)]
    if rest and not hasattr(command, "commands"):
        context = command.make_context(words[0], rest)  # parses options and arguments, runs nothing
        assert context is not None


def test_the_docs_show_the_main_commands() -> None:
    shown = {words[0] for _, words in listed("dpo-driver") if words}
    assert {
        "run",
        "train",
        "collect",
        "pair",
        "evaluate",
        "promote",
        "report",
        "doctor",
        "ui",
        "bench",
        "models",
    } <= shown


def test_every_override_in_the_docs_is_a_key() -> None:
    runs = [words for _, words in listed("dpo-driver") if words and words[0] not in OTHER_SETTINGS]
    written = [word for words in runs for before, word in pairwise(words) if before == "--set"]
    assert written
    for page in PAGES:
        written += re.findall(r"`--set ([a-z_.]+=[^`\s]+)`", page.read_text(encoding="utf-8"))
    for override in written:
        load_config(ROOT / "configs" / "pocket.yaml", [override])


def test_every_config_in_the_docs_is_there() -> None:
    for page in PAGES:
        for name in set(re.findall(r"configs/[\w./-]+\.yaml", page.read_text(encoding="utf-8"))):
            assert (ROOT / name).is_file(), f"{page.name} names {name}"


def test_every_make_target_in_the_docs_is_there() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for page, words in listed("make"):
        for word in words:
            assert word in targets, f"{page}: make {word}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
        if not target.startswith(("http:", "https:")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_new_keys_of_the_migration_table_exist() -> None:
    schema = load_config(ROOT / "configs" / "pocket.yaml").model_dump()
    rows = (ROOT / "docs" / "migration.md").read_text(encoding="utf-8").partition("## Keys")[2].partition("## Files")[0]
    for row in re.findall(r"^\| `[^|]*\| ([^|]*) \|$", rows, re.MULTILINE):
        for key in re.findall(r"`([a-z_]+(?:\.[a-z_]+)+)`", row):
            section, _, name = key.partition(".")
            assert name in schema[section], f"docs/migration.md: {key}"


def tree_of(text: str) -> Iterator[str]:
    """Paths of the files in an indented tree, relative to its first line."""
    folders: list[str] = []
    for line in text.splitlines()[1:]:
        depth = (len(line) - len(line.lstrip())) // 2 - 1
        name = line.split()[0]
        if name.endswith("/"):
            folders = [*folders[:depth], name]
        else:
            yield "".join(folders[:depth]) + name


def test_architecture_lists_every_file_and_no_other() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8").partition("## Every file in one line")[2]
    named = list(tree_of(text.partition("```text\n")[2].partition("```")[0]))
    package = ROOT / "src" / "dpo_driver"
    files = [path for path in package.rglob("*") if path.suffix in {".py", ".js", ".j2", ".css"}]
    there = {str(path.relative_to(package)) for path in files if path.name != "__init__.py"}
    assert len(named) == len(set(named)), "a file is shown twice"
    # A line such as "*.py" stands for all files of its folder that have none of their own.
    patterns = {name for name in named if "*" in name}
    left = there - set(named)
    shown = {pattern: {name for name in left if PurePosixPath(name).match(pattern)} for pattern in patterns}
    assert all(shown.values()), "lines of docs/architecture.md that show no file"
    assert left - set().union(*shown.values()) == set(), "files that docs/architecture.md does not show"
    assert set(named) - there - patterns == set(), "files that docs/architecture.md shows but that are gone"
