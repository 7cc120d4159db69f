"""Scores of token streams: every token is scored exactly once, and nothing is trimmed.

Shape legend: B batch, T time, N tokens of the stream.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor

from torch_linguist.data import TokenStream
from torch_linguist.errors import LinguistError
from torch_linguist.evaluation.parallel_reading import Measure, parallel_measures, segment_count, shifted
from torch_linguist.model import LanguageModel, State, device_of, evaluating
from torch_linguist.model.module_modes import PRECISIONS, autocast

COUNTED_CHUNK = 1 << 16
"""Tokens per call for counted models, which need little memory per token."""

WINDOW_TOKENS = 8192
"""Tokens of overlapping windows per batch."""

LAYER_TOKENS = 2048
"""Tokens per call of the layers before the output, whose activations then stay in a CPU's cache. The output layer takes
a whole batch, because it prepares its operands at each call."""


@dataclass(frozen=True)
class Score:
    """Score of a model on a stream.

    Attributes:
        tokens: tokens scored, `<eos>` included.
        words: whitespace-separated words of the original text.
        bytes: UTF-8 bytes of the original text.
        oov_rate: share of tokens whose word is not in the vocabulary.
        loss: nats per token.
        perplexity: exp(loss).
        word_perplexity: exp(total nats / words): comparable across tokenizers.
        bits_per_byte: total bits / bytes: comparable across tokenizers.

    Example:
        >>> import math
        >>> found = score(model, corpus.test)
        >>> math.isclose(found.perplexity, math.exp(found.loss)), found.tokens == len(corpus.test)
        (True, True)
    """

    tokens: int
    words: int
    bytes: int
    oov_rate: float
    loss: float
    perplexity: float
    word_perplexity: float
    bits_per_byte: float

    @classmethod
    def of(cls, total_nats: float, stream: TokenStream) -> "Score":
        """Return the score of a whole stream from the sum of its nll."""
        tokens = len(stream)
        return cls(
            tokens=tokens,
            words=stream.words,
            bytes=stream.bytes,
            oov_rate=stream.oov / tokens,
            loss=total_nats / tokens,
            perplexity=exp(total_nats / tokens),
            word_perplexity=exp(total_nats / stream.words) if stream.words else math.inf,
            bits_per_byte=total_nats / math.log(2) / stream.bytes if stream.bytes else math.inf,
        )

    def as_dict(self) -> dict[str, int | float]:
        """Return plain types, for JSON."""
        return asdict(self)


def as_dicts(scores: Mapping[str, Score]) -> dict[str, dict[str, int | float]]:
    """Return scores by split as plain types, for JSON."""
    return {split: score.as_dict() for split, score in scores.items()}


def exp(nats: float) -> float:
    """Return the exponential of a loss, its perplexity; infinity where it overflows."""
    return math.exp(nats) if nats < 709 else math.inf


def score(
    model: LanguageModel,
    stream: TokenStream,
    *,
    chunk_length: int = 4096,
    stride: int | None = None,
    precision: str = "fp32",
) -> Score:
    """Score a whole stream.

    Args:
        model: any model; its mode (train or eval) is preserved.
        stream: one split.
        chunk_length: tokens per call for a model without a bounded context. It affects memory only; counted models
            use larger chunks.
        stride: new tokens per window for a model with a bounded context; None for half the context.
        precision: `fp32`, or `bf16`, which is faster on many machines and changes the fourth or fifth digit of the
            loss.

    Returns:
        The score.

    Raises:
        LinguistError: the stream is empty, the stride exceeds the context, or the chunk length is not positive.

    Example:
        >>> score(model, corpus.test).perplexity < corpus.tokenizer.vocab_size
        True
    """
    parts = stream_nll(model, stream, chunk_length=chunk_length, stride=stride, precision=precision)
    total = sum(float(part.sum()) for part in parts)
    return Score.of(total, stream)


def mean_nll(
    model: LanguageModel,
    stream: TokenStream,
    max_tokens: int | None = None,
    *,
    chunk_length: int = 4096,
    stride: int | None = None,
    precision: str = "fp32",
) -> float:
    """Return the loss in nats per token of the first `max_tokens` tokens (None for all); otherwise as `score`.

    Example:
        >>> abs(mean_nll(model, corpus.test) - score(model, corpus.test).loss) < 1e-9
        True
    """
    parts = list(stream_nll(model, stream, max_tokens, chunk_length=chunk_length, stride=stride, precision=precision))
    return sum(float(part.sum()) for part in parts) / sum(len(part) for part in parts)


def stream_nll(
    model: LanguageModel,
    stream: TokenStream,
    max_tokens: int | None = None,
    *,
    chunk_length: int = 4096,
    stride: int | None = None,
    precision: str = "fp32",
) -> Iterator[np.ndarray]:
    """Score every token of a stream, in order.

    The first token is predicted from `<eos>`. A model without a bounded context carries its state through the whole
    stream; a long stream is read in parallel segments (see `parallel_reading`). A model with a bounded context reads
    overlapping windows and scores the last `stride` tokens of each, so that every token except the first ones sees at
    least `context_length - stride` tokens before it.

    Args:
        model: any model.
        stream: one split.
        max_tokens: number of tokens to score from the start; None for all.
        chunk_length: tokens per call, for a model without a bounded context.
        stride: new tokens per window, for a model with a bounded context.
        precision: see `score`.

    Yields:
        nll in nats, float64, of consecutive parts of the stream.

    Raises:
        LinguistError: the stream is empty, the stride exceeds the context, the chunk length is not positive, or the
            precision is unknown.

    Example:
        >>> nll = np.concatenate(list(stream_nll(model, corpus.test)))
        >>> nll.shape == (len(corpus.test),)
        True
    """
    nll = nll_in(model, precision)
    scored = stride or default_stride(model)

    def measure(tokens: Tensor, targets: Tensor, state: State) -> tuple[tuple[Tensor, ...], State]:
        # Overlapping windows start from the initial state; only tokens outside the previous window are scored.
        if model.context_length and model.has_hidden and len(tokens) > 1:
            with autocast(tokens.device, precision):
                parts = torch.split(tokens, max(1, LAYER_TOKENS // tokens.shape[1]))
                hidden = [model.last_hidden(part, model.initial_state(len(part)), scored)[0] for part in parts]
                return (model.hidden_nll(torch.cat(hidden), targets[:, -scored:]),), state
        measured, new_state = nll(tokens, targets, state)
        return (measured,), new_state

    rough = precision == "bf16"
    for (part,) in stream_measures(
        model, stream, measure, max_tokens, chunk_length=chunk_length, stride=stride, rough=rough
    ):
        yield part.double().cpu().numpy()


def nll_in(model: LanguageModel, precision: str) -> Callable[[Tensor, Tensor, State], tuple[Tensor, State]]:
    """Return the model's `nll` in a precision; the state keeps its type.

    Raises:
        LinguistError: the precision is unknown.
    """
    if precision not in PRECISIONS:
        raise LinguistError(f"precision={precision}: must be one of {', '.join(PRECISIONS)}")

    def nll(tokens: Tensor, targets: Tensor, state: State) -> tuple[Tensor, State]:
        with autocast(tokens.device, precision):
            measured, new_state = model.nll(tokens, targets, state)
        return measured, [new.to(old.dtype) for new, old in zip(new_state, state, strict=True)]

    return nll


def stream_measures(
    model: LanguageModel,
    stream: TokenStream,
    measure: Measure,
    max_tokens: int | None = None,
    *,
    chunk_length: int = 4096,
    stride: int | None = None,
    rough: bool = False,
    longest: int | None = None,
) -> Iterator[tuple[Tensor, ...]]:
    """Measure every token of a stream, once each and in order, reading as `stream_nll` does.

    Args:
        model: any model.
        stream: one split.
        measure: maps tokens [B, T], targets [B, T] and a state to tensors [B, T, ...] and the new state. For several
            windows (B > 1), the tensors may be limited to the last positions, as many as are new in a window.
        max_tokens: see `stream_nll`.
        chunk_length: see `stream_nll`.
        stride: see `stream_nll`.
        rough: whether `measure` computes in bfloat16.
        longest: see `parallel_measures`.

    Yields:
        Tensors [T, ...] of consecutive parts of the stream.

    Raises:
        LinguistError: see `stream_nll`.
    """
    length = _checked_length(stream, max_tokens, chunk_length)
    with evaluating(model):
        if model.context_length:
            yield from _windows(model, stream, measure, length, stride)
        elif not model.is_counted and segment_count(length, rough) > 1:
            yield from parallel_measures(model, stream, measure, length, chunk_length, rough, longest)
        else:
            yield from _carried(model, stream, measure, length, chunk_length)


def _checked_length(stream: TokenStream, max_tokens: int | None, chunk_length: int) -> int:
    """Return the number of tokens to score."""
    if len(stream) == 0:
        raise LinguistError(f"{stream.split}: the split is empty; there is nothing to score")
    if chunk_length < 1:
        raise LinguistError(f"score.chunk_length={chunk_length}: must be at least 1")
    return len(stream) if max_tokens is None else min(max_tokens, len(stream))


def check_stride(model: LanguageModel, stride: int | None) -> None:
    """Check that a model with a bounded context can be read with a stride; None suits every model.

    Raises:
        LinguistError: the stride exceeds the context.
    """
    window = model.context_length
    if stride is not None and window and not 0 < stride <= window:
        raise LinguistError(f"score.stride={stride}: must lie between 1 and the model's context of {window} tokens")


def default_stride(model: LanguageModel) -> int:
    """Return the default number of new tokens per window, for a model with a bounded context."""
    return max(1, model.context_length // 2)


# As a decorator, inference mode ends at each `yield`, so that it does not affect the caller.
@torch.inference_mode()
def _carried(
    model: LanguageModel, stream: TokenStream, measure: Measure, length: int, chunk_length: int
) -> Iterator[tuple[Tensor, ...]]:
    device = device_of(model)
    if model.is_counted:
        chunk_length = max(chunk_length, COUNTED_CHUNK)
    state = model.initial_state(1)
    for start in range(0, length, chunk_length):
        tokens, targets = shifted(stream, start, min(start + chunk_length, length))
        measures, state = measure(tokens[None].to(device), targets[None].to(device), state)
        yield tuple(tensor[0] for tensor in measures)


@torch.inference_mode()
def _windows(
    model: LanguageModel, stream: TokenStream, measure: Measure, length: int, stride: int | None
) -> Iterator[tuple[Tensor, ...]]:
    device = device_of(model)
    window = model.context_length
    stride = default_stride(model) if stride is None else stride
    check_stride(model, stride)
    # The first window scores all its tokens; each later one ends `stride` tokens further and scores only those.
    head = min(window, length)
    tokens, targets = shifted(stream, 0, head)
    measures, _ = measure(tokens[None].to(device), targets[None].to(device), model.initial_state(1))
    yield tuple(tensor[0] for tensor in measures)
    ends = [*range(head + stride, length, stride), length] if length > head else []
    batch = max(1, WINDOW_TOKENS // window)
    for first in range(0, len(ends), batch):
        group = ends[first : first + batch]
        pairs = [shifted(stream, end - window, end) for end in group]
        inputs, outputs = (torch.stack(side).to(device) for side in zip(*pairs, strict=True))
        measures, _ = measure(inputs, outputs, model.initial_state(len(group)))
        previous = ends[first - 1] if first else head
        for row, end in enumerate(group):
            yield tuple(tensor[row, tensor.shape[1] - (end - previous) :] for tensor in measures)
            previous = end
