"""Sum of a table's gradient over the processes: only the rows that a batch touched are sent.

Shape legend: V rows of the table, D their width, R rows that the processes touched together.
"""

import torch
from torch import Tensor, nn
from torch import distributed as dist

from torch_linguist.distributed.processes import world_size


def sum_table_gradient(table: nn.Parameter, compression: str | None = None) -> None:
    """Replace the gradient of a table by its mean over the processes.

    Each process sends the ids of its rows, then a block [R, D]. A dense gradient is sent whole.

    Args:
        table: weight [V, D] with a sparse or dense gradient, or with none in all processes.
        compression: `bf16` sends the values in bfloat16.
    """
    gradient = table.grad
    if gradient is None:
        return
    if not gradient.is_sparse:
        table.grad = _mean(gradient, compression)
        return
    gradient = gradient.coalesce()
    rows, values = gradient.indices()[0], gradient.values()
    union = _union(rows)
    block = values.new_zeros(len(union), values.shape[1])
    block[torch.searchsorted(union, rows)] = values
    table.grad = torch.sparse_coo_tensor(
        union[None], _mean(block, compression), gradient.shape, is_coalesced=True, check_invariants=False
    )


def _union(rows: Tensor) -> Tensor:
    """Return the sorted ids that occur in any process, given the sorted ids of this process."""
    count = torch.tensor(len(rows))
    dist.all_reduce(count, dist.ReduceOp.MAX)
    own = torch.full((int(count),), -1, dtype=torch.int32, device=rows.device)
    own[: len(rows)] = rows
    gathered = [torch.empty_like(own) for _ in range(world_size())]
    dist.all_gather(gathered, own)
    union: Tensor = torch.unique(torch.cat(gathered)).long()
    return union[union >= 0]


def _mean(values: Tensor, compression: str | None) -> Tensor:
    """Return the mean over the processes, in the type of the values."""
    sent = values.to(torch.bfloat16) if compression == "bf16" else values
    sent = sent.div_(world_size())
    dist.all_reduce(sent)
    return sent.to(values.dtype)
