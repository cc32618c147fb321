"""The audit's scripts for the page's own world, read by adversary.py (``script``). A package, so they are shipped."""
