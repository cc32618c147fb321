"""What training runs on: memory and speed of known cards, or of this machine.

Called by training/planner.py and cli/plan.py. Must not import torch, except to look for a card in this machine.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from dpo_driver.core.errors import ConfigError, UnknownNameError

GIB = 2**30
# Of a card's memory, what a training can count on: the rest belongs to a display and to other processes.
USABLE = 0.95
# torch's own share on a card: CUDA context, loaded kernels, cuBLAS workspace. Not measured by itself: of what two small
# trainings held of an H200 (torch 2.11, CUDA 13), 827 and 857 MiB were left over when the tensors and the allocator's
# allowance that a plan counts were taken away. An error of the plan's is in it.
CUDA_RUNTIME = int(0.82 * GIB)


@dataclass(frozen=True)
class Card:
    """Where a training runs. ``memory`` in bytes; ``flops`` (dense bfloat16 products with float32 sums) and
    ``bandwidth`` (bytes) are the vendor's peaks a second, None where they are measured instead."""

    name: str
    memory: int
    is_cpu: bool = False
    present: bool = False  # this machine has it
    flops: float | None = None
    bandwidth: float | None = None

    @property
    def usable(self) -> int:
        """Bytes that a training may take."""
        return int(self.memory * USABLE)


def _card(name: str, gib: float, teraflops: float, gigabytes: float) -> Card:
    return Card(name, int(gib * GIB), flops=teraflops * 1e12, bandwidth=gigabytes * 1e9)


# Vendors' data sheets: memory in GiB, dense bfloat16 TFLOP/s with float32 accumulation, GB/s.
CARDS: Mapping[str, Card] = {
    card.name: card
    for card in (
        _card("rtx-4060", 8, 60, 272),
        _card("rtx-3070", 8, 41, 448),
        _card("rtx-4080", 16, 97, 717),
        _card("rtx-3090", 24, 71, 936),
        _card("rtx-4090", 24, 165, 1008),
        _card("l4", 22.5, 121, 300),
        _card("a10", 22.5, 125, 600),
        _card("a100-40gb", 39.5, 312, 1555),
        _card("a100-80gb", 79.2, 312, 2039),
        _card("h100", 79.6, 989, 3350),
        _card("h200", 140.4, 989, 4800),
    )
}
# A size alone: times are those of the slowest known card that has it.
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*gi?b", re.IGNORECASE)


def find_card(text: str | None, device: str = "auto") -> Card:
    """The card that is meant.

    Args:
        text: a name of ``CARDS``, a size such as ``8GB``, ``cpu``, or None: what this machine has.
        device: ``model.device`` of the configuration, asked when ``text`` is None.

    Raises:
        UnknownNameError: neither a name nor a size. ConfigError: CUDA is asked for and not there.
    """
    if text is None:
        return _own(device)
    if text.lower() == "cpu":
        return _cpu()
    size = _SIZE.fullmatch(text.strip())
    if size:
        return _of_size(float(size[1]))
    name = re.sub(r"[\s_]+", "-", text.strip().lower())
    if name not in CARDS:
        raise UnknownNameError("card", text, [*CARDS, "cpu", "8GB"], where="--card")
    return CARDS[name]


def _of_size(gib: float) -> Card:
    alike = [card for card in CARDS.values() if card.memory >= 0.9 * gib * GIB]
    like = min(alike, key=lambda card: (card.memory, card.flops), default=CARDS["h200"])
    return Card(f"{gib:g} GB card", int(gib * GIB), flops=like.flops, bandwidth=like.bandwidth)


def _own(device: str) -> Card:
    if device == "cpu":
        return _cpu()
    try:
        import torch
    except ModuleNotFoundError:
        return _cpu()
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        known = _named(properties.name)
        return Card(
            properties.name, properties.total_memory, present=True,
            flops=known.flops if known else None, bandwidth=known.bandwidth if known else None,
        )  # fmt: skip
    if device not in ("auto", "cpu"):
        raise ConfigError(f"there is no {device} device on this machine", where="model.device",
                          remedy="name a card: --card 8GB")  # fmt: skip
    return _cpu()


def _named(full: str) -> Card | None:
    """The known card that a driver's name, such as "NVIDIA GeForce RTX 4090", means. A name may come in several sizes:
    "A100-SXM4-80GB"."""
    words = set(re.split(r"[^a-z0-9]+", full.lower()))
    alike = [card for name, card in CARDS.items() if set(name.replace("rtx-", "").split("-")) <= words]
    return max(alike, key=lambda card: len(card.name), default=None)


def _cpu() -> Card:
    """This machine's processor and all of its memory."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Card("cpu", memory, is_cpu=True, present=True)
