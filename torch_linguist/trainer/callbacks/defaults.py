"""The callbacks of every training, in the order in which they are called."""

from collections.abc import Iterable
from pathlib import Path

from torch_linguist.model import LanguageModel
from torch_linguist.optim.weight_average import WeightAverage
from torch_linguist.trainer.callback import Callback, CallbackList
from torch_linguist.trainer.callbacks.checkpointing import Checkpointing
from torch_linguist.trainer.callbacks.distillation import Distillation
from torch_linguist.trainer.callbacks.early_stopping import EarlyStopping
from torch_linguist.trainer.callbacks.gradual_unfreezing import GradualUnfreezing
from torch_linguist.trainer.callbacks.metrics_log import MetricsLog
from torch_linguist.trainer.callbacks.non_finite import NonFinite
from torch_linguist.trainer.callbacks.profiling import Profiling
from torch_linguist.trainer.callbacks.recorded_progress import ProgressRecorder, RecordedProgress
from torch_linguist.trainer.callbacks.samples import Sampler, Samples
from torch_linguist.trainer.callbacks.snapshots import PopulationAtEnd, Snapshots
from torch_linguist.trainer.callbacks.temperature_scaling import TemperatureScaling
from torch_linguist.trainer.callbacks.validation_schedule import ValidationSchedule
from torch_linguist.trainer.callbacks.weight_averaging import WeightAveraging
from torch_linguist.trainer.settings import CheckpointSettings, TrainerSettings


def training_callbacks(
    model: LanguageModel,
    folder: Path,
    settings: TrainerSettings,
    checkpoint: CheckpointSettings,
    sampler: Sampler | None = None,
    recorded: RecordedProgress | None = None,
    further: Iterable[Callback] = (),
) -> CallbackList:
    """Return the callbacks of a training.

    The order matters: the average takes in an update before a validation measures it, losses are checked before
    weights are saved, and checkpoints come last so that they hold what all others did.

    Args:
        model: model to train.
        folder: run folder.
        settings: settings of the training.
        checkpoint: number and interval of checkpoints.
        sampler: function that samples continuations; None for none.
        recorded: recorded progress of the training to repeat; None for a training of its own.
        further: callbacks of the caller.
    """
    timed = settings.max_minutes is not None or recorded is not None
    callbacks: list[Callback] = []
    if settings.profile:
        callbacks.append(Profiling(folder, settings.max_steps))
    if timed:
        callbacks.append(ProgressRecorder(folder))
    if settings.freeze:
        callbacks.append(GradualUnfreezing(settings.freeze))
    if settings.average is not None:
        callbacks.append(WeightAveraging(WeightAverage(model, settings.average, settings.average_decay)))
    callbacks += [
        NonFinite(settings.on_nan, settings.log_every),
        ValidationSchedule(settings.eval_every, timed, None if recorded is None else recorded.validated),
        EarlyStopping(settings.patience),
        MetricsLog(folder, settings.log_every),
        *further,
    ]
    if sampler is not None and settings.sample_every:
        callbacks.append(Samples(sampler, settings.sample_every))
    kept = folder / "checkpoints"
    if settings.snapshots is not None:
        snapshots = Snapshots(kept, settings.snapshots)
        callbacks.append(snapshots)
        if settings.distill:
            callbacks.append(Distillation(model, kept, snapshots, settings.distill))
    callbacks.append(Checkpointing(kept, checkpoint, at_start=settings.on_nan == "rollback"))
    if settings.snapshots is not None:
        callbacks.append(PopulationAtEnd(kept, settings.snapshots))
    if settings.temperature_scaling:
        callbacks.append(TemperatureScaling(kept, model))
    return CallbackList(callbacks)
