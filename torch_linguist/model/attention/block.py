"""One layer of the Transformer: attention with rotary positions, and a feed-forward network.

Shape legend: B batch, T time, D embedding, A attention heads, G key/value heads, E = D / A, P cached positions,
S = P + T.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torch_linguist.errors import LinguistError
from torch_linguist.model.attention.operations import (
    RootMeanSquareNorm,
    attend,
    exporting,
    gated,
    rotate,
    rotation,
    unit_mean_square,
)
from torch_linguist.model.attention.window_operations import (
    causal_attention,
    gated_linear,
    normalized_linear,
    rounded_linear,
)
from torch_linguist.model.dropout import Dropout

ACTIVATIONS = ("gelu", "swiglu", "squared_relu")

VALUE_FACTORS = (0.5, 0.5)
"""Factors of the values and of the projected embedding at the start, as in modded-nanogpt."""

STREAM_FACTORS = (1.0, 0.0)
"""Factors of the residual stream and of the embedding at the start: those of a block without the skip."""


class Block(nn.Module):
    """Attention and a feed-forward network, each after a norm and added to the residual stream.

    Args:
        embedding_dim: D.
        num_heads: A.
        feed_forward_size: inner width of the feed-forward network.
        activation: `gelu`, `swiglu` or `squared_relu`.
        dropout: dropout rate of the output of both parts.
        depth: number of blocks; scales the initial weights that write to the residual stream (Radford et al. 2019).
        num_key_value_heads: G.
        norm_epsilon: constant added to the mean square in every norm.
        query_key_norm: see `Transformer`.
        value_embeddings: see `Transformer`.
        embedding_skip: see `Transformer`.

    Raises:
        LinguistError: the activation is unknown.
    """

    def __init__(
        self,
        embedding_dim: int,
        num_heads: int,
        feed_forward_size: int,
        activation: str,
        dropout: float,
        depth: int,
        *,
        num_key_value_heads: int,
        norm_epsilon: float,
        query_key_norm: bool = False,
        value_embeddings: bool = False,
        embedding_skip: bool = False,
    ) -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise LinguistError(f"model.activation={activation}: must be one of {', '.join(ACTIVATIONS)}")
        self.num_heads: int = num_heads
        self.num_key_value_heads: int = num_key_value_heads
        self.head_size: int = embedding_dim // num_heads
        self.gated: bool = activation == "swiglu"
        self.squared: bool = activation == "squared_relu"
        self.norm_epsilon: float = norm_epsilon
        self.query_key_norm: bool = query_key_norm
        self.value_embeddings: bool = value_embeddings
        self.embedding_skip: bool = embedding_skip
        self.attention_norm = RootMeanSquareNorm(embedding_dim, eps=norm_epsilon)
        packed_size = (num_heads + 2 * num_key_value_heads) * self.head_size
        self.query_key_value = nn.Linear(embedding_dim, packed_size, bias=False)
        self.attention_out = nn.Linear(embedding_dim, embedding_dim, bias=False)
        self.feed_forward_norm = RootMeanSquareNorm(embedding_dim, eps=norm_epsilon)
        self.feed_forward_in = nn.Linear(embedding_dim, feed_forward_size * (2 if self.gated else 1), bias=False)
        self.feed_forward_out = nn.Linear(feed_forward_size, embedding_dim, bias=False)
        self.dropout = Dropout(dropout)
        for linear in (self.query_key_value, self.feed_forward_in):
            nn.init.normal_(linear.weight, std=1 / math.sqrt(embedding_dim))
        for linear in (self.attention_out, self.feed_forward_out):
            nn.init.normal_(linear.weight, std=1 / math.sqrt(2 * depth * linear.in_features))
        self.value_projection: nn.Module = nn.Identity()
        if value_embeddings:
            self.value_projection = nn.Linear(embedding_dim, num_key_value_heads * self.head_size, bias=False)
            nn.init.normal_(self.value_projection.weight, std=1 / math.sqrt(embedding_dim))
        self._add_factors("value_factors", VALUE_FACTORS, value_embeddings)
        self._add_factors("stream_factors", STREAM_FACTORS, embedding_skip)

    def _add_factors(self, name: str, start: tuple[float, float], trained: bool) -> None:
        """Add the factors of a sum of two tensors: trained ones, or constants that nothing uses."""
        if trained:
            self.register_parameter(name, nn.Parameter(torch.tensor(start)))
        else:
            self.register_buffer(name, torch.tensor(start), persistent=False)

    value_factors: Tensor
    stream_factors: Tensor

    def enter(self, features: Tensor, start: Tensor) -> Tensor:
        """Return the input of the block: the residual stream [B, T, D], to which `embedding_skip` adds `start`.

        Args:
            features: residual stream [B, T, D].
            start: normalized embedding of the tokens [B, T, D].
        """
        if not self.embedding_skip:
            return features
        return self.stream_factors[0] * features + self.stream_factors[1] * start

    def project(
        self, features: Tensor, start: Tensor, past_key: Tensor, past_value: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values before rotation.

        Args:
            features: residual stream [B, T, D].
            start: normalized embedding of the tokens [B, T, D].
            past_key: keys of earlier calls [B, G, P, E].
            past_value: values of earlier calls [B, G, P, E].

        Returns:
            Queries [B, A, T, E], keys and values [B, G, P + T, E].
        """
        query, key, value = self._heads(features)
        value = self._with_embedding(value, start)
        if not exporting() and past_key.shape[2] == 0:
            return query, key, value
        return (
            query,
            torch.cat([past_key.to(key.dtype), key], dim=2),
            torch.cat([past_value.to(value.dtype), value], dim=2),
        )

    def forward(
        self,
        features: Tensor,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        cosine: Tensor,
        sine: Tensor,
        mask: Tensor | None,
    ) -> Tensor:
        """Apply the block to the last T of S positions.

        Args:
            features: residual stream [B, T, D].
            query: queries before rotation [B, A, T, E].
            key: keys before rotation [B, G, S, E].
            value: values [B, G, S, E].
            cosine: cosines of the rotary angles [S, E / 2].
            sine: sines of the rotary angles [S, E / 2].
            mask: bool [T, S]; None for the causal mask.

        Returns:
            The residual stream [B, T, D].
        """
        batch, time, width = features.shape
        past = key.shape[2] - time
        key = rotate(key, cosine, sine)
        if self.num_key_value_heads < self.num_heads:
            group = self.num_heads // self.num_key_value_heads
            key, value = key.repeat_interleave(group, dim=1), value.repeat_interleave(group, dim=1)
        # Under a tracer, such as TensorBoard's, `time` is a tensor.
        causal = bool(mask is None and time > 1)
        attended = attend(rotate(query, cosine[past:], sine[past:]), key, value, mask, causal)
        if exporting():
            # With a reshape, torch.export would exclude a length of one.
            attended = torch.cat(attended.unbind(1), dim=-1)
        else:
            attended = attended.transpose(1, 2).reshape(batch, time, width)
        features = features + self.dropout(self.attention_out(attended))
        inner = self.feed_forward_in(self.feed_forward_norm(features))
        if self.gated:
            gate, inner = inner.chunk(2, dim=-1)
            inner = gated(gate, inner)
        else:
            inner = self._activated(inner)
        added: Tensor = self.dropout(self.feed_forward_out(inner))
        return features + added

    def train_window(self, features: Tensor, start: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        """Apply the block to texts that start afresh, under the conditions of `trains_in_bfloat16`.

        Args:
            features: residual stream of the block before, float32 [B, T, D].
            start: normalized embedding of the tokens [B, T, D].
            cosine: cosines of the rotary angles [T, E / 2].
            sine: sines of the rotary angles [T, E / 2].

        Returns:
            The residual stream, float32 [B, T, D].
        """
        heads, shared, epsilon = self.num_heads, self.num_key_value_heads, self.norm_epsilon
        features = self.enter(features, start)
        packed, features = normalized_linear(features, self.attention_norm.weight, epsilon, self.query_key_value.weight)
        packed = packed.view(*features.shape[:2], heads + 2 * shared, self.head_size)
        if self.query_key_norm or self.value_embeddings:
            query, key, value = torch.split(packed.transpose(1, 2), [heads, shared, shared], dim=1)
            packed = torch.cat([*self._scaled(query, key), self._with_embedding(value, start)], dim=1).transpose(1, 2)
        attended = causal_attention(packed, heads, shared, cosine, sine)
        features = features + self.dropout(rounded_linear(attended, self.attention_out.weight))
        inner, features = normalized_linear(
            features, self.feed_forward_norm.weight, epsilon, self.feed_forward_in.weight
        )
        weight = self.feed_forward_out.weight
        added = gated_linear(inner, weight) if self.gated else rounded_linear(self._activated(inner), weight)
        stream: Tensor = features + self.dropout(added)
        return stream

    def attention_weights(self, features: Tensor, frequencies: Tensor) -> Tensor:
        """Return the attention weights, which the fused kernel does not keep.

        Args:
            features: input of the block [1, T, D].
            frequencies: rotary frequencies [E / 2].

        Returns:
            float64 [A, T, T].
        """
        time = features.shape[1]
        cosine, sine = rotation(frequencies, time)
        query, key = (rotate(part, cosine, sine)[0].double() for part in self._heads(features)[:2])
        key = key.repeat_interleave(self.num_heads // self.num_key_value_heads, dim=0)
        scores = query @ key.transpose(1, 2) / math.sqrt(self.head_size)
        later = torch.ones(time, time, dtype=torch.bool, device=features.device).triu(1)
        return torch.softmax(scores.masked_fill(later, -torch.inf), dim=-1)

    def _heads(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries [B, A, T, E], keys and values [B, G, T, E] of the residual stream [B, T, D]."""
        batch, time = features.shape[:2]
        packed = self.query_key_value(self.attention_norm(features))
        heads, shared = self.num_heads, self.num_key_value_heads
        packed = packed.view(batch, time, heads + 2 * shared, self.head_size).transpose(1, 2)
        # The backward pass of a split writes the gradient once; that of three slices fills it three times.
        query, key, value = torch.split(packed, [heads, shared, shared], dim=1)
        query, key = self._scaled(query, key)
        return query, key, value

    def _scaled(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        """Return queries and keys [..., E], normalized if the block does so."""
        if not self.query_key_norm:
            return query, key
        return unit_mean_square(query, self.norm_epsilon), unit_mean_square(key, self.norm_epsilon)

    def _with_embedding(self, value: Tensor, start: Tensor) -> Tensor:
        """Return values [B, G, T, E] with the projected embedding added, if the block does so."""
        if not self.value_embeddings:
            return value
        added = self.value_projection(start)
        added = added.view(added.shape[0], added.shape[1], self.num_key_value_heads, self.head_size)
        mixed: Tensor = self.value_factors[0] * value + self.value_factors[1] * added.transpose(1, 2)
        return mixed.to(value.dtype)

    def _activated(self, inner: Tensor) -> Tensor:
        """Return the inner features [..., F] of a feed-forward network without a gate after its activation."""
        return F.relu(inner).square() if self.squared else F.gelu(inner)
