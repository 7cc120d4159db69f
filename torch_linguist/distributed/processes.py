"""One training in several processes, as `torchrun` starts them: who is who, and what they tell each other.

Every process holds the whole model and reads the whole batch, of which it computes its own rows; the gradients are
summed over the processes before each update. So a global batch means the same on any number of processes, and a
position in the data too. In place of DistributedDataParallel, whose hooks see a module's forward alone (training goes
by `nll`), and which waits for gradients that a batch without rare words does not make, the gradients go through one
all-reduce, with the loss and whether one of the processes was asked to stop beside them. What hangs on a clock, the
first process decides for all. With one process every function here does nothing.

Shape legend: B batch, W processes.
"""

import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from torch_linguist.errors import ConfigError, TrainingError

SEED_STRIDE = 1_000_003
"""Between the seeds of two processes, so that their dropout masks differ."""

PATIENCE = timedelta(minutes=30)
"""How long a process waits for the others: as long as the first may score alone. Of one that dies they know at once."""


class _Place:
    """This process's part in the training.

    Attributes:
        first: whether it decides and writes.
        asked: tells whether it has been asked to stop.
        stopping: whether one of the processes had been, in the last update.
    """

    def __init__(self) -> None:
        self.first = True
        self.asked: Callable[[], bool] = lambda: False
        self.stopping = False


_place = _Place()


def world_size() -> int:
    """Processes that train together, W."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Which of them this one is, from 0."""
    return dist.get_rank() if world_size() > 1 else 0


def is_main_process() -> bool:
    """Whether this process decides and writes; it still does after it has parted from the others."""
    return _place.first


def launched_processes() -> int:
    """How many processes `torchrun` has started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def local_device(name: str) -> str:
    """The device of this process: of several on one machine each takes its own GPU.

    Args:
        name: `trainer.device`; `auto` and `cuda` are spread over the GPUs, any other is kept.
    """
    if world_size() == 1 or name not in ("auto", "cuda") or not torch.cuda.is_available():
        return name
    return f"cuda:{int(os.environ.get('LOCAL_RANK', '0')) % torch.cuda.device_count()}"


@contextmanager
def process_group() -> Iterator[None]:
    """Within the block this process trains together with the others that `torchrun` started, if it did.

    Raises:
        TrainingError: they do not find each other, or one of them ends early.
    """
    if launched_processes() == 1:
        yield
        return
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    with _reachable():
        store, number, size = next(rendezvous("env://", timeout=PATIENCE))
        # After a restart the store still knows where the processes of the attempt before could be reached.
        attempt = PrefixStore(f"attempt-{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
        dist.init_process_group(backend, store=attempt, rank=number, world_size=size, timeout=PATIENCE)
    _place.first, _place.stopping = dist.get_rank() == 0, False
    try:
        yield
    finally:
        _place.first, _place.stopping = True, False
        if dist.is_initialized():
            dist.destroy_process_group()


def leave_process_group() -> None:
    """Ends what the processes do together; from now on each counts as the only one."""
    if world_size() > 1:
        barrier()
        dist.destroy_process_group()


def broadcast_object(make: Callable[[], Any]) -> Any:
    """What the first process computes, on all of them.

    Args:
        make: is called in the first process alone; gives what JSON can hold. A `ValueError` of it is raised by all.
    """
    if world_size() == 1:
        return make()
    problem: ValueError | None = None
    answer: dict[str, Any] = {}
    if is_main_process():
        try:
            answer = {"value": make()}
        except ValueError as error:
            problem = error
    content = torch.tensor(list(json.dumps(answer).encode()), dtype=torch.uint8)
    with _reachable():
        length = torch.tensor([len(content)])
        dist.broadcast(length, 0)
        if not is_main_process():
            content = torch.empty(int(length), dtype=torch.uint8)
        dist.broadcast(content, 0)
    answer = json.loads(bytes(content.tolist()))
    if problem is not None:
        raise problem
    if "value" not in answer:
        raise TrainingError(f"process {rank()} of {world_size()}: ends, since the first one failed")
    return answer["value"]


@contextmanager
def main_process_first() -> Iterator[None]:
    """The first process carries out the block before the others do."""
    if not is_main_process():
        barrier()
    yield
    if is_main_process():
        barrier()


def barrier() -> None:
    """Returns when every process has come here."""
    if world_size() > 1:
        with _reachable():
            dist.barrier()


def local_rows(rows: int) -> slice:
    """The rows of a global batch that are this process's; none where there are fewer rows than processes.

    Args:
        rows: of the global batch, B.
    """
    size, number = world_size(), rank()
    return slice(rows * number // size, rows * (number + 1) // size)


def check_batch_size(rows: int) -> None:
    """Refuses batches with fewer rows than processes.

    Raises:
        ConfigError: they are so small.
    """
    if rows < world_size():
        raise ConfigError(
            f"trainer.batch_size={rows}: is divided among {world_size()} processes; give each at least a row"
        )


def broadcast_weights(model: nn.Module) -> None:
    """Gives every process the first one's weights and buffers."""
    if world_size() == 1:
        return
    with _reachable():
        for tensor in model.state_dict().values():
            dist.broadcast(tensor, 0)


def all_reduce_gradients(parameters: Sequence[nn.Parameter], loss: Tensor) -> Tensor:
    """Puts the sum over the processes into each gradient, and exchanges what they agree on.

    A gradient that no process has stays None, so that the optimizer leaves that weight alone as it does with one
    process.

    Args:
        parameters: with the gradients of the own rows, of a loss that is divided by the tokens of the global batch.
        loss: of the own rows, without dimensions.

    Returns:
        The loss of the global batch.
    """
    if world_size() == 1:
        return loss
    device, dtype = loss.device, loss.dtype
    grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    present = [float(p.grad is not None) for p in parameters]
    numbers = torch.tensor([float(_place.asked()), *present], dtype=dtype, device=device)
    flat = torch.cat([loss.reshape(1), numbers, *(grad.reshape(-1).to(dtype) for grad in grads)])
    with _reachable():
        dist.all_reduce(flat)
    head = flat[: 2 + len(parameters)].tolist()
    _place.stopping = _place.stopping or head[1] > 0
    start = len(head)
    for parameter, wanted in zip(parameters, head[2:], strict=True):
        end = start + parameter.numel()
        parameter.grad = flat[start:end].view_as(parameter).to(parameter.dtype) if wanted else None
        start = end
    return flat[0].clone()


def broadcast_number(number: float) -> float:
    """The first process's number, on all of them: what hangs on a clock must not differ."""
    if world_size() == 1:
        return number
    told = torch.tensor(number, dtype=torch.float64)
    with _reachable():
        dist.broadcast(told, 0)
    return float(told)


def all_reduce_sum(*numbers: float) -> list[float]:
    """The sums over the processes."""
    if world_size() == 1:
        return list(numbers)
    totals = torch.tensor(numbers, dtype=torch.float64)
    with _reachable():
        dist.all_reduce(totals)
    return [float(total) for total in totals]


def listen(asked: Callable[[], bool]) -> None:
    """Has every update tell the others whether this process was asked to stop.

    Args:
        asked: tells, such as of a signal.
    """
    _place.asked = asked


def stopping(asked: bool) -> bool:
    """Whether to stop, as all processes answer it alike: from the update on in which one of them was asked.

    Args:
        asked: whether this one was.
    """
    return _place.stopping or (asked and world_size() == 1)


def gather_rows(tensors: Sequence[Tensor], rows: int) -> list[Tensor]:
    """The state of a whole batch from the rows of each process.

    Args:
        tensors: of the own rows, which lie on axis 1.
        rows: of the global batch, B.
    """
    if world_size() == 1:
        return list(tensors)
    mine = local_rows(rows)
    whole = []
    for tensor in tensors:
        full = tensor.new_zeros((tensor.shape[0], rows, *tensor.shape[2:]))
        if tensor.shape[1] == mine.stop - mine.start:
            full[:, mine] = tensor
        with _reachable():
            dist.all_reduce(full)
        whole.append(full)
    return whole


def gather_random_states(device: torch.device) -> list[dict[str, Tensor]]:
    """The state of torch's random numbers in every process, whose dropout masks differ; none where there is but one."""
    if world_size() == 1:
        return []
    states = {"torch": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    found: list[dict[str, Tensor]] = [{} for _ in range(world_size())]
    with _reachable():
        for name, state in states.items():
            parts = [torch.empty_like(state) for _ in found]
            dist.all_gather(parts, state)
            for entry, part in zip(found, parts, strict=True):
                entry[name] = part
    return found


def restore_random_states(states: Sequence[dict[str, Tensor]], seed: int, device: torch.device) -> None:
    """Takes up this process's part of what `gather_random_states` gave.

    Args:
        states: of the processes that were there then.
        seed: for a process that was not; what the first had is in place already.
        device: of this process.
    """
    if rank() >= len(states):
        if not is_main_process():
            torch.manual_seed(process_seed(seed))
        return
    state = states[rank()] if world_size() > 1 else {}
    if not state:
        return
    torch.set_rng_state(state["torch"])
    if "cuda" in state and device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"], device)


def process_seed(seed: int) -> int:
    """The seed of this process's dropout."""
    return seed + SEED_STRIDE * rank()


@contextmanager
def _reachable() -> Iterator[None]:
    """Turns what a broken connection raises into an error of ours."""
    try:
        yield
    except (RuntimeError, dist.DistError) as error:
        # gloo begins with a place in its own source, in brackets, and ends in advice.
        lines = re.sub(r"^\[\S*\] *|\. This is typically.*", "", str(error).strip()).splitlines()
        raise TrainingError(
            f"process {os.environ.get('RANK', '0')} of {launched_processes()}: another process of this training has "
            f"ended or cannot be reached ({lines[0].strip() if lines else type(error).__name__}); "
            "the run goes on by resume=auto"
        ) from error


__all__ = [
    "all_reduce_gradients",
    "all_reduce_sum",
    "barrier",
    "broadcast_number",
    "broadcast_object",
    "broadcast_weights",
    "check_batch_size",
    "gather_random_states",
    "gather_rows",
    "is_main_process",
    "launched_processes",
    "leave_process_group",
    "listen",
    "local_device",
    "local_rows",
    "main_process_first",
    "process_group",
    "process_seed",
    "rank",
    "restore_random_states",
    "stopping",
    "world_size",
]
