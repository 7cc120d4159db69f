"""Operations of the Transformer: rotary positions, norms and attention.

Shape legend: B batch, T time, D embedding, A attention heads, E width of a head, P cached positions, S = P + T.
"""

import math
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torch_linguist.model.outputs.output import widened

LONGEST_WINDOW = 256
"""Longest text T for `attend` in operations and for `window_operations`: at 512 tokens PyTorch's fused attention is as
fast, and it needs less memory."""


def unit_mean_square(features: Tensor, epsilon: float) -> Tensor:
    """Return features [..., D] divided by their root mean square, in their own type."""
    return F.rms_norm(widened(features), [features.shape[-1]], None, epsilon).to(features.dtype)


def exporting() -> bool:
    """Return whether torch.export is tracing the model."""
    if torch.jit.is_scripting():  # type: ignore[attr-defined]
        return False
    else:  # noqa: RET505  (TorchScript drops a branch only if both are written out)
        # While torch 2.11 compiles, it answers that it exports.
        return torch.compiler.is_exporting() and not torch.compiler.is_dynamo_compiling()


def rotation(frequencies: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """Return the cosines and sines of the rotary angles of each position, [length, E / 2].

    Args:
        frequencies: rotary frequencies [E / 2].
        length: number of positions.
    """
    if not torch.jit.is_scripting():  # type: ignore[attr-defined]
        compiling = torch.compiler.is_dynamo_compiling()
        if compiling and frequencies.device.type == "cpu":
            return cast(tuple[Tensor, Tensor], _rotation_in_compiled_code(frequencies, length))
    return _rotation(frequencies, length)


def _rotation(frequencies: Tensor, length: int) -> tuple[Tensor, Tensor]:
    positions = torch.arange(length, device=frequencies.device, dtype=torch.float32)
    angles = torch.outer(positions, frequencies)
    return torch.cos(angles), torch.sin(angles)


_rotation_in_compiled_code = torch.library.custom_op("torch_linguist::rotation", _rotation, mutates_args=())
"""The same for a compiler, which calls it as it is. It would otherwise compute the angles for each row and head."""


@_rotation_in_compiled_code.register_fake
def _(frequencies: Tensor, length: int) -> tuple[Tensor, Tensor]:
    return frequencies.new_empty(length, len(frequencies)), frequencies.new_empty(length, len(frequencies))


def rotate(features: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Apply rotary positions (Su et al. 2021); the first half of the width is paired with the second.

    Args:
        features: queries or keys [B, A, T, E].
        cosine: cosines of the angles [T, E / 2].
        sine: sines of the angles [T, E / 2].

    Returns:
        Rotated features [B, A, T, E] of the same type.
    """
    if torch.jit.is_scripting():  # type: ignore[attr-defined]
        return _rotated(features, cosine, sine)
    else:  # noqa: RET505  (see `exporting`)
        if _in_eager_training(features):
            return cast(Tensor, _Rotation.apply(features, cosine, sine))  # type: ignore[no-untyped-call]
        return _rotated(features, cosine, sine)


def _rotated(features: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    first, second = widened(features).chunk(2, dim=-1)
    turned = torch.addcmul(first * cosine, second, sine, value=-1.0)
    rotated = torch.cat([turned, torch.addcmul(second * cosine, first, sine)], dim=-1)
    return rotated.to(features.dtype)


class _Rotation(torch.autograd.Function):
    """Rotary positions with a backward pass of its own: the rotation by the opposite angles."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        ctx.save_for_backward(cosine, sine)
        first, second = widened(features).chunk(2, dim=-1)
        rotated = torch.empty(features.shape, dtype=first.dtype, device=features.device)
        left, right = rotated.chunk(2, dim=-1)
        torch.mul(first, cosine, out=left).addcmul_(second, sine, value=-1.0)
        torch.mul(second, cosine, out=right).addcmul_(first, sine)
        return rotated.to(features.dtype)

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor, None, None]:
        cosine, sine = ctx.saved_tensors
        return _Rotation.apply(outer[0], cosine, -sine), None, None  # type: ignore[no-untyped-call]


class RootMeanSquareNorm(nn.RMSNorm):
    """`nn.RMSNorm` (Zhang & Sennrich 2019) whose backward pass on a CPU takes a third of the time.

    Torch has a fused backward pass on GPUs only. The numbers are those of `nn.RMSNorm` up to rounding.
    """

    def forward(self, features: Tensor) -> Tensor:
        """Return features [..., D] divided by their root mean square and scaled by the weight."""
        if torch.jit.is_scripting():  # type: ignore[attr-defined]
            return F.rms_norm(features, self.normalized_shape, self.weight, self.eps)
        else:  # noqa: RET505  (see `exporting`)
            if features.device.type == "cpu" and _in_eager_training(features):
                return cast(Tensor, _Norm.apply(features, self.weight, self.eps))  # type: ignore[no-untyped-call]
            return F.rms_norm(features, self.normalized_shape, self.weight, self.eps)


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        inverse = features.square().mean(-1, keepdim=True).add_(epsilon).rsqrt_()
        normalized = features * inverse
        ctx.save_for_backward(normalized, inverse, weight)
        return normalized * weight

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor, Tensor, None]:
        normalized, inverse, weight = ctx.saved_tensors
        weighted = outer[0] * weight
        along = (weighted * normalized).mean(-1, keepdim=True)
        gradient = torch.addcmul(weighted, normalized, along, value=-1.0) * inverse
        rows = (outer[0] * normalized).reshape(-1, len(weight))
        return gradient, rows.sum(0), None


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
    """Return scaled dot-product attention [B, A, T, E] of queries [B, A, T, E], keys and values [B, A, S, E].

    A compiler for a CPU gets it as separate operations in training: it fuses them with their neighbors, whereas
    PyTorch's fused attention has a slow backward pass there.

    Args:
        query: queries after rotation.
        key: keys after rotation.
        value: values.
        mask: bool [T, S], True where a token sees a position; None for all, or those of the causal mask.
        causal: whether a token sees the positions up to its own; S equals T then.
    """
    if not torch.jit.is_scripting():  # type: ignore[attr-defined]
        short = causal and query.shape[2] <= LONGEST_WINDOW
        if short and query.requires_grad and query.device.type == "cpu" and torch.compiler.is_dynamo_compiling():
            return _attention_in_operations(query, key, value)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=causal)


def _attention_in_operations(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Return causal attention of queries, keys and values of one length T."""
    time = query.shape[2]
    later = torch.full((time, time), -torch.inf, device=query.device).triu(1)
    scores = widened(torch.matmul(query, key.transpose(2, 3))) / math.sqrt(query.shape[3])
    return torch.matmul(torch.softmax(scores + later, -1).to(value.dtype), value)


def gated(gate: Tensor, inner: Tensor) -> Tensor:
    """Return `silu(gate) * inner` (SwiGLU, Shazeer 2020).

    Written with a sigmoid, the code that a compiler makes for the backward pass needs one exponential; with `F.silu`,
    it needs two.
    """
    if not torch.jit.is_scripting():  # type: ignore[attr-defined]
        compiling = torch.compiler.is_dynamo_compiling()
        if compiling and gate.requires_grad:
            return gate * torch.sigmoid(gate) * inner
    return F.silu(gate) * inner


def _in_eager_training(features: Tensor) -> bool:
    """Return whether features need a gradient and no compiler or tracer follows the operations."""
    tracing = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
    return features.requires_grad and not (torch.compiler.is_compiling() or tracing)
