"""Sounds and films of the gauntlet's puzzles, made here: real files that real browsers play."""
