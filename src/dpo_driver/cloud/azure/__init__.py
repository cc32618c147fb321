"""Azure ML: what is sent is written as files (files.py), checked by Azure's own schemas (check.py), and only then sent
(client.py). keep.py carries a run over an eviction; what answers in an endpoint is serve/azure_score.py. azure-ai-ml is
loaded by check.py and client.py alone, when it is needed.
"""
