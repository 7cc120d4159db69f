"""Data-parallel training: each process computes its rows of a batch, and the gradients are summed.

Every process holds the whole model and reads the whole batch, so a global batch and a position in the data mean the
same for any number of processes. `DistributedDataParallel` exchanges the gradients during the backward pass, and
`table_gradients` those of the tables with sparse gradients after it.

Shape legend: B batch, T time.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch._C._distributed_c10d import GradBucket
from torch.nn.parallel import DistributedDataParallel

from torch_linguist.distributed.processes import rank, reporting_lost_processes, world_size
from torch_linguist.distributed.sharding import drop_zero_gradients, shard
from torch_linguist.distributed.table_gradients import sum_table_gradient
from torch_linguist.errors import ConfigError
from torch_linguist.model import LanguageModel, State, detach_state, device_of
from torch_linguist.model.module_modes import autocast

if TYPE_CHECKING:
    from torch.distributed.fsdp import FSDPModule

Nll = Callable[[Tensor, Tensor, State], tuple[Tensor, State]]
"""Loss of a training step, with the signature of `LanguageModel.nll`."""

WindowNll = Callable[[Tensor, Tensor], Tensor]
"""Loss of a training step on windows, with the signature of `LanguageModel.window_nll`."""


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


class TrainingStep(nn.Module):
    """Module whose `forward` returns the loss, because the hooks of `DistributedDataParallel` see `forward` alone.

    Args:
        model: model to train.
        nll: loss to use in place of `model.nll`; None for that.
        precision: `fp32` or `bf16`.
        window_nll: loss to use in place of `model.window_nll`; None for that, or for `nll` if it is given.
        may_skip: whether a step may leave a weight without a gradient. Replicas then have one more weight that is never
            used, because torch prints a warning if there is none. Shards need a gradient of each weight, if only zeros.
        sharded: whether the weights will be sharded.
    """

    _ddp_params_and_buffers_to_ignore: list[str]
    """Names that `DistributedDataParallel` leaves alone."""

    def __init__(
        self,
        model: LanguageModel,
        nll: Nll | None,
        precision: str,
        window_nll: WindowNll | None,
        may_skip: bool,
        sharded: bool = False,
    ) -> None:
        super().__init__()
        self.model = model
        self._window_nll = model.window_nll if nll is None else window_nll
        self._nll, self._device, self._precision = nll, device_of(model), precision
        self.unused = nn.Parameter(torch.zeros((), device=self._device)) if may_skip and not sharded else None
        self._reaches_all = may_skip and sharded

    def forward(
        self, tokens: Tensor, targets: Tensor, state: State | None, divisor: float, keep_state: bool = True
    ) -> tuple[Tensor, State]:
        """Return the sum of the nll over targets [B, T], divided by `divisor`, and the new state without gradients.

        Args:
            tokens: ids, int64 [B, T].
            targets: the id that follows each token, int64 [B, T].
            state: state before the tokens; None, or a state of another number of rows, starts afresh.
            divisor: divisor of the sum.
            keep_state: whether the new state is needed; False may return an empty one.
        """
        if not keep_state and state is None and self._window_nll is not None:
            with autocast(self._device, self._precision):
                nll = self._window_nll(tokens, targets)
            return self._loss(nll, divisor), []
        if state is None or state[0].shape[1] != len(tokens):
            state = self.model.initial_state(len(tokens))
        with autocast(self._device, self._precision):
            nll, carried = (self._nll or self.model.nll)(tokens, targets, state)
        # Under autocast a layer may return its state in bfloat16; it is carried in the type of the weights.
        kept = [new.to(old.dtype) for new, old in zip(detach_state(carried), state, strict=True)]
        return self._loss(nll, divisor), kept

    def _loss(self, nll: Tensor, divisor: float) -> Tensor:
        loss = nll.sum() / divisor
        if self._reaches_all:
            loss = loss + sum(0.0 * weight.sum() for weight in self.parameters() if weight.requires_grad)
        return loss


class DataParallel:
    """Forward and backward passes whose loss and gradients are those of the global batch.

    With one process it calls the model and nothing else.

    Args:
        model: model to train.
        nll: loss to use in place of `model.nll`; None for that.
        precision: `fp32` or `bf16`.
        compression: `bf16` halves what is sent and rounds the gradients; None sends them as they are.
        may_skip: whether a step may leave a weight without a gradient in some process or in all; None for the
            `may_skip_weights` of the model.
        seed: random seed of what all processes draw alike, such as the sample of a sampled softmax.
        sharded: whether each process keeps a part of every weight instead of all weights. The optimizer must be built
            afterwards.
        window_nll: loss to use in place of `model.window_nll`; None for that, or for `nll` if it is given.
    """

    def __init__(
        self,
        model: LanguageModel,
        nll: Nll | None = None,
        precision: str = "fp32",
        compression: str | None = None,
        may_skip: bool | None = None,
        seed: int = 1,
        sharded: bool = False,
        window_nll: WindowNll | None = None,
    ) -> None:
        self._model, self._compression = model, compression
        several = world_size() > 1
        may_skip = several and (model.may_skip_weights if may_skip is None else may_skip)
        self._may_skip = may_skip
        self._step = TrainingStep(model, nll, precision, window_nll, may_skip, sharded)
        self._tables = [weight for weight in model.sparse_tables() if weight.requires_grad] if several else []
        self._device = device_of(model)
        self._replica: DistributedDataParallel | None = None
        self._shards: FSDPModule | None = None
        self.generator: torch.Generator | None = None
        if several:
            self.generator = torch.Generator(self._device).manual_seed(seed)
            if sharded:
                self._shards = shard(self._step, self._device, compression)
            else:
                self._replica = self._replicated(may_skip)

    def backward(
        self,
        tokens: Tensor,
        targets: Tensor,
        state: State | None,
        total: int,
        last: bool,
        keep_state: bool = True,
    ) -> tuple[Tensor, State]:
        """Compute the rows of this process, forward and backward.

        Args:
            tokens: ids of the global batch, int64 [B, T].
            targets: the id that follows each token, int64 [B, T].
            state: state of the local rows; None, or one of another number of rows, starts afresh.
            total: number of tokens that the loss is divided by.
            last: whether this is the last batch of the update. The gradients are exchanged then.
            keep_state: whether the new state is needed; False may return an empty one.

        Returns:
            Share of the local rows in the mean loss, scalar tensor, and the new state of the local rows.
        """
        size = world_size()
        own = local_rows(len(tokens))
        # DistributedDataParallel averages over the processes.
        rows, divisor = own, total / size
        if own.start == own.stop:
            # The last windows of an epoch may be fewer than the processes. The first row then counts nothing here.
            rows, divisor = slice(0, 1), math.inf
        if self.generator is not None:
            self._model.draw_sample(targets.to(self._device), self.generator)
        batch = tokens[rows].to(self._device), targets[rows].to(self._device), state, divisor, keep_state
        if size == 1:
            loss, new_state = self._step(*batch)
            loss.backward()
            return loss.detach(), new_state
        with reporting_lost_processes(collectives_only=False), self._exchanging(last):
            loss, new_state = (self._replica or self._step)(*batch)
            loss.backward()
        return loss.detach() / size, [part[:, : own.stop - own.start] for part in new_state]

    def _exchanging(self, last: bool) -> AbstractContextManager[None]:
        """Return the context of a batch: the gradients are exchanged in that of the last one only."""
        if self._shards is not None:
            self._shards.set_requires_gradient_sync(last)
        return self._replica.no_sync() if self._replica is not None and not last else nullcontext()

    def finish(self, loss: Tensor) -> None:
        """Complete the gradients of an update, and sum a loss over the processes in place.

        Args:
            loss: loss of the local rows; scalar tensor.
        """
        if world_size() == 1:
            return
        with reporting_lost_processes():
            for table in self._tables:
                sum_table_gradient(table, self._compression)
            if self._shards is not None and self._may_skip:
                drop_zero_gradients(self._model)
            dist.all_reduce(loss)

    def close(self) -> None:
        """Detach from the model, which can then be trained otherwise."""
        if self._replica is not None:
            self._replica._remove_autograd_hooks()  # type: ignore[no-untyped-call]
        self._replica, self._shards, self._tables = None, None, []

    def _replicated(self, may_skip: bool) -> DistributedDataParallel:
        """Return the module that exchanges the gradients of all weights but the tables."""
        tables = {id(table) for table in self._tables}
        named = self._step.named_parameters(remove_duplicate=False)
        # A tied table has several names. Buffers are the same in all processes and never change.
        ignored = [name for name, weight in named if id(weight) in tables]
        ignored += [name for name, _ in self._step.named_buffers(remove_duplicate=False)]
        self._step._ddp_params_and_buffers_to_ignore = ignored
        replica = DistributedDataParallel(
            self._step, init_sync=False, find_unused_parameters=may_skip, gradient_as_bucket_view=True
        )
        if self._compression == "bf16":
            replica.register_comm_hook(None, mean_in_bfloat16)
        return replica


def mean_in_bfloat16(state: object, bucket: GradBucket) -> torch.futures.Future[Tensor]:
    """Average a bucket of gradients over the processes in bfloat16; torch's own hook needs a GPU.

    Args:
        state: unused.
        bucket: gradients that are ready.
    """
    sent = bucket.buffer().to(torch.bfloat16).div_(world_size())
    work = dist.all_reduce(sent, async_op=True)
    assert work is not None

    def restored(done: torch.futures.Future[list[Tensor]]) -> Tensor:
        buffer: Tensor = bucket.buffer()
        return buffer.copy_(done.value()[0])

    averaged: torch.futures.Future[Tensor] = work.get_future().then(restored)
    return averaged
