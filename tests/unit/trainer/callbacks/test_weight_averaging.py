"""Averages of the weights."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from torch_linguist.checkpoint import load_model, read_checkpoint
from torch_linguist.evaluation import mean_nll
from torch_linguist.model import LanguageModel
from torch_linguist.optim.weight_average import NOT_IMPROVED, WeightAverage
from torch_linguist.trainer import Fit

ModelBuilder = Callable[..., LanguageModel]
FitBuilder = Callable[..., Fit]


def test_averages_are_those_of_the_formulas(build_model: ModelBuilder) -> None:
    model = build_model("gru", tied=True, embedding_dim=16)
    ema, mean = WeightAverage(model, "ema", 0.9), WeightAverage(model, "asgd", 0.9)
    history: list[Tensor] = []
    for _ in range(NOT_IMPROVED + 1):
        mean.observe(3.0)
    mean.update()
    assert mean.model is None
    mean.observe(3.5)  # Worse than the best of those before the last five.
    expected = torch.zeros(0)
    for step in range(12):
        with torch.no_grad():
            for weight in model.parameters():
                weight.add_(torch.randn_like(weight))
        ema.update()
        mean.update()
        now = torch.cat([weight.detach().double().flatten() for weight in model.parameters()])
        history.append(now)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = now if step == 0 else decay * expected + (1 - decay) * now
    for average, reference in ((ema, expected), (mean, torch.stack(history).mean(0))):
        assert average.model is not None
        found = torch.cat([weight.double().flatten() for weight in average.model.parameters()])
        torch.testing.assert_close(found, reference, rtol=1e-5, atol=1e-5)


def test_the_average_is_what_is_validated_and_kept(fit_of: FitBuilder, tmp_path: Path) -> None:
    fit = fit_of(tmp_path, average="ema", average_decay=0.5)
    result = fit.run()
    best = load_model(tmp_path / "checkpoints" / "best.pt")
    assert mean_nll(best, fit.context.corpus.valid, 60) == pytest.approx(result.best_loss, abs=1e-6)
    kept = read_checkpoint(tmp_path / "checkpoints" / "last.pt")["weights"]
    assert not torch.equal(kept["embedding.weight"], best.state_dict()["embedding.weight"])
