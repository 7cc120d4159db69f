"""Each family's first forty training losses, held against stored ones: a change of the numerics shows at once.

The curves lie in tests/assets/losses. They hold on a CPU in float32. Other kernels add in another order: with those of
AVX-512, of AVX2 and of no vectors at all the curves were at most 3e-6 nats apart, so the tolerance is 1e-4. (At three
times this learning rate the Transformer's came to 8e-3.) A change on purpose writes them anew:
`TORCH_LINGUIST_WRITE_CURVES=1 python -m pytest tests/unit/trainer/test_loss_curves.py`.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from torch_linguist.model import LanguageModel
from torch_linguist.trainer import OneCycle, Setup
from torch_linguist.trainer.optimizers import set_learning_rate
from torch_linguist.trainer.randomness import own_randomness

FOLDER = Path(__file__).resolve().parents[2] / "assets" / "losses"
STEPS = 40
TOLERANCE = 1e-4
OPTIONS: dict[str, dict[str, Any]] = {
    "rnn": {"hidden_size": 32},
    "lstm": {"hidden_size": 32, "output": "adaptive", "cutoffs": [12]},
    "gru": {"hidden_size": 32, "tied": True, "projection_size": 32},
    "transformer": {"tied": True, "output": "adaptive"},
}


@pytest.mark.parametrize("family", OPTIONS)
def test_the_losses_are_the_stored_ones(
    family: str, make_setup: Callable[..., Setup], build_model: Callable[..., LanguageModel]
) -> None:
    setup = make_setup(max_steps=STEPS, batch_size=8, sequence_length=12, schedule=OneCycle())
    losses = []
    with own_randomness(11):
        model = build_model(family, setup.corpus.tokenizer.vocab_size, dropout=0.1, embedding_dim=32, **OPTIONS[family])
        loop = setup.loop(model, 0.01, 0.1)
        for step in range(STEPS):
            set_learning_rate(loop.optimizer, 0.01 * setup.schedule.factor(step / STEPS))
            losses.append(float(loop.update()))
    path = FOLDER / f"{family}.json"
    if os.environ.get("TORCH_LINGUIST_WRITE_CURVES"):
        path.write_text(json.dumps([round(loss, 6) for loss in losses]) + "\n", encoding="utf-8")
    assert losses[-1] < losses[0] - 0.25
    assert losses == pytest.approx(json.loads(path.read_text(encoding="utf-8")), abs=TOLERANCE)
