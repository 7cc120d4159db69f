"""Traced graphs of a model, with the state as explicit tensors: the common ground of torch.export and ONNX.

Shape legend: B batch, T time, V vocabulary.
"""

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from torch_linguist.errors import LinguistError
from torch_linguist.model import ExportSpecification, LanguageModel

EXAMPLE = (3, 5)
"""Batch size and length of the traced example; the result is compared on other shapes."""


class TracedModel(nn.Module):
    """`forward` of a model, with the argument names that the graph's inputs get."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        logits, new_state = self.model(tokens, state)
        return logits, new_state


class GraphRunner:
    """A graph that is called like a model.

    Args:
        call: maps tokens [B, T] and a state to logits [B, T, V] and the new state.
        model: eager model, which provides the initial state.
        one_token: whether the graph takes one token at a time.
    """

    def __init__(self, call: Any, model: Any, one_token: bool = False) -> None:
        self._call, self._one_token = call, one_token
        self.initial_state = model.initial_state

    def __call__(self, tokens: Tensor, state: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        steps = torch.split(tokens, 1, dim=1) if self._one_token else [tokens]
        logits = []
        with quiet_exporters():
            for step in steps:
                step_logits, state = self._call(step, list(state))
                logits.append(step_logits)
        return torch.cat(logits, dim=1), list(state)


def traceable_specification(model: LanguageModel, option: str) -> ExportSpecification:
    """Return the export specification of a model that can be traced.

    Raises:
        LinguistError: the model is not a graph of tensor operations.
    """
    specification = model.export_specification()
    if not specification.traceable:
        raise LinguistError(f"{option}: a {type(model).__name__} is no graph of tensor operations; use --jit")
    return specification


def example_inputs(model: LanguageModel, one_token: bool = False) -> tuple[Tensor, list[Tensor]]:
    """Return tokens and a state in the middle of a text: with an empty cache the tracer would specialize on it."""
    batch_size, length = EXAMPLE
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(model.vocab_size, (batch_size, 1 if one_token else length), generator=generator)
    cache_axis = model.export_specification().cache_axis
    with torch.no_grad():
        _, state = model(tokens, model.initial_state(batch_size))
        if cache_axis is not None and state[0].shape[cache_axis] < 2:
            _, state = model(tokens, state)
    return tokens, [tensor.clone().contiguous() for tensor in state]


def dynamic_state_axes(specification: ExportSpecification, dynamic: Any) -> dict[int, Any]:
    """Map the axes of a state tensor that vary (batch, cached positions) to `dynamic`."""
    axes = {1: dynamic}
    if specification.cache_axis is not None:
        axes[specification.cache_axis] = dynamic
    return axes


@contextmanager
def quiet_exporters() -> Iterator[None]:
    """Silence the exporters' warnings about themselves and about packages that no model here needs."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
