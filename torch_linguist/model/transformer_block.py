"""One layer of the Transformer: attention with rotary positions, and a feed-forward network.

Shape legend: B batch, T time, D embedding, A attention heads, G key/value heads, E = D / A, P cached positions,
S = P + T.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torch_linguist.errors import LinguistError
from torch_linguist.model.outputs.output import widened


class Block(nn.Module):
    """Attention and a feed-forward network, each after a norm and added to the residual stream.

    Args:
        embedding_dim: D.
        num_heads: A.
        feed_forward_size: inner width of the feed-forward network.
        activation: `gelu` or `swiglu`.
        dropout: dropout rate of the output of both parts.
        depth: number of blocks; scales the initial weights that write to the residual stream (Radford et al. 2019).
        num_key_value_heads: G.
        norm_epsilon: constant added to the mean square in both norms.

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
    ) -> None:
        super().__init__()
        if activation not in ("gelu", "swiglu"):
            raise LinguistError(f"model.activation={activation}: must be gelu or swiglu")
        self.num_heads: int = num_heads
        self.num_key_value_heads: int = num_key_value_heads
        self.head_size: int = embedding_dim // num_heads
        self.gated: bool = activation == "swiglu"
        self.attention_norm = nn.RMSNorm(embedding_dim, eps=norm_epsilon)
        packed_size = (num_heads + 2 * num_key_value_heads) * self.head_size
        self.query_key_value = nn.Linear(embedding_dim, packed_size, bias=False)
        self.attention_out = nn.Linear(embedding_dim, embedding_dim, bias=False)
        self.feed_forward_norm = nn.RMSNorm(embedding_dim, eps=norm_epsilon)
        self.feed_forward_in = nn.Linear(embedding_dim, feed_forward_size * (2 if self.gated else 1), bias=False)
        self.feed_forward_out = nn.Linear(feed_forward_size, embedding_dim, bias=False)
        self.dropout = nn.Dropout(dropout)
        for linear in (self.query_key_value, self.feed_forward_in):
            nn.init.normal_(linear.weight, std=1 / math.sqrt(embedding_dim))
        for linear in (self.attention_out, self.feed_forward_out):
            nn.init.normal_(linear.weight, std=1 / math.sqrt(2 * depth * linear.in_features))

    def project(self, features: Tensor, past_key: Tensor, past_value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values before rotation.

        Args:
            features: residual stream [B, T, D].
            past_key: keys of earlier calls [B, G, P, E].
            past_value: values of earlier calls [B, G, P, E].

        Returns:
            Queries [B, A, T, E], keys and values [B, G, P + T, E].
        """
        query, key, value = self._heads(features)
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
        attended = F.scaled_dot_product_attention(
            rotate(query, cosine[past:], sine[past:]),
            key,
            value,
            attn_mask=mask,
            # Under a tracer, such as TensorBoard's, `time` is a tensor.
            is_causal=bool(mask is None and time > 1),
        )
        if exporting():
            # With a reshape, torch.export would exclude a length of one.
            attended = torch.cat(attended.unbind(1), dim=-1)
        else:
            attended = attended.transpose(1, 2).reshape(batch, time, width)
        features = features + self.dropout(self.attention_out(attended))
        inner = self.feed_forward_in(self.feed_forward_norm(features))
        if self.gated:
            gate, inner = inner.chunk(2, dim=-1)
            inner = F.silu(gate) * inner
        else:
            inner = F.gelu(inner)
        added: Tensor = self.dropout(self.feed_forward_out(inner))
        return features + added

    def attention_weights(self, features: Tensor, frequencies: Tensor) -> Tensor:
        """Return the attention weights, which the fused kernel does not keep.

        Args:
            features: input of the block [1, T, D].
            frequencies: rotary frequencies [E / 2].

        Returns:
            float64 [A, T, T].
        """
        time = features.shape[1]
        angles = torch.outer(torch.arange(time, device=features.device, dtype=torch.float32), frequencies)
        query, key = (
            rotate(part, torch.cos(angles), torch.sin(angles))[0].double() for part in self._heads(features)[:2]
        )
        key = key.repeat_interleave(self.num_heads // self.num_key_value_heads, dim=0)
        scores = query @ key.transpose(1, 2) / math.sqrt(self.head_size)
        later = torch.ones(time, time, dtype=torch.bool, device=features.device).triu(1)
        return torch.softmax(scores.masked_fill(later, -torch.inf), dim=-1)

    def _heads(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries [B, A, T, E], keys and values [B, G, T, E] of the residual stream [B, T, D]."""
        batch, time = features.shape[:2]
        packed = self.query_key_value(self.attention_norm(features))
        first, last = self.num_heads, self.num_heads + self.num_key_value_heads
        packed = packed.view(batch, time, last + self.num_key_value_heads, self.head_size).transpose(1, 2)
        return packed[:, :first], packed[:, first:last], packed[:, last:]


def exporting() -> bool:
    """Return whether torch.export is tracing the model."""
    if torch.jit.is_scripting():  # type: ignore[attr-defined]
        return False
    else:  # noqa: RET505  (TorchScript drops a branch only if both are written out)
        return torch.compiler.is_exporting()


def rotate(features: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Apply rotary positions (Su et al. 2021); the first half of the width is paired with the second.

    Args:
        features: queries or keys [B, A, T, E].
        cosine: cosines of the angles [T, E / 2].
        sine: sines of the angles [T, E / 2].

    Returns:
        Rotated features [B, A, T, E] of the same type.
    """
    first, second = widened(features).chunk(2, dim=-1)
    turned = torch.addcmul(first * cosine, second, sine, value=-1.0)
    rotated = torch.cat([turned, torch.addcmul(second * cosine, first, sine)], dim=-1)
    return rotated.to(features.dtype)
