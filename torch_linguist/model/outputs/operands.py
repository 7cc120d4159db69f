"""Operands of the products whose results are logits, in sizes that suit matrix units.

Shape legend: N rows (batch times time), V vocabulary, D width of the hidden vector, K columns of the operands (D, the
columns of the bias, and zeros up to a multiple of 16), R rows of the right operand (V, or more on a GPU).
"""

import math
from typing import cast

import torch
from torch import Tensor

ONEDNN: bool = hasattr(torch.ops.mkldnn, "_linear_pointwise")

PADDED = ("cuda",)
"""Devices whose fast kernels need rows of logits that begin at multiples of 16 bytes."""


def logit_operands(hidden: Tensor, weight: Tensor, bias: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return operands [N, K] and [R, K] whose product is the logits, bias included.

    Where R exceeds V, the product has columns for types that do not exist; their logits are so low that their
    probabilities are zero.

    Args:
        hidden: hidden vectors [N, D].
        weight: weight of the output layer [V, D].
        bias: bias of the output layer [V]. In a type narrower than its own it takes two columns, the rounded value and
            the rounding error.
        dtype: type of the operands.
    """
    vocab_size, width = weight.shape
    low_precision = dtype.itemsize < bias.dtype.itemsize
    columns = round_up(width + 2, 16)
    left = hidden.new_zeros(len(hidden), columns, dtype=dtype)
    left[:, :width] = hidden
    left[:, width : width + (2 if low_precision else 1)] = 1
    rows = round_up(vocab_size, 8) if weight.device.type in PADDED else vocab_size
    right = weight.new_empty(rows, columns, dtype=dtype)
    known, rest = right[:vocab_size], right[vocab_size:]
    known[:, :width] = weight
    known[:, width] = bias
    known[:, width + 1 :] = 0
    if low_precision:
        known[:, width + 1] = bias - known[:, width].to(bias.dtype)
    rest.zero_()
    rest[:, width] = torch.finfo(dtype).min / 4
    return left, right


def logit_product(left: Tensor, right: Tensor, *, bias: Tensor | None = None, out: Tensor | None = None) -> Tensor:
    """Return the product of left [n, K] and right [R, K], plus a bias [R]: logits [n, R], in `out` or in new memory.

    A bias is for oneDNN's kernel only.

    In float32, oneDNN's kernel is faster for this shape than the library torch uses for plain products (1.5 to 1.9
    times for MKL on an AMD processor). CPU builds of torch with oneDNN have it.
    """
    if left.device.type == "cpu" and left.dtype == torch.float32 and ONEDNN:
        return cast(Tensor, torch.ops.mkldnn._linear_pointwise(left, right, bias, "none", [], ""))
    return torch.mm(left, right.T, out=out)


def slices(length: int, most: int) -> list[slice]:
    """Return slices that cover a length, nearly equal and at most `most` long (at least 1)."""
    if not length:
        return []
    size = math.ceil(length / math.ceil(length / max(1, most)))
    return [slice(start, min(start + size, length)) for start in range(0, length, size)]


def round_up(number: int, step: int) -> int:
    """Return the smallest multiple of `step` that is not below `number`."""
    return -(-number // step) * step
