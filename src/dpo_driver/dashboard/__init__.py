"""The dashboard: one local page over all runs below a folder, live. Called by cli/dashboard.py.

One file for each thing that is shown: runs.py, curves.py, episodes.py and arrivals.py, pairs.py, labels.py,
failures.py, jobs.py, models.py, ledger.py; app.py serves them as JSON to the scripts in static/. Nothing here writes:
databases are read through reader.py, which opens them read-only. Must not import label, report, serve or cloud.
"""
