"""Training in one call, for notebooks."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.optim import Optimizer

from torch_linguist.checkpoint.storage import read_checkpoint
from torch_linguist.data import TokenizedCorpus
from torch_linguist.distributed import processes
from torch_linguist.distributed.data_parallel import broadcast_weights
from torch_linguist.model import LanguageModel
from torch_linguist.optim.schedules import Schedule, WarmupStableDecay
from torch_linguist.runs.devices import choose_device
from torch_linguist.runs.files import temporary_folder
from torch_linguist.trainer.callback import Callback
from torch_linguist.trainer.context import TrainingContext, resolved
from torch_linguist.trainer.device import checked_device, choose_precision, denormals_flushed
from torch_linguist.trainer.fit import Fit, FitResult
from torch_linguist.trainer.initialization import start_from_counts
from torch_linguist.trainer.settings import TrainerSettings


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
    callbacks: Sequence[Callback] = (),
    **settings: Any,
) -> FitResult:
    """Train a model in place; afterwards it has the weights of its best validation.

    An untrained model starts from the counts of the training split; a trained or loaded one keeps its weights.
    With `snapshots`, it keeps its last weights, and `checkpoints/best.pt` in the folder holds the mixture.

    Args:
        model: any model with weights; moved to the device of the settings.
        corpus: result of `torch_linguist.prepare`.
        lr: peak learning rate.
        weight_decay: weight decay of the weight matrices; embeddings, norms and biases do not decay.
        make_optimizer: called with parameter groups, `lr` and `weight_decay`.
        schedule: learning-rate schedule; None for `WarmupStableDecay`.
        seed: random seed of the data order and of dropout.
        folder: folder for `metrics.csv` and `checkpoints/`, created if missing; None keeps no files.
        callbacks: callbacks to call during the training; see `Callback`.
        settings: fields of `TrainerSettings`; at least one limit, for example `max_epochs=1`.

    Raises:
        ConfigError: a setting is out of its range, or no limit is set.
        TrainingError: a loss was not finite.

    Example:
        >>> network = LSTM(corpus.tokenizer.vocab_size, embedding_dim=8, hidden_size=8)
        >>> train(network, corpus, lr=1e-2, max_steps=3, batch_size=2, sequence_length=10, device="cpu").steps
        3
    """
    chosen = TrainerSettings(**settings)
    choose_device(chosen.device)  # A device that is missing is reported before any work.
    if not model.is_trained:
        model.prepare_vocabulary(torch.from_numpy(corpus.token_counts()))
        start_from_counts(model, corpus, chosen)
    device = checked_device(chosen.device, model)
    model.to(device)
    resolved_settings = resolved(chosen, device, choose_precision(chosen.precision, device))
    context = TrainingContext(corpus, make_optimizer, schedule or WarmupStableDecay(), resolved_settings, seed)
    with temporary_folder("torch-linguist-") as temporary, denormals_flushed():
        kept = Path(temporary if folder is None else folder)
        kept.mkdir(parents=True, exist_ok=True)
        fit = Fit(model, context, lr, weight_decay, kept, callbacks)
        result = fit.run()
        if chosen.snapshots is None:
            _load_best(model, fit.best_path, context.sharded)
    return result


def _load_best(model: LanguageModel, path: Path, sharded: bool) -> None:
    if processes.is_main_process() or not sharded:
        model.load_state_dict(read_checkpoint(path)["weights"])
    if sharded:
        broadcast_weights(model)
