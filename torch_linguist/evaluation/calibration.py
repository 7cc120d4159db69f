"""Calibration: how often the first choice of a model is right, compared with its confidence.

Shape legend: B stretches of a stream, T tokens of each, M predictions, K bins, V vocabulary.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from torch_linguist.data import TokenStream
from torch_linguist.errors import LinguistError
from torch_linguist.evaluation.interpretation.contexts import DISTRIBUTIONS
from torch_linguist.model import LanguageModel, device_of, evaluating

BINS = 15
STRETCHES = 16
WARM_UP = 64
"""Tokens at the start of each stretch whose predictions do not count."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Predictions:
    """Predictions of a model at some positions of a stream.

    Attributes:
        confidence: probability of the first choice [M].
        correct: whether the first choice was right, bool [M].
        entropy: entropy of the distribution in nats [M].
        nll: nats of the target [M].
        rank: rank of the target, 1 for the first choice, int64 [M].
    """

    confidence: Floats
    correct: NDArray[np.bool_]
    entropy: Floats
    nll: Floats
    rank: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.confidence)

    def summary(self) -> dict[str, float]:
        """Return accuracies, mean confidence, calibration errors, entropy and loss."""
        table = reliability(self.confidence, self.correct)
        return {
            "predictions": len(self),
            "accuracy": float(self.correct.mean()),
            "in the first 5": float((self.rank <= 5).mean()),
            "in the first 10": float((self.rank <= 10).mean()),
            "mean confidence": float(self.confidence.mean()),
            "ECE": calibration_error(table),
            "ECE, bins of equal size": calibration_error(reliability(self.confidence, self.correct, equal_size=True)),
            "mean entropy": float(self.entropy.mean()),
            "loss": float(self.nll.mean()),
        }


def collect_predictions(model: LanguageModel, stream: TokenStream, count: int, seed: int) -> Predictions:
    """Collect predictions from random stretches of a stream that do not overlap.

    Args:
        model: any model.
        stream: one split.
        count: number of predictions; a short stream may have fewer.
        seed: random seed.

    Raises:
        LinguistError: the stream is empty, or `count` is not positive.
    """
    if len(stream) == 0 or count < 1:
        raise LinguistError(f"{stream.split}: {len(stream)} tokens, {count} predictions; both must be positive")
    rows, warm_up = _stretches(stream, count, model.context_length, seed)
    inputs, targets = torch.from_numpy(rows[:, :-1]), torch.from_numpy(rows[:, 1:])
    device, parts = device_of(model), []
    step = max(1, DISTRIBUTIONS // len(rows))
    with torch.inference_mode(), evaluating(model):
        state = model.initial_state(len(rows))
        for begin in range(0, inputs.shape[1], step):
            tokens = inputs[:, begin : begin + step].to(device)
            logits, state = model(tokens, state)
            skipped = max(0, warm_up - begin)
            if skipped < tokens.shape[1]:
                parts.append(_measure(logits[:, skipped:], targets[:, begin + skipped : begin + step].to(device)))
    confidence, correct, entropy, nll, rank = (torch.cat(column).cpu().numpy() for column in zip(*parts, strict=True))
    return Predictions(confidence, correct, entropy, nll, rank)


def _stretches(stream: TokenStream, count: int, context: int, seed: int) -> tuple[NDArray[np.int64], int]:
    """Return stretches of ids [B, T + 1], and how many of their T predictions do not count.

    For a model with a bounded context, T is at most that context.
    """
    ids = np.concatenate([[stream.eos_id], np.asarray(stream.ids)]).astype(np.int64)
    if len(stream) < STRETCHES * (WARM_UP + 1):
        size = len(stream) if context == 0 else min(len(stream), context)
        return ids[None, : size + 1], 0
    warm_up = WARM_UP if context == 0 else min(WARM_UP, context // 2)
    rows = STRETCHES
    size = warm_up + -(-count // rows)
    if context:
        size = min(size, context)
        rows = -(-count // (size - warm_up))
    size = min(size, len(stream) // STRETCHES)
    rows = min(rows, len(stream) // size)
    slots = np.sort(np.random.default_rng(seed).choice(len(stream) // size, rows, replace=False))
    return np.stack([ids[slot * size : slot * size + size + 1] for slot in slots]), min(warm_up, size - 1)


def _measure(logits: Tensor, targets: Tensor) -> tuple[Tensor, ...]:
    """Return confidence, correctness, entropy, nll and rank of predictions [B, T, V], each flattened."""
    log_prob = torch.log_softmax(logits.double(), dim=-1).flatten(0, 1)
    wanted = targets.flatten()[:, None]
    nll = -log_prob.gather(1, wanted)[:, 0]
    confidence, choice = log_prob.max(dim=1)
    rank = (log_prob > -nll[:, None]).sum(1) + 1
    return confidence.exp(), choice == wanted[:, 0], torch.special.entr(log_prob.exp()).sum(1), nll, rank


def reliability(
    confidence: ArrayLike, correct: ArrayLike, bins: int = BINS, *, equal_size: bool = False
) -> pd.DataFrame:
    """Compute the accuracy in bins of confidence.

    Args:
        confidence: probability of each first choice, 0 to 1 [M].
        correct: whether it was right [M].
        bins: number of bins K.
        equal_size: use bins with equally many predictions instead of equally wide bins.

    Returns:
        One row per non-empty bin: `low`, `high`, `predictions`, means of `confidence` and `accuracy`, and `error`, the
        standard error of the accuracy.
    """
    said, came = np.asarray(confidence, np.float64), np.asarray(correct, np.float64)
    if equal_size:
        order = np.argsort(said, kind="stable")
        index = np.empty(len(said), np.int64)
        index[order] = np.arange(len(said)) * bins // max(len(said), 1)
    else:
        # A confidence on an edge belongs to the bin below it (Guo et al. 2017).
        index = np.clip(np.ceil(said * bins).astype(np.int64) - 1, 0, bins - 1)
    rows = []
    for number in range(bins):
        own = index == number
        if own.any():
            size, accuracy = int(own.sum()), float(came[own].mean())
            low, high = (
                (float(said[own].min()), float(said[own].max())) if equal_size else (number / bins, (number + 1) / bins)
            )
            error = float(np.sqrt(accuracy * (1 - accuracy) / size))
            rows.append((low, high, size, float(said[own].mean()), accuracy, error))
    return pd.DataFrame(rows, columns=["low", "high", "predictions", "confidence", "accuracy", "error"])


def calibration_error(table: pd.DataFrame) -> float:
    """Return the expected calibration error (Naeini et al. 2015): |accuracy - confidence|, weighted by bin size."""
    gaps = (table["accuracy"] - table["confidence"]).abs()
    return float((gaps * table["predictions"]).sum() / table["predictions"].sum())
