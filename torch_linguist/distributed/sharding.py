"""Sharded training by `torch.distributed.fsdp.fully_shard`: each process keeps a part of every weight.

Gradients and the state of the optimizer are divided alike. A training step gathers the weights and drops them again;
validations and checkpoints gather them too, so a checkpoint is the same file as without shards and can be continued by
any number of processes. Nothing here imports FSDP until a model is sharded.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.optim import Optimizer

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
    used = torch.stack([weight.grad.to_local().any() for weight in weights]).int()  # type: ignore[union-attr]
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


def gathered_on_cpu(content: Any, copies: dict[int, Tensor] | None = None) -> Any:
    """Return nested dicts and lists with every sharded tensor whole and on the CPU; every process calls this.

    Args:
        content: content of a checkpoint.
        copies: tensors gathered so far, by the identity of their shard.
    """
    copies = {} if copies is None else copies
    if isinstance(content, dict):
        return {key: gathered_on_cpu(value, copies) for key, value in content.items()}
    if isinstance(content, list):
        return [gathered_on_cpu(value, copies) for value in content]
    if not is_sharded(content):
        return content
    place = content.to_local().data_ptr()  # A state dict holds a tied weight twice.
    if not content.to_local().numel():
        return whole(content).cpu()
    if place not in copies:
        copies[place] = whole(content).cpu()
    return copies[place]


def scattered(value: Any, like: object) -> Any:
    """Return the shards of a tensor like those of another one; anything else is unchanged.

    Args:
        value: tensor that is whole in every process.
        like: sharded tensor of the same shape.
    """
    if not is_sharded(like) or not isinstance(value, Tensor) or value.shape != cast(Tensor, like).shape:
        return value
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(like, DTensor)
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


def scattered_weights(weights: Mapping[str, Any], model: nn.Module) -> Mapping[str, Any]:
    """Return saved weights in the shards of a model."""
    own = model.state_dict()
    return {name: scattered(value, own.get(name)) for name, value in weights.items()}


def scattered_state(state: dict[str, Any], optimizer: Optimizer) -> dict[str, Any]:
    """Return the saved state of an optimizer in the shards of its weights."""
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    if not any(map(is_sharded, weights)):
        return state
    parts = {
        place: {
            name: scattered(value, weights[place])
            for name, value in moments.items()
            # What belongs to rows alone has no use: sharded gradients are dense.
            if not isinstance(value, Tensor) or value.dim() == 0 or value.shape == weights[place].shape
        }
        for place, moments in state["state"].items()
    }
    return state | {"state": parts}
