"""Models served as an OpenAI-compatible endpoint: by name, by alias, against each other, with feedback.

protocol.py reads requests and writes answers, engine.py decodes what waits together, models.py holds versions in
memory, routing.py says which one answers, health.py when one falls back, limits.py who may ask and how much, metrics.py
counts, app.py is the routes, server.py the process. Must not import label, report or cli.
"""
