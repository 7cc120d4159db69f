"""Losses that are not finite: stop, skip, rollback; and losses that jump."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from torch_linguist.checkpoint import read_checkpoint
from torch_linguist.errors import TrainingError
from torch_linguist.trainer import Callback, Fit
from torch_linguist.trainer.callbacks.non_finite import SETTLED, LossWatch

FitBuilder = Callable[..., Fit]


class Notes(Callback):
    """Keeps what it is told in words."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def noted(self, message: str) -> None:
        self.notes.append(message)


def poison(fit: Fit, *steps: int) -> None:
    """Makes the loss of some updates infinite, and with it every gradient."""
    nll = fit.model.nll

    def poisoned(tokens: Tensor, targets: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        values, new_state = nll(tokens, targets, state)
        return (values * math.inf if fit.model.training and fit.state.step + 1 in steps else values), new_state

    fit.model.nll = poisoned  # type: ignore[method-assign]


def finite(path: Path) -> bool:
    return all(bool(tensor.isfinite().all()) for tensor in read_checkpoint(path)["weights"].values())


def test_stop_names_the_step_and_keeps_the_batch(fit_of: FitBuilder, tmp_path: Path) -> None:
    fit = fit_of(tmp_path, accumulate=2)
    poison(fit, 7)
    with pytest.raises(TrainingError, match=r"step 7: the training loss is inf .*faulty_batch_7\.pt") as caught:
        fit.run()
    assert "\n" not in str(caught.value)
    kept = torch.load(tmp_path / "faulty_batch_7.pt", weights_only=True)
    assert (kept["step"], kept["loss"], len(kept["batches"])) == (7, math.inf, 2)
    batches = fit.context.batches(fit.model)
    expected = [batches.next() for _ in range(14)][12]
    assert kept["batches"][0]["tokens"].equal(expected.tokens)
    assert finite(tmp_path / "checkpoints" / "last.pt")


def test_skip_leaves_the_update_out(fit_of: FitBuilder, tmp_path: Path) -> None:
    notes = Notes()
    fit = fit_of(tmp_path, on_nan="skip", callbacks=[notes])
    poison(fit, 5, 6)
    before: dict[int, Tensor] = {}
    update = fit.loop.update

    def watched() -> Tensor:
        loss = update()
        before[fit.state.step] = next(fit.model.parameters()).detach().clone()
        return loss

    fit.loop.update = watched  # type: ignore[method-assign]
    result = fit.run()
    assert (result.status, result.steps, len(notes.notes)) == ("finished", 12, 2)
    assert "step 5: the training loss is inf" in notes.notes[0]
    assert torch.equal(before[4], before[5])
    assert torch.equal(before[5], before[6])
    assert not torch.equal(before[6], before[7])
    fit = fit_of(tmp_path / "endless", on_nan="skip", max_steps=200)
    poison(fit, *range(200))
    with pytest.raises(TrainingError, match=r"step 101: .* as in the 100 updates before it"):
        fit.run()


def test_rollback_takes_the_weights_of_the_last_checkpoint(fit_of: FitBuilder, tmp_path: Path) -> None:
    notes = Notes()
    fit = fit_of(tmp_path, on_nan="rollback", callbacks=[notes])
    poison(fit, 1, 8)
    result = fit.run()
    assert (result.status, result.steps) == ("finished", 12)
    assert "back to the weights of step 0" in notes.notes[0]
    assert "step 8: " in notes.notes[1]
    assert "back to the weights of step 6" in notes.notes[1]
    assert finite(tmp_path / "checkpoints" / "last.pt")


def test_a_jump_is_reported_once() -> None:
    watch = LossWatch()
    told = [watch.jump(loss) for loss in [5.0] * SETTLED + [9.0, 9.5, 5.0]]
    assert told[:SETTLED] == [None] * SETTLED
    assert told[SETTLED] == "the training loss jumped to 9, its running mean was 5"
    assert told[SETTLED + 1 :] == [None, None]
