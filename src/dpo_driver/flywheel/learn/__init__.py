"""The loop that keeps learning: what agents did comes in, and when there is enough of it a turn is taken.

settings.py says what is asked for, reading.py reads the inbox, due.py says when a turn is due, budget.py what it may
cost, turn.py takes one for the browser agent and texts.py one for roles that answer in text, loop.py goes on, api.py
and worker.py are the same for programs. Must not import serve, label, report or cli.
"""
