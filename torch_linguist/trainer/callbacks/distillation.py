"""Distillation along a chain of snapshots: each cycle also learns from the model at the end of the one before.

Shape legend: B batch, T time, V vocabulary.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from torch_linguist.checkpoint.storage import load_model
from torch_linguist.distributed import processes
from torch_linguist.errors import ConfigError
from torch_linguist.model import LanguageModel, State, detach_state
from torch_linguist.trainer.callback import Callback
from torch_linguist.trainer.callbacks.snapshots import Snapshots, snapshot_path, trusted_packages
from torch_linguist.trainer.randomness import own_randomness

if TYPE_CHECKING:
    from torch_linguist.trainer.fit import Fit


def check_distillation(model: LanguageModel, share: float) -> None:
    """Check that a model can learn from its snapshots; a share of 0 suits every model.

    Args:
        model: model to train.
        share: share of the divergence in the loss.

    Raises:
        ConfigError: the model trains on a sample of the vocabulary or with a penalty, or several processes train.
    """
    if not share or model.is_counted:
        return
    if model.samples_vocabulary:
        raise ConfigError(f"trainer.distill={share}: needs all logits of a step; set model.output=full or adaptive")
    for name in ("activation_penalty", "temporal_penalty"):
        if model.arguments.get(name):
            raise ConfigError(f"trainer.distill={share}: does not combine with model.{name}; set model.{name}=0")
    if processes.world_size() > 1:
        raise ConfigError(f"trainer.distill={share}: trains in one process; leave it at 0 under torchrun")


class Distillation(Callback):
    """Mixes the training loss with the divergence from the last snapshot (born-again networks, Furlanello et al. 2018).

    The loss of a token is (1 - share) * nll + share * KL(teacher || model). The teacher is the last snapshot, reads the
    same batches with its own state, and drops nothing. The first cycle has no teacher.

    Args:
        model: model to train.
        folder: `checkpoints/` of the run.
        snapshots: callback that writes the snapshots.
        share: share of the divergence in the loss.

    Raises:
        ConfigError: see `check_distillation`.
    """

    def __init__(self, model: LanguageModel, folder: Path, snapshots: Snapshots, share: float) -> None:
        check_distillation(model, share)
        self._model, self._folder, self._snapshots, self._share = model, folder, snapshots, share
        self._teacher: LanguageModel | None = None
        self._state: State | None = None

    def nll(self, tokens: Tensor, targets: Tensor, state: State) -> tuple[Tensor, State]:
        """Return the loss [B, T] of targets [B, T] in place of `model.nll`, and the new state of the model."""
        if self._teacher is None:
            return self._model.nll(tokens, targets, state)
        logits, new_state = self._model(tokens, state)
        log_probabilities = torch.log_softmax(logits, -1)
        expected = self._expected(tokens, state)
        nll = -log_probabilities.gather(-1, targets[..., None]).squeeze(-1)
        divergence = (expected.exp() * (expected - log_probabilities)).sum(-1)
        return (1 - self._share) * nll + self._share * divergence, new_state

    @torch.no_grad()
    def _expected(self, tokens: Tensor, state: State) -> Tensor:
        """Return the teacher's log-probabilities [B, T, V]; its state starts afresh where the model's does."""
        assert self._teacher is not None
        own = self._state
        afresh = not any(bool(tensor.any()) for tensor in state)
        if own is None or afresh or own[0].shape[1] != len(tokens):
            own = self._teacher.initial_state(len(tokens))
        logits, new_state = self._teacher(tokens, own)
        self._state = [new.to(old.dtype) for new, old in zip(detach_state(new_state), own, strict=True)]
        return torch.log_softmax(logits, -1)

    def training_started(self, training: "Fit") -> None:
        self._teach(training)

    def after_update(self, training: "Fit") -> None:
        if self._snapshots.is_new:
            self._state = None
            self._teach(training)

    def _teach(self, training: "Fit") -> None:
        path = snapshot_path(self._folder, self._snapshots.done)
        if not self._snapshots.done or training.state.progress >= 1:
            return
        # A model draws its first weights, which must not move the training's own random numbers.
        with training.overhead(), own_randomness(0):
            self._teacher = load_model(path, trusted_packages(training)).to(training.loop.device).eval()
            self._teacher.requires_grad_(False)

    def state_dict(self) -> dict[str, Any]:
        return {} if self._state is None else {"state": list(self._state)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        device = next(self._model.parameters()).device
        self._state = [tensor.to(device) for tensor in state["state"]]
