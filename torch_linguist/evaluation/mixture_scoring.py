"""Several models mixed: weights by expectation-maximization on valid, the score on any split.

Shape legend: K models, N tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from torch_linguist.data import TokenStream
from torch_linguist.evaluation.scoring import Score, stream_nll
from torch_linguist.model import LanguageModel
from torch_linguist.model.mixture import fit_weights, mixture_nll


@dataclass(frozen=True)
class MixtureScore:
    """What a linear mixture of models makes of a stream.

    Attributes:
        weights: share of each model, K numbers that add up to one.
        mixed: the mixture's score.
        single: each model's own score.
    """

    weights: list[float]
    mixed: Score
    single: list[Score]


def score_mixture(
    models: Sequence[LanguageModel],
    valid: TokenStream,
    stream: TokenStream,
    *,
    chunk_length: int = 4096,
    stride: int | None = None,
) -> MixtureScore:
    """Fits the weights on one stream and scores another; each model reads as it would alone.

    Args:
        models: over one vocabulary.
        valid: what the weights are fitted on.
        stream: what is scored; may be `valid` itself.
        chunk_length: see `score`.
        stride: see `score`.

    Returns:
        The weights and the scores.
    """

    def all_nll(part: TokenStream) -> list[NDArray[np.float64]]:
        return [
            np.concatenate(list(stream_nll(model, part, chunk_length=chunk_length, stride=stride))) for model in models
        ]

    fitted_on = all_nll(valid)
    weights = fitted_weights(fitted_on)
    nll = fitted_on if stream is valid else all_nll(stream)
    return MixtureScore(
        weights=weights,
        mixed=Score.of(float(mixed_nll(nll, weights).sum()), stream),
        single=[Score.of(float(row.sum()), stream) for row in nll],
    )


def fitted_weights(nll: Sequence[NDArray[np.float64]]) -> list[float]:
    """The weights that make a text likeliest, from what each of K models makes of its N tokens."""
    return fit_weights(torch.from_numpy(np.stack(nll)))


def mixed_nll(nll: Sequence[NDArray[np.float64]], weights: Sequence[float]) -> NDArray[np.float64]:
    """The nll [N] of a mixture, from that of each of K models."""
    mixed: NDArray[np.float64] = mixture_nll(torch.from_numpy(np.stack(nll)), weights).numpy()
    return mixed
