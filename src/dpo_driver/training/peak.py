"""How much memory a piece of work takes at its peak, beyond what the process held before. Called by the benchmarks."""

from __future__ import annotations

import ctypes
import gc
import re
from pathlib import Path

import psutil
import torch


class PeakMemory:
    """``with PeakMemory("cpu") as memory: ...; memory.mb``. On a CPU: resident memory, by the kernel's own high-water
    mark (Linux); on CUDA: what the allocator handed out.

    Args:
        device: ``cpu`` or ``cuda``.
    """

    def __init__(self, device: str) -> None:
        self._cuda = device == "cuda"
        self._before = 0.0
        self.mb = 0.0

    def __enter__(self) -> PeakMemory:
        _give_back()  # what was freed before shall not be used again unseen
        if self._cuda:
            torch.cuda.reset_peak_memory_stats()
            self._before = torch.cuda.memory_allocated() / 1e6
            return self
        Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
        self._before = _status("VmRSS")
        return self

    def __exit__(self, *_: object) -> None:
        peak = torch.cuda.max_memory_allocated() / 1e6 if self._cuda else _status("VmHWM")
        self.mb = max(0.0, peak - self._before)


def memory_left(device: str) -> float:
    """Megabytes that nobody uses, of the machine or of its CUDA device."""
    _give_back()
    free = torch.cuda.mem_get_info()[0] if device == "cuda" else psutil.virtual_memory().available
    return free / 1e6


def _give_back() -> None:
    """Return to the system what this process freed and kept for itself."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _status(key: str) -> float:
    """A line of /proc/self/status, in MB of 10^6 bytes."""
    found = re.search(rf"^{key}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    return int(found[1]) * 1024 / 1e6 if found else 0.0
