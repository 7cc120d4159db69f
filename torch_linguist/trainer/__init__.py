"""Training: the loop, the long training built on it, and its callbacks."""

from torch_linguist.trainer.callback import Callback, CallbackList
from torch_linguist.trainer.context import TrainingContext
from torch_linguist.trainer.fit import Fit, FitResult
from torch_linguist.trainer.loop import Loop
from torch_linguist.trainer.settings import CheckpointSettings, TrainerSettings
from torch_linguist.trainer.train import train

__all__ = [
    "Callback",
    "CallbackList",
    "CheckpointSettings",
    "Fit",
    "FitResult",
    "Loop",
    "TrainerSettings",
    "TrainingContext",
    "train",
]
