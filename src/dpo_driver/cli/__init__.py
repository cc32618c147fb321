"""The command line, one file per group of commands. Reads records and calls verbs; holds no logic of its own.

Every heavy import (torch, playwright, mlflow) happens inside the command that needs it.
"""
