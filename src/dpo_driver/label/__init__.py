"""The label page: people compare two continuations of one state, blind. Called by cli/label.py.

candidates.py and texts.py find what to compare, queue.py says who is shown what next, work.py ties it to the log,
app.py serves it behind web's guard. Knows core, preferences and how prompts are written; must not import flywheel,
rollout, report, torch or playwright.
"""
