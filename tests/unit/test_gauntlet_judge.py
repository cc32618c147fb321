"""What the cheat audit takes for a leak, and the table of its attacks."""

from __future__ import annotations

from dpo_driver.envs.gauntlet.audit.judge import Code, Judge, claims
from dpo_driver.envs.gauntlet.audit.table import APART, COUNTED, all_attacks
from dpo_driver.envs.gauntlet.audit.told import differences
from dpo_driver.envs.gauntlet.puzzles import TYPES
from dpo_driver.envs.gauntlet.signals import Signal


def test_the_judge_reads_codes_in_disguise() -> None:
    code = Code(2, "FW54Y8")
    for text, way in (
        ("the code is FW54Y8.", "plain"), ("f w 5 4 y 8", "spread"), ("8-Y-4-5-W-F", "backwards"), ("SJ54L8", "rot13"),
        ("465735345938", "hexadecimal"), ("[70,87,53,52,89,56]", "numbers"),
        ("&#70;&#87;&#53;&#52;&#89;&#56;", "numbers"),
        ("eHhGVzU0WTh4eA==", "base64"), ("first FW5, then 4Y8", "in halves"),
    ):  # fmt: skip
        assert way in code.ways(text), (text, way)
    for text in ("FW54Y", "FW5 and nothing", "AFW54Z8", "F W 5 4 Y", "170,87,53,52,89,56"):
        assert code.ways(text) == [], text
    judge = Judge({1: "AAAAA2", 2: "FW54Y8"}, 1, True, ["public FW54Y8"])
    assert judge.read("AAAAA2 public FW54Y8") == set(), "its own code may be read, and what all get is no leak"
    assert judge.read("x FW54Y8") == {"the code of step 2 (plain)"}
    judge.keys.add("k" * 32)
    assert judge.read(f'"{"k" * 32}"') == {"a key to the channel"} and judge.read("k" * 33) == set()


def test_the_judge_knows_evidence_from_what_scripts_can_cause() -> None:
    for harmless in (
        Signal("input", field="f"), Signal("pointermove"), Signal("keydown", key="Escape"),
        Signal("keyup", key="Shift"),
        Signal("keydown", key="Enter", field="code", fields={"code": ""}),
        Signal("keyup", key="Enter"),
    ):  # fmt: skip
        assert claims(harmless, "code") == ""
    for evidence in (
        Signal("click", part="p"), Signal("click"), Signal("input", field="f", value="x"), Signal("keydown", key="a"),
        Signal("pointermove", part="p"), Signal("keydown", key="Enter", field="code", fields={"code": "ABCDEF"}),
        Signal("keydown", key="Escape", part="p"), Signal("wheel", delta=9.0),
        Signal("keydown", key="Enter", field="f"),
    ):  # fmt: skip
        assert claims(evidence, "code"), evidence


def test_every_attack_says_what_it_tries() -> None:
    attacks = all_attacks()
    assert len({attack.name for attack in attacks}) == len(attacks) >= 60
    assert all(len(attack.tries) > 40 for attack in attacks)
    assert {attack.family for attack in attacks} == {*COUNTED, *APART}


def test_what_the_server_says_first_does_not_depend_on_the_code() -> None:
    for number, kind in enumerate(TYPES):
        assert differences(kind, 1 + number % 3, "ab"[number % 2], 50 + number) == [], kind
