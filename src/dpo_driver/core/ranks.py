"""Several processes that do one job: which of them this is, and how they speak with each other.

``torchrun`` and ``accelerate launch`` start the same command several times and tell each process by environment
variables who it is. The *main* process (rank 0) runs the command. The others :func:`follow`: they wait until it asks
them to take their part (:func:`beside`) in a training or a rollout. Within such a part all processes call the functions
below equally often and in the same order, as always with torch.distributed. With one process everything here is
trivial and torch is not imported. Called by training, the flywheel and the command line.
"""

from __future__ import annotations

import functools
import os
import pickle
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, TypeVar, cast

from dpo_driver.core.errors import DriverError

T = TypeVar("T")

# The main process may be busy with what is not the others' business for as long as it takes. A process that is gone is
# noticed at once all the same: its connection closes.
PATIENCE = timedelta(days=30)


def launched() -> bool:
    """Whether a launcher started this process, be it the only one."""
    return "RANK" in os.environ and "MASTER_ADDR" in os.environ


def count() -> int:
    """How many processes do this job; 1 without a launcher."""
    return int(os.environ.get("WORLD_SIZE", "1")) if launched() else 1


def rank() -> int:
    """Which one this is, from 0."""
    return int(os.environ["RANK"]) if count() > 1 else 0


def is_main() -> bool:
    """Whether this is the process that runs the command, and the only one that writes."""
    return rank() == 0


def count_here() -> int:
    """How many of them share this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", str(count()))) if count() > 1 else 1


def dealt(items: Sequence[T]) -> list[T]:
    """This process's share: every n-th, so that what lies side by side is spread evenly."""
    return list(items[rank() :: count()])


def gathered(parts: Sequence[Sequence[T]]) -> list[T]:
    """What :func:`dealt` took apart, in its old order; ``parts`` by rank."""
    return [parts[i % len(parts)][i // len(parts)] for i in range(sum(map(len, parts)))]


# -- speaking --------------------------------------------------------------------------------------------------------


def join() -> None:
    """Meet the other processes; they must do the same. Nothing happens with one process, or the second time."""
    if count() > 1:
        _groups()


@functools.cache
def _groups() -> tuple[Any, Any]:
    """Who speaks: one group for the main thread and one for others. The messages of a group must come in the same order
    in every process, which those of two threads would not. Always over the CPU: what is said is small."""
    import torch
    import torch.distributed as dist

    with attended():
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
        if not dist.is_initialized():
            dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
        return dist.new_group(backend="gloo", timeout=PATIENCE), dist.new_group(backend="gloo", timeout=PATIENCE)


def _group() -> Any:
    return _groups()[threading.current_thread() is not threading.main_thread()]


@contextmanager
def attended() -> Iterator[None]:
    """Where processes wait for each other: says that one of them is gone where torch says that a connection is.

    Raises:
        DriverError: another process has ended.
    """
    try:
        yield
    except RuntimeError as error:
        lost = any(word in str(error) for word in ("gloo", "NCCL", "Connection", "TCPStore"))
        if count() == 1 or not lost:
            raise
        raise DriverError(
            "another process of this run has ended",
            where=f"process {rank()} of {count()}",
            remedy="its own message says why, if it left one; the same command goes on from here",
        ) from error


def broadcast(value: T) -> T:
    """The main process's value, in all."""
    if count() == 1:
        return value
    import torch.distributed as dist

    box = [value if is_main() else None]
    with attended():
        dist.broadcast_object_list(box, src=0, group=_group())
    return cast(T, box[0])


def of_main(look: Callable[[], T]) -> T:
    """What the main process finds when it looks; the others do not look for themselves."""
    return cast(T, broadcast(look() if is_main() else None))


def gather(value: T) -> list[T]:
    """Every process's value by rank, in all."""
    if count() == 1:
        return [value]
    import torch.distributed as dist

    found: list[Any] = [None] * count()
    with attended():
        dist.all_gather_object(found, value, group=_group())
    return found


def total(values: Sequence[float]) -> list[float]:
    """Sums over all processes, in all: the same bits everywhere, so that all decide alike by them."""
    if count() == 1:
        return list(values)
    import torch
    import torch.distributed as dist

    sums = torch.tensor(values, dtype=torch.float64)
    with attended():
        dist.all_reduce(sums, group=_group())
    return [float(value) for value in sums]


def wait() -> None:
    """Until all processes are here."""
    gather(None)


# -- the main process and those that follow --------------------------------------------------------------------------

_asking = False  # inside beside(): the others are busy and would not hear that it is over


@contextmanager
def job() -> Iterator[bool]:
    """Around a whole command. True in the process that runs it; False in one that shall :func:`follow`."""
    if count() == 1:
        yield True
        return
    _groups()
    try:
        yield is_main()
    finally:
        if not _asking:
            with suppress(DriverError):
                _leave()


def _leave() -> None:
    import torch.distributed as dist

    if is_main():
        broadcast(None)
    _groups.cache_clear()
    dist.destroy_process_group()


@contextmanager
def beside(function: Callable[..., Any], *arguments: Any) -> Iterator[list[Any]]:
    """While the main process does its part within, the others call ``function(*arguments)`` for theirs.

    Args:
        function: of a module; it and its arguments are pickled. It must communicate exactly as the body does.

    Yields:
        A list that holds the results of the others once the block has ended.
    """
    global _asking
    results: list[Any] = []
    if count() == 1:
        yield results
        return
    broadcast(pickle.dumps((function, arguments)))
    _asking = True
    yield results
    results += gather(None)[1:]
    _asking = False


def follow() -> None:
    """Take part in whatever the main process asks for, until it is done."""
    while (asked := broadcast(b"")) is not None:
        function, arguments = pickle.loads(asked)  # noqa: S301  from our own main process, over the launcher's network
        gather(function(*arguments))
