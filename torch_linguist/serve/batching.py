"""One step of several texts at once, with results that do not depend on which texts share the batch.

A matrix product may round differently for another number of rows. Every batch therefore has the same number of rows;
missing ones repeat the first. Caches that grow are padded to a length that follows from the text's own length.

Shape legend: R rows of a batch, V vocabulary.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from torch_linguist.model import LanguageModel, State

SHORTEST_CACHE = 32
"""Length of the shortest padded cache; longer ones double until the model's context."""


@torch.inference_mode()
def advance(
    model: LanguageModel, tokens: Sequence[int], states: Sequence[State], rows: int
) -> tuple[list[Tensor], list[State]]:
    """Read one more token of each text.

    Args:
        model: any model in evaluation mode.
        tokens: next token of each text.
        states: state of each text before the token, each with a batch of one.
        rows: number R of rows of a batch.

    Returns:
        The logits [V] and the new state of each text.
    """
    axis = model.export_specification().cache_axis
    if axis is None:
        lengths = [0] * len(states)
        # States of different sizes cannot share a batch, such as those of a mixture with a Transformer.
        rows = 1 if model.context_length else rows
    else:
        lengths = [_padded_length(state[0].shape[axis], model.context_length - 1) for state in states]
    logits: list[Tensor] = [torch.empty(0)] * len(states)
    new_states: list[State] = [[]] * len(states)
    for length in sorted(set(lengths)):
        group = [index for index, own in enumerate(lengths) if own == length]
        for begin in range(0, len(group), rows):
            part = group[begin : begin + rows]
            # Counted models compute each row by itself.
            filled = part if model.is_counted else part + part[:1] * (rows - len(part))
            stepped = _step(model, [tokens[index] for index in filled], [states[index] for index in filled], length)
            for index, own_logits, own_state in zip(part, *stepped, strict=False):
                logits[index], new_states[index] = own_logits, own_state
    return logits, new_states


def _step(
    model: LanguageModel, tokens: Sequence[int], states: Sequence[State], length: int
) -> tuple[list[Tensor], list[State]]:
    """Return logits and new state of each row of a batch whose caches are padded to a length."""
    inputs = torch.tensor(tokens)[:, None]
    axis = model.export_specification().cache_axis
    if axis is None:
        joined = [torch.cat(parts, dim=1) for parts in zip(*states, strict=True)]
        logits, new_state = model(inputs, joined)
        return list(logits[:, -1]), [[tensor[:, row : row + 1] for tensor in new_state] for row in range(len(states))]
    sizes = [state[0].shape[axis] for state in states]
    # `pad` counts axes from the last one, two numbers each.
    front = [0, 0] * (states[0][0].dim() - 1 - axis)
    joined = [
        torch.cat([F.pad(part, (*front, length - part.shape[axis], 0)) for part in parts], dim=1)
        for parts in zip(*states, strict=True)
    ]
    logits, new_state = model.forward_padded(inputs, joined, torch.tensor([length - size for size in sizes]))
    kept = [min(size + 1, model.context_length - 1) for size in sizes]
    return list(logits[:, -1]), [
        [tensor[:, row : row + 1].narrow(axis, tensor.shape[axis] - own, own) for tensor in new_state]
        for row, own in enumerate(kept)
    ]


def _padded_length(size: int, longest: int) -> int:
    return min(max(SHORTEST_CACHE, 1 << (size - 1).bit_length() if size else 0), longest)
