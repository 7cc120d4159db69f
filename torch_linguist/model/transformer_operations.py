"""Operations of the Transformer, with backward passes that are fast on a CPU.

A CPU with bfloat16 units multiplies many times as fast as in float32. What remains of a training step is memory traffic
and the overhead of small operations. For windows in bfloat16, whole parts of a block are therefore one operation
(`normalized_linear`, `causal_attention`, `rounded_linear`, `gated_linear`) that moves as few tensors as it can. The
results are those of the plain operations under autocast up to rounding.

Shape legend: B batch, T time, D embedding, A attention heads, G key/value heads, E width of a head, K inputs and
M outputs of a linear layer, F inner width.
"""

import math
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torch_linguist.model.outputs.output import widened

LONGEST_WINDOW = 256
"""Longest text T for these parts: at 512 tokens PyTorch's fused attention is as fast, and it needs less memory."""


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
"""The same for a compiler, which calls it as it is. It would otherwise compute each angle for each row and head."""


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

    A compiler for a CPU gets it as single operations in training: it joins them to what stands before and after, and
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


def _in_eager_training(features: Tensor) -> bool:
    """Return whether features need a gradient and no compiler or tracer follows the operations."""
    tracing = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
    return features.requires_grad and not (torch.compiler.is_compiling() or tracing)


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
