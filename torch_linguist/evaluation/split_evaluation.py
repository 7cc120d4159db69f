"""Evaluation of a model on a split, token by token, with intervals and counts of unknown words.

Shape legend: N tokens of the stream, P parts of it.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from torch_linguist.data import TokenStream
from torch_linguist.evaluation.scoring import Score, default_stride, exp, stream_nll
from torch_linguist.evaluation.uncertainty import Interval, Parts, loss_interval, parts_of
from torch_linguist.model import LanguageModel


@dataclass(frozen=True, eq=False)
class SplitEvaluation:
    """The nll of every token of a stream, and the statistics derived from it.

    Attributes:
        stream: the scored stream.
        nll: nats of each token, float64 [N].
        unk_id: id of `<unk>`.
    """

    stream: TokenStream
    nll: NDArray[np.float64]
    unk_id: int

    @cached_property
    def score(self) -> Score:
        """Score of the whole stream."""
        return Score.of(float(self.nll.sum()), self.stream)

    @cached_property
    def parts(self) -> Parts:
        """Parts of the text that the bootstrap resamples."""
        return parts_of(self.stream)

    @cached_property
    def part_nats(self) -> NDArray[np.float64]:
        """Nats of each part [P]."""
        return self.parts.sums(self.nll)

    @cached_property
    def perplexity_interval(self) -> Interval:
        """95% interval of the perplexity."""
        loss = loss_interval(self.nll, self.parts)
        return Interval(exp(loss.low), exp(loss.high))

    @cached_property
    def unknown_targets(self) -> int:
        """Number of tokens that are `<unk>`, literally or in place of a word outside the vocabulary."""
        return int(np.count_nonzero(np.asarray(self.stream.ids) == self.unk_id))

    @cached_property
    def known_perplexity(self) -> float:
        """Perplexity over the tokens that are not `<unk>`; NaN if there are none."""
        known = np.asarray(self.stream.ids) != self.unk_id
        return exp(float(self.nll[known].mean())) if known.any() else math.nan

    def row(self) -> dict[str, object]:
        """Return plain values for a table."""
        return {
            **self.score.as_dict(),
            "perplexity_low": self.perplexity_interval.low,
            "perplexity_high": self.perplexity_interval.high,
            "unknown_targets": self.unknown_targets,
            "perplexity_without_unknown": self.known_perplexity,
            "resampled": f"{len(self.parts)} {self.parts.kind}",
        }


def evaluate_split(
    model: LanguageModel, stream: TokenStream, unk_id: int, *, stride: int | None = None, precision: str = "fp32"
) -> SplitEvaluation:
    """Score a stream and keep the nll of every token.

    Raises:
        LinguistError: see `score`.
    """
    parts = list(stream_nll(model, stream, stride=stride, precision=precision))
    return SplitEvaluation(stream, np.concatenate(parts), unk_id)


def reading_of(model: LanguageModel, stride: int | None = None, precision: str = "fp32") -> str:
    """Return how a model reads a stream, in words."""
    if model.history_length is not None:
        return f"last {model.history_length} tokens"
    rounded = ", products in bfloat16" if precision == "bf16" else ""
    if model.context_length:
        return f"windows of {model.context_length} tokens, stride {stride or default_stride(model)}{rounded}"
    return f"state carried through the split{rounded}"
