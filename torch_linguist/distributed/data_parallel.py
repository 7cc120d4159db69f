"""Data-parallel training: each process computes its rows of a batch, and the gradients are summed.

Every process holds the whole model and reads the whole batch, so a global batch and a position in the data mean the
same for any number of processes. `DistributedDataParallel` does not fit: its hooks see a module's `forward` alone,
whereas training calls `nll`, and it waits for gradients that a batch without rare words does not produce. Here the
gradients, the loss and the request to stop share one all-reduce.

Shape legend: B batch.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch import distributed as dist

from torch_linguist.distributed.processes import rank, reporting_lost_processes, world_size
from torch_linguist.errors import ConfigError


def local_rows(rows: int) -> slice:
    """Return the rows of a global batch that belong to this process; an empty slice if there are too few.

    Args:
        rows: rows B of the global batch.
    """
    return slice(rows * rank() // world_size(), rows * (rank() + 1) // world_size())


def check_batch_size(rows: int) -> None:
    """Check that each process gets at least one row of a batch.

    Raises:
        ConfigError: there are fewer rows than processes.
    """
    if rows < world_size():
        raise ConfigError(
            f"trainer.batch_size={rows}: is divided among {world_size()} processes; set at least {world_size()}"
        )


def broadcast_weights(model: nn.Module) -> None:
    """Copy the weights and buffers of the main process to all processes."""
    if world_size() == 1:
        return
    with reporting_lost_processes():
        for tensor in model.state_dict().values():
            dist.broadcast(tensor, 0)


def all_reduce_gradients(parameters: Sequence[nn.Parameter], loss: Tensor, stop_requested: bool) -> tuple[Tensor, bool]:
    """Sum gradients and loss over the processes, and agree on a request to stop.

    A gradient that no process has stays None, so that the optimizer skips the weight as it does with one process.

    Args:
        parameters: weights with the gradients of the local rows, modified in place. The gradients are those of a loss
            divided by the tokens of the global batch.
        loss: loss of the local rows; scalar tensor.
        stop_requested: whether this process has been asked to stop.

    Returns:
        The loss of the global batch, and whether any process has been asked to stop.
    """
    if world_size() == 1:
        return loss, stop_requested
    device, dtype = loss.device, loss.dtype
    grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    present = [float(p.grad is not None) for p in parameters]
    numbers = torch.tensor([float(stop_requested), *present], dtype=dtype, device=device)
    flat = torch.cat([loss.reshape(1), numbers, *(grad.reshape(-1).to(dtype) for grad in grads)])
    with reporting_lost_processes():
        dist.all_reduce(flat)
    head = flat[: 2 + len(parameters)].tolist()
    start = len(head)
    for parameter, used in zip(parameters, head[2:], strict=True):
        end = start + parameter.numel()
        parameter.grad = flat[start:end].view_as(parameter).to(parameter.dtype) if used else None
        start = end
    return flat[0].clone(), head[1] > 0


def gather_rows(tensors: Sequence[Tensor], rows: int) -> list[Tensor]:
    """Return the state of the global batch, given the rows of each process.

    Args:
        tensors: state of the local rows, with the rows on axis 1.
        rows: rows B of the global batch.
    """
    if world_size() == 1:
        return list(tensors)
    own = local_rows(rows)
    gathered = []
    for tensor in tensors:
        full = tensor.new_zeros((tensor.shape[0], rows, *tensor.shape[2:]))
        if tensor.shape[1] == own.stop - own.start:
            full[:, own] = tensor
        with reporting_lost_processes():
            dist.all_reduce(full)
        gathered.append(full)
    return gathered
