"""Operations of a training window in bfloat16 on a CPU: whole parts of a block, with backward passes of their own.

A CPU with bfloat16 units multiplies many times as fast as in float32. What remains of a training step is memory traffic
and the overhead of small operations. Whole parts of a block are therefore one operation (`normalized_linear`,
`causal_attention`, `rounded_linear`, `gated_linear`) that moves as few tensors as it can. The results are those of the
plain operations under autocast up to rounding.

Shape legend: B batch, T time, D embedding, A attention heads, G key/value heads, E width of a head, K inputs and
M outputs of a linear layer, F inner width.
"""

import math
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor


def trains_in_bfloat16(weight: Tensor) -> bool:
    """Return whether a model with this weight is in eager training under bfloat16 autocast on a CPU."""
    return (
        weight.device.type == "cpu"
        and weight.dtype == torch.float32
        and torch.is_grad_enabled()
        and torch.is_autocast_enabled("cpu")
        and torch.get_autocast_dtype("cpu") == torch.bfloat16
        and not torch.compiler.is_compiling()
    )


def normalized_linear(features: Tensor, norm_weight: Tensor, epsilon: float, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return a linear layer of features divided by their root mean square, and the features for the residual stream.

    The backward pass adds both gradients of the features in one operation.

    Args:
        features: float32 [B, T, D].
        norm_weight: factors of the normalized features [D].
        epsilon: constant added to the mean square.
        weight: weight of the layer [M, D].

    Returns:
        bfloat16 [B, T, M], and the features [B, T, D].
    """
    both = _NormalizedLinear.apply(features, norm_weight, epsilon, weight)  # type: ignore[no-untyped-call]
    return cast(tuple[Tensor, Tensor], both)


def rounded_linear(features: Tensor, weight: Tensor) -> Tensor:
    """Return a linear layer, bfloat16 [..., M], of features in bfloat16 [..., K].

    Args:
        features: bfloat16 [..., K].
        weight: float32 [M, K].
    """
    return cast(Tensor, _Linear.apply(features, weight))  # type: ignore[no-untyped-call]


def gated_linear(inner: Tensor, weight: Tensor) -> Tensor:
    """Return a linear layer of the product `silu(gate) * up`.

    Args:
        inner: gate and up projection, bfloat16 [B, T, 2 F].
        weight: weight of the layer [M, F].

    Returns:
        bfloat16 [B, T, M].
    """
    return cast(Tensor, _GatedLinear.apply(inner, weight))  # type: ignore[no-untyped-call]


def causal_attention(packed: Tensor, heads: int, shared: int, cosine: Tensor, sine: Tensor) -> Tensor:
    """Apply rotary positions and causal attention, whose weights are kept for the backward pass.

    PyTorch's fused attention has a backward pass that takes five times as long for 64 tokens in bfloat16.

    Args:
        packed: queries, keys and values before rotation, bfloat16 [B, T, A + 2 G, E].
        heads: A.
        shared: G.
        cosine: cosines of the rotary angles [T, E / 2].
        sine: sines of the rotary angles [T, E / 2].

    Returns:
        bfloat16 [B, T, A * E].
    """
    return cast(
        Tensor,
        _CausalAttention.apply(packed, heads, shared, cosine, sine),  # type: ignore[no-untyped-call]
    )


class _NormalizedLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, features: Tensor, norm_weight: Tensor, epsilon: float, weight: Tensor
    ) -> tuple[Tensor, Tensor]:
        rows = features.reshape(-1, features.shape[-1])
        inverse = torch.linalg.vector_norm(rows, dim=-1, keepdim=True)
        inverse.square_().div_(rows.shape[1]).add_(epsilon).rsqrt_()
        normalized = torch.mul(rows, inverse, out=torch.empty_like(rows, dtype=torch.bfloat16))
        # Scaling the rows of the weight takes less time than scaling the features, forward and backward.
        scaled = torch.mul(weight, norm_weight, out=torch.empty_like(weight, dtype=torch.bfloat16))
        ctx.save_for_backward(normalized, inverse, scaled, norm_weight, weight)
        return torch.mm(normalized, scaled.T).view(*features.shape[:-1], len(weight)), features.view_as(features)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, outer: Tensor, residual: Tensor) -> tuple[Tensor | None, ...]:
        normalized, inverse, scaled, norm_weight, weight = ctx.saved_tensors
        rows = outer.reshape(-1, outer.shape[-1])
        scaled_gradient = torch.mm(rows.T, normalized)
        weight_gradient = torch.mul(scaled_gradient, norm_weight)
        norm_gradient = torch.mul(scaled_gradient, weight).sum(0)
        gradient = torch.mm(rows, scaled).float()
        along = torch.mul(gradient, normalized).mean(-1, keepdim=True)
        gradient.addcmul_(normalized, along, value=-1.0)
        gradient = torch.addcmul(residual.reshape(gradient.shape), gradient, inverse, out=gradient)
        return gradient.view_as(residual), norm_gradient, None, weight_gradient


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor) -> Tensor:
        rounded = weight.to(torch.bfloat16)
        rows = features.reshape(-1, features.shape[-1])
        ctx.save_for_backward(rows, rounded)
        return torch.mm(rows, rounded.T).view(*features.shape[:-1], len(weight))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor, Tensor]:
        features, rounded = ctx.saved_tensors
        rows = outer.reshape(-1, outer.shape[-1])
        return torch.mm(rows, rounded).view(*outer.shape[:-1], -1), torch.mm(rows.T, features).float()


class _GatedLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inner: Tensor, weight: Tensor) -> Tensor:
        rounded = weight.to(torch.bfloat16)
        rows = inner.reshape(-1, inner.shape[-1])
        gate, up = rows.chunk(2, dim=-1)
        activated = F.silu(gate)
        product = activated * up
        ctx.save_for_backward(rows, activated, product, rounded)
        return torch.mm(product, rounded.T).view(*inner.shape[:-1], len(weight))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor, Tensor]:
        inner, activated, product, rounded = ctx.saved_tensors
        rows = outer.reshape(-1, outer.shape[-1])
        gate, up = inner.chunk(2, dim=-1)
        gradient = torch.empty_like(inner)
        gate_gradient, up_gradient = gradient.chunk(2, dim=-1)
        towards = torch.mm(rows, rounded)
        torch.mul(towards, activated, out=up_gradient)
        torch.ops.aten.silu_backward.grad_input(towards.mul_(up), gate, grad_input=gate_gradient)
        return gradient.view(*outer.shape[:-1], -1), torch.mm(rows.T, product).float()


class _CausalAttention(torch.autograd.Function):
    """Heads come first within: [A, B, T, E], so that one product is a batch of A * B contiguous matrices."""

    @staticmethod
    def forward(ctx: Any, packed: Tensor, heads: int, shared: int, cosine: Tensor, sine: Tensor) -> Tensor:
        batch, time, _, width = packed.shape
        by_head = packed.permute(2, 0, 1, 3)
        turned = _turned(by_head[: heads + shared].float(), cosine, sine)
        value = _repeated(by_head[heads + shared :], heads)
        query, key = turned[:heads].view(-1, time, width), _repeated(turned[heads:], heads)
        later = torch.full((time, time), -torch.inf).triu_(1)
        # Rounded scores would make large weights wrong by percents.
        with torch.autocast("cpu", enabled=False):
            scores = torch.baddbmm(later, query, key.transpose(1, 2), alpha=1 / math.sqrt(width))
        weights = torch.softmax(scores, -1).to(torch.bfloat16)
        attended = torch.bmm(weights, value).view(heads, batch, time, width).permute(1, 2, 0, 3)
        ctx.save_for_backward(turned.to(torch.bfloat16), value, weights, cosine, sine)
        ctx.heads = heads
        return attended.reshape(batch, time, heads * width)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor | None, ...]:
        turned, value, weights, cosine, sine = ctx.saved_tensors
        heads, (turning, batch, time, width) = ctx.heads, turned.shape
        shared = turning - heads
        outer = outer.view(batch, time, heads, width).permute(2, 0, 1, 3).reshape(-1, time, width)
        query, key = turned[:heads].view(-1, time, width), _repeated(turned[heads:], heads)
        towards = torch.bmm(outer, value.transpose(1, 2))
        towards = torch._softmax_backward_data(towards, weights, -1, torch.bfloat16)
        gradient = torch.empty(batch, time, turning + shared, width, dtype=torch.bfloat16)
        by_head = gradient.permute(2, 0, 1, 3)
        turned_gradient = torch.empty_like(turned)
        torch.bmm(towards, key, out=turned_gradient[:heads].view(-1, time, width))
        if shared == heads:
            torch.bmm(towards.transpose(1, 2), query, out=turned_gradient[heads:].view(-1, time, width))
            by_head[turning:] = torch.bmm(weights.transpose(1, 2), outer).view(heads, batch, time, width)
        else:
            for part, left, right in ((turned_gradient[heads:], towards, query), (by_head[turning:], weights, outer)):
                product = torch.bmm(left.transpose(1, 2), right)
                torch.sum(product.view(shared, -1, batch, time, width), 1, out=part)
        scale = 1 / math.sqrt(width)
        by_head[:turning] = _turned(turned_gradient.float(), cosine * scale, sine * -scale)
        return gradient, None, None, None, None


def _repeated(tensor: Tensor, heads: int) -> Tensor:
    """Return keys or values [G, B, T, E] for each query head: [A * B, T, E]."""
    if len(tensor) < heads:
        tensor = tensor.repeat_interleave(heads // len(tensor), dim=0)
    return tensor.reshape(-1, *tensor.shape[2:])


def _turned(features: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Return float32 features [A, B, T, E] rotated by the angles of each position."""
    first, second = features.chunk(2, dim=-1)
    turned = torch.empty_like(features, memory_format=torch.contiguous_format)
    left, right = turned.chunk(2, dim=-1)
    torch.mul(first, cosine, out=left).addcmul_(second, sine, value=-1.0)
    torch.mul(second, cosine, out=right).addcmul_(first, sine)
    return turned
