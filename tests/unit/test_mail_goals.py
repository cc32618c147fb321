"""The inbox expert understands every wording that the pages have for an errand."""

from __future__ import annotations

import json
import re

import pytest

from dpo_driver.agents.experts.mail import Errand, understand
from dpo_driver.agents.experts.page import Lost
from dpo_driver.envs.miniwob.server import pages_folder

WORDINGS = (pages_folder() / "common/special/email-inbox-nl/templates.js").read_text(encoding="utf-8")
TEMPLATES = json.loads(WORDINGS[WORDINGS.index("{") : WORDINGS.rindex("}") + 1])
FORWARD_PAGE = (pages_folder() / "miniwob/email-inbox-forward-nl.html").read_text(encoding="utf-8")
SHOWN = ["Zed", "Evy", "open search", "Anne-Marie", "Odio fermentum", "Odio.", "trash", "star"]
AMBIGUOUS = "Find the email from {} and forward it to {}."


def wordings() -> list[tuple[str, str]]:
    listed = re.search(r"var NL_TEMPLATES = \[(.*?)\];", FORWARD_PAGE, re.DOTALL)
    assert listed is not None
    found = [("forward", said) for said in re.findall(r"'(.*)',", listed[1])]
    verbs = {"forward": "forward", "reply": "reply", "important": "star", "delete": "delete"}
    return found + [(verbs[kind], said) for kind, sets in TEMPLATES.items() for said in sets["train"]]


def test_every_wording_is_understood_whichever_mail_is_meant() -> None:
    assert len(wordings()) == 443
    wrong = set()
    for verb, said in wordings():
        for sender, other in (("Evy", "Anne-Marie"), ("Anne-Marie", "Evy")):
            goal = said.replace("NAME", sender, 1).replace("DEST", other, 1).replace("MSG", "Odio fermentum.", 1)
            to = other if verb == "forward" else ""
            text = "Odio fermentum." if verb == "reply" else ""
            if understand(goal, SHOWN) != Errand(verb, sender, to, text):
                wrong.add(said)
    # The same words with sender and recipient exchanged: one of the two must be misread.
    assert wrong == {AMBIGUOUS.format("DEST", "NAME")}


def test_a_goal_without_a_known_sender_is_told() -> None:
    with pytest.raises(Lost, match="no sender"):
        understand("Delete the email from Nobody.", SHOWN)
