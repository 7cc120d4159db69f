"""A decoder-only Transformer: pre-norm, rotary positions, GELU or SwiGLU, and a key/value cache as the state.

Shape legend: B batch, T time, V vocabulary, D embedding, L layers, A attention heads, E = D / A, P cached positions,
S = P + T.
"""

import math
from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torch_linguist.errors import LinguistError
from torch_linguist.model.base import ExportSpecification, device_of, evaluating
from torch_linguist.model.neural import NeuralLanguageModel
from torch_linguist.model.output import widened


class Transformer(NeuralLanguageModel):
    """Decoder-only Transformer (Vaswani et al. 2017) with RMS pre-norm and rotary positions (Su et al. 2021).

    In every layer a token sees itself and the `context_length - 1` tokens before it, within one call and across calls.
    A text read in chunks therefore gives the same result as one long pass. State: [keys, values], each [L, B, A, P, E]
    with P at most `context_length - 1`. Keys are cached before rotation, so positions are relative to the cache.

    Args:
        vocab_size: V.
        embedding_dim: D.
        num_layers: L.
        num_heads: A; must divide D into an even width.
        feed_forward_size: inner width; None for 4 D (GELU) or 8/3 D (SwiGLU, Shazeer 2020: as many parameters).
        activation: `gelu` or `swiglu`.
        dropout: dropout rate after the embedding, after each sub-layer and before the output.
        tied: whether the output shares the embedding's weight.
        output: `full`, `adaptive` or `sampled` softmax.
        cutoffs: see `NeuralLanguageModel`.
        context_length: number of tokens that a prediction can see in each layer.

    Raises:
        LinguistError: a size is below one, the heads do not divide D, or the activation is unknown.
    """

    def __init__(
        self,
        vocab_size: int,
        embedding_dim: int = 320,
        num_layers: int = 3,
        num_heads: int = 4,
        feed_forward_size: int | None = None,
        activation: str = "swiglu",
        dropout: float = 0.1,
        tied: bool = True,
        output: str = "sampled",
        cutoffs: Sequence[int] | None = None,
        context_length: int = 256,
    ) -> None:
        sizes = {
            "embedding_dim": embedding_dim,
            "num_layers": num_layers,
            "num_heads": num_heads,
            "context_length": context_length,
            "feed_forward_size": 1 if feed_forward_size is None else feed_forward_size,
        }
        for name, value in sizes.items():
            if value < 1:
                raise LinguistError(f"model.{name}={value}: must be at least 1")
        if embedding_dim % (2 * num_heads):
            raise LinguistError(
                f"model.num_heads={num_heads}: must divide model.embedding_dim={embedding_dim} into an even width"
            )
        super().__init__(vocab_size, embedding_dim, embedding_dim, dropout, tied, output, cutoffs)
        self.context_length: int = context_length
        self.num_layers: int = num_layers
        self.num_heads: int = num_heads
        self.head_size: int = embedding_dim // num_heads
        if feed_forward_size is None:
            # Matrix units work best with multiples of 32.
            wide = 4 * embedding_dim if activation == "gelu" else 8 * embedding_dim // 3
            feed_forward_size = max(32, wide // 32 * 32)
        self.blocks = nn.ModuleList(
            Block(embedding_dim, num_heads, feed_forward_size, activation, dropout, num_layers)
            for _ in range(num_layers)
        )
        self.norm = nn.RMSNorm(embedding_dim, eps=1e-6)
        exponents = torch.arange(0, self.head_size, 2, dtype=torch.float32) / self.head_size
        self.register_buffer("frequencies", 10000.0**-exponents, persistent=False)

    has_attention = True
    frequencies: Tensor

    def initial_state(self, batch_size: int) -> list[Tensor]:
        empty = self.embedding.weight.new_zeros(self.num_layers, batch_size, self.num_heads, 0, self.head_size)
        return [empty, empty]

    def encode(self, embedded: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        return self._encode(embedded, state, 0)

    def last_hidden(self, tokens: Tensor, state: list[Tensor], count: int) -> tuple[Tensor, list[Tensor]]:
        # The last block computes only keys and values of the tokens before the last ones.
        encoded, new_state = self._encode(self.dropout(self.embedding(tokens)), state, min(count, tokens.shape[1]))
        return self.dropout(encoded), new_state

    @torch.inference_mode()
    def attention_weights(self, tokens: Tensor) -> Tensor | None:
        if not 1 <= len(tokens) <= self.context_length:
            raise LinguistError(
                f"{len(tokens)} tokens: attention weights need 1 to {self.context_length}, the model's context"
            )
        inputs: list[Tensor] = []
        hooks = [block.register_forward_pre_hook(lambda _, given: inputs.append(given[0])) for block in self.blocks]
        try:
            with evaluating(self):
                self.hidden(tokens[None].to(device_of(self)), self.initial_state(1))
        finally:
            for hook in hooks:
                hook.remove()
        weights = [
            cast(Block, block).attention_weights(features, self.frequencies)
            for block, features in zip(self.blocks, inputs, strict=True)
        ]
        return torch.stack(weights).cpu()

    def export_specification(self) -> ExportSpecification:
        return ExportSpecification(traceable=True, cache_axis=3)

    def _encode(self, embedded: Tensor, state: list[Tensor], count: int) -> tuple[Tensor, list[Tensor]]:
        """Return the hidden vectors of the last `count` tokens, or of all for 0, and the new state."""
        past = state[0].shape[3]
        new = embedded.shape[1]
        positions = torch.arange(past + new, device=embedded.device, dtype=torch.float32)
        angles = torch.outer(positions, self.frequencies)
        cosine, sine = torch.cos(angles), torch.sin(angles)
        mask = self._mask(past, new, embedded.device)
        keep = past + new - (self.context_length - 1)
        # An exported graph must hold for every length; with Python's max, torch.export would specialize on one side.
        if torch.jit.is_scripting():  # type: ignore[attr-defined]
            keep = max(0, keep)
        elif exporting():
            keep = torch.sym_max(0, keep)  # type: ignore[no-untyped-call]
        else:
            keep = max(0, keep)
        features = embedded
        keys: list[Tensor] = []
        values: list[Tensor] = []
        for index, block in enumerate(self.blocks):
            query, key, value = block.project(features, state[0][index], state[1][index])  # type: ignore[operator]
            if count > 0 and index == self.num_layers - 1:
                features, query = features[:, -count:], query[:, :, -count:]
                mask = self._window(past + new, count, embedded.device)
            features = block(features, query, key, value, cosine, sine, mask)
            keys.append(key[:, :, keep:])
            values.append(value[:, :, keep:])
        return self.norm(features), [torch.stack(keys), torch.stack(values)]

    def _mask(self, past: int, new: int, device: torch.device) -> Tensor | None:
        """Return True where new token i may attend to position j; None if the causal mask suffices."""
        if not exporting() and past + new <= self.context_length and (past == 0 or new == 1):
            return None
        return self._window(past + new, new, device)

    def _window(self, total: int, count: int, device: torch.device) -> Tensor:
        """Return the mask of the last `count` of `total` positions: True for each position inside their context."""
        query = torch.arange(total - count, total, device=device)[:, None]
        key = torch.arange(total, device=device)[None, :]
        return (key <= query) & (key > query - self.context_length)


class Block(nn.Module):
    """Attention and a feed-forward network, each after a norm and added to the residual stream.

    Args:
        embedding_dim: D.
        num_heads: A.
        feed_forward_size: inner width of the feed-forward network.
        activation: `gelu` or `swiglu`.
        dropout: dropout rate of the output of both parts.
        depth: number of blocks; scales the initial weights that write to the residual stream (Radford et al. 2019).

    Raises:
        LinguistError: the activation is unknown.
    """

    def __init__(
        self, embedding_dim: int, num_heads: int, feed_forward_size: int, activation: str, dropout: float, depth: int
    ) -> None:
        super().__init__()
        if activation not in ("gelu", "swiglu"):
            raise LinguistError(f"model.activation={activation}: must be gelu or swiglu")
        self.num_heads: int = num_heads
        self.gated: bool = activation == "swiglu"
        self.attention_norm = nn.RMSNorm(embedding_dim, eps=1e-6)
        self.query_key_value = nn.Linear(embedding_dim, 3 * embedding_dim, bias=False)
        self.attention_out = nn.Linear(embedding_dim, embedding_dim, bias=False)
        self.feed_forward_norm = nn.RMSNorm(embedding_dim, eps=1e-6)
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
            past_key: keys of earlier calls [B, A, P, E].
            past_value: values of earlier calls [B, A, P, E].

        Returns:
            Queries [B, A, T, E], keys and values [B, A, P + T, E].
        """
        batch, time, width = features.shape
        packed = self.query_key_value(self.attention_norm(features))
        packed = packed.view(batch, time, 3, self.num_heads, width // self.num_heads).permute(2, 0, 3, 1, 4)
        query, key, value = packed[0], packed[1], packed[2]
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
            key: keys before rotation [B, A, S, E].
            value: values [B, A, S, E].
            cosine: cosines of the rotary angles [S, E / 2].
            sine: sines of the rotary angles [S, E / 2].
            mask: bool [T, S]; None for the causal mask.

        Returns:
            The residual stream [B, T, D].
        """
        batch, time, width = features.shape
        past = key.shape[2] - time
        attended = F.scaled_dot_product_attention(
            rotate(query, cosine[past:], sine[past:]),
            rotate(key, cosine, sine),
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
        time, width = features.shape[1:]
        head_size = width // self.num_heads
        packed = self.query_key_value(self.attention_norm(features))
        packed = packed.view(time, 3, self.num_heads, head_size).permute(1, 2, 0, 3)
        angles = torch.outer(torch.arange(time, device=features.device, dtype=torch.float32), frequencies)
        query, key = (rotate(part[None], torch.cos(angles), torch.sin(angles))[0].double() for part in packed[:2])
        scores = query @ key.transpose(1, 2) / math.sqrt(head_size)
        later = torch.ones(time, time, dtype=torch.bool, device=features.device).triu(1)
        return torch.softmax(scores.masked_fill(later, -torch.inf), dim=-1)


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
