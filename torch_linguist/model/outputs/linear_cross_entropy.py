"""Fused cross-entropy of a linear layer: neither the logits [N, V] nor their gradient are ever held whole.

Shape legend: N rows (batch times time), V vocabulary, D width of the hidden vector, K columns of the operands (D, the
columns of the bias, and zeros up to a width that suits matrix products), R rows of the right operand (see
`logit_operands`), n rows of a chunk.
"""

import math
from typing import Any, cast

import torch
from torch import Tensor

from torch_linguist.errors import LinguistError
from torch_linguist.model.outputs.operands import ONEDNN, logit_operands, logit_product, slices

CHUNK_ELEMENTS = 1 << 25
"""Number of logits held at once: 64 MiB in bfloat16, 128 MiB in float32, for any N and V."""

GPU_CHUNKS = 4
"""How many times as many logits a GPU holds at once: it starts few kernels, each with much to do."""

BLOCK = (512, 2048)
"""Rows and columns of the float32 logits held at once without gradients (twice the rows in bfloat16): they fit into a
CPU's cache."""

_SMALLEST = 1e-30
"""Probability below which a logarithm loses precision; likewise a sum of exponentials below it or above its inverse."""

_PER_BIT = math.log2(math.e)
"""log2(e), so that exp2 can replace exp: it takes a third of the time in float32 (MKL on an AMD processor) and four
fifths in bfloat16."""

_IN_PLACE = ("cpu",)
"""Devices whose softmax may overwrite its logits: the kernel reads a whole row before it writes."""


def linear_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor,
    targets: Tensor,
    *,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    padding: int = 0,
    corrections: Tensor | None = None,
) -> Tensor:
    """Return the exact cross-entropy of a linear layer in bounded memory.

    The rows are processed in chunks (after Wijmans et al. 2024, "Cut your losses in large-vocabulary language models"),
    and the gradients are computed along with the loss, as in the Liger kernels (Hsu et al. 2024). A training step takes
    three matrix products; recomputing the logits in the backward pass would take four. No entry of the gradient is
    dropped. If the rows of the loss have different weights in the backward pass, the products run again. Without
    gradients there is no softmax: the exponentials are summed block by block.

    Under autocast, the products and the softmax have the autocast type; the sums of the softmax, the loss and the
    accumulated gradient of the weight are float32. The bias takes two columns (the rounded value and the rounding
    error), and the logit of the target is computed in float32.

    Args:
        hidden: hidden vectors [N, D].
        weight: weight of the layer [V, D].
        bias: bias of the layer [V].
        targets: target ids, int64 [N].
        label_smoothing: share of the target's probability that is spread over the vocabulary (Szegedy et al. 2016).
        z_loss: factor of the squared logarithm of the softmax denominator, which is added to the loss (Chowdhery et al.
            2023, "PaLM").
        padding: number of rows at the end that only fill up the shape: their loss has no gradient.
        corrections: constants [V] added to the logits of all types but the target, for example if each row of the
            weight stands for several types. Not with smoothing or z-loss.

    Returns:
        The loss in nats (the negative log-likelihood without smoothing and z-loss), float32 (float64 for float64
        inputs) [N].

    Raises:
        LinguistError: the smoothing or the factor is out of range.
    """
    if not 0 <= label_smoothing < 1:
        raise LinguistError(f"model.label_smoothing={label_smoothing}: must be at least 0 and less than 1")
    if not z_loss >= 0:
        raise LinguistError(f"model.z_loss={z_loss}: must be at least 0")
    assert corrections is None or label_smoothing == z_loss == 0
    device = hidden.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
    training = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (hidden, weight, bias))
    loss = _LinearCrossEntropy.apply(  # type: ignore[no-untyped-call]
        hidden, weight, bias, targets, corrections, dtype, label_smoothing, z_loss, padding, training
    )
    return cast(Tensor, loss)


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor,
        targets: Tensor,
        corrections: Tensor | None,
        dtype: torch.dtype,
        label_smoothing: float,
        z_loss: float,
        padding: int,
        training: bool,
    ) -> Tensor:
        with torch.autocast(hidden.device.type, enabled=False):
            alone = not training and corrections is None
            inputs = hidden, weight, bias, targets, corrections, dtype, label_smoothing, z_loss
            fused = _FusedPass(*inputs, scale=_PER_BIT if alone else 1.0)
            loss = fused.loss() if alone else fused.run(_row_weights(hidden, padding))
        ctx.save_for_backward(hidden, weight, bias, targets, corrections)
        ctx.settings = dtype, label_smoothing, z_loss
        ctx.used = len(hidden) - padding
        ctx.gradients = fused.gradients if training else None
        return loss

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, targets, corrections = ctx.saved_tensors
        gradient = outer[0][: ctx.used]
        # Autograd may keep and modify these tensors, so they are returned only once.
        gradients, ctx.gradients = ctx.gradients, None
        if gradients is not None and _uniform(gradient):
            scale = gradient[0] if len(gradient) else gradient.new_ones(())
            return *(part.mul_(scale) for part in gradients), *[None] * 7
        with torch.autocast(hidden.device.type, enabled=False):
            fused = _FusedPass(hidden, weight, bias, targets, corrections, *ctx.settings)
            fused.run(torch.cat([gradient, gradient.new_zeros(len(hidden) - ctx.used)]))
        return *fused.gradients, *[None] * 7


def _row_weights(hidden: Tensor, padding: int) -> Tensor | None:
    """Return 1 for each row and 0 for the padding; None without padding."""
    if not padding:
        return None
    weights = hidden.new_ones(len(hidden))
    weights[len(hidden) - padding :] = 0
    return weights


def _uniform(gradient: Tensor) -> bool:
    """Return whether all rows have the same weight; never waits for a GPU, where the answer may be a false no."""
    if len(gradient) < 2 or gradient.stride(0) == 0:
        return True
    return gradient.device.type == "cpu" and bool((gradient == gradient[0]).all())


def _chunk_elements(left: Tensor) -> int:
    return CHUNK_ELEMENTS if left.device.type == "cpu" else GPU_CHUNKS * CHUNK_ELEMENTS


class _FusedPass:
    """One pass over the chunks: `loss` with scale `_PER_BIT`, `run` with scale 1.

    Attributes:
        scale: ratio of the product of the operands to the logits.
        gradients: gradients of hidden, weight and bias, after `run`.
    """

    def __init__(
        self,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor,
        targets: Tensor,
        corrections: Tensor | None,
        dtype: torch.dtype,
        label_smoothing: float,
        z_loss: float,
        scale: float = 1.0,
    ) -> None:
        self.corrections, self.scale = corrections, scale
        self.hidden, self.weight, self.bias, self.targets = hidden, weight, bias, targets
        self.label_smoothing, self.z_loss = label_smoothing, z_loss
        self.precise = torch.float64 if weight.dtype == torch.float64 else torch.float32
        self.low_precision = dtype.itemsize < self.precise.itemsize
        biases = bias if corrections is None else bias + corrections
        scaled = hidden
        if scale != 1:
            biases, scaled = biases * scale, hidden * scale
        # oneDNN adds the bias by itself. Gradients (`scale` is 1 only for them) and smoothing need it as a column.
        plain = scale != 1 and not label_smoothing and dtype == weight.dtype == torch.float32
        adds_bias = plain and hidden.device.type == "cpu" and ONEDNN
        self.added_bias = biases if adds_bias else None
        self.left, self.right = (scaled, weight) if adds_bias else logit_operands(scaled, weight, biases, dtype)
        # The target's logit is not averaged over the vocabulary, so it is computed in full precision.
        target_rows = weight.index_select(0, targets).to(self.precise)
        self.target_logits = target_rows.mul_(hidden).sum(1) + bias.index_select(0, targets)
        self.gradients: tuple[Tensor, Tensor, Tensor] = (hidden, weight, bias)

    def loss(self) -> Tensor:
        """Return the loss [N] without gradients."""
        length, device = len(self.left), self.left.device
        rows, columns = length, _chunk_elements(self.left) // max(1, length)
        if device.type == "cpu":
            rows, columns = max(1, BLOCK[0] * 4 // self.left.itemsize), BLOCK[1]
        loss = torch.empty(length, dtype=self.precise, device=device)
        for chunk in slices(length, rows):
            sums = torch.zeros(chunk.stop - chunk.start, dtype=self.precise, device=device)
            for block in slices(len(self.right), columns):
                bias = None if self.added_bias is None else self.added_bias[block]
                sums += self._row_sums(logit_product(self.left[chunk], self.right[block], bias=bias).exp2_())
            log_sums = sums.log()
            if bool((lost := ~((sums > _SMALLEST) & (sums < 1 / _SMALLEST))).any()):
                log_sums[lost] = self._log_sums_anew(chunk, lost)
            loss[chunk] = self._loss(log_sums, chunk)
        return loss

    def _row_sums(self, exponentials: Tensor) -> Tensor:
        """Return the row sums [n] of a block [n, columns]."""
        if exponentials.device.type == "cpu" and exponentials.dtype == torch.bfloat16:
            # With another result type torch would copy the block first. In its own type each block's sum is rounded
            # once, up or down alike.
            return exponentials.sum(1).to(self.precise)
        return exponentials.sum(1, dtype=self.precise)

    def run(self, row_weights: Tensor | None) -> Tensor:
        """Return the loss [N]; compute the gradients of its sum, weighted by `row_weights` [N] (None: by 1)."""
        rows, columns, (vocab_size, width) = len(self.left), len(self.right), self.weight.shape
        loss = torch.empty(rows, dtype=self.precise, device=self.left.device)
        chunks = slices(rows, _chunk_elements(self.left) // columns)
        size = chunks[0].stop if chunks else 0
        memory = self.left.new_empty(size, columns)
        left_gradient = torch.empty_like(self.left)
        # Without rows there is no chunk to fill it.
        make = torch.empty_like if chunks else torch.zeros_like
        weight_gradient = make(self.weight, dtype=self.precise)
        bias_gradient = torch.zeros_like(self.bias, dtype=self.precise)
        for chunk in chunks:
            chunk_logits = self._chunk_logits(chunk, memory[: chunk.stop - chunk.start])
            softmax, log_sums = self._softmax(chunk_logits, chunk)
            loss[chunk] = self._loss(log_sums, chunk)
            self._to_gradient(softmax, log_sums, chunk, row_weights)
            torch.mm(softmax, self.right, out=left_gradient[chunk])
            product = (softmax.T @ self.left[chunk])[:vocab_size]
            if chunk.start:
                weight_gradient += product[:, :width]
            else:
                weight_gradient.copy_(product[:, :width])
            bias_gradient += product[:, width]
        hidden_gradient = left_gradient[:, :width].to(self.hidden.dtype)
        self._add_smoothing(hidden_gradient, weight_gradient, bias_gradient, row_weights)
        self.gradients = (
            hidden_gradient,
            weight_gradient.to(self.weight.dtype),
            bias_gradient.to(self.bias.dtype),
        )
        return loss

    def _chunk_logits(self, chunk: slice, out: Tensor) -> Tensor:
        """Return the logits [n, R] of a chunk, in `out` or in new memory."""
        logits = logit_product(self.left[chunk], self.right, out=out)
        if self.corrections is not None:
            at_targets = torch.arange(len(logits), device=logits.device), self.targets[chunk]
            logits.index_put_(at_targets, self.target_logits[chunk].to(logits.dtype))
        return logits

    def _softmax(self, logits: Tensor, chunk: slice) -> tuple[Tensor, Tensor]:
        """Return the softmax [n, V] and the log-denominators [n]: a logit minus the logarithm of its probability."""
        in_place = logits.device.type in _IN_PLACE
        targets = self.targets[chunk, None]
        logit = (logits.gather(1, targets) if in_place else logits.amax(1, keepdim=True)).squeeze(1)
        softmax = torch.softmax(logits, 1, out=logits if in_place else torch.empty_like(logits))
        probability = (softmax.gather(1, targets) if in_place else softmax.amax(1, keepdim=True)).squeeze(1)
        log_sums = logit.to(self.precise) - probability.to(self.precise).log()
        if in_place and bool((lost := probability < _SMALLEST).any()):
            log_sums[lost] = self._log_sums_anew(chunk, lost)
        return softmax, log_sums

    def _log_sums_anew(self, chunk: slice, rows: Tensor) -> Tensor:
        """Return the log-denominators of the rows of a chunk whose target has a vanishing probability."""
        logits = logit_product(self.left[chunk][rows], self.right, bias=self.added_bias)
        return (logits.to(self.precise) / self.scale).logsumexp(1)

    def _loss(self, log_sums: Tensor, chunk: slice) -> Tensor:
        loss = log_sums - (1 - self.label_smoothing) * self.target_logits[chunk]
        if self.label_smoothing:
            mean_logits = self.left[chunk].to(self.precise) @ self._mean_row() / self.scale
            loss -= self.label_smoothing * mean_logits
        if self.z_loss:
            loss += self.z_loss * log_sums.square()
        return loss

    def _to_gradient(self, softmax: Tensor, log_sums: Tensor, chunk: slice, row_weights: Tensor | None) -> None:
        """Turn the softmax into the gradient of the logits, without the constant part of the smoothing."""
        if self.z_loss:
            softmax.mul_((1 + 2 * self.z_loss * log_sums)[:, None].to(softmax.dtype))
        # In low precision, scatter functions would copy the whole chunk twice; this changes n numbers.
        at_targets = torch.arange(len(softmax), device=softmax.device), self.targets[chunk]
        softmax.index_put_(at_targets, softmax[at_targets] - (1 - self.label_smoothing))
        if row_weights is not None:
            softmax.mul_(row_weights[chunk, None].to(softmax.dtype))

    def _add_smoothing(
        self, hidden_gradient: Tensor, weight_gradient: Tensor, bias_gradient: Tensor, row_weights: Tensor | None
    ) -> None:
        """Add the constant part of the smoothing, which is the same for every row of the weight."""
        if not self.label_smoothing:
            return
        ones = torch.ones(len(self.hidden), dtype=self.precise, device=self.hidden.device)
        weights = ones if row_weights is None else row_weights.to(self.precise)
        width, share = self.weight.shape[1], self.label_smoothing / len(self.weight)
        hidden_gradient -= (self.label_smoothing * weights[:, None] * self._mean_row()[:width]).to(self.hidden.dtype)
        weight_gradient -= share * (weights @ self.hidden.to(self.precise))
        bias_gradient -= share * weights.sum()

    def _mean_row(self) -> Tensor:
        """Return the mean over the vocabulary of the right operand: [K]."""
        return self.right[: len(self.weight)].mean(0, dtype=self.precise)
