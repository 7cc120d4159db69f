"""Training: the loop, the long training built on it, and its callbacks."""

from torch_linguist.trainer.callback import Callback, CallbackList
from torch_linguist.trainer.context import TrainingContext
from torch_linguist.trainer.fit import Fit, FitResult
from torch_linguist.trainer.loop import Loop
from torch_linguist.trainer.settings import (
    STAGES,
    CheckpointSettings,
    CheckSettings,
    GridSettings,
    LRFindSettings,
    OverfitSettings,
    SampleSettings,
    ScoreSettings,
    TrainerSettings,
)
from torch_linguist.trainer.train import train

__all__ = [
    "STAGES",
    "Callback",
    "CallbackList",
    "CheckSettings",
    "CheckpointSettings",
    "Fit",
    "FitResult",
    "GridSettings",
    "LRFindSettings",
    "Loop",
    "OverfitSettings",
    "SampleSettings",
    "ScoreSettings",
    "TrainerSettings",
    "TrainingContext",
    "train",
]
