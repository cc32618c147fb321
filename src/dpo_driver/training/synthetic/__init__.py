"""Synthetic pages for pretraining the pocket model: words, scenes (pages) and goals.

Nothing here comes from MiniWoB++: no template, no wording, no word list (tests/browser/test_synthetic_disjoint.py).
"""
