"""The inner loop: one optimizer update at a time. Every stage that trains is built on it.

Shape legend: B batch, T time.
"""

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.optim import Optimizer

from torch_linguist.data import Batch
from torch_linguist.distributed.data_parallel import DataParallel
from torch_linguist.distributed.processes import reporting_lost_processes
from torch_linguist.distributed.sharding import whole
from torch_linguist.model import LanguageModel, device_of
from torch_linguist.optim.optimizers import clip_gradients, load_optimizer
from torch_linguist.trainer.interrupt import StopRequest
from torch_linguist.trainer.state import TrainingState, Update


class BatchSource(Protocol):
    """An endless supply of batches, such as `torch_linguist.data.Batches`."""

    @property
    def epoch(self) -> float:
        """Passes over the data that are done, including fractions."""

    def next(self) -> Batch:
        """Return the next batch."""

    def state_dict(self) -> dict[str, Any]:
        """Return the position in the data, as plain types."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go to a position in the data."""


class Loop:
    """Truncated back-propagation through time over an endless supply of batches.

    The loss stays on the device, so nothing waits for it until it is read. If several processes train together, each
    computes its own rows of a batch; loss and gradients are those of the whole batch.

    Args:
        model: model to train, modified in place.
        optimizer: optimizer of the model's weights; the caller sets its learning rate before each update.
        batches: supply of batches.
        gradient_clip: largest gradient norm; None disables clipping.
        accumulate: batches per update.
        skip_non_finite: whether an update with a loss or gradient that is not finite is skipped: the weights stay, the
            carried state starts afresh, and data and step count go on. Each update then waits for its loss.
        step: forward and backward pass; None for that of the model in float32.
        stop_request: request to stop, on which the processes agree about once a second.
        nominal_length: tokens of a row that the learning rate is meant for; it is scaled in proportion to the length of
            the batches. None leaves it as it is.

    Attributes:
        state: progress of the training.
        device: device of the model.

    Example:
        >>> network = LSTM(corpus.tokenizer.vocab_size, embedding_dim=8, hidden_size=8)
        >>> batches = ContiguousBatches(corpus.train, batch_size=2, sequence_length=10)
        >>> loop = Loop(network, torch.optim.Adam(network.parameters()), batches)
        >>> loop.update() is not None, loop.state.step
        (True, 1)
    """

    def __init__(
        self,
        model: LanguageModel,
        optimizer: Optimizer,
        batches: BatchSource,
        *,
        gradient_clip: float | None = 1.0,
        accumulate: int = 1,
        skip_non_finite: bool = False,
        step: DataParallel | None = None,
        stop_request: StopRequest | None = None,
        nominal_length: int | None = None,
    ) -> None:
        self.model = model
        self.optimizer = optimizer
        self.batches = batches
        self.gradient_clip = gradient_clip
        self.accumulate = accumulate
        self.skip_non_finite = skip_non_finite
        self.stop_request = stop_request or StopRequest()
        self.device = device_of(model)
        self.state = TrainingState()
        self._step = step or DataParallel(model)
        self._nominal_length = nominal_length

    @property
    def generator(self) -> torch.Generator | None:
        """Source of what several processes draw alike; None with one process."""
        return self._step.generator

    def update(self) -> Tensor:
        """Make one optimizer update on the next `accumulate` batches.

        Returns:
            Mean loss before the update in nats per token; scalar tensor on the device.
        """
        state = self.state
        self.model.train()
        batches = [self.batches.next() for _ in range(self.accumulate)]
        if self._nominal_length is not None:
            mean_length = sum(batch.tokens.shape[1] for batch in batches) / len(batches)
            for group in self.optimizer.param_groups:
                group["lr"] *= mean_length / self._nominal_length
        tokens = sum(batch.targets.numel() for batch in batches)
        loss = torch.zeros((), device=self.device)
        for number, batch in enumerate(batches, 1):
            self._backward(batch, tokens, loss, last=number == len(batches))
        self._step.finish(loss)
        self.stop_request.agree()
        parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        with reporting_lost_processes(collectives_only=False):  # Norms of shards are summed over the processes.
            norm = whole(clip_gradients(parameters, self.gradient_clip))
        skipped = self.skip_non_finite and not bool(torch.isfinite(loss + norm))
        if skipped:
            state.carried = None
        else:
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        state.step += 1
        state.tokens += tokens
        state.epochs = self.batches.epoch
        lr = float(self.optimizer.param_groups[0]["lr"])
        state.update = Update(state.step, loss, norm, batches, lr, skipped)
        return loss

    def close(self) -> None:
        """Detach from the model, which can then be trained otherwise. Call it after the last update."""
        self._step.close()

    def _backward(self, batch: Batch, tokens: int, loss: Tensor, last: bool) -> None:
        """Add a batch's gradients, and its share of the mean loss over `tokens` tokens to `loss` in place."""
        state = self.state
        state.rows = len(batch.tokens)
        carried = None if batch.reset else state.carried
        share, new_state = self._step.backward(batch.tokens, batch.targets, carried, tokens, last, batch.continues)
        state.carried = new_state if batch.continues else None
        loss += share

    def state_dict(self) -> dict[str, Any]:
        """Return everything but the weights that an exact continuation needs, as plain types and tensors."""
        return self.state.state_dict() | {
            "optimizer": self.optimizer.state_dict(),
            "batches": self.batches.state_dict(),
        }

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Restore the result of `state_dict`; the options of the optimizer stay as they are."""
        self.state.load_state_dict(saved, self.device)
        load_optimizer(self.optimizer, saved["optimizer"])
        self.batches.load_state_dict(saved["batches"])
