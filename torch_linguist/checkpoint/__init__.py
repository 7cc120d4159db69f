"""Weights and training state to a file and back, safely; a finished run loaded from its folder."""

from torch_linguist.checkpoint.loaded_run import LoadedRun, load_run
from torch_linguist.checkpoint.storage import load_model, read_checkpoint, save_checkpoint

__all__ = ["LoadedRun", "load_model", "load_run", "read_checkpoint", "save_checkpoint"]
