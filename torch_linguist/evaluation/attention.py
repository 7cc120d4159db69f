"""The attention maps of a Transformer, computed beside its own fused attention, which keeps none.

Shape legend: T tokens, L layers, A attention heads, E width of a head, D embedding.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from torch_linguist.errors import LinguistError
from torch_linguist.evaluation.contexts import Ids
from torch_linguist.model import Transformer, device_of, evaluating
from torch_linguist.model.transformer import rotate


@torch.inference_mode()
def attention_maps(model: Transformer, tokens: Ids) -> Tensor:
    """How much each token looks at each, in every layer and head.

    Args:
        model: a Transformer.
        tokens: ids, at most as many as its context [T].

    Returns:
        float64 [L, A, T, T]; row t is a distribution over the tokens up to t.

    Raises:
        LinguistError: there are more tokens than the model's context, or none.
    """
    if not 1 <= len(tokens) <= model.context_length:
        raise LinguistError(
            f"{len(tokens)} tokens: attention maps take 1 to {model.context_length}, the model's context"
        )
    inputs: list[Tensor] = []

    def keep(_: nn.Module, arguments: tuple[Any, ...]) -> None:
        inputs.append(arguments[0])

    hooks = [block.register_forward_pre_hook(keep) for block in model.blocks]
    try:
        with evaluating(model):
            ids = torch.from_numpy(tokens)[None].to(device_of(model))
            model.encode(model.embedding(ids), model.initial_state(1))
            maps = [_weights(model, block, features) for block, features in zip(model.blocks, inputs, strict=True)]
    finally:
        for hook in hooks:
            hook.remove()
    return torch.stack(maps).cpu()


def _weights(model: Transformer, block: nn.Module, features: Tensor) -> Tensor:
    """The weights of one block [A, T, T], of its input [1, T, D]."""
    time = features.shape[1]
    packed = block.query_key_value(block.attention_norm(features))  # type: ignore[operator]
    packed = packed.view(time, 3, model.num_heads, model.head_size).permute(1, 2, 0, 3)
    angles = torch.outer(torch.arange(time, device=features.device, dtype=torch.float32), model.frequencies)
    query, key = (rotate(part[None], torch.cos(angles), torch.sin(angles))[0].double() for part in packed[:2])
    scores = query @ key.transpose(1, 2) / math.sqrt(model.head_size)
    later = torch.ones(time, time, dtype=torch.bool, device=features.device).triu(1)
    return torch.softmax(scores.masked_fill(later, -torch.inf), dim=-1)
