"""Mixtures of models: weights by expectation-maximization on valid, scores on any split.

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
    """Score of a linear mixture of models.

    Attributes:
        weights: weight of each model, K numbers that add up to one.
        mixed: score of the mixture.
        single: score of each model.

    Example:
        >>> result = score_mixture([model, model], corpus.valid, corpus.test)
        >>> len(result.single), abs(result.mixed.loss - result.single[0].loss) < 1e-9
        (2, True)
    """

    weights: list[float]
    mixed: Score
    single: list[Score]


def score_mixture(models: Sequence[LanguageModel], valid: TokenStream, stream: TokenStream) -> MixtureScore:
    """Fit the weights on one stream and score another. Each model reads as it would alone.

    Args:
        models: models with the same vocabulary.
        valid: stream to fit the weights on.
        stream: stream to score; may be `valid` itself.

    Example:
        >>> result = score_mixture([model, model], corpus.valid, corpus.test)
        >>> round(sum(result.weights), 6)
        1.0
    """

    def all_nll(part: TokenStream) -> list[NDArray[np.float64]]:
        return [np.concatenate(list(stream_nll(model, part))) for model in models]

    fitted_on = all_nll(valid)
    weights = fitted_weights(fitted_on)
    nll = fitted_on if stream is valid else all_nll(stream)
    return MixtureScore(
        weights=weights,
        mixed=Score.of(float(mixed_nll(nll, weights).sum()), stream),
        single=[Score.of(float(row.sum()), stream) for row in nll],
    )


def member_nll(
    model: LanguageModel, stream: TokenStream, *, chunk_length: int = 4096, stride: int | None = None, precision: str
) -> tuple[NDArray[np.float64], list[NDArray[np.float64]]]:
    """Score every token of a stream under a model, and under each of its members if it is a mixture.

    Each member reads the stream as it would alone.

    Args:
        model: any model.
        stream: stream to score.
        chunk_length: see `score`.
        stride: see `score`.
        precision: see `score`.

    Returns:
        The nll of the model [N], and that of each member; no members unless the model is a mixture.
    """

    def read(one: LanguageModel) -> NDArray[np.float64]:
        return np.concatenate(
            list(stream_nll(one, stream, chunk_length=chunk_length, stride=stride, precision=precision))
        )

    if not (parts := model.mixture()):
        return read(model), []
    members = [read(member) for member, _ in parts]
    return mixed_nll(members, [weight for _, weight in parts]), members


def fitted_weights(nll: Sequence[NDArray[np.float64]]) -> list[float]:
    """Return the weights that maximize the likelihood of a text, from the nll [N] of each of K models."""
    return fit_weights(torch.from_numpy(np.stack(nll)))


def mixed_nll(nll: Sequence[NDArray[np.float64]], weights: Sequence[float]) -> NDArray[np.float64]:
    """Return the nll [N] of a mixture, from the nll of each of K models."""
    mixed: NDArray[np.float64] = mixture_nll(torch.from_numpy(np.stack(nll)), weights).numpy()
    return mixed
