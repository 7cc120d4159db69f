"""Compares an exported model with the eager one: outputs on several shapes, perplexity on a text, and speed.

Shape legend: B batch, T time, V vocabulary.
"""

import statistics
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from torch_linguist.data import TokenStream
from torch_linguist.evaluation import stream_nll
from torch_linguist.evaluation.scoring import exp
from torch_linguist.model import LanguageModel, device_of

SHAPES = ((1, 1), (2, 7), (3, 32))
"""Batch sizes and lengths to compare on."""

CHUNK = 64
"""Tokens read at a time by an exported model, which returns all logits [T, V]."""


class ExportAdapter(LanguageModel):
    """An exported model behind the interface of `LanguageModel`, for scoring, generation and analysis.

    Args:
        module: object with `forward(tokens, state)` and `initial_state(batch_size)`.
        vocab_size: V.
        context_length: see `LanguageModel`.

    Example:
        >>> _ = export_jit(model, corpus.tokenizer, Path("model.jit"))
        >>> abs(score(load_jit(Path("model.jit")).model, corpus.test).loss - score(model, corpus.test).loss) < 1e-4
        True
    """

    def __init__(self, module: Any, vocab_size: int, context_length: int) -> None:
        super().__init__()
        # Not a submodule, because some exported models are no nn.Module.
        object.__setattr__(self, "module", module)
        self.vocab_size, self.context_length = vocab_size, context_length

    module: Any

    def forward(self, tokens: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        logits, new_state = self.module(tokens, state)
        return logits, list(new_state)

    def nll(self, tokens: Tensor, targets: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        logits, new_state = self(tokens, state)
        nll = F.cross_entropy(logits.reshape(-1, self.vocab_size), targets.reshape(-1), reduction="none")
        return nll.view_as(targets), new_state

    def initial_state(self, batch_size: int) -> list[Tensor]:
        return list(self.module.initial_state(batch_size))


@torch.no_grad()
def compare(model: Any, exported: Any, shapes: tuple[tuple[int, int], ...] = SHAPES) -> float:
    """Return the largest difference between two models' log-probabilities in nats, over two calls for each shape.

    Args:
        model: eager model in evaluation mode.
        exported: object with `forward` and `initial_state` of the contract, on the CPU.
        shapes: batch sizes and lengths.

    Returns:
        The difference; NaN if an output is NaN.

    Example:
        >>> compare(model, model)
        0.0
    """
    device = device_of(model)
    generator = torch.Generator().manual_seed(0)
    gaps: list[Tensor] = []
    for batch_size, length in shapes:
        state, exported_state = model.initial_state(batch_size), exported.initial_state(batch_size)
        for _ in range(2):
            tokens = torch.randint(model.vocab_size, (batch_size, length), generator=generator)
            logits, state = model(tokens.to(device), state)
            other, exported_state = exported(tokens, exported_state)
            gap = torch.log_softmax(logits.cpu().double(), -1) - torch.log_softmax(other.double(), -1)
            gaps.append(gap.abs().max())
    # Unlike Python's max, the maximum of a tensor keeps NaN.
    return float(torch.stack(gaps).max())


def perplexities(
    model: LanguageModel, exported: LanguageModel, stream: TokenStream, max_tokens: int
) -> tuple[float, float]:
    """Return the perplexity of the first `max_tokens` tokens of a stream under the eager and the exported model.

    Both are normalized, as exported files are read: the sums of a quantized n-gram model are not exactly 1.

    Example:
        >>> eager, exported = perplexities(model, model, corpus.test, max_tokens=10)
        >>> eager == exported
        True
    """
    losses = []
    for one in (model, exported):
        normalized = ExportAdapter(one, one.vocab_size, one.context_length).eval()
        losses.append(np.concatenate(list(stream_nll(normalized, stream, max_tokens, chunk_length=CHUNK))).mean())
    return exp(float(losses[0])), exp(float(losses[1]))


@dataclass(frozen=True)
class Speed:
    """Speed of a model on this machine.

    Attributes:
        milliseconds: median time of one token of one text, with the state carried.
        tokens_per_second: throughput with many texts at a time.

    Example:
        >>> measure_speed(model, model.vocab_size, steps=3).milliseconds > 0
        True
    """

    milliseconds: float
    tokens_per_second: float


@torch.no_grad()
def measure_speed(model: Any, vocab_size: int, *, steps: int = 30, batch_size: int = 16, length: int = 32) -> Speed:
    """Time a model.

    Args:
        model: object with `forward` and `initial_state` of the contract, on the CPU.
        vocab_size: V.
        steps: number of timed single tokens; as many run before, untimed.
        batch_size: texts at a time for the throughput.
        length: tokens of each text.

    Example:
        >>> measure_speed(model, model.vocab_size, steps=3).tokens_per_second > 0
        True
    """
    generator = torch.Generator().manual_seed(0)
    state = model.initial_state(1)
    seconds = []
    for token in torch.randint(vocab_size, (2 * steps,), generator=generator):
        begin = time.perf_counter()
        _, state = model(token.view(1, 1), state)
        seconds.append(time.perf_counter() - begin)
    tokens = torch.randint(vocab_size, (batch_size, length), generator=generator)
    model(tokens, model.initial_state(batch_size))
    begin = time.perf_counter()
    model(tokens, model.initial_state(batch_size))
    whole = time.perf_counter() - begin
    return Speed(1000 * statistics.median(seconds[steps:]), batch_size * length / whole)
