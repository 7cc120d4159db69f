"""Checkpoint files: plain types and tensors, written as a whole, loaded with `weights_only=True`.

A checkpoint contains the class and the arguments of its model, so it needs no config. It is a file of `torch.save`, a
zip archive whose comment is the SHA-256 of everything before it: `torch.load` reads it as usual, `unzip -z` shows the
checksum, and the two cannot be separated.
"""

import hashlib
import inspect
import itertools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from torch_linguist.checkpoint.model_building import build_model, first_line, naming_damage
from torch_linguist.checkpoint.shards import with_stored_tensors
from torch_linguist.distributed.stored_shards import scattered_weights
from torch_linguist.errors import DataError, TrainingError, is_exhausted
from torch_linguist.model import LanguageModel
from torch_linguist.runs.files import whole_file
from torch_linguist.runs.platform import OPEN_FILES_STAY, replace_file
from torch_linguist.runs.safe_reading import check_archive

FORMAT = 1
TRUSTED = ("torch_linguist.",)
"""Packages whose models may be built, unless others are trusted."""

SEAL = b"sha256:"
"""Prefix of the archive comment; 64 hexadecimal digits follow."""

SEAL_LENGTH = len(SEAL) + 64

ARCHIVE_END = b"PK\x05\x06"
"""First bytes of the last record of a zip archive, which ends with the comment."""

ARCHIVE_END_LENGTH = 22


def save_checkpoint(path: Path, model: LanguageModel, progress: dict[str, Any]) -> None:
    """Write a model and the state of its training.

    Args:
        path: path of the file, written as a whole.
        model: any model built from plain arguments.
        progress: state of the training, as plain types and tensors.

    Example:
        >>> save_checkpoint(Path("best.pt"), model, {"step": 3})
        >>> load_model(Path("best.pt")).vocab_size == model.vocab_size
        True
    """
    write_checkpoint(path, checkpoint_content(model, progress))


def checkpoint_content(model: LanguageModel, progress: dict[str, Any]) -> dict[str, Any]:
    """Return the content of a checkpoint; it refers to the weights of the model, without a copy."""
    cls = type(model)
    return {
        "format": FORMAT,
        "model": {"target": f"{cls.__module__}.{cls.__qualname__}", "arguments": _plain(model.arguments)},
        "weights": _weights(model),
        "progress": progress,
    }


def _weights(model: LanguageModel) -> dict[str, Tensor]:
    """Return the weights and buffers; a tied weight is one tensor of several names."""
    found: dict[int, Tensor] = {}
    named = model.state_dict(keep_vars=True)
    return {name: found.setdefault(id(tensor), tensor.detach()) for name, tensor in named.items()}


def write_checkpoint(path: Path, content: dict[str, Any], previous: Sequence[Path] = ()) -> None:
    """Write a checkpoint as a whole; it is on disk when the function returns.

    Args:
        path: path of the file.
        content: result of `checkpoint_content`; tensors that share memory (tied weights) are stored once.
        previous: paths to which earlier checkpoints move, newest first; the last one is dropped.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as temporary:
        with temporary.open("w+b") as file:
            torch.save(content, file)
            _seal(file)
            file.flush()
            os.fsync(file.fileno())
        for newer, older in reversed(list(itertools.pairwise([path, *previous]))):
            if newer.is_file():
                replace_file(newer, older)


def _seal(file: IO[bytes]) -> None:
    """Write the checksum of an archive into its comment."""
    # An archive without a comment ends with two bytes, the length of the comment.
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
    """Raise a `TrainingError` if the checksum does not match; a checkpoint without one passes."""
    content = hashlib.sha256()
    with path.open("rb") as file:
        left = max(0, path.stat().st_size - SEAL_LENGTH)
        file.seek(max(0, left - len(ARCHIVE_END) - ARCHIVE_END_LENGTH))
        tail = file.read()
        begin = tail.rfind(ARCHIVE_END)
        # The last record holds the length of the comment, so a truncated one is noticed too.
        length = int.from_bytes(tail[begin + 20 : begin + 22], "little") if begin >= 0 else 0
        if length == 0:
            return
        comment = tail[begin + ARCHIVE_END_LENGTH :]
        file.seek(0)
        block = memoryview(bytearray(1 << 18))
        while left and (size := file.readinto(block[:left])):
            content.update(block[:size])
            left -= size
    if len(comment) != length or (comment.startswith(SEAL) and comment[len(SEAL) :] != content.hexdigest().encode()):
        raise TrainingError(f"{path}: not a readable checkpoint (damaged: its checksum is not that of its content)")


def read_checkpoint(path: Path, *, mapped: bool = False, parts: bool = False) -> dict[str, Any]:
    """Return the content of a checkpoint; of one with shards, every process reads the whole tensors.

    Args:
        path: path of the file.
        mapped: whether the tensors are memory-mapped instead of read. Where a mapped file cannot be replaced (Windows),
            they are read.
        parts: whether tensors in shards are left as `StoredTensor`, for `load_weights` and `load_optimizer` to read
            what this process needs of them.

    Raises:
        TrainingError: the file is missing, damaged, or not a checkpoint of this format.

    Example:
        >>> save_checkpoint(Path("best.pt"), model, {"step": 3})
        >>> "weights" in read_checkpoint(Path("best.pt"))
        True
    """
    if not path.is_file():
        raise TrainingError(f"{path}: no such checkpoint; the run has not reached its first validation")
    try:
        _check_seal(path)
    except OSError as error:
        if is_exhausted(error):
            raise
        raise TrainingError(f"{path}: cannot be read ({error.strerror})") from error
    check_archive(path)
    try:
        mapped = mapped and not OPEN_FILES_STAY
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:  # torch.load raises many types of errors for damaged files
        if is_exhausted(error):
            raise
        raise TrainingError(f"{path}: not a readable checkpoint ({first_line(error)})") from error
    found = content.get("format") if isinstance(content, dict) else type(content).__name__
    # For a tensor, `==` would not return a boolean.
    if isinstance(content, dict) and isinstance(found, int) and found == FORMAT:
        with naming_damage(path):
            return with_stored_tensors(content, path, parts)
    raise TrainingError(f"{path}: format {found!r} is not {FORMAT}; it was written by another version")


def load_model(path: Path, trusted: Sequence[str] = TRUSTED) -> LanguageModel:
    """Load the model of a checkpoint, in eval mode on the CPU.

    Args:
        path: path of the checkpoint.
        trusted: packages whose classes may be built, each ending in a dot.

    Raises:
        TrainingError: the file cannot be read, names a class outside the trusted packages, or holds weights that are
            not finite or belong to another model than it describes.

    Example:
        >>> save_checkpoint(Path("best.pt"), model, {})
        >>> score(load_model(Path("best.pt")), corpus.test) == score(model, corpus.test)
        True
    """
    # A model that takes over its tables instead of copying them shares the memory with other processes.
    content = read_checkpoint(path, mapped=True)
    try:
        target, arguments = str(content["model"]["target"]), content["model"]["arguments"]
    except (KeyError, TypeError) as error:
        raise TrainingError(f"{path}: does not describe its model; it was written by another program") from error
    model = build_model(target, arguments, content.get("weights"), trusted, path)
    load_weights(model, content, path)
    for name, weight in model.named_parameters():
        if not torch.isfinite(weight).all():
            raise TrainingError(f"{path}: the weights {name} are not finite; use an earlier checkpoint, or train again")
    return model.eval()


def load_weights(model: LanguageModel, content: dict[str, Any], path: Path) -> None:
    """Load the weights of a checkpoint into a model.

    Raises:
        TrainingError: the weights do not fit the model.
    """
    try:
        model.load_state_dict(scattered_weights(content["weights"], model))
    except DataError as error:
        raise TrainingError(f"{path}: {error}") from error
    except (RuntimeError, KeyError, TypeError, AttributeError) as error:
        raise TrainingError(
            f"{path}: its weights do not fit this {type(model).__name__}; use the model that the training started with"
        ) from error


def differing_arguments(model: LanguageModel, content: dict[str, Any]) -> list[str]:
    """Return how a model differs from a checkpoint, such as `hidden_size=64 (the checkpoint has 32)`."""
    try:
        saved = dict(content["model"]["arguments"])
    except (KeyError, TypeError, ValueError):
        return []
    own = _plain(model.arguments)
    # An argument that did not exist yet had the effect of its default.
    defaults = inspect.signature(type(model).__init__).parameters
    saved = {key: defaults[key].default for key in own if key not in saved and key in defaults} | saved
    keys = [*own, *(key for key in saved if key not in own)]
    return [
        f"{key}={own.get(key)} (the checkpoint has {saved.get(key)})" for key in keys if own.get(key) != saved.get(key)
    ]


def copied_weights(model: LanguageModel) -> dict[str, Tensor]:
    """Return a copy of the weights on the CPU, of a sharded model this process's parts; tied weights stay tied."""
    copies: dict[int, Tensor] = {}
    weights = _weights(model)
    for tensor in weights.values():
        if id(tensor) not in copies:
            copies[id(tensor)] = tensor.to("cpu", copy=True)
    return {name: copies[id(tensor)] for name, tensor in weights.items()}


def _plain(value: Any) -> Any:
    """Convert containers to plain lists and dicts, so that a checkpoint loads with `weights_only=True`."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(item) for item in value]
    return value
