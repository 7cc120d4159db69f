"""Checkpoints: plain types and tensors, written to a temporary name and renamed, loaded with `weights_only=True`.

A checkpoint holds what builds its model again (the class's dotted path and its arguments), so it needs no config. It
is a file of `torch.save`, a zip archive whose comment is the SHA-256 of all that comes before: `torch.load` reads it
as any other, `unzip -z` shows the checksum, and the two cannot be parted as a second file could.
"""

import hashlib
import itertools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from torch_linguist.checkpoint.model_building import build_model, first_line
from torch_linguist.errors import DataError, TrainingError, is_exhausted
from torch_linguist.model import LanguageModel
from torch_linguist.runs.files import whole_file
from torch_linguist.runs.safe_reading import check_archive

FORMAT = 1
TRUSTED = ("torch_linguist.",)
"""Packages whose models a checkpoint may name."""

SEAL = b"sha256:"
"""What the comment of the archive begins with; 64 hexadecimal digits follow."""

SEAL_LENGTH = len(SEAL) + 64

ARCHIVE_END = b"PK\x05\x06"
"""What the last record of a zip archive begins with; its comment follows."""

ARCHIVE_END_LENGTH = 22


def save_checkpoint(path: Path, model: LanguageModel, progress: dict[str, Any]) -> None:
    """Writes a model and what is known of its training.

    Args:
        path: of the file; an earlier one is replaced only by a whole new one.
        model: any model built from plain arguments.
        progress: plain types and tensors.
    """
    write_checkpoint(path, checkpoint_content(model, progress))


def checkpoint_content(model: LanguageModel, progress: dict[str, Any]) -> dict[str, Any]:
    """What a checkpoint of a model holds; its weights are those of the model itself, not a copy."""
    cls = type(model)
    return {
        "format": FORMAT,
        "model": {"target": f"{cls.__module__}.{cls.__qualname__}", "arguments": _plain(model.arguments)},
        "weights": model.state_dict(),
        "progress": progress,
    }


def write_checkpoint(path: Path, content: dict[str, Any], previous: Sequence[Path] = ()) -> None:
    """Writes a checkpoint: on the disk as a whole when this returns, or not there at all.

    Args:
        path: of the file; an earlier one is replaced only by a whole new one.
        content: from `checkpoint_content`; tensors that share their memory (tied weights) are stored once.
        previous: where the earlier ones go, the youngest first; the last of them is given up.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as temporary:
        with temporary.open("w+b") as file:
            torch.save(content, file)
            _seal(file)
            file.flush()
            os.fsync(file.fileno())
        line = [path, *previous]
        for younger, older in reversed(list(itertools.pairwise(line))):
            if younger.is_file():
                younger.replace(older)


def _seal(file: IO[bytes]) -> None:
    """Makes the checksum of an archive its comment."""
    # An archive without a comment ends in the comment's length, two bytes.
    file.seek(-2, os.SEEK_END)
    assert file.read(2) == b"\0\0"
    file.seek(-2, os.SEEK_END)
    file.write(SEAL_LENGTH.to_bytes(2, "little"))
    file.seek(0)
    checksum = hashlib.sha256()
    while block := file.read(1 << 20):
        checksum.update(block)
    file.write(SEAL + checksum.hexdigest().encode())


def _check_seal(path: Path) -> None:
    """Raises a TrainingError where a checkpoint is not what was written; one without a checksum passes."""
    content = hashlib.sha256()
    with path.open("rb") as file:
        left = max(0, path.stat().st_size - SEAL_LENGTH)
        file.seek(max(0, left - len(ARCHIVE_END) - ARCHIVE_END_LENGTH))
        tail = file.read()
        begin = tail.rfind(ARCHIVE_END)
        # The end of an archive tells how long its comment is: one that was cut off is noticed too.
        length = int.from_bytes(tail[begin + 20 : begin + 22], "little") if begin >= 0 else 0
        if length == 0:
            return
        comment = tail[begin + ARCHIVE_END_LENGTH :]
        file.seek(0)
        while left and (block := file.read(min(left, 1 << 20))):
            content.update(block)
            left -= len(block)
    if len(comment) != length or (comment.startswith(SEAL) and comment[len(SEAL) :] != content.hexdigest().encode()):
        raise TrainingError(f"{path}: not a readable checkpoint (damaged: its checksum is not that of its content)")


def read_checkpoint(path: Path, *, mapped: bool = False) -> dict[str, Any]:
    """The content of a checkpoint.

    Args:
        path: path of the file.
        mapped: whether the tensors are memory-mapped instead of read.

    Raises:
        TrainingError: there is no such file, it is damaged, or it is not a checkpoint of this format.
    """
    if not path.is_file():
        raise TrainingError(f"{path}: no such checkpoint; the run has not come to its first validation")
    try:
        _check_seal(path)
    except OSError as error:
        if is_exhausted(error):
            raise
        raise TrainingError(f"{path}: cannot be read ({error.strerror})") from error
    check_archive(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:  # torch.load raises whatever a damaged zip or pickle gives
        if is_exhausted(error):
            raise
        raise TrainingError(f"{path}: not a readable checkpoint ({first_line(error)})") from error
    found = content.get("format") if isinstance(content, dict) else type(content).__name__
    # Of a tensor `==` would not be a boolean.
    if isinstance(content, dict) and isinstance(found, int) and found == FORMAT:
        return content
    raise TrainingError(f"{path}: format {found!r} is not {FORMAT}; it was written by another version")


def load_model(path: Path, trusted: Sequence[str] = TRUSTED) -> LanguageModel:
    """Builds the model of a checkpoint with its weights, in eval mode on the CPU.

    Args:
        path: of the checkpoint.
        trusted: packages, each ending in a dot, whose classes may be built.

    Raises:
        TrainingError: the file cannot be read, or names a class outside the trusted packages,
            or its weights are not finite, or not those of the model that it describes.
    """
    # A model that takes over its tables instead of copying them shares the memory with other processes.
    content = read_checkpoint(path, mapped=True)
    try:
        target, arguments = str(content["model"]["target"]), content["model"]["arguments"]
    except (KeyError, TypeError) as error:
        raise TrainingError(f"{path}: does not say what builds its model; it was written by another program") from error
    model = build_model(target, arguments, content.get("weights"), trusted, path)
    load_weights(model, content, path)
    for name, weight in model.named_parameters():
        if not torch.isfinite(weight).all():
            raise TrainingError(f"{path}: the weights {name} are not finite; use an earlier checkpoint, or train again")
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
    except DataError as error:
        raise TrainingError(f"{path}: {error}") from error
    except (RuntimeError, KeyError, TypeError, AttributeError) as error:
        raise TrainingError(
            f"{path}: its weights do not fit this {type(model).__name__}; give the model its training was begun with"
        ) from error


def differing_arguments(model: LanguageModel, content: dict[str, Any]) -> list[str]:
    """In what a model differs from that of a checkpoint: `hidden_size=64 (the checkpoint has 32)`."""
    try:
        saved = dict(content["model"]["arguments"])
    except (KeyError, TypeError, ValueError):
        return []
    own = _plain(model.arguments)
    keys = [*own, *(key for key in saved if key not in own)]
    return [
        f"{key}={own.get(key)} (the checkpoint has {saved.get(key)})" for key in keys if own.get(key) != saved.get(key)
    ]


def copied_weights(model: LanguageModel) -> dict[str, Tensor]:
    """The weights as they are now, on the CPU; what is tied in the model is tied in the copy."""
    copies: dict[tuple[Any, ...], Tensor] = {}
    weights: dict[str, Tensor] = {}
    for name, tensor in model.state_dict().items():
        place = (tensor.data_ptr(), tensor.shape, tensor.stride()) if tensor.numel() else (name,)
        if place not in copies:
            copies[place] = tensor.detach().to("cpu", copy=True)
        weights[name] = copies[place]
    return weights


def _plain(value: Any) -> Any:
    """Containers as plain lists and dicts, so that a checkpoint loads with `weights_only=True`."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(item) for item in value]
    return value
