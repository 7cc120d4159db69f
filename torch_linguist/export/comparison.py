"""Whether an exported model is the eager one: outputs on several shapes, perplexity on a text, and how fast it is.

Shape legend: B batch, T time, V vocabulary.
"""

import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from torch_linguist.data import TokenStream
from torch_linguist.evaluation import stream_nll
from torch_linguist.evaluation.scoring import exp
from torch_linguist.model import LanguageModel, device_of

TOLERANCE = 1e-4
"""Largest difference of a log-probability between the exported and the eager model, in nats."""

SHAPES = ((1, 1), (2, 7), (3, 32))
"""Batch sizes and lengths that an export is compared on."""

CHUNK = 64
"""Tokens at a time of an exported model, whose logits [T, V] come whole."""


@dataclass(frozen=True)
class ExportReport:
    """What an export came to.

    Attributes:
        path: of the file.
        difference: largest difference of a log-probability between the file and the eager model, in nats.
        mebibytes: size of the file.
    """

    path: Path
    difference: float
    mebibytes: float


class ForeignModel(LanguageModel):
    """An exported model under the contract of the others: for scoring, generation and analysis.

    Args:
        module: has `forward(tokens, state)` and `initial_state(batch_size)`.
        vocab_size: V.
        context_length: as the contract has it.
    """

    def __init__(self, module: Any, vocab_size: int, context_length: int) -> None:
        super().__init__()
        # Not as a submodule: what is not a Module can be one too.
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


def compare(model: Any, exported: Any, lengths: tuple[tuple[int, int], ...] = SHAPES) -> float:
    """The largest difference between two models' log-probabilities in nats, over several shapes and two calls each.

    Args:
        model: eager, in eval mode.
        exported: has `forward` and `initial_state` of the contract.
        lengths: batch sizes and lengths.

    Returns:
        The difference; not a number where either model gives one that is none.
    """
    device = device_of(model)
    generator = torch.Generator().manual_seed(0)
    gaps: list[Tensor] = []
    with torch.no_grad():
        for batch_size, length in lengths:
            state, exported_state = model.initial_state(batch_size), exported.initial_state(batch_size)
            for _ in range(2):
                tokens = torch.randint(model.vocab_size, (batch_size, length), generator=generator)
                logits, state = model(tokens.to(device), state)
                other, exported_state = exported(tokens, exported_state)
                gap = torch.log_softmax(logits.cpu().double(), -1) - torch.log_softmax(other.double(), -1)
                gaps.append(gap.abs().max())
    # The maximum of tensors, unlike Python's, does not lose what is not a number.
    return float(torch.stack(gaps).max())


def perplexities(
    model: LanguageModel, exported: LanguageModel, stream: TokenStream, max_tokens: int
) -> tuple[float, float]:
    """The perplexity of the first tokens of a stream under the eager and the exported model.

    Args:
        model: eager.
        exported: the other.
        stream: one split.
        max_tokens: only so many of it.
    """
    found = [
        np.concatenate(list(stream_nll(one, stream, max_tokens, chunk_length=CHUNK))).mean()
        for one in (model, exported)
    ]
    return exp(float(found[0])), exp(float(found[1]))


@dataclass(frozen=True)
class Speed:
    """How fast a model is on this machine.

    Attributes:
        milliseconds: one token of one text, its state carried: the median.
        tokens_per_second: many texts at a time.
    """

    milliseconds: float
    tokens_per_second: float


def measure_speed(model: Any, vocab_size: int, *, steps: int = 30, batch_size: int = 16, length: int = 32) -> Speed:
    """Times a model that has `forward` and `initial_state` of the contract.

    Args:
        model: any.
        vocab_size: V.
        steps: single tokens that are timed, after as many untimed ones.
        batch_size: texts at a time for the throughput.
        length: tokens of each.
    """
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
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
