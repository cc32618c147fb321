"""Encryption at rest: nothing readable on disk, nothing opened with another key, no change that goes unnoticed."""

from __future__ import annotations

import base64
import os
import pickle
import shutil
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from dpo_driver.core.errors import DriverError, StoreError
from dpo_driver.core.records import Message, Observation, Preference, Step, StopReason, Task, TrainingSample, Trajectory
from dpo_driver.core.schema import RunConfig
from dpo_driver.core.store import RunStore
from dpo_driver.core.store_files import vault_around
from dpo_driver.core.vault import MAGIC, VARIABLE, Vault, VaultError, is_sealed, open_export, seal_export
from dpo_driver.flywheel.shares import Arrivals, Spool
from dpo_driver.preferences.formats import export_preferences, export_samples, import_preferences, import_samples
from dpo_driver.preferences.log import LOG, PreferenceLog
from dpo_driver.training.journal import Journal

CommandLine = Callable[..., "subprocess.CompletedProcess[str]"]
KEY, OTHER = "11" * 32, "22" * 32
PASSPHRASE = "a long enough passphrase"
MARKED = "Marzipan-4711"  # stands in everything that is kept


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, KEY)


def trajectory(stage: str = "collect/1", seed: int = 1) -> Trajectory:
    task = Task(id=f"toy.press/{seed}", env="toy", name="press", seed=seed)
    messages = (Message(role="user", content=f"page says {MARKED}"),)
    step = Step(observation=Observation(goal=MARKED, state_hash="h"), messages=messages, completion=f"say {MARKED}")
    return Trajectory(id=f"{stage}/{task.id}/0", task=task, agent="t", steps=(step,), stop_reason=StopReason.SUCCESS,
                      reward=1.0, success=True)  # fmt: skip


def preference(identity: str = "p1") -> Preference:
    return Preference(id=identity, messages=(Message(role="user", content=MARKED),), chosen=f"{MARKED}!", rejected="no",
                      level="text", source="import")  # fmt: skip


def sealed_run(folder: Path) -> str:
    """A run with one of everything; the name of its blob."""
    with RunStore(folder, encrypt=True) as store:
        store.add_trajectory("collect/1", trajectory())
        store.add_preferences(1, [preference()])
        store.set_fact("note", {"text": MARKED})
        name = store.put_blob(MARKED.encode() * 20)
    with PreferenceLog(folder / LOG) as log:
        log.append("preference", [preference().model_dump(mode="json")])
    return name


def everything(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


# -- the vault ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"x", MARKED.encode() * 1000], ids=["nothing", "a byte", "much"])
def test_what_is_sealed_opens_to_the_same_and_shows_nothing(content: bytes) -> None:
    vault = Vault.new()
    sealed = vault.seal(content, b"blob/1")
    assert sealed.startswith(MAGIC) and len(sealed) == len(content) + 54
    assert MARKED.encode() not in sealed
    assert vault.open(sealed, b"blob/1") == content
    assert Vault.of(sealed).open(sealed, b"blob/1") == content
    assert vault.seal(content, b"blob/1") != sealed, "every nonce is new"


def test_a_bit_that_is_flipped_anywhere_is_noticed() -> None:
    vault = Vault.new()
    sealed = vault.seal(b"some content", b"blob/1")
    for place in range(len(sealed)):  # magic, version, kind, salt, mark, nonce, ciphertext, tag
        for bit in (0, 7):
            changed = bytearray(sealed)
            changed[place] ^= 1 << bit
            with pytest.raises(VaultError):
                vault.open(bytes(changed), b"blob/1")
    for length in range(len(sealed)):
        with pytest.raises(VaultError):
            vault.open(sealed[:length], b"blob/1")
    with pytest.raises(VaultError, match="another's place"):
        vault.open(sealed + b"\0", b"blob/1")


def test_content_in_another_place_and_another_key_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    vault = Vault.new()
    sealed = vault.seal(b"content", b"blob/1")
    with pytest.raises(VaultError, match="another's place"):
        vault.open(sealed, b"blob/2")
    with pytest.raises(VaultError, match="another key"):
        Vault.new().open(sealed, b"blob/1")  # the same key with another run's salt
    monkeypatch.setenv(VARIABLE, OTHER)
    with pytest.raises(VaultError, match="another key"):
        Vault.of(sealed).open(sealed, b"blob/1")
    monkeypatch.setenv(VARIABLE, PASSPHRASE)
    with pytest.raises(VaultError, match="sealed with a key, and a passphrase was given"):
        Vault.of(sealed)


def test_keys_in_every_form(monkeypatch: pytest.MonkeyPatch) -> None:
    sealed = Vault.new().seal(b"content", b"x")
    raw = bytes.fromhex(KEY)
    for written in (KEY.upper(), base64.b64encode(raw).decode(), base64.urlsafe_b64encode(raw).decode().rstrip("=")):
        monkeypatch.setenv(VARIABLE, f" {written}\n")
        assert Vault.of(sealed).open(sealed, b"x") == b"content"
    monkeypatch.setenv(VARIABLE, PASSPHRASE)
    by_words = Vault.new()
    assert by_words.kind == "passphrase"
    assert Vault.of(by_words.seal(b"content", b"x")).salt == by_words.salt
    monkeypatch.setenv(VARIABLE, "too short")
    with pytest.raises(VaultError, match="12 characters"):
        Vault.new()
    monkeypatch.delenv(VARIABLE)
    with pytest.raises(VaultError, match="there is no key") as raised:
        Vault.new()
    assert raised.value.exit_code == 2 and isinstance(raised.value, DriverError)


def test_a_vault_travels_to_other_processes_without_its_key() -> None:
    vault = Vault.new()
    travelling = pickle.dumps(vault)
    assert bytes.fromhex(KEY) not in travelling and KEY.encode() not in travelling
    assert (
        pickle.loads(travelling).open(  # noqa: S301  our own
            vault.seal(b"content", b"x"), b"x"
        )
        == b"content"
    )
    assert KEY not in repr(vault)


# -- a run -------------------------------------------------------------------------------------------------------------


def test_nothing_of_a_sealed_run_can_be_read_from_its_files(tmp_path: Path) -> None:
    name = sealed_run(tmp_path)
    assert MARKED.encode() not in everything(tmp_path)
    with RunStore(tmp_path, "read") as store:
        assert store.trajectory(trajectory().id) == trajectory()
        assert store.preferences() == [preference()]
        assert store.get_fact("note") == {"text": MARKED}
        assert store.get_blob(name) == MARKED.encode() * 20
    with PreferenceLog(tmp_path / LOG) as log:
        assert [entry.body for entry in log.standing("preference")] == [preference().model_dump(mode="json")]
        assert log.verify().whole
    with RunStore(tmp_path) as store:  # it stays sealed without being asked
        store.add_trajectory("collect/1", trajectory(seed=2))
    assert MARKED.encode() not in everything(tmp_path)


@pytest.mark.parametrize("given", [None, OTHER, PASSPHRASE], ids=["none", "another", "a passphrase"])
def test_without_its_key_a_run_is_not_opened_and_not_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str | None
) -> None:
    sealed_run(tmp_path)
    before = everything(tmp_path)
    if given is None:
        monkeypatch.delenv(VARIABLE)
    else:
        monkeypatch.setenv(VARIABLE, given)
    for mode in ("read", "write", "create"):
        with pytest.raises(VaultError):
            RunStore(tmp_path, mode)  # type: ignore[arg-type]
    with PreferenceLog(tmp_path / LOG) as log:
        with pytest.raises(VaultError):
            log.append("label", [{}])
        with pytest.raises(VaultError):
            list(log.entries(broken=[]))
        assert log.verify().whole, "the chain is over what is stored, and needs no key"
    assert everything(tmp_path).replace(b"\0", b"") == before.replace(b"\0", b"")


def test_a_run_that_is_to_be_sealed_is_not_even_made_without_a_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(VARIABLE)
    with pytest.raises(VaultError, match="there is no key"):
        RunStore(tmp_path / "run", encrypt=True)
    assert not (tmp_path / "run").exists()


def test_a_run_that_began_in_the_clear_is_not_sealed_halfway(tmp_path: Path) -> None:
    with RunStore(tmp_path) as store:
        store.add_trajectory("c", trajectory())
    with pytest.raises(StoreError, match="begun without encryption"):
        RunStore(tmp_path, encrypt=True)


def test_whether_a_run_is_sealed_changes_no_result_so_its_hash_is_the_same() -> None:
    plain, sealed = RunConfig(), RunConfig.model_validate({"project": {"encrypt": True}})
    assert sealed.project.encrypt and not plain.project.encrypt
    assert plain.hash() == sealed.hash()


TAMPERING = {
    "a body": "UPDATE trajectories SET body=CAST(substr(body,1,length(body)-1)||X'00' AS BLOB)",
    "a body in the clear": f'UPDATE preferences SET body=CAST(\'{{"id":"{MARKED}"}}\' AS BLOB)',
    "bodies swapped": "UPDATE trajectories SET body=(SELECT body FROM preferences)",
    "ids changed": "UPDATE preferences SET id='p2'",
    "a fact": "UPDATE facts SET value='{\"text\": \"other\"}' WHERE key='note'",
    "a fact under another key": "UPDATE facts SET key='other' WHERE key='note'",
}


@pytest.mark.parametrize("statement", TAMPERING.values(), ids=TAMPERING)
def test_tampering_with_rows_is_refused(tmp_path: Path, statement: str) -> None:
    sealed_run(tmp_path)
    with closing(sqlite3.connect(tmp_path / "run.db")) as database:
        database.execute(statement)
        database.commit()
    with RunStore(tmp_path, "read") as store, pytest.raises(VaultError):
        for identity in store.trajectory_ids():
            store.trajectory(identity)
        store.preferences()
        store.get_fact("note")
        store.get_fact("other")


def test_tampering_with_what_says_that_a_run_is_sealed_is_refused(tmp_path: Path) -> None:
    sealed_run(tmp_path)
    with closing(sqlite3.connect(tmp_path / "run.db")) as database:
        database.execute("UPDATE facts SET value='{\"kind\": \"key\"}' WHERE key='sealed'")
        database.commit()
    with pytest.raises(VaultError, match="has been changed"):
        RunStore(tmp_path, "read")
    with closing(sqlite3.connect(tmp_path / "run.db")) as database:
        database.execute("DELETE FROM facts WHERE key='sealed'")
        database.commit()
    with RunStore(tmp_path, "read") as store, pytest.raises(StoreError):
        store.trajectory(trajectory().id)
    with pytest.raises(StoreError, match="begun without encryption"):  # its configuration says otherwise
        RunStore(tmp_path, encrypt=True)


def test_swapped_and_changed_blobs_are_refused(tmp_path: Path) -> None:
    with RunStore(tmp_path, encrypt=True) as store:
        one, other = (store.put_blob(content * 100) for content in (b"one", b"other"))
        paths = [tmp_path / "blobs" / name[:2] / name[2:] for name in (one, other)]
        kept = [path.read_bytes() for path in paths]
        assert all(map(is_sealed, kept))
        for path, content in zip(paths, reversed(kept), strict=True):
            path.write_bytes(content)
        for name in (one, other):
            with pytest.raises(VaultError, match="another's place"):
                store.get_blob(name)
        for place in (0, 5, 8, 22, 30, 45, -1):
            changed = bytearray(kept[0])
            changed[place] ^= 1
            paths[0].write_bytes(changed)
            with pytest.raises(VaultError):
                store.get_blob(one)


def test_a_plain_log_in_a_sealed_run_is_refused(tmp_path: Path) -> None:
    """Or somebody without the key could put his own in its place."""
    sealed_run(tmp_path / "run")
    with PreferenceLog(tmp_path / "forged.db") as log:
        log.append("preference", [preference("forged").model_dump(mode="json")])
    shutil.copy(tmp_path / "forged.db", tmp_path / "run" / LOG)
    with PreferenceLog(tmp_path / "run" / LOG, "read") as log, pytest.raises(StoreError, match="log is not"):
        list(log.entries())


def test_a_sealed_log_elsewhere_is_opened_by_its_own_header(tmp_path: Path) -> None:
    sealed_run(tmp_path / "run")
    shutil.copy(tmp_path / "run" / LOG, tmp_path / "copy.db")
    with PreferenceLog(tmp_path / "copy.db", "read") as log:
        assert len(log.standing("preference")) == 1


def test_spool_and_journal_of_a_sealed_run_are_sealed(tmp_path: Path) -> None:
    with RunStore(tmp_path, encrypt=True) as store:
        spool = tmp_path / "spool" / "collect_1.1.jsonl"
        with Spool(spool, store.vault) as written:
            written.add(trajectory())
        journal = Journal(tmp_path / "checkpoints" / "grpo" / "journal")
        journal.write(1, {"text": MARKED})
        assert MARKED.encode() not in everything(tmp_path)
        assert journal.read(1) == {"text": MARKED}
        with Arrivals(store, "collect/1"):
            pass
        assert store.trajectory(trajectory().id) == trajectory() and not spool.exists()
    assert vault_around(tmp_path / "checkpoints" / "grpo") is not None


# -- exports -----------------------------------------------------------------------------------------------------------


def test_sealed_json_lines_are_read_with_the_key_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, file = [preference("a"), preference("b")], tmp_path / "rows.jsonl"
    assert export_preferences(file, rows, sealed=True) == 2
    assert MARKED.encode() not in file.read_bytes()
    assert import_preferences(file) == rows
    content = bytearray(file.read_bytes())
    content[-20] ^= 1
    (tmp_path / "changed.jsonl").write_bytes(content)
    with pytest.raises(VaultError, match="changed"):
        import_preferences(tmp_path / "changed.jsonl")
    monkeypatch.setenv(VARIABLE, OTHER)
    with pytest.raises(VaultError, match="another key"):
        import_preferences(file)


def test_sealed_tables_and_training_rows(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    rows, file = [preference("a"), preference("b")], tmp_path / "rows.parquet"
    assert export_preferences(file, rows, sealed=True) == 2
    assert is_sealed(file.read_bytes()) and import_preferences(file) == rows
    sample = TrainingSample(id="s", messages=(Message(role="user", content=MARKED),), completion="x", source="import")
    export_samples(tmp_path / "samples.jsonl", [sample], sealed=True)
    assert import_samples(tmp_path / "samples.jsonl") == [sample]
    with pytest.raises(DriverError, match="folder cannot be sealed"):
        export_preferences(tmp_path / "folder", rows, sealed=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rows.parquet", "samples.jsonl"]


def test_an_export_that_is_not_sealed_stays_as_it_is() -> None:
    assert open_export(b"{}") == b"{}"
    assert open_export(seal_export(b"{}")) == b"{}"


def test_the_command_line_says_what_is_missing_and_leaves_with_2(cli: CommandLine, tmp_path: Path) -> None:
    sealed_run(tmp_path / "run")
    before = everything(tmp_path / "run")
    os.environ.pop(VARIABLE)
    found = cli("prefs", "export", "rows.jsonl", "run")
    assert (found.returncode, found.stdout) == (2, "")
    assert "there is no key" in found.stderr and VARIABLE in found.stderr and "Traceback" not in found.stderr
    found = cli("prefs", "export", "rows.jsonl", "run", **{VARIABLE: OTHER})
    assert found.returncode == 2 and "sealed with another key" in found.stderr
    assert not (tmp_path / "rows.jsonl").exists()
    assert everything(tmp_path / "run").replace(b"\0", b"") == before.replace(b"\0", b"")
