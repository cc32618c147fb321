"""Azure ML: what is sent is written as files (files.py), checked by Azure's own schemas (check.py), and only then sent
(client.py). keep.py carries a run over an eviction, score.py answers in an endpoint. azure-ai-ml is loaded by check.py
and client.py alone, when it is needed.
"""
