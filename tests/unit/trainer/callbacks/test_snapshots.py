"""Snapshots at the ends of cycles, and their mixture as one checkpoint."""

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from torch_linguist.checkpoint.storage import load_model
from torch_linguist.errors import ConfigError
from torch_linguist.evaluation import stream_nll
from torch_linguist.model.mixture import Population, fit_weights
from torch_linguist.optim import Linear
from torch_linguist.trainer import Callback, Fit

FitBuilder = Callable[..., Fit]


class Rates(Callback):
    def __init__(self) -> None:
        self.found: list[float] = []
        self.notes: list[str] = []

    def after_update(self, training: Fit) -> None:
        assert training.state.update is not None
        self.found.append(training.state.update.lr)

    def noted(self, message: str) -> None:
        self.notes.append(message)


def test_the_schedule_runs_once_per_cycle_and_the_members_are_mixed(fit_of: FitBuilder, tmp_path: Path) -> None:
    rates = Rates()
    fit = fit_of(tmp_path / "run", snapshots=3, schedule=Linear(warmup=0.0), callbacks=[rates], eval_tokens=None)
    # A high rate, so that the members differ and their mixture is clearly better.
    fit.lr = 0.2
    fit.run()
    np.testing.assert_allclose(rates.found, [0.2 * (1 - step % 4 / 4) for step in range(12)], rtol=1e-9)
    folder, valid = tmp_path / "run" / "checkpoints", fit.context.corpus.valid
    members = [load_model(folder / f"snapshot-{cycle}.pt") for cycle in (1, 2, 3)]
    assert all(map(torch.equal, members[2].parameters(), fit.model.parameters()))
    losses = np.stack([np.concatenate(list(stream_nll(member, valid))) for member in members])
    weights = fit_weights(torch.from_numpy(losses))
    expected = -np.log(np.asarray(weights) @ np.exp(-losses))
    best = load_model(fit.best_path)
    assert isinstance(best, Population)
    assert best.weights == pytest.approx(weights)
    np.testing.assert_allclose(np.concatenate(list(stream_nll(best, valid))), expected, atol=1e-5)
    assert fit.state.best_loss == pytest.approx(expected.mean())
    assert any("best.pt holds the mixture" in note for note in rates.notes)
    tokens = torch.randint(best.vocab_size, (1, 5))
    logits, _ = best(tokens, best.initial_state(1))
    torch.testing.assert_close(torch.jit.script(best)(tokens, best.initial_state(1))[0], logits)


def test_a_mixture_that_gains_nothing_beyond_noise_is_not_kept(fit_of: FitBuilder, tmp_path: Path) -> None:
    rates = Rates()
    fit = fit_of(tmp_path / "run", snapshots=3, schedule=Linear(warmup=0.0), callbacks=[rates], eval_tokens=None)
    fit.run()
    assert not isinstance(load_model(fit.best_path), Population)
    assert any("the mixture gains nothing beyond noise" in note for note in rates.notes)


def test_a_resumed_training_keeps_the_members_it_has(fit_of: FitBuilder, tmp_path: Path) -> None:
    whole = fit_of(tmp_path / "whole", snapshots=3)
    whole.run()
    updates = itertools.count(1)
    part = fit_of(tmp_path / "part", snapshots=3, stop=lambda: next(updates) == 6)
    assert part.run().status == "interrupted"
    fit_of(tmp_path / "part", snapshots=3, resume=tmp_path / "part" / "checkpoints" / "last.pt").run()
    best = [load_model(tmp_path / run / "checkpoints" / "best.pt") for run in ("whole", "part")]
    assert all(map(torch.equal, best[0].state_dict().values(), best[1].state_dict().values()))


@pytest.mark.parametrize("target", ["os.path.join", "torch.nn.Linear", "unknown.Model"])
def test_a_population_builds_known_models_only(target: str) -> None:
    with pytest.raises(ConfigError, match="not a model that is imported"):
        Population(target, {}, 2)
