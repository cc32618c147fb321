"""The tables of names: every entry can be loaded, unknown names list the known ones, packages can add their own."""

from __future__ import annotations

from pathlib import Path

import pytest

from dpo_driver.core import plugins
from dpo_driver.core.errors import ConfigError, UnknownNameError

ENTRIES = [(kind, name) for kind, table in plugins.TABLES.items() for name in table]


@pytest.mark.parametrize(("kind", "name"), ENTRIES, ids=lambda value: value)
def test_every_entry_of_the_tables_loads(kind: str, name: str) -> None:
    assert plugins.load(kind, name) is not None
    assert name in plugins.names(kind)


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(
        UnknownNameError, match=r"unknown environment 'miniwobb' \(x.yaml, env.name\)\n  -> did you mean miniwob"
    ):
        plugins.load("environment", "miniwobb", where="x.yaml, env.name")


def test_a_package_adds_to_a_table_by_an_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real distribution on the path, as pip would leave it: its metadata and its entry points."""
    metadata = tmp_path / "their_sites-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: their-sites\nVersion: 1.0\n")
    lines = "[dpo_driver.environment]\ntheirs = their_sites:Shop\ngone = their_sites:Missing\n"
    (metadata / "entry_points.txt").write_text(lines)
    (tmp_path / "their_sites.py").write_text("class Shop: pass\n")
    monkeypatch.syspath_prepend(tmp_path)

    assert plugins.load("environment", "theirs").__name__ == "Shop"
    assert plugins.names("environment") == (
        "browsergym", "gauntlet", "gone", "miniwob", "theirs", "toy", "website",
    )  # fmt: skip
    with pytest.raises(ConfigError, match="the plug-in 'gone'"):
        plugins.load("environment", "gone")
