"""A role learns from text preferences alone: a CEO who answers in one line and decides.

    pip install 'dpo-driver[train,tracking]'
    python examples/ceo_preferences.py

Forty judgements of two answers go into a preference log; then the model learns them by DPO and is measured on questions
that it never saw. The default is the pocket model, which needs no download and was made to read pages: it learns to
tell the two kinds of answers apart and writes no English. For answers worth reading: --model Qwen/Qwen3-0.6B, which
trains an adapter. The second half is the same as:

    dpo-driver train dpo --role CEO --data runs/preferences.db --model pocket
"""

from __future__ import annotations

import argparse
from itertools import product
from pathlib import Path

from dpo_driver import collect_preference
from dpo_driver.flywheel.roles import train_role
from dpo_driver.preferences.log import PreferenceLog

QUESTIONS = ("Shall we go on with {}?", "What do you think of {}?", "Give me a decision on {}.", "How urgent is {}?",
             "Who should own {}?")  # fmt: skip
TOPICS = ("the second shop", "the price of coffee", "the late delivery", "the new hire", "the spring budget",
          "the old website", "the night shift", "the loyalty card")  # fmt: skip
DECIDED = ("Yes. Start on Monday.", "No. It costs too much.", "Wait a week, then decide.", "Ann owns it, from today.")
RAMBLING = (
    "Well, there are many sides to this, and many people see many sides, so in the end it depends.",
    "It is hard to say, and then again it is not, and perhaps we should talk about it some more.",
)

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--model", default="pocket", help="pocket, a folder, or a hub id")
parser.add_argument("--log", type=Path, default=Path("runs/preferences.db"))
parser.add_argument("--out", type=Path, default=Path("runs/CEO"))
parser.add_argument("--learning-rate", default="1e-3", help="of DPO; 1e-4 or less for models from the hub")
options = parser.parse_args()

with PreferenceLog(options.log) as log:
    for number, (question, topic) in enumerate(product(QUESTIONS, TOPICS)):
        better, worse = DECIDED[number % len(DECIDED)], RAMBLING[number % len(RAMBLING)]
        # Neither side is always the better one.
        first, second, preferred = (worse, better, "b") if number % 3 else (better, worse, "a")
        about = {"rater": "ann", "confidence": 0.9}
        collect_preference("CEO", question.format(topic), first, second, preferred, about, log=log)

overrides = [f"dpo.learning_rate={options.learning_rate}", "dpo.num_train_epochs=4", "dpo.rpo_alpha=0.2"]
found = train_role("CEO", options.log, model=options.model, out=options.out, overrides=overrides)
held_out = found["held_out"]
for name in ("before", "after"):
    share = held_out["ranked"][name]
    print(f"{name}: the better answer is the likelier one in {share['success']:.0%} [{share['low']:.0%}, "
          f"{share['high']:.0%}] of {share['n']} held-out questions")  # fmt: skip
print(f"the model is in {found['model']}, registered as {found['version']}")
