"""What every page that we serve to people has in common: who may come in, where it listens, a password.

Knows core alone; whoever serves a page puts its guard in front.
"""
