"""Tensors that are only their sizes: what a forward and backward pass would hold in memory, byte for byte, without
computing anything.

A :class:`Value` stands for a tensor. An operation allocates its result, keeps what torch's autograd keeps for the
backward pass, and lets go of the rest; Python's own reference counts free memory when torch's would. Values know no
shapes, only how many numbers they hold. training/passes.py writes the model down with these. Must not import torch.
"""

from __future__ import annotations

import heapq
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count

# References to a storage that one value alone holds: the value's attribute and getrefcount's argument.
_UNSHARED = 2


class Storage:
    """Memory of a tensor; views share it. Counts itself in and, when nobody holds it any more, out."""

    __slots__ = ("nbytes", "tape")

    def __init__(self, tape: Tape, nbytes: int) -> None:
        self.tape, self.nbytes = tape, nbytes
        tape.live += nbytes
        tape.volume += nbytes
        tape.peak = max(tape.peak, tape.live)

    def __del__(self) -> None:
        self.tape.live -= self.nbytes


Backward = Callable[["Value"], Sequence["Value | None"]]


class Node:
    """An operation of which the backward pass will be asked."""

    __slots__ = ("backward", "inputs", "order")

    def __init__(self, order: int, inputs: tuple[Node | None, ...], backward: Backward | None) -> None:
        self.order, self.inputs, self.backward = order, inputs, backward


class Value:
    """A tensor: how many numbers, bytes of each, where they lie, and what made it."""

    __slots__ = ("count", "node", "partial", "storage", "width")

    def __init__(self, count: int, width: int, storage: Storage, node: Node | None = None, partial: bool = False):
        self.count, self.width, self.storage, self.node, self.partial = count, width, storage, node, partial


class Weight:
    """A parameter. Only those that learn get a gradient, which stays until ``Tape.grads`` is emptied."""

    __slots__ = ("count", "node", "width")

    def __init__(self, tape: Tape, count: int, width: int, learns: bool) -> None:
        self.count, self.width = count, width
        self.node = Node(-1, (), None) if learns else None
        if self.node is not None:
            tape.leaves[self.node] = self


class Tape:
    """Counts the memory of a pass. All figures in bytes.

    ``live`` is held now, ``peak`` the most that ever was, ``volume`` all that was ever asked for.
    """

    def __init__(self, *, on_cpu: bool = True) -> None:
        self.live = self.peak = self.volume = 0
        self.recording = True
        self.again = False  # what a checkpoint left out is being computed again
        self._on_cpu = on_cpu
        self.leaves: dict[Node, Weight] = {}
        self.grads: dict[Node, Value] = {}
        self._order = count()

    @contextmanager
    def no_grad(self) -> Iterator[None]:
        """Inside, nothing is kept for a backward pass."""
        before, self.recording = self.recording, False
        try:
            yield
        finally:
            self.recording = before

    def new(self, numbers: int, width: int) -> Value:
        """A fresh tensor."""
        return Value(numbers, width, Storage(self, numbers * width))

    def record(self, out: Value, inputs: Sequence[Value | Weight], backward: Backward) -> Value:
        """Note what made ``out``, if any of its inputs asks for a gradient."""
        nodes = tuple(value.node for value in inputs)
        if self.recording and any(nodes):
            out.node = Node(next(self._order), nodes, backward)
        return out

    def backward(self, root: Value, grad: Value | None = None) -> None:
        """Walk the graph as torch does, the latest operation first; each lets go of what it kept once it is done."""
        assert root.node is not None, "nothing here learns"
        waiting: dict[Node, Value] = {root.node: self.new(root.count, root.width) if grad is None else grad}
        queue = [(-root.node.order, id(root.node), root.node)]
        root.node = grad = None
        while queue:
            node = heapq.heappop(queue)[2]
            grad = waiting.pop(node)
            backward, node.backward = node.backward, None
            assert backward is not None
            found = backward(grad)
            del backward, grad
            for target, value in zip(node.inputs, found, strict=True):
                if target is None or value is None:
                    continue
                if target in self.leaves:
                    self.grads.setdefault(target, value)  # later ones are added to it in place
                elif target in waiting:
                    waiting[target] = self._sum(waiting.pop(target), value)
                else:
                    waiting[target] = value
                    heapq.heappush(queue, (-target.order, id(target), target))
            del found
            value = None

    def _converted(self, x: Value | Weight, y: Value | Weight) -> Storage | None:
        """On a CPU the operand with narrower numbers is converted first; kernels on GPUs do that on the way."""
        if x.width == y.width or not self._on_cpu:
            return None
        return Storage(self, min(x, y, key=lambda value: value.width).count * max(x.width, y.width))

    def _sum(self, one: Value, other: Value) -> Value:
        """Two gradients of one tensor: written over one of them where nobody else needs it."""
        for value in (one, other):
            if not value.partial and sys.getrefcount(value.storage) <= _UNSHARED:
                return value
        return self.new(one.count, one.width)

    # --- operations ---

    def view(self, x: Value, numbers: int | None = None) -> Value:
        """Other shape, same memory; with ``numbers``, a slice of it, whose gradient is the whole filled with zeros."""
        if numbers is None:
            return self.record(Value(x.count, x.width, x.storage), [x], lambda grad: [grad])
        whole, width = x.count, x.width
        return self.record(Value(numbers, width, x.storage, partial=True), [x], lambda grad: [self.new(whole, width)])

    def cast(self, x: Value, width: int) -> Value:
        """To numbers of another width; nothing happens when they have it."""
        if x.width == width:
            return x
        before = x.width
        return self.record(self.new(x.count, width), [x], lambda grad: [self.cast(grad, before)])

    def add(self, x: Value, y: Value) -> Value:
        """The sum has the wider numbers of the two."""
        wide = self._converted(x, y)
        out = self.new(x.count, max(x.width, y.width))
        del wide
        one, other = x.width, y.width
        return self.record(out, [x, y], lambda grad: [self.cast(grad, one), self.cast(grad, other)])

    def scale(self, x: Value) -> Value:
        """Times a number, or minus: nothing need be kept."""
        return self.record(self.new(x.count, x.width), [x], lambda grad: [self.new(grad.count, grad.width)])

    def mul(self, x: Value, y: Value | Weight) -> Value:
        """Elementwise; ``y`` may be smaller and is then repeated. Each is kept for the other's gradient."""
        wide = self._converted(x, y)
        out = self.new(x.count, max(x.width, y.width))
        del wide
        kept_x = x.storage if y.node is not None else None
        kept_y = y.storage if x.node is not None and isinstance(y, Value) else None
        wants_x, wants_y = x.node is not None, y.node is not None
        of_x, of_y = (x.count, x.width), (y.count, y.width)

        def backward(grad: Value, kept: tuple[Storage | None, ...] = (kept_x, kept_y)) -> list[Value | None]:
            grad_x = self.cast(self.new(grad.count, grad.width), of_x[1]) if wants_x else None
            grad_y = None
            if wants_y:
                grad_y = self.new(grad.count, grad.width)
                if of_y[0] != grad.count:
                    grad_y = self.new(of_y[0], grad.width)
                grad_y = self.cast(grad_y, of_y[1])
            return [grad_x, grad_y]

        return self.record(out, [x, y], backward)

    def square(self, x: Value) -> Value:
        """x ** 2; its gradient is 2 * x ** 1 * grad, three tensors one after the other."""

        def backward(grad: Value, kept: Storage = x.storage) -> list[Value]:
            first = self.new(grad.count, grad.width)
            second = self.new(grad.count, grad.width)
            del first
            third = self.new(grad.count, grad.width)
            del second
            return [third]

        return self.record(self.new(x.count, x.width), [x], backward)

    def mean(self, x: Value, rows: int) -> Value:
        """Over the last dimension."""
        whole, width = x.count, x.width
        return self.record(self.new(rows, width), [x], lambda grad: [self.new(whole, width)])

    def smooth(self, x: Value, keep: str) -> Value:
        """A pointwise function whose gradient needs its ``input`` (SiLU) or its ``output`` (rsqrt)."""
        out = self.new(x.count, x.width)
        kept = x.storage if keep == "input" else out.storage

        def backward(grad: Value, kept: Storage = kept) -> list[Value]:
            return [self.new(grad.count, grad.width)]

        return self.record(out, [x], backward)

    def cat(self, parts: Sequence[Value]) -> Value:
        """The gradient of a part is a piece of the whole's."""
        out = self.new(sum(part.count for part in parts), max(part.width for part in parts))
        sizes = [part.count for part in parts]

        def backward(grad: Value) -> list[Value]:
            return [Value(size, grad.width, grad.storage, partial=True) for size in sizes]

        return self.record(out, parts, backward)

    def gather(self, x: Value, numbers: int) -> Value:
        """Rows picked by index, where the gradient is picked too (attention's slots)."""
        whole = x.count
        return self.record(self.new(numbers, x.width), [x], lambda grad: [self.new(whole, grad.width)])

    def repeat(self, x: Value, times: int) -> Value:
        """Copies side by side; the gradient is summed over them."""
        if times == 1:
            return x
        whole = x.count
        return self.record(self.new(whole * times, x.width), [x], lambda grad: [self.new(whole, grad.width)])

    def dropout(self, x: Value) -> Value:
        """On a CPU times noise as wide as the numbers, on a GPU by a mask of one byte a number."""
        mask = Storage(self, x.count * (x.width if self._on_cpu else 1))

        def backward(grad: Value, kept: Storage = mask) -> list[Value]:
            return [self.new(grad.count, grad.width)]

        return self.record(self.new(x.count, x.width), [x], backward)
