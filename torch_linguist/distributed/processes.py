"""Processes that train one model together, as `torchrun` starts them: rank, world size, barriers, agreement.

With one process every function here does nothing. What depends on a clock is decided by the main process for all.
`data_parallel` divides batches among the processes and combines their gradients.
"""

import os
import re
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import distributed as dist
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from torch_linguist.distributed.torchrun import is_launched, launched_rank
from torch_linguist.errors import TrainingError

TIMEOUT = timedelta(minutes=30)
"""Longest wait for another process, for example while the main process scores alone. A process that dies is noticed
at once."""

JOIN_PAUSE = 0.05
"""Seconds between two looks for processes that join."""

FOLDER_KEY = "torch-linguist/run-folder"

_launch: dict[str, Store] = {}
"""Store of torchrun, which outlives its processes: `store`, while this process belongs to a group."""


def world_size() -> int:
    """Return the number of processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Return the rank of this process (0-based)."""
    return dist.get_rank() if world_size() > 1 else 0


def is_main_process() -> bool:
    """Return whether this process decides and writes; unchanged after `leave_process_group`."""
    return launched_rank() == 0


def local_device(name: str) -> str:
    """Return the device of this process, a GPU of its own if there are several on the machine.

    Args:
        name: `trainer.device`; `auto` and `cuda` are spread over the GPUs, other names are returned unchanged.
    """
    if world_size() == 1 or name not in ("auto", "cuda") or not torch.cuda.is_available():
        return name
    return f"cuda:{int(os.environ.get('LOCAL_RANK', '0')) % torch.cuda.device_count()}"


@contextmanager
def process_group() -> Iterator[None]:
    """Join the processes that `torchrun` started, if it did, for the duration of the block.

    Raises:
        TrainingError: the processes cannot reach each other, or one of them ends early.
    """
    if not is_launched():
        yield
        return
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    with reporting_lost_processes():
        store, number, size = next(rendezvous("env://", timeout=TIMEOUT))
        _launch["store"] = store
        # After a restart the store still holds the addresses of the previous attempt.
        own = PrefixStore(agreed_attempt(store, number, size, TIMEOUT), store)
        dist.init_process_group(backend, store=own, rank=number, world_size=size, timeout=TIMEOUT)
    try:
        yield
    finally:
        _launch.clear()
        if dist.is_initialized():
            dist.destroy_process_group()


def agreed_attempt(store: Store, number: int, size: int, timeout: timedelta) -> str:
    """Return a name that all processes of one attempt agree on, and that no earlier attempt had.

    Torchrun's count of restarts will not do: each host has its own, and one that joins later begins with 0.

    Args:
        store: store of all attempts, which may hold what processes of an earlier one wrote.
        number: rank of this process.
        size: number of processes.
        timeout: longest wait for the other processes.

    Raises:
        DistStoreError: a process did not come in time.
    """
    name = uuid.uuid4().hex
    if number:
        store.set(f"joins/{number}", name)
        store.wait([f"answer/{name}"], timeout)
        attempt = store.get(f"answer/{name}").decode()
        store.set(f"{attempt}/{number}", "agreed")
        return attempt
    deadline = time.monotonic() + timeout.total_seconds()
    missing = list(range(1, size))
    while missing := [other for other in missing if not store.check([f"{name}/{other}"])]:
        if time.monotonic() > deadline:
            raise dist.DistStoreError(f"process {missing[0]} did not join")
        for other in missing:
            # The name of a process that is gone is answered in vain, until its successor writes another one.
            if store.check([f"joins/{other}"]):
                store.set(f"answer/{store.get(f'joins/{other}').decode()}", name)
        time.sleep(JOIN_PAUSE)
    return name


def remember_folder(folder: Path) -> None:
    """Note the run folder of this launch for the attempts that torchrun may start after this one."""
    if "store" in _launch:
        _launch["store"].set(FOLDER_KEY, str(folder.absolute()))


def remembered_folder() -> Path | None:
    """Return the run folder of an earlier attempt of this launch; None for the first attempt."""
    store = _launch.get("store")
    if store is None or not store.check([FOLDER_KEY]):
        return None
    return Path(store.get(FOLDER_KEY).decode())


def leave_process_group() -> None:
    """End the collaboration; from now on each process counts as the only one."""
    if world_size() > 1:
        barrier()
        dist.destroy_process_group()


def barrier() -> None:
    """Wait until every process has reached this call."""
    if world_size() > 1:
        with reporting_lost_processes():
            dist.barrier()


@contextmanager
def main_process_first() -> Iterator[None]:
    """Run the block in the main process before it runs in the others."""
    if not is_main_process():
        barrier()
    yield
    if is_main_process():
        barrier()


def broadcast_object(make: Callable[[], Any]) -> Any:
    """Return the result of a function that the main process alone calls.

    Args:
        make: function without arguments; its result can be pickled.

    Raises:
        ValueError: the error that `make` raised, in the main process.
        TrainingError: in the other processes, if `make` raised an error.
    """
    if world_size() == 1:
        return make()
    problem: ValueError | None = None
    answer: list[Any] = [None, False]
    if is_main_process():
        try:
            answer = [make(), True]
        except ValueError as error:
            problem = error
    with reporting_lost_processes():
        dist.broadcast_object_list(answer, 0, device=torch.device("cpu"))
    if problem is not None:
        raise problem
    if not answer[1]:
        raise TrainingError(f"process {rank()} of {world_size()}: stops because the main process failed")
    return answer[0]


def broadcast_number(number: float) -> float:
    """Return the number of the main process: what depends on a clock must not differ between processes."""
    if world_size() == 1:
        return number
    shared = torch.tensor(number, dtype=torch.float64)
    with reporting_lost_processes():
        dist.broadcast(shared, 0)
    return float(shared)


def all_reduce_sum(*numbers: float) -> list[float]:
    """Return the sum of each number over the processes."""
    if world_size() == 1:
        return list(numbers)
    totals = torch.tensor(numbers, dtype=torch.float64)
    with reporting_lost_processes():
        dist.all_reduce(totals)
    return [float(total) for total in totals]


def all_gather_object(value: Any) -> list[Any]:
    """Return the value of every process, in the order of their ranks."""
    if world_size() == 1:
        return [value]
    found: list[Any] = [None] * world_size()
    with reporting_lost_processes():
        dist.all_gather_object(found, value)
    return found


@contextmanager
def reporting_lost_processes(collectives_only: bool = True) -> Iterator[None]:
    """Turn the errors of a broken connection into a `TrainingError` of one line.

    Args:
        collectives_only: whether the block does nothing but communicate. If not, only the errors that name a
            communication library are turned.
    """
    try:
        yield
    except (RuntimeError, dist.DistError) as error:
        if not (collectives_only or isinstance(error, dist.DistError) or re.search("gloo|NCCL|nccl", str(error))):
            raise
        # gloo's messages begin with a position in its own source, in brackets, and end with advice.
        lines = re.sub(r"^\[\S*\] *|\. This is typically.*", "", str(error).strip()).splitlines()
        reason = lines[0].strip() if lines else type(error).__name__
        raise TrainingError(
            f"process {launched_rank()} of {os.environ.get('WORLD_SIZE', '1')}: another process of this training has "
            f"ended or cannot be reached ({reason}); continue the run with resume=auto"
        ) from error
