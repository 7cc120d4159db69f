"""Checkpoints: plain types and tensors, written to a temporary name and renamed, loaded with `weights_only=True`.

A checkpoint holds what builds its model again (the class's dotted path and its arguments), so it needs no config.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from torch_linguist.errors import TrainingError
from torch_linguist.model import LanguageModel
from torch_linguist.trainer.rebuild import build_model, first_line
from torch_linguist.trainer.run_folder import whole_file

FORMAT = 1
TRUSTED = ("torch_linguist.",)
"""Packages whose models a checkpoint may name."""


def save_checkpoint(path: Path, model: LanguageModel, progress: dict[str, Any]) -> None:
    """Writes a model and what is known of its training.

    Args:
        path: of the file; an earlier one is replaced only by a whole new one.
        model: any model built from plain arguments.
        progress: plain types and tensors.
    """
    cls = type(model)
    content = {
        "format": FORMAT,
        "model": {"target": f"{cls.__module__}.{cls.__qualname__}", "arguments": _plain(model.arguments)},
        "weights": model.state_dict(),
        "progress": progress,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as temporary, temporary.open("wb") as file:
        torch.save(content, file)
        file.flush()
        os.fsync(file.fileno())


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a checkpoint.

    Raises:
        TrainingError: there is no such file, or it is not a checkpoint of this format.
    """
    if not path.is_file():
        raise TrainingError(f"{path}: no such checkpoint; the run has not come to its first validation")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises whatever a damaged zip or pickle gives
        raise TrainingError(f"{path}: not a readable checkpoint ({first_line(error)})") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        found = content.get("format") if isinstance(content, dict) else type(content).__name__
        raise TrainingError(f"{path}: format {found!r} is not {FORMAT}; it was written by another version")
    return content


def load_model(path: Path, trusted: Sequence[str] = TRUSTED) -> LanguageModel:
    """Builds the model of a checkpoint with its weights, in eval mode on the CPU.

    Args:
        path: of the checkpoint.
        trusted: packages, each ending in a dot, whose classes may be built.

    Raises:
        TrainingError: the file cannot be read, or names a class outside the trusted packages,
            or its weights are not of the model that it describes.
    """
    content = read_checkpoint(path)
    try:
        target, arguments = str(content["model"]["target"]), content["model"]["arguments"]
    except (KeyError, TypeError) as error:
        raise TrainingError(f"{path}: does not say what builds its model; it was written by another program") from error
    model = build_model(target, arguments, content.get("weights"), trusted, path)
    load_weights(model, content, path)
    return model.eval()


def load_weights(model: LanguageModel, content: dict[str, Any], path: Path) -> None:
    """Puts the weights of a checkpoint into a model.

    Args:
        model: takes them.
        content: of the checkpoint.
        path: of the checkpoint, for the message.

    Raises:
        TrainingError: they are those of another model.
    """
    try:
        model.load_state_dict(content["weights"])
    except (RuntimeError, KeyError, TypeError, AttributeError) as error:
        raise TrainingError(
            f"{path}: its weights do not fit this {type(model).__name__}; give the model its training was begun with"
        ) from error


def _plain(value: Any) -> Any:
    """Containers as plain lists and dicts, so that a checkpoint loads with `weights_only=True`."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(item) for item in value]
    return value
