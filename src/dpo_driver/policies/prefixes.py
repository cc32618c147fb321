"""Prompts, computed once: what an earlier prompt began alike is not computed again.

Siblings of a group start from the same prompt; the next step of an episode and other seeds of a task repeat most of the
page. Called by policies/hf.py only.

Shapes: B prompts, K key heads, P prompt length, Q tokens left to compute, D head size, V vocabulary.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dpo_driver.policies.forward import Forward, KeysValues, Workspace

Ids = tuple[int, ...]
LEAST_SHARED = 16  # tokens; a shorter common beginning is not worth the bookkeeping
CANDIDATES = 32  # most entries compared with a new prompt
PASS_TOKENS = 512  # padded tokens computed at once: small enough for a core's own cache
MOST_BYTES = 64 * 1024 * 1024  # keys and values that are kept


@dataclass(frozen=True)
class Prefix:
    """A computed prompt: keys and values of each layer [K, P, D] and the scores [V] of the first new token."""

    layers: tuple[KeysValues, ...]
    scores_V: Tensor

    @property
    def bytes(self) -> int:
        tensors = [self.scores_V, *(tensor for pair in self.layers for tensor in pair)]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    @property
    def length(self) -> int:
        """Tokens."""
        return self.layers[0][0].shape[1]

    def to(self, device: torch.device | str) -> Prefix:
        """The same on a device."""
        if self.scores_V.device == torch.device(device):
            return self
        layers = tuple((keys.to(device), values.to(device)) for keys, values in self.layers)
        return Prefix(layers, self.scores_V.to(device))

    def start(self, length: int) -> tuple[KeysValues, ...]:
        """Keys and values of the first tokens."""
        return tuple((keys[:, :length], values[:, :length]) for keys, values in self.layers)


@dataclass(frozen=True)
class Task:
    """A prompt to compute: all of it, or what follows the beginning that ``base`` has."""

    ids: Ids
    base: Prefix | None
    common: int

    @property
    def left(self) -> int:
        return len(self.ids) - self.common


class Prompts:
    """Computes prompts with a model and remembers them.

    Args:
        forward: runs the model.
        padding: any token id.
        device: the model's.
        most_bytes: of keys and values that are kept.
    """

    def __init__(self, forward: Forward, padding: int, device: torch.device, most_bytes: int = MOST_BYTES) -> None:
        self._forward, self._padding, self._device = forward, padding, device
        self._store, self._workspace = Store(most_bytes), Workspace()
        self.computed, self.asked = 0, 0  # tokens

    def __call__(self, prompts: Sequence[Ids]) -> list[Prefix]:
        """Each prompt computed, in order."""
        self.asked += sum(map(len, prompts))
        found: dict[Ids, Prefix] = {}
        for ids in prompts:
            known = self._store.get(ids)
            if known is not None:
                found[ids] = known
        missing = sorted(set(prompts) - found.keys())
        begin = self._beginner(missing)
        while missing:
            chunk = chunk_of([begin(ids) for ids in missing])
            self.computed += sum(task.left for task in chunk)
            for task, prefix in zip(chunk, self._compute(chunk), strict=True):
                found[task.ids] = prefix
                self._store.put(task.ids, prefix)
            missing = [ids for ids in missing if ids not in found]
        return [found[ids] for ids in prompts]

    def _beginner(self, missing: Sequence[Ids]) -> Callable[[Ids], Task]:
        """How a prompt is begun: from the longest beginning that is known by now."""
        return lambda ids: Task(ids, *(self._store.longest(ids) or (None, 0)))

    def _compute(self, tasks: list[Task]) -> list[Prefix]:
        """One pass. Padding stands behind, where nothing looks at it."""
        longest = max(task.left for task in tasks)
        ids_BQ = torch.tensor(
            [[*task.ids[task.common :], *[self._padding] * (longest - task.left)] for task in tasks],
            device=self._device,
        )
        if tasks[0].base is None:
            hidden_BQE, layers = self._forward.prompts(ids_BQ)
        else:
            hidden_BQE, layers = self._continue(tasks, ids_BQ)
        last_B = torch.tensor([task.left - 1 for task in tasks], device=self._device)
        scores_BV = self._forward.scores(hidden_BQE[torch.arange(len(tasks), device=self._device), last_B])
        out = []
        for i, task in enumerate(tasks):
            new = [(keys[i, :, : task.left], values[i, :, : task.left]) for keys, values in layers]
            begun = task.base.start(task.common) if task.base else [(k[:, :0], v[:, :0]) for k, v in new]
            joined = tuple(
                (torch.cat([a, c], dim=1), torch.cat([b, d], dim=1)) for (a, b), (c, d) in zip(begun, new, strict=True)
            )
            out.append(Prefix(joined, scores_BV[i].clone()))
        return out

    def _continue(self, tasks: list[Task], ids_BQ: Tensor) -> tuple[Tensor, list[KeysValues]]:
        """Compute what follows the shared beginnings."""
        new = ids_BQ.shape[1]
        used = max(task.common for task in tasks)
        begun = [task.base.start(task.common) for task in tasks if task.base]
        buffers = self._workspace.buffers(list(zip(*begun, strict=True)), used, new)
        common_B = torch.tensor([task.common for task in tasks], device=self._device)
        order_Q = torch.arange(new, device=self._device)
        old_BQC = (torch.arange(used, device=self._device) < common_B[:, None])[:, None].expand(-1, new, -1)
        own_BQQ = (order_Q[None, :] <= order_Q[:, None]).expand(len(tasks), -1, -1)
        mask_B1QL = torch.cat([old_BQC, own_BQQ], dim=-1)[:, None]
        hidden = self._forward.more(ids_BQ, common_B[:, None] + order_Q, buffers, mask_B1QL)
        return hidden, [(b.room_keys[:, :, used:], b.room_values[:, :, used:]) for b in buffers]


def chunk_of(tasks: list[Task]) -> list[Task]:
    """What to compute next: what is begun; else one prompt of each beginning, for others to follow."""
    begun = [task for task in tasks if task.base is not None]
    fresh = list({task.ids[:LEAST_SHARED]: task for task in tasks}.values())
    ordered = sorted(begun or fresh, key=lambda task: task.left)
    count = 1
    while count < len(ordered) and (count + 1) * ordered[count].left <= PASS_TOKENS:
        count += 1
    return ordered[:count]


class Store:
    """The prompts used last, up to a number of bytes; without ``turnover`` those that came first."""

    def __init__(self, most_bytes: int, *, turnover: bool = True) -> None:
        self._most_bytes, self._bytes, self._turnover = most_bytes, 0, turnover
        self._entries: OrderedDict[Ids, tuple[Prefix, np.ndarray]] = OrderedDict()
        self._by_start: dict[Ids, OrderedDict[Ids, None]] = {}

    def get(self, ids: Ids) -> Prefix | None:
        """The very prompt."""
        found = self._entries.get(ids)
        if found is None:
            return None
        self._entries.move_to_end(ids)
        return found[0]

    def longest(self, ids: Ids) -> tuple[Prefix, int] | None:
        """The entry that begins most like ``ids``, and for how many tokens; the last one is always left to compute."""
        wanted = np.asarray(ids[:-1], dtype=np.int64)
        best: tuple[Prefix, int] | None = None
        for n, other in enumerate(reversed(self._by_start.get(ids[:LEAST_SHARED], {}))):
            prefix, array = self._entries[other]
            size = min(len(wanted), len(array))
            differs = wanted[:size] != array[:size]
            common = int(differs.argmax()) if differs.any() else size
            if common >= LEAST_SHARED and (best is None or common > best[1]):
                best = (prefix, common)
            if n + 1 >= CANDIDATES:
                break
        return best

    def put(self, ids: Ids, prefix: Prefix) -> None:
        """Remember a prompt; the ones used least lately make room, or it is not remembered."""
        if not self._turnover and self._bytes + prefix.bytes > self._most_bytes:
            return
        self._entries[ids] = (prefix, np.asarray(ids, dtype=np.int64))
        self._by_start.setdefault(ids[:LEAST_SHARED], OrderedDict())[ids] = None
        self._bytes += prefix.bytes
        while self._bytes > self._most_bytes and len(self._entries) > 1:
            oldest, (dropped, _) = self._entries.popitem(last=False)
            self._bytes -= dropped.bytes
            start = self._by_start[oldest[:LEAST_SHARED]]
            del start[oldest]
            if not start:
                del self._by_start[oldest[:LEAST_SHARED]]
