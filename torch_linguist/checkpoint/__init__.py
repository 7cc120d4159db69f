"""Checkpoints: saving and safely loading weights and training states; loading a finished run."""

from torch_linguist.checkpoint.loaded_run import LoadedRun, load_run
from torch_linguist.checkpoint.storage import load_model, read_checkpoint, save_checkpoint

__all__ = ["LoadedRun", "load_model", "load_run", "read_checkpoint", "save_checkpoint"]
