"""The cheat audit: an adversary with scripts in a real Chromium, and clients beside it, tries to get codes unearned.

One file a family of attacks, each attack a small function whose docstring says what it tries; table.py lists them,
adversary.py is what they have in their hands, judge.py says what a leak is, play.py carries them out. Called by
cli/gauntlet.py (``dpo-driver gauntlet audit``). docs/gauntlet-audit.md tells of the threat model and the figures. Must
not import agents.
"""

from __future__ import annotations
