"""The attention weights against an attention that is written out, head by head and token by token."""

import math

import numpy as np
import pytest
import torch
from conftest import ModelBuilder
from torch import Tensor

from torch_linguist.errors import LinguistError
from torch_linguist.model import Transformer
from torch_linguist.model.attention.block import Block
from torch_linguist.model.attention.operations import rotate

CONTEXT = torch.tensor([0, 5, 9, 3, 17, 4, 8])


def naive_attention(block: Block, features: Tensor, model: Transformer) -> Tensor:
    """Head by head and token by token, [A, T, T]."""
    time, width = features.shape
    packed = block.query_key_value(block.attention_norm(features)).view(time, 3, model.num_heads, -1)
    angles = torch.outer(torch.arange(time, dtype=torch.float32), model.frequencies)
    maps = torch.zeros(model.num_heads, time, time)
    for head in range(model.num_heads):
        query, key = (rotate(packed[None, None, :, part, head], angles.cos(), angles.sin())[0, 0] for part in (0, 1))
        for row in range(time):
            logits = [float(query[row] @ key[column]) / math.sqrt(width / model.num_heads) for column in range(row + 1)]
            weights = np.exp(logits) / np.exp(logits).sum()
            maps[head, row, : row + 1] = torch.from_numpy(weights)
    return maps


@torch.no_grad()
def test_the_weights_equal_those_of_naive_attention(build_model: ModelBuilder) -> None:
    model = build_model("transformer")
    assert isinstance(model, Transformer)
    maps = model.attention_weights(CONTEXT)
    assert maps is not None
    assert maps.shape == (2, 2, 7, 7)
    np.testing.assert_allclose(maps.sum(-1), 1, rtol=1e-12)
    assert (maps.triu(1) == 0).all()
    features = model.embedding(CONTEXT)
    # The second layer reads what the first one wrote: if that is right, the first one's map was applied as it is.
    for layer, block in enumerate(model.blocks):
        assert isinstance(block, Block)
        np.testing.assert_allclose(maps[layer], naive_attention(block, features, model), atol=1e-6)
        empty = torch.zeros(1, 2, 0, 8)
        angles = torch.outer(torch.arange(7, dtype=torch.float32), model.frequencies)
        query, key, value = block.project(features[None], features[None], empty, empty)
        after = block(features[None], query, key, value, angles.cos(), angles.sin(), None)
        attended = (maps[layer].float() @ value[0]).transpose(0, 1).reshape(7, -1)
        own = features + block.attention_out(attended)
        inner = block.feed_forward_in(block.feed_forward_norm(own))
        gate, inner = inner.chunk(2, dim=-1)
        own = own + block.feed_forward_out(torch.nn.functional.silu(gate) * inner)
        np.testing.assert_allclose(own, after[0], atol=1e-5)
        features = after[0]
    with pytest.raises(LinguistError, match="the model's context"):
        model.attention_weights(torch.zeros(9, dtype=torch.int64))


def test_other_families_have_none(build_model: ModelBuilder) -> None:
    assert build_model("lstm").attention_weights(CONTEXT) is None
