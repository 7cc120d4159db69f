"""Building the model of a checkpoint that may come from others: only if its weights confirm its arguments."""

import importlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from torch_linguist.errors import LinguistError, TrainingError
from torch_linguist.model import LanguageModel

SMALLEST_BOUND = 1 << 16
"""Numbers up to this one are accepted; larger ones must not exceed the number of weights."""


def build_model(target: str, arguments: Any, weights: Any, trusted: Sequence[str], path: Path) -> LanguageModel:
    """Build a model for the weights of a checkpoint.

    The model is first built on the meta device, so that arguments that do not match the weights (perhaps of a model too
    large for any machine) are found before memory is allocated.

    Args:
        target: dotted path of the class.
        arguments: arguments of the constructor.
        weights: tensors by name.
        trusted: packages whose classes may be built, each ending in a dot.
        path: path of the checkpoint, for messages.

    Returns:
        The model; the weights are not loaded yet.

    Raises:
        TrainingError: the class is not trusted or not a model, or arguments or weights do not match it.
    """
    cls = _class_of(target, trusted, path)
    _check_weights(weights, path)
    if not isinstance(arguments, Mapping):
        raise TrainingError(f"{path}: {target} does not take its arguments (they are no mapping)")
    bound = max(SMALLEST_BOUND, sum(tensor.numel() for tensor in weights.values()))
    for name, value in arguments.items():
        if isinstance(value, int) and value > bound:
            raise TrainingError(f"{path}: {name}={value} is more than weights of {bound:,} numbers allow; not built")
    try:
        with _bounded_layers(len(weights), path):
            if not cls.is_counted:  # Counted models take their sizes from their tables.
                _check_fit(cls, arguments, weights, path)
            return cls(**arguments)
    except (TypeError, ValueError, RuntimeError, NotImplementedError, MemoryError, OverflowError) as error:
        if isinstance(error, TrainingError):
            raise
        raise TrainingError(f"{path}: {target} does not take its arguments ({first_line(error)})") from error


@contextmanager
def naming_damage(path: Path) -> Iterator[None]:
    """Turn the errors of damaged values within the block into an error that names their checkpoint."""
    try:
        yield
    except LinguistError:
        raise
    except (LookupError, TypeError, AttributeError, ValueError, ArithmeticError, RuntimeError, AssertionError) as error:
        raise TrainingError(f"{path}: its training state is damaged ({first_line(error)}); start a new run") from error


def first_line(error: BaseException) -> str:
    """Return the message of an error in one short line."""
    lines = str(error).strip().splitlines()
    return lines[0][:120] if lines else type(error).__name__


def _class_of(target: str, trusted: Sequence[str], path: Path) -> type[LanguageModel]:
    if not target.startswith(tuple(trusted)):
        raise TrainingError(
            f"{path}: names the class {target[:120]!r}, which is outside {', '.join(trusted)}; "
            "load it with trusted=[...] if you trust its author"
        )
    module, _, name = target.rpartition(".")
    try:
        cls = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise TrainingError(
            f"{path}: {target[:120]!r} does not exist; the checkpoint was written by another version"
        ) from error
    if not (isinstance(cls, type) and issubclass(cls, LanguageModel)):
        raise TrainingError(f"{path}: {target} is not a LanguageModel")
    return cls


def _check_weights(weights: Any, path: Path) -> None:
    """Check that the weights are tensors that the file contains in full."""
    if not isinstance(weights, Mapping):
        raise TrainingError(f"{path}: its weights do not fit a model: they are no mapping of names to tensors")
    for name, tensor in weights.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise TrainingError(f"{path}: its weights do not fit a model: {str(name)[:60]!r} is no tensor")
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
            raise TrainingError(f"{path}: its weights do not fit a model: {name[:60]!r} is no plain tensor")
        # A stride of zero turns one number into a tensor of any size.
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise TrainingError(f"{path}: its weights do not fit a model: {name[:60]!r} is larger than the file says")
        if tensor.is_floating_point() and bool(tensor.isnan().any()):
            raise TrainingError(f"{path}: {name[:60]!r} holds values that are no numbers (NaN); use another checkpoint")


@contextmanager
def _bounded_layers(stored: int, path: Path) -> Iterator[None]:
    """Stop building as soon as a model has clearly more weights than the checkpoint stores."""
    created = 0

    def count(_module: nn.Module, _name: str, _parameter: nn.Parameter | None) -> None:
        nonlocal created
        created += 1
        # Constructors may replace a few of the weights that they have made.
        if created > 2 * stored + 16:
            raise TrainingError(
                f"{path}: its weights do not fit a model of so many layers: it stores {stored:,} tensors; not built"
            )

    handle = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        handle.remove()


def _check_fit(
    cls: type[LanguageModel], arguments: Mapping[str, Any], weights: Mapping[str, Tensor], path: Path
) -> None:
    try:
        with torch.device("meta"):
            model = cls(**arguments)
    except (RuntimeError, NotImplementedError):
        return  # A constructor that computes with values does not run on the meta device.
    wanted = {name: tensor.shape for name, tensor in model.state_dict().items()}
    found = {name: tensor.shape for name, tensor in weights.items()}
    if wrong := [name for name in wanted if name in found and wanted[name] != found[name]]:
        some = wrong[0]
        raise TrainingError(
            f"{path}: its weights do not fit this {cls.__name__}: {some} is {list(found[some])} instead of "
            f"{list(wanted[some])}; use the model that the training started with"
        )
