"""Loggers: callbacks that send what happens in a run to TensorBoard or an experiment tracker."""

from torch_linguist.report.loggers.logger import LoggedRun, Logger
from torch_linguist.report.loggers.mlflow import MLflowLogger
from torch_linguist.report.loggers.tensorboard import TensorBoardLogger
from torch_linguist.report.loggers.trackio import TrackioLogger
from torch_linguist.report.loggers.wandb import WandbLogger

__all__ = ["LoggedRun", "Logger", "MLflowLogger", "TensorBoardLogger", "TrackioLogger", "WandbLogger"]
