"""A decoder-only Transformer: pre-norm, rotary positions, a choice of activations, and a key/value cache as the state.

Shape legend: B batch, T time, V vocabulary, D embedding, L layers, A attention heads, E = D / A, P cached positions,
S = P + T, G key/value heads.
"""

import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from torch_linguist.errors import LinguistError
from torch_linguist.model.attention.block import Block
from torch_linguist.model.attention.operations import (
    LONGEST_WINDOW,
    RootMeanSquareNorm,
    exporting,
    rotation,
    unit_mean_square,
)
from torch_linguist.model.attention.window_operations import trains_in_bfloat16
from torch_linguist.model.module_modes import device_of, evaluating
from torch_linguist.model.neural import NeuralLanguageModel, check_sizes
from torch_linguist.model.stock_architecture import ExportSpecification, StockArchitecture, to_stock


class Transformer(NeuralLanguageModel):
    """Decoder-only Transformer (Vaswani et al. 2017) with RMS pre-norm and rotary positions (Su et al. 2021).

    In every layer a token sees itself and the `context_length - 1` tokens before it, within one call and across calls.
    A text read in chunks therefore gives the same result as one long pass. State: [keys, values], each [L, B, G, P, E]
    with P at most `context_length - 1`. Keys are cached before rotation, so positions are relative to the cache.

    Args:
        vocab_size: V.
        embedding_dim: D.
        num_layers: L.
        num_heads: A; must divide D into an even width.
        feed_forward_size: inner width; None for 8/3 D (SwiGLU, Shazeer 2020) or 4 D (the others, as many parameters).
        activation: `gelu`, `swiglu`, or `squared_relu` (So et al. 2021, "Primer").
        dropout: dropout rate after the embedding, after each sub-layer and before the output.
        tied: whether the output shares the embedding's weight.
        output: `full`, `adaptive` or `sampled` softmax; `auto` chooses, see `make_output`.
        cutoffs: see `NeuralLanguageModel`.
        context_length: number of tokens that a prediction can see in each layer.
        num_key_value_heads: G, a divisor of A: groups of A / G query heads share their keys and values (Ainslie et al.
            2023, "GQA"); None for A.
        rotary_base: base of the wavelengths of the rotary positions.
        norm_epsilon: constant added to the mean square in every norm.
        output_bias: whether the output adds a bias to each logit; False needs `full` or `sampled`. With SwiGLU and
            without the bias the architecture is that of Mistral, and within one window that of Llama.
        num_softmaxes: number of softmaxes that are mixed; see `MixtureOutput`.
        query_key_norm: whether queries and keys are divided by their root mean square, per head and before rotation
            (Henry et al. 2020; modded-nanogpt, nanochat).
        value_embeddings: whether each layer adds a projection of the normalized token embedding to its values, both
            with trained factors (modded-nanogpt, which reads a table of its own in place of the projection).
        embedding_skip: whether each layer reads `a * stream + b * embedding`, where the token embedding is normalized
            and the trained factors start at a = 1, b = 0 (the x0 lambdas of modded-nanogpt and nanochat).

    Raises:
        LinguistError: a value is out of range, the heads do not divide D, or the activation is unknown.

    Example:
        >>> network = Transformer(vocab_size=100, embedding_dim=8, num_layers=1, num_heads=2, context_length=32)
        >>> logits, state = network(torch.zeros(2, 5, dtype=torch.long), network.initial_state(2))
        >>> logits.shape
        torch.Size([2, 5, 100])
    """

    def __init__(
        self,
        vocab_size: int,
        embedding_dim: int = 320,
        num_layers: int = 3,
        num_heads: int = 4,
        feed_forward_size: int | None = None,
        activation: str = "swiglu",
        dropout: float = 0.0,
        tied: bool = True,
        output: str = "auto",
        cutoffs: Sequence[int] | None = None,
        context_length: int = 256,
        num_key_value_heads: int | None = None,
        rotary_base: float = 10000.0,
        norm_epsilon: float = 1e-6,
        output_bias: bool = True,
        num_softmaxes: int = 1,
        query_key_norm: bool = False,
        value_embeddings: bool = False,
        embedding_skip: bool = False,
    ) -> None:
        shared_heads = num_heads if num_key_value_heads is None else num_key_value_heads
        _check_sizes(embedding_dim, num_layers, num_heads, shared_heads, context_length, feed_forward_size)
        _check_positive(rotary_base=rotary_base, norm_epsilon=norm_epsilon)
        sizes = (vocab_size, embedding_dim, embedding_dim)
        super().__init__(*sizes, dropout, tied, output, cutoffs, output_bias=output_bias, num_softmaxes=num_softmaxes)
        self.context_length: int = context_length
        self.num_layers: int = num_layers
        self.num_heads: int = num_heads
        self.num_key_value_heads: int = shared_heads
        self.head_size: int = embedding_dim // num_heads
        self.blocks = nn.ModuleList(
            Block(
                embedding_dim,
                num_heads,
                feed_forward_size or _default_feed_forward_size(embedding_dim, activation),
                activation,
                dropout,
                num_layers,
                num_key_value_heads=shared_heads,
                norm_epsilon=norm_epsilon,
                query_key_norm=query_key_norm,
                value_embeddings=value_embeddings,
                embedding_skip=embedding_skip,
            )
            for _ in range(num_layers)
        )
        self.norm_epsilon: float = norm_epsilon
        self.reads_embedding: bool = value_embeddings or embedding_skip
        self.norm = RootMeanSquareNorm(embedding_dim, eps=norm_epsilon)
        exponents = torch.arange(0, self.head_size, 2, dtype=torch.float32) / self.head_size
        self.register_buffer("frequencies", rotary_base**-exponents, persistent=False)

    has_attention = True
    frequencies: Tensor

    def initial_state(self, batch_size: int) -> list[Tensor]:
        empty = self.embedding.weight.new_zeros(
            self.num_layers, batch_size, self.num_key_value_heads, 0, self.head_size
        )
        return [empty, empty]

    def encode(self, embedded: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        return self._encode(embedded, state, 0)

    def last_hidden(self, tokens: Tensor, state: list[Tensor], count: int) -> tuple[Tensor, list[Tensor]]:
        # The last block computes only keys and values of the tokens before the last ones.
        encoded, new_state = self._encode(self.embedded(tokens), state, min(count, tokens.shape[1]))
        return self.dropout(encoded), new_state

    def forward_padded(self, tokens: Tensor, state: list[Tensor], padding: Tensor) -> tuple[Tensor, list[Tensor]]:
        encoded, new_state = self._encode(self.embedded(tokens), state, 0, padding)
        return self.output(self.dropout(encoded)), new_state

    def window_nll(self, tokens: Tensor, targets: Tensor) -> Tensor:
        time = tokens.shape[1]
        # A subclass that changes a step of `nll` must train by that step.
        inherited = all(getattr(type(self), name) is getattr(Transformer, name) for name in ("nll", "hidden", "encode"))
        fits = time <= min(self.context_length, LONGEST_WINDOW)
        if not (inherited and fits and trains_in_bfloat16(self.embedding.weight)):
            return super().window_nll(tokens, targets)
        features = self.embedded(tokens)
        start = unit_mean_square(features, self.norm_epsilon) if self.reads_embedding else features
        cosine, sine = self._rotation(time)
        for block in self.blocks:
            features = cast(Block, block).train_window(features, start, cosine, sine)
        return self.hidden_nll(self.dropout(self.norm(features)), targets)

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

    def last_weight(self) -> nn.Parameter:
        return self.norm.weight

    def export_specification(self) -> ExportSpecification:
        return ExportSpecification(traceable=True, cache_axis=3)

    def stock_architecture(self) -> StockArchitecture:
        return to_stock(self.arguments, self.state_dict(), self.context_length)

    def _encode(
        self, embedded: Tensor, state: list[Tensor], count: int, padding: Tensor | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """Return the hidden vectors of the last `count` tokens, or of all for 0, and the new state."""
        past = state[0].shape[3]
        new = embedded.shape[1]
        cosine, sine = self._rotation(past + new)
        mask = self._mask(past, new, embedded.device)
        if padding is not None:
            mask = torch.arange(past + new, device=embedded.device) >= padding[:, None, None, None]
        keep = past + new - (self.context_length - 1)
        # An exported graph must hold for every length; with Python's max, torch.export would specialize on one side.
        if torch.jit.is_scripting():  # type: ignore[attr-defined]
            keep = max(0, keep)
        elif exporting():
            keep = torch.sym_max(0, keep)  # type: ignore[no-untyped-call]
        else:
            keep = max(0, keep)
        features = embedded
        start = unit_mean_square(embedded, self.norm_epsilon) if self.reads_embedding else embedded
        keys: list[Tensor] = []
        values: list[Tensor] = []
        for index, block in enumerate(self.blocks):
            features = block.enter(features, start)  # type: ignore[operator]
            query, key, value = block.project(  # type: ignore[operator]
                features, start, state[0][index], state[1][index]
            )
            if count > 0 and index == self.num_layers - 1:
                features, query = features[:, -count:], query[:, :, -count:]
                mask = self._window(past + new, count, embedded.device)
            features = block(features, query, key, value, cosine, sine, mask)
            keys.append(key[:, :, keep:])
            values.append(value[:, :, keep:])
        return self.norm(features), [torch.stack(keys), torch.stack(values)]

    def _rotation(self, length: int) -> tuple[Tensor, Tensor]:
        """Return the cosines and sines of the rotary angles of each position, [length, E / 2]."""
        return rotation(self.frequencies, length)

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


def _default_feed_forward_size(embedding_dim: int, activation: str) -> int:
    # Matrix units work best with multiples of 32.
    wide = 8 * embedding_dim // 3 if activation == "swiglu" else 4 * embedding_dim
    return max(32, wide // 32 * 32)


def _check_positive(**numbers: float) -> None:
    for name, number in numbers.items():
        if not 0 < number < math.inf:
            raise LinguistError(f"model.{name}={number}: must be a number greater than 0")


def _check_sizes(
    embedding_dim: int, num_layers: int, num_heads: int, shared_heads: int, context_length: int, inner: int | None
) -> None:
    check_sizes(
        embedding_dim=embedding_dim,
        num_layers=num_layers,
        num_heads=num_heads,
        context_length=context_length,
        feed_forward_size=1 if inner is None else inner,
        num_key_value_heads=shared_heads,
    )
    if embedding_dim % (2 * num_heads):
        raise LinguistError(
            f"model.num_heads={num_heads}: must divide model.embedding_dim={embedding_dim} into an even width"
        )
    if num_heads % shared_heads:
        raise LinguistError(f"model.num_key_value_heads={shared_heads}: must divide model.num_heads={num_heads} evenly")
