"""Each family's first fifty training losses, held against stored ones: a change of the numerics shows at once.

The curves lie in tests/assets/losses.csv, a column a family. They hold on a CPU in float32, on one thread and on two.
Other kernels and other numbers of threads add in another order: with the kernels of AVX-512, of AVX2 and of no vectors
at all the curves were at most 3e-6 nats apart, so the tolerance is 1e-4. (At three times this learning rate the
Transformer's came to 8e-3.) A change on purpose writes them anew: `make loss-curves`.
"""

import csv
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from torch_linguist.model import LanguageModel
from torch_linguist.optim import OneCycle
from torch_linguist.optim.optimizers import set_learning_rate
from torch_linguist.trainer import TrainingContext
from torch_linguist.trainer.randomness import own_randomness

CURVES = Path(__file__).resolve().parents[2] / "assets" / "losses.csv"
STEPS = 50
TOLERANCE = 1e-4
OPTIONS: dict[str, dict[str, Any]] = {
    "rnn": {"hidden_size": 32},
    "lstm": {"hidden_size": 32, "output": "adaptive", "cutoffs": [12]},
    "gru": {"hidden_size": 32, "tied": True, "projection_size": 32},
    "transformer": {"tied": True, "output": "adaptive"},
}


def stored_curves() -> dict[str, list[float]]:
    with CURVES.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return {family: [float(row[family]) for row in rows] for family in OPTIONS}


def measured_curve(family: str, context: TrainingContext, build_model: Callable[..., LanguageModel]) -> list[float]:
    losses = []
    with own_randomness(11):
        model = build_model(
            family, context.corpus.tokenizer.vocab_size, dropout=0.1, embedding_dim=32, **OPTIONS[family]
        )
        loop = context.prepare_training(model, 0.01, 0.1)
        for step in range(STEPS):
            set_learning_rate(loop.optimizer, 0.01 * context.schedule.factor(step / STEPS))
            losses.append(float(loop.update()))
    return losses


@pytest.fixture(params=[1, 2], ids=["one thread", "two threads"])
def threads(request: pytest.FixtureRequest) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("family", OPTIONS)
def test_the_losses_are_the_stored_ones(
    family: str, make_context: Callable[..., TrainingContext], build_model: Callable[..., LanguageModel]
) -> None:
    context = make_context(max_steps=STEPS, batch_size=8, sequence_length=12, schedule=OneCycle())
    losses = measured_curve(family, context, build_model)
    assert losses[-1] < losses[0] - 0.25
    assert losses == pytest.approx(stored_curves()[family], abs=TOLERANCE)


@pytest.mark.skipif("TORCH_LINGUIST_WRITE_CURVES" not in os.environ, reason="make loss-curves asks for it")
def test_the_curves_are_written_anew(
    make_context: Callable[..., TrainingContext], build_model: Callable[..., LanguageModel]
) -> None:
    context = make_context(max_steps=STEPS, batch_size=8, sequence_length=12, schedule=OneCycle())
    curves = {family: measured_curve(family, context, build_model) for family in OPTIONS}
    with CURVES.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["step", *curves])
        for step, losses in enumerate(zip(*curves.values(), strict=True), start=1):
            writer.writerow([step, *(f"{loss:.6f}" for loss in losses)])
    assert stored_curves().keys() == curves.keys()
