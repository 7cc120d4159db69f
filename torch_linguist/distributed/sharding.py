"""Sharded training by `torch.distributed.fsdp.fully_shard`: each process keeps a part of every weight.

Gradients and the state of the optimizer are divided alike. A training step gathers the weights and drops them again,
and so do validations; `stored_shards` writes and reads the parts. Nothing here imports FSDP until a model is sharded.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch import distributed as dist

from torch_linguist.distributed.processes import reporting_lost_processes, world_size

if TYPE_CHECKING:
    from torch.distributed.fsdp import FSDPModule


def shard(step: nn.Module, device: torch.device, compression: str | None = None) -> "FSDPModule":
    """Divide the weights of a module among the processes, in place.

    Args:
        step: module whose `forward` makes a training step.
        device: device of the module.
        compression: `bf16` sums the gradients in bfloat16.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    mesh = init_device_mesh(device.type, (world_size(),))
    policy = MixedPrecisionPolicy(reduce_dtype=torch.bfloat16 if compression == "bf16" else None)
    return fully_shard(step, mesh=mesh, mp_policy=policy)


def drop_zero_gradients(model: nn.Module) -> None:
    """Set the gradients to None that are zero in all processes: those of weights that no process has used.

    The optimizer then skips such a weight, as it does with one process.
    """
    weights = [weight for weight in model.parameters() if weight.grad is not None]
    used = torch.stack([local(weight.grad).any() for weight in weights if weight.grad is not None]).int()
    dist.all_reduce(used, dist.ReduceOp.MAX)
    for weight, is_used in zip(weights, used.tolist(), strict=True):
        if not is_used:
            weight.grad = None


def is_sharded(value: object) -> bool:
    """Return whether a value is a tensor of which this process has a part."""
    if not isinstance(value, Tensor) or type(value) in (Tensor, nn.Parameter):
        return False
    from torch.distributed.tensor import DTensor

    return isinstance(value, DTensor)


def local(tensor: Tensor) -> Tensor:
    """Return this process's part of a tensor; a tensor without shards is unchanged."""
    part: Tensor = tensor.to_local() if is_sharded(tensor) else tensor  # type: ignore[attr-defined]
    return part


def whole(tensor: Tensor) -> Tensor:
    """Return a tensor gathered from all processes; every process calls this. A tensor without shards is unchanged."""
    if not is_sharded(tensor):
        return tensor
    with reporting_lost_processes():
        gathered: Tensor = tensor.detach().full_tensor()  # type: ignore[attr-defined]
    return gathered


@contextmanager
def whole_weights(model: nn.Module) -> Iterator[None]:
    """Give a sharded model all of its weights for the block; every process enters it.

    Args:
        model: model whose weights are read in the block, not changed.
    """
    before = put_whole_weights(model)
    try:
        yield
    finally:
        for module, name, part in before:
            setattr(module, name, part)


def put_whole_weights(model: nn.Module) -> list[tuple[nn.Module, str, nn.Parameter]]:
    """Replace the shards of a model by whole weights, and return the shards with their places."""
    gathered: dict[int, nn.Parameter] = {}
    before: list[tuple[nn.Module, str, nn.Parameter]] = []
    for module in model.modules():
        for name, weight in list(module.named_parameters(recurse=False)):
            if is_sharded(weight):
                if id(weight) not in gathered:  # A tied weight stays one.
                    gathered[id(weight)] = nn.Parameter(whole(weight), requires_grad=weight.requires_grad)
                before.append((module, name, weight))
                setattr(module, name, gathered[id(weight)])
    return before
