"""Other people's machines: azure/ submits, registers and deploys there; costs.py says what it may cost.

Everything is written as files first, which can be read and checked without an account. Must not import serve, label,
report or cli.
"""
