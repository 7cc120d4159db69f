"""Training from a notebook, in one call."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.optim import Optimizer

from torch_linguist.checkpoint.storage import read_checkpoint
from torch_linguist.data import TokenizedCorpus
from torch_linguist.model import LanguageModel
from torch_linguist.optim.schedules import OneCycle, Schedule
from torch_linguist.trainer.callback import Callback
from torch_linguist.trainer.context import TrainingContext, resolved
from torch_linguist.trainer.device import choose_device, choose_precision, denormals_flushed
from torch_linguist.trainer.fit import Fit, FitResult
from torch_linguist.trainer.initialization import start_from_counts
from torch_linguist.trainer.settings import ScoreSettings, TrainerSettings


def train(
    model: LanguageModel,
    corpus: TokenizedCorpus,
    *,
    lr: float = 3e-3,
    weight_decay: float = 0.01,
    make_optimizer: Callable[..., Optimizer] = torch.optim.AdamW,
    schedule: Schedule | None = None,
    seed: int = 1,
    folder: Path | str | None = None,
    observer: Callback | None = None,
    **settings: Any,
) -> FitResult:
    """Trains a model in place and leaves it with the weights of its best validation.

    Args:
        model: any model with weights; moved to the device of the settings.
        corpus: from `torch_linguist.prepare`.
        lr: peak learning rate.
        weight_decay: of the weight matrices; embeddings, norms and biases do not decay.
        make_optimizer: called with parameter groups, `lr` and `weight_decay`.
        schedule: of the learning rate; None for one cycle.
        seed: of the data's order and of dropout.
        folder: gets `metrics.csv` and `checkpoints/`, made if it is not there; None keeps nothing.
        observer: is told what happens.
        settings: of `TrainerSettings`; at least one limit, for example `max_epochs=1`.

    Returns:
        What the training came to.

    Raises:
        ConfigError: a setting is out of its range, or no limit is given.
        TrainingError: a loss was not finite.
    """
    chosen = TrainerSettings(**settings)
    device = choose_device(chosen.device)
    model.prepare_vocabulary(torch.from_numpy(corpus.token_counts()))
    start_from_counts(model, corpus, chosen)
    model.to(device)
    context = TrainingContext(
        corpus=corpus,
        make_optimizer=make_optimizer,
        schedule=schedule or OneCycle(),
        settings=resolved(chosen, device, choose_precision(chosen.precision, device)),
        score=ScoreSettings(),
        seed=seed,
    )
    with tempfile.TemporaryDirectory() as temporary, denormals_flushed():
        kept = Path(temporary if folder is None else folder)
        kept.mkdir(parents=True, exist_ok=True)
        fit = Fit(model, context, lr, weight_decay, kept, observer)
        result = fit.run()
        model.load_state_dict(read_checkpoint(fit.best_path)["weights"])
    return result
