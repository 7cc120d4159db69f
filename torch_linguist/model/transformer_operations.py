"""Norms and rotary positions of the Transformer, with backward passes that are fast on a CPU.

Shape legend: B batch, T time, D embedding, A attention heads, E = D / A.
"""

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torch_linguist.model.outputs.output import widened


def unit_mean_square(features: Tensor, epsilon: float) -> Tensor:
    """Return features [..., D] divided by their root mean square, in their own type."""
    return F.rms_norm(widened(features), [features.shape[-1]], None, epsilon).to(features.dtype)


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


def _in_eager_training(features: Tensor) -> bool:
    """Return whether features need a gradient and no compiler or tracer follows the operations."""
    tracing = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
    return features.requires_grad and not (torch.compiler.is_compiling() or tracing)
