"""Processes that look like ours, for tests that kill them."""

# A browser: a session of its own, deaf to polite signals, with a child that carries no mark. Prints the child's id.
BROWSER = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print(child.pid, flush=True)
time.sleep(60)
"""
