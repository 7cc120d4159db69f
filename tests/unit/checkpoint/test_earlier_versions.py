"""Checkpoints of torch-linguist 0.1: a tiny LSTM, trained for four updates."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from torch_linguist.checkpoint import load_model
from torch_linguist.errors import TrainingError
from torch_linguist.trainer import Fit, TrainingContext

CHECKPOINTS = Path(__file__).resolve().parents[2] / "assets" / "version_0_1"


def test_best_weights_score_as_they_did() -> None:
    model = load_model(CHECKPOINTS / "best.pt")
    ids = torch.tensor([[1, 2, 3, 4, 5]])
    nll, _ = model.nll(ids, ids, model.initial_state(1))
    # Printed by version 0.1.
    torch.testing.assert_close(nll, torch.tensor([[6.0285, 1.2636, 1.2614, 1.2731, 1.9349]]), atol=1e-4, rtol=0)


def test_an_old_training_state_says_which_version_wrote_it(
    make_context: Callable[..., TrainingContext], tmp_path: Path
) -> None:
    model = load_model(CHECKPOINTS / "best.pt")
    with pytest.raises(TrainingError, match=r"last\.pt: torch-linguist 0\.1 wrote this training state") as caught:
        Fit(model, make_context(), 0.01, 0.0, tmp_path, resume=CHECKPOINTS / "last.pt")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []
