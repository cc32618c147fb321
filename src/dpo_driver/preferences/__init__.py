"""Preferences: which of two continuations of one state is better, and how that is known. One file per source."""

from dpo_driver.preferences.build import SOURCES, PairStats, build_pairs
from dpo_driver.preferences.replay import successes_as_samples

__all__ = ["SOURCES", "PairStats", "build_pairs", "successes_as_samples"]
