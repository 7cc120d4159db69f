"""Distillation along the chain of snapshots."""

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from torch_linguist.checkpoint.storage import load_model
from torch_linguist.errors import ConfigError
from torch_linguist.model import LSTM
from torch_linguist.trainer import Fit, TrainerSettings
from torch_linguist.trainer.callbacks.distillation import Distillation
from torch_linguist.trainer.callbacks.snapshots import Snapshots, snapshot_path

FitBuilder = Callable[..., Fit]


def test_the_loss_is_the_mixture_of_nll_and_divergence(fit_of: FitBuilder, tmp_path: Path) -> None:
    fit = fit_of(tmp_path / "run", snapshots=3, distill=0.4)
    fit.run()
    distillation = next(callback for callback in fit.callbacks if isinstance(callback, Distillation))
    teacher = load_model(snapshot_path(tmp_path / "run" / "checkpoints", 2)).eval()
    model = fit.model.eval()
    chunks = torch.randint(model.vocab_size, (2, 3, 7), generator=torch.Generator().manual_seed(1))
    targets = torch.randint(model.vocab_size, (3, 14), generator=torch.Generator().manual_seed(2))
    state, parts = model.initial_state(3), []
    with torch.no_grad():
        for place, tokens in enumerate(chunks):
            part, state = distillation.nll(tokens, targets[:, 7 * place : 7 * place + 7], state)
            parts.append(part)
        tokens = torch.cat(list(chunks), 1)
        own, given = (
            torch.log_softmax(network(tokens, network.initial_state(3))[0].double(), -1) for network in (model, teacher)
        )
    nll = -own.gather(-1, targets[..., None])[..., 0]
    divergence = torch.nn.functional.kl_div(own, given, reduction="none", log_target=True).sum(-1)
    torch.testing.assert_close(torch.cat(parts, 1).double(), 0.6 * nll + 0.4 * divergence, atol=1e-5, rtol=1e-4)


def test_the_first_cycle_is_that_of_a_plain_training(fit_of: FitBuilder, tmp_path: Path) -> None:
    fit_of(tmp_path / "plain", snapshots=3).run()
    fit_of(tmp_path / "chain", snapshots=3, distill=0.4).run()
    first, second = (
        [load_model(snapshot_path(tmp_path / name / "checkpoints", cycle)).state_dict() for name in ("plain", "chain")]
        for cycle in (1, 2)
    )
    assert all(map(torch.equal, first[0].values(), first[1].values()))
    assert not all(map(torch.equal, second[0].values(), second[1].values()))


def test_a_resumed_training_is_that_without_a_break(fit_of: FitBuilder, tmp_path: Path) -> None:
    whole = fit_of(tmp_path / "whole", snapshots=3, distill=0.4)
    whole.run()
    updates = itertools.count(1)
    part = fit_of(tmp_path / "part", snapshots=3, distill=0.4, stop=lambda: next(updates) == 6)
    assert part.run().status == "interrupted"
    last = tmp_path / "part" / "checkpoints" / "last.pt"
    resumed = fit_of(tmp_path / "part", snapshots=3, distill=0.4, resume=last)
    resumed.run()
    assert all(map(torch.equal, resumed.model.state_dict().values(), whole.model.state_dict().values()))


def test_what_cannot_be_distilled_is_refused(tmp_path: Path) -> None:
    sampled = LSTM(50, 8, 8, output="sampled", cutoffs=[10])
    with pytest.raises(ConfigError, match=r"distill=0\.4: needs all logits of a step; set model\.output=full"):
        Distillation(sampled, tmp_path, Snapshots(tmp_path, 3), 0.4)
    penalized = LSTM(50, 8, 8, activation_penalty=1.0)
    with pytest.raises(ConfigError, match=r"does not combine with model\.activation_penalty"):
        Distillation(penalized, tmp_path, Snapshots(tmp_path, 3), 0.4)
    with pytest.raises(ConfigError, match=r"distill=0\.4: needs trainer\.snapshots"):
        TrainerSettings(max_steps=3, distill=0.4)
